/* count_alloc.h - malloc, calloc and realloc of the program that includes it, counted and, if it
 * likes, failing. The sanitizers bring their own: there COUNTS_ALLOC is 0 and n_alloc stays 0. */
#ifndef T_COUNT_ALLOC_H
#define T_COUNT_ALLOC_H

#include <stddef.h>

static _Atomic long n_alloc;

/* So many more, then none, until it is negative again. */
__attribute__((unused))
static _Atomic long alloc_left = -1;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOC 0
#else
#define COUNTS_ALLOC 1

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static int alloc_fails(void)
{
    n_alloc++;
    if (alloc_left > 0)
        alloc_left--;
    return alloc_left == 0;
}

void *malloc(size_t n) { return alloc_fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return alloc_fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return alloc_fails() ? NULL : __libc_realloc(p, n); }
#endif

#endif
