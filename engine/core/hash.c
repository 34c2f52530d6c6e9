#include <string.h>

#include "hash.h"

struct state { uint64_t v0, v1, v2, v3; };

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void rounds(struct state *s, int n)
{
    while (n-- > 0) {
        s->v0 += s->v1;
        s->v1 = rotl(s->v1, 13) ^ s->v0;
        s->v0 = rotl(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotl(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotl(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotl(s->v1, 17) ^ s->v2;
        s->v2 = rotl(s->v2, 32);
    }
}

static void take(struct state *s, uint64_t m)
{
    s->v3 ^= m;
    rounds(s, 2);
    s->v0 ^= m;
}

struct hash128 hash_bytes(const struct hash_key *k, const uint64_t *words, int n_word,
                          const void *p, size_t n)
{
    const uint8_t *in = p;
    size_t all = n + 8 * (size_t) n_word;
    uint64_t m;
    struct hash128 h;
    struct state s = {
        k->a ^ 0x736f6d6570736575u, k->b ^ 0x646f72616e646f6du ^ 0xee,
        k->a ^ 0x6c7967656e657261u, k->b ^ 0x7465646279746573u,
    };

    for (int i = 0; i < n_word; i++)
        take(&s, words[i]);
    for (; n >= 8; n -= 8, in += 8) {
        memcpy(&m, in, 8);
        take(&s, m);
    }
    m = 0;
    memcpy(&m, in, n);
    take(&s, m | (uint64_t) all << 56);

    s.v2 ^= 0xee;
    rounds(&s, 4);
    h.a = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    s.v1 ^= 0xdd;
    rounds(&s, 4);
    h.b = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    return h;
}
