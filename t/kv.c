/* kv.c - the two page pools and the prefix cache: what is shared, copied, kept, evicted and freed,
 * at its edges. t/sim.c runs them under load. */
#include <stdlib.h>

#include "kv.h"
#include "tap.h"

static struct kv_conf usual(void)
{
    return (struct kv_conf) {
        .shape = { 4, 100, 100 }, .window = 9, .step_tok_max = 8, .seq_max = 4, .page_max = 100,
        .cache = true, .key = { 1, 2 }, .hash_mask = ~0ull,
    };
}

static struct kv *open_kv(const struct kv_conf *c)
{
    struct kv *kv;
    struct err e;

    if (kv_open(&kv, c, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return kv;
}

/* n tokens: base, base + 1, ... */
static void prompt(struct kv *kv, struct req *r, int32_t n, int32_t base)
{
    memset(r, 0, sizeof(*r));
    req_alloc(r, n, 200, 1);                     /* keys for pages of any size */
    for (int32_t i = 0; i < n; i++)
        r->tok[i] = base + i;
    r->n_known = r->want_tok = n;
    kv_keys(kv, r);
}

static void compute(struct kv *kv, struct req *r, int32_t n)
{
    while (n > 0) {
        int32_t part = n < 8 ? n : 8;

        if (kv_grow(kv, r, part) != 0) {
            ok(0, "no page to grow");
            return;
        }
        kv_advance(kv, r, part);
        kv_settle(kv, r);
        n -= part;
    }
}

static void run_through(struct kv *kv, struct req *r)
{
    is_int(kv_admit(kv, r, 0), 0, "admitted");
    compute(kv, r, r->n_known - r->seq.n_tok);
    kv_release(kv, r);
}

static void windows(void)
{
    struct kv_conf c = usual();
    struct kv *kv;
    struct req r;

    c.cache = false;
    kv = open_kv(&c);
    is_int(kv_need(kv, 1).full, 1, "one token needs one page");
    is_int(kv_need(kv, 5).sliding, 2, "a short request needs no more sliding than full pages");
    is_int(kv_need(kv, 400).sliding, 6, "a long one: window - 1 + chunk = 16 tokens, 4 pages, + 2");

    prompt(kv, &r, 40, 0);
    kv_admit(kv, &r, 0);
    compute(kv, &r, 8);
    is_int(r.seq.n_sliding_freed, 0, "at 8 tokens the next query sees all");
    compute(kv, &r, 3);
    is_int(r.seq.n_sliding_freed, 0, "at 11 the window of the last whole page stays");
    compute(kv, &r, 1);
    is_int(r.seq.n_sliding_freed, 1, "at 12 the first page is free");
    is_int(r.seq.page_sliding[0], -1, "and marked");
    is_int(kv_used(kv).full, 3, "the full pool keeps all");
    is_int(kv_used(kv).sliding, 2, "the sliding pool does not");
    compute(kv, &r, 28);
    is_int(kv_used(kv).sliding, 2, "and so on");
    kv_release(kv, &r);
    is_int(kv_used(kv).full + kv_used(kv).sliding, 0, "nothing is held afterwards");
    is_int(kv_cached(kv).n_node, 0, "nor cached, as it was told");
    kv_close(kv);
    req_free(&r);
}

static void hits(void)
{
    struct kv_conf c = usual();
    struct kv *kv = open_kv(&c);
    struct req a, b, d, f;

    prompt(kv, &a, 30, 0);
    run_through(kv, &a);
    is_int(kv_used(kv).full, 0, "nobody runs");
    is_int(kv_cached(kv).n_node, 7, "7 whole pages are known");
    is_int(kv_cached(kv).n_point, 1, "with one reuse point, end of prompt and of turn in one");

    prompt(kv, &b, 50, 0);
    is_int(kv_admit(kv, &b, 0), 0, "a longer prompt that begins alike");
    is_int(b.seq.n_tok, 28, "takes up 28 tokens");
    is_int(b.seq.n_sliding_freed, 5, "with the sliding pages of the window: 2");
    is_int(b.seq.page_full[6], a.seq.page_full == NULL ? b.seq.page_full[6] : -2, "a is gone");

    prompt(kv, &d, 50, 0);
    kv_admit(kv, &d, 0);
    ok(d.seq.page_full[3] == b.seq.page_full[3] && d.seq.page_sliding[6] == b.seq.page_sliding[6],
       "two that run at once hold the same pages");
    is_int(kv_used(kv).full, 7, "which count once");
    compute(kv, &b, 22);
    compute(kv, &d, 22);
    is_int(kv_used(kv).full, 12 + 2, "what both computed by themselves is merged, but for the end");
    kv_release(kv, &b);
    kv_release(kv, &d);

    prompt(kv, &f, 28, 0);
    kv_admit(kv, &f, 0);
    is_int(f.seq.n_tok, 0, "the last token is always computed, and no point lies before it");
    compute(kv, &f, 28);
    kv_release(kv, &f);
    kv_admit(kv, &f, 0);
    is_int(f.seq.n_tok, 24, "the same prompt again has one");
    kv_release(kv, &f);
    kv_close(kv);
    req_free(&a);
    req_free(&b);
    req_free(&d);
    req_free(&f);
}

/* Two requests that part after 20 tokens: the second shows where, the third profits. */
static void branches(void)
{
    struct kv_conf c = usual();
    struct kv *kv = open_kv(&c);
    struct req r[3];

    for (int i = 0; i < 3; i++) {
        prompt(kv, &r[i], 60, 0);
        for (int32_t k = 22; k < 60; k++)
            r[i].tok[k] = 1000 * (i + 1) + k;
        kv_keys(kv, &r[i]);
        kv_admit(kv, &r[i], 0);
        is_int(r[i].seq.n_tok, i < 2 ? 0 : 20, "request %d starts at %d", i, i < 2 ? 0 : 20);
        is_int(r[i].seq.branch, i == 1 ? 5 : 0, "%s", i == 1 ? "and marks the fork at page 5"
                                                            : "and marks nothing");
        compute(kv, &r[i], 60 - r[i].seq.n_tok);
        kv_release(kv, &r[i]);
    }
    kv_close(kv);

    c.point_tok = 12;
    kv = open_kv(&c);
    kv_admit(kv, &r[0], 0);
    compute(kv, &r[0], 60);
    kv_release(kv, &r[0]);
    kv_admit(kv, &r[1], 0);
    is_int(r[1].seq.n_tok, 12, "with a point every 12 tokens the second has something too");
    kv_release(kv, &r[1]);
    kv_close(kv);
    for (int i = 0; i < 3; i++)
        req_free(&r[i]);
}

static void salts(uint64_t mask)
{
    struct kv_conf c = usual();
    struct kv *kv;
    struct req r[4];

    c.hash_mask = mask;
    kv = open_kv(&c);
    for (int i = 0; i < 4; i++) {
        prompt(kv, &r[i], 30, i == 3 ? 5000 : 0);
        r[i].n_salt = i == 1;
        r[i].identity[0] = i == 2;
        kv_keys(kv, &r[i]);
        kv_admit(kv, &r[i], 0);
        is_int(r[i].seq.n_tok, 0, "another %s%s: nothing is shared",
               i == 0 ? "engine" : i == 1 ? "salt" : i == 2 ? "image" : "text",
               mask == 0 ? ", all hashes colliding" : "");
        compute(kv, &r[i], 30);
        kv_release(kv, &r[i]);
    }
    for (int i = 0; i < 4; i++) {
        kv_admit(kv, &r[i], 0);
        is_int(r[i].seq.n_tok, 28, "but each has its own");
        kv_release(kv, &r[i]);
        req_free(&r[i]);
    }
    kv_close(kv);
}

static void evictions(void)
{
    struct kv_conf c = usual();
    struct kv *kv;
    struct req r[4];

    c.shape.n_page_full = 20;
    kv = open_kv(&c);
    for (int i = 0; i < 4; i++)
        prompt(kv, &r[i], i < 3 ? 32 : 80, 1000 * i);
    run_through(kv, &r[0]);
    run_through(kv, &r[1]);
    is_int(kv_cached(kv).n_node, 16, "16 of 20 pages are cached");
    kv_admit(kv, &r[0], 0);
    is_int(r[0].seq.n_tok, 28, "the first is used again");
    kv_release(kv, &r[0]);
    run_through(kv, &r[2]);
    is_int(kv_admit(kv, &r[0], 0), 0, "so the third took the place");
    is_int(r[0].seq.n_tok, 28, "not of the first");
    kv_release(kv, &r[0]);
    kv_admit(kv, &r[1], 0);
    is_int(r[1].seq.n_tok, 0, "but of the second: full and sliding pages as one");
    kv_release(kv, &r[1]);

    is_int(kv_admit(kv, &r[3], 0), E_FULL, "one token more than the pool holds is never admitted");
    is_int(r[3].seq.slot, 0, "and is unchanged");
    r[3].n_known = 79;
    is_int(kv_admit(kv, &r[3], 1), E_FULL, "nor one that leaves no page to spare");
    is_int(kv_admit(kv, &r[3], 0), 0, "the whole pool, alone");
    is_int(kv_admit(kv, &r[0], 0), E_FULL, "its prompt is promised: nobody else comes in");
    compute(kv, &r[3], 79);
    is_int(kv_cached(kv).n_point, 1, "every cached page gave way but for its own");
    kv_grow(kv, &r[3], 1);
    kv_advance(kv, &r[3], 1);
    is_int(kv_grow(kv, &r[3], 1), E_FULL, "80 tokens are the end");
    is_int(r[3].seq.n_page, 20, "and nothing changed");
    kv_release(kv, &r[3]);
    kv_reset_cache(kv);
    is_int(kv_cached(kv).n_node, 0, "a reset forgets all");
    kv_close(kv);
    for (int i = 0; i < 4; i++)
        req_free(&r[i]);
}

static void forks(void)
{
    struct kv_conf c = usual();
    struct kv *kv = open_kv(&c);
    struct page_copy copy;
    struct req a, b;

    prompt(kv, &a, 30, 0);
    prompt(kv, &b, 30, 0);
    is_int(kv_fork(kv, &b, &a, 0, &copy), E_AGAIN, "nobody runs that could be shared");
    kv_admit(kv, &a, 0);
    compute(kv, &a, 29);
    is_int(kv_fork(kv, &b, &a, 0, &copy), E_AGAIN, "its prompt is not stored yet");
    compute(kv, &a, 1);
    is_int(kv_fork(kv, &b, &a, 0, &copy), 0, "now it is");
    is_int(b.seq.n_tok, 29, "all but the last token are there");
    ok(b.seq.page_full[6] == a.seq.page_full[6] && b.seq.page_sliding[6] == a.seq.page_sliding[6],
       "whole pages are the same");
    ok(b.seq.page_full[7] != a.seq.page_full[7], "the half-filled one is its own");
    ok(copy.full_from == a.seq.page_full[7] && copy.full_to == b.seq.page_full[7]
       && copy.sliding_from == a.seq.page_sliding[7] && copy.sliding_to == b.seq.page_sliding[7],
       "to be copied in both pools");
    is_int(kv_used(kv).full, 9, "8 pages and one copy");
    kv_release(kv, &a);
    compute(kv, &b, 1);
    is_int(kv_used(kv).full, 8, "the fork outlives what it came from");
    kv_release(kv, &b);
    kv_close(kv);
    req_free(&a);
    req_free(&b);
}

static void nonsense(void)
{
    struct kv_conf c = usual();
    struct kv *kv;
    struct err e;

    c.window = 0;
    is_int(kv_open(&kv, &c, &e), E_INVALID, "nonsense is refused in words: %s", e.msg);
    c = usual();
    c.point_tok = -1;
    is_int(kv_open(&kv, &c, &e), E_INVALID, "here too: %s", e.msg);
}

/* The reference vectors of SipHash with 128 bits: key 00..0f, input 00, 01, ... */
static void hashing(void)
{
    struct hash_key k = { 0x0706050403020100u, 0x0f0e0d0c0b0a0908u };
    struct hash128 h = hash_bytes(&k, NULL, 0, "", 0), two;
    uint64_t word = 0x0706050403020100u;
    uint8_t in[16];

    for (int i = 0; i < 16; i++)
        in[i] = (uint8_t) i;
    ok(h.a == 0xe6a825ba047f81a3u && h.b == 0x930255c71472f66du, "SipHash-2-4-128 of nothing");
    h = hash_bytes(&k, NULL, 0, in, 16);
    two = hash_bytes(&k, &word, 1, in + 8, 8);
    ok(h.a == two.a && h.b == two.b, "words and bytes are one text");
}

int main(void)
{
    hashing();
    windows();
    hits();
    branches();
    salts(~0ull);
    salts(0);
    evictions();
    forks();
    nonsense();
    return done_testing();
}
