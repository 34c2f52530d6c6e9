/* hash.h - keyed 128-bit hash of tokens (SipHash-2-4 with 128 bits out; Aumasson and Bernstein
 * 2012).
 *
 * Keyed, so that nobody outside can look for two prompts with the same hash. */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key { uint64_t a, b; };
struct hash128  { uint64_t a, b; };

/* Of 8-byte words, then of n bytes. words may be NULL if n_word is 0. */
struct hash128 hash_bytes(const struct hash_key *k, const uint64_t *words, int n_word,
                          const void *p, size_t n);

#endif
