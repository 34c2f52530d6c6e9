/* sha256.h - enough of SHA-256 (FIPS 180-4) to tell one file from another. */
#ifndef TEXT_SHA256_H
#define TEXT_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* The first 64 bits of the hash. */
uint64_t sha256_64(const char *p, size_t n);

#endif
