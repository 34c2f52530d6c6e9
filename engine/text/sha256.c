#include "sha256.h"

#include <stdbool.h>
#include <string.h>

static uint32_t ror(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* The first 32 bits of the fractional part of a prime's square or cube root (FIPS 180-4), by
 * integer bisection: the constants are a definition, so they are computed from it. */
static uint32_t root_bits(uint32_t prime, int power)
{
    uint64_t          lo = 0, hi = (uint64_t) 20 << 32;     /* root * 2^32; 311^(1/2) < 20 */
    unsigned __int128 want = (unsigned __int128) prime << 32 * power;

    while (hi - lo > 1) {
        uint64_t          mid = (lo + hi) / 2;
        unsigned __int128 x = (unsigned __int128) mid * mid;    /* < 2^73, its cube < 2^110 */

        if ((power == 2 ? x : x * mid) <= want)
            lo = mid;
        else
            hi = mid;
    }
    return (uint32_t) lo;
}

struct sha256 { uint32_t h[8], k[64]; };

static void sha256_open(struct sha256 *s)
{
    int n = 0;

    for (uint32_t p = 2; n < 64; p++) {
        bool prime = true;

        for (uint32_t d = 2; d * d <= p && prime; d++)
            prime = p % d != 0;
        if (!prime)
            continue;
        if (n < 8)
            s->h[n] = root_bits(p, 2);
        s->k[n++] = root_bits(p, 3);
    }
}

static void sha256_block(struct sha256 *s, const unsigned char *p)
{
    uint32_t w[64], v[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t) p[4 * i] << 24 | (uint32_t) p[4 * i + 1] << 16
               | (uint32_t) p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3)
               + (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);

    memcpy(v, s->h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25))
                      + ((v[4] & v[5]) ^ (~v[4] & v[6])) + s->k[i] + w[i];
        uint32_t t2 = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22))
                      + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        s->h[i] += v[i];
}

uint64_t sha256_64(const char *p, size_t n)
{
    struct sha256 s;
    unsigned char last[128] = { 0 };
    size_t        rest = n % 64, pad = rest < 56 ? 64 : 128;

    sha256_open(&s);
    for (size_t i = 0; i + 64 <= n; i += 64)
        sha256_block(&s, (const unsigned char *) p + i);

    memcpy(last, p + n - rest, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        last[pad - 1 - (size_t) i] = (unsigned char) ((uint64_t) n * 8 >> (8 * i));
    for (size_t i = 0; i < pad; i += 64)
        sha256_block(&s, last + i);
    return (uint64_t) s.h[0] << 32 | s.h[1];
}
