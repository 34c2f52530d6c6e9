/* count_alloc.h - malloc, calloc and realloc of the program that includes it, counted. The
 * sanitizers bring their own: there COUNTS_ALLOC is 0 and n_alloc stays 0. */
#ifndef T_COUNT_ALLOC_H
#define T_COUNT_ALLOC_H

#include <stddef.h>

static _Atomic long n_alloc;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOC 0
#else
#define COUNTS_ALLOC 1

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) { n_alloc++; return __libc_malloc(n); }
void *calloc(size_t n, size_t size) { n_alloc++; return __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { n_alloc++; return __libc_realloc(p, n); }
#endif

#endif
