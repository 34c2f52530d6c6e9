/* count_alloc.h - malloc, calloc, realloc and free of the program that includes it, counted and, if
 * it likes, failing. The sanitizers bring their own: there COUNTS_ALLOC is 0 and so are counts. */
#ifndef T_COUNT_ALLOC_H
#define T_COUNT_ALLOC_H

#include <stddef.h>

static _Atomic long n_alloc;

/* What was had and not given back. */
__attribute__((unused))
static _Atomic long n_held;

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
void __libc_free(void *p);

static int alloc_fails(void)
{
    n_alloc++;
    if (alloc_left > 0)
        alloc_left--;
    return alloc_left == 0;
}

static void *held(void *p)
{
    n_held += p != NULL;
    return p;
}

void *malloc(size_t n) { return alloc_fails() ? NULL : held(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return alloc_fails() ? NULL : held(__libc_calloc(n, size)); }

void *realloc(void *p, size_t n)
{
    if (alloc_fails())
        return NULL;
    return p == NULL ? held(__libc_realloc(p, n)) : __libc_realloc(p, n);
}

void free(void *p)
{
    n_held -= p != NULL;
    __libc_free(p);
}
#endif

#endif
