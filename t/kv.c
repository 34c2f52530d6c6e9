/* kv.c - the two page pools under random loads: every page is free or held exactly once, what a
 * query may see is there, what it cannot see goes, and who was admitted can always grow. */
#include <stdlib.h>

#include "kv.h"
#include "tap.h"

#define SEQ_MAX   12
#define PAGE_CAP  400

static uint64_t rng;

static int32_t rnd(int32_t n)                   /* 0 .. n-1 */
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (int32_t) (rng % (uint64_t) n);
}

struct live { struct kv_seq s; int32_t len; };

/* NULL, or what is wrong. */
static const char *check(const struct kv *kv, const struct kv_conf *c, struct live *l)
{
    bool full[PAGE_CAP] = { 0 }, sliding[PAGE_CAP] = { 0 };
    int32_t n_full = 0, n_sliding = 0;

    for (int i = 0; i < SEQ_MAX; i++) {
        const struct kv_seq *s = &l[i].s;
        int32_t page_tok = c->shape.page_tok;

        if (s->page_full == NULL)
            continue;
        for (int32_t p = 0; p < s->n_page; p++) {
            int32_t id = s->page_full[p];
            bool seen = (p + 1) * page_tok > s->n_tok - c->window + 1;

            if (id < 0 || id >= c->shape.n_page_full || full[id])
                return "a full page is held twice or does not exist";
            full[id] = true;
            n_full++;

            id = s->page_sliding[p];
            if (!seen && id != -1)
                return "a sliding page behind the window was kept";
            if (!seen)
                continue;
            if (id < 0 || id >= c->shape.n_page_sliding || sliding[id])
                return "a sliding page is held twice or does not exist";
            sliding[id] = true;
            n_sliding++;
        }
        if (s->n_page * page_tok < s->n_tok)
            return "stored tokens without a page";
    }
    if (kv_used(kv).full != n_full || kv_used(kv).sliding != n_sliding)
        return "a page is neither free nor held";
    return NULL;
}

struct tally { long admitted, refused, tokens; };

static const char *load(struct tally *t)
{
    struct kv_conf c = {
        .shape = { 1 + rnd(17), 1 + rnd(PAGE_CAP), 1 + rnd(PAGE_CAP) },
        .window = 1 + rnd(40), .step_tok_max = 1 + rnd(50), .seq_max = 1 + rnd(SEQ_MAX),
        .page_max = PAGE_CAP,
    };
    struct live l[SEQ_MAX] = { 0 };
    const char *wrong = NULL;
    struct kv *kv;

    if (kv_open(&kv, &c, NULL) != 0)
        return "kv_open failed";

    for (int step = 0; step < 150 && wrong == NULL; step++) {
        struct live *v = &l[rnd(c.seq_max)];

        if (v->s.page_full == NULL) {
            v->len = 1 + rnd(c.shape.page_tok * c.shape.n_page_full);
            if (kv_admit(kv, &v->s, v->len) == 0)
                t->admitted++;
            else
                t->refused++;
        } else if (v->s.n_tok == v->len || rnd(20) == 0) {
            kv_release(kv, &v->s);
        } else {
            int32_t n = 1 + rnd(c.step_tok_max);

            n = n < v->len - v->s.n_tok ? n : v->len - v->s.n_tok;
            kv_grow(kv, &v->s, n);
            kv_advance(kv, &v->s, n);
            t->tokens += n;
        }
        wrong = check(kv, &c, l);
    }

    for (int i = 0; i < SEQ_MAX; i++)
        kv_release(kv, &l[i].s);
    if (wrong == NULL && (kv_used(kv).full != 0 || kv_used(kv).sliding != 0))
        wrong = "pages are held after everybody left";
    kv_close(kv);
    return wrong;
}

static void random_loads(void)
{
    struct tally t = { 0 };
    const char *wrong = NULL;
    int n = 0;

    for (; n < 5000 && wrong == NULL; n++) {
        rng = 88172645463325252ull + (uint64_t) n;
        wrong = load(&t);
    }
    ok(wrong == NULL, "random loads keep every page accounted for");
    if (wrong != NULL)
        printf("# seed %d: %s\n", n - 1, wrong);
    printf("# %ld admitted, %ld refused, %ld tokens\n", t.admitted, t.refused, t.tokens);
    ok(t.admitted > 1000 && t.refused > 1000, "and both outcomes of an admission were met");
}

static void window_edges(void)
{
    struct kv_conf c = { { 4, 100, 100 }, .window = 8, .step_tok_max = 6, .seq_max = 1,
                         .page_max = 100 };
    struct kv_seq s = { 0 };
    struct kv *kv;

    kv_open(&kv, &c, NULL);
    is_int(kv_need(kv, 1).full, 1, "one token needs one page");
    is_int(kv_need(kv, 5).sliding, 2, "a short request needs no more sliding than full pages");
    is_int(kv_need(kv, 400).sliding, 5, "a long one: window - 1 + chunk = 13 tokens, 4 pages, + 1");

    is_int(kv_admit(kv, &s, 400), 0, "the whole pool");
    while (s.n_tok < 10) {
        kv_grow(kv, &s, 1);
        kv_advance(kv, &s, 1);
    }
    is_int(s.n_sliding_freed, 0, "at 10 tokens the next query still sees position 3");
    kv_grow(kv, &s, 1);
    kv_advance(kv, &s, 1);
    is_int(s.n_sliding_freed, 1, "at 11 it sees 4 and later: the first page is free");
    is_int(s.page_sliding[0], -1, "and marked");
    is_int(kv_used(kv).full, 3, "the full pool keeps all");
    is_int(kv_used(kv).sliding, 2, "the sliding pool does not");
    kv_release(kv, &s);
    kv_close(kv);
}

static void refusals(void)
{
    struct kv_conf c = { { 4, 10, 10 }, .window = 8, .step_tok_max = 6, .seq_max = 2,
                         .page_max = 10 };
    struct kv_seq a = { 0 }, b = { 0 }, d = { 0 };
    struct kv *kv;
    struct err e;

    kv_open(&kv, &c, &e);
    is_int(kv_admit(kv, &a, 24), 0, "6 of 10 pages are promised");
    is_int(kv_used(kv).full, 0, "though none is taken");
    is_int(kv_admit(kv, &b, 20), E_FULL, "5 more are not to be had");
    ok(b.page_full == NULL, "and the refused request is unchanged");
    is_int(kv_admit(kv, &b, 16), 0, "4 are");
    is_int(kv_admit(kv, &d, 1), E_FULL, "no third slot");
    kv_release(kv, &a);
    is_int(kv_admit(kv, &d, 24), 0, "a release makes room");
    kv_release(kv, &b);
    kv_release(kv, &d);
    kv_close(kv);

    c.window = 0;
    is_int(kv_open(&kv, &c, &e), E_INVALID, "nonsense is refused in words: %s", e.msg);
}

int main(void)
{
    window_edges();
    refusals();
    random_loads();
    return done_testing();
}
