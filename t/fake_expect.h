/* fake_expect.h - what a request brings over the model of fake_model.h: by itself, straight from
 * its text. */
#ifndef T_FAKE_EXPECT_H
#define T_FAKE_EXPECT_H

#include "fake_model.h"

/* A guide without a memory: some ids are forced, some masked, and in the end it lets go. */
static inline int32_t guide(void *arg, const int32_t *gen, int32_t n_gen, uint32_t *mask)
{
    int32_t sum = *(const int32_t *) arg;

    for (int32_t i = 0; i < n_gen; i++)
        sum += gen[i];
    if (n_gen >= 25)
        return GUIDE_OFF;
    if (n_gen % 3 == 0)
        return GUIDE_ANY;
    if (n_gen % 3 == 1)
        return sum % VOCAB;
    for (int32_t id = sum % 5; id < VOCAB; id += 5)
        mask[id / 32] |= 1u << id % 32;
    return GUIDE_MASK;
}

/* The id that a budget of thoughts wants after out[0 .. n), or -1. */
static int32_t budget_wants(const struct req *r, const int32_t *out, int32_t n)
{
    const struct req_think *t = r->think;
    int32_t since = t->inside ? t->n_free : -1, counted = 0, closed = 0;

    for (int32_t i = 0; i <= n; i++) {
        bool due = i >= r->n_force && since >= t->n_free && counted >= t->budget;

        if (i == n)
            return due ? t->close[closed] : -1;
        if (due) {
            since = ++closed == t->n_close ? -1 : since;
        } else if (since < 0) {
            since = out[i] == t->open ? 0 : -1;
            closed = 0;
        } else if (out[i] == t->close[t->n_close - 1]) {
            since = -1;
        } else {
            counted += since++ >= t->n_free;
        }
    }
    return -1;
}

/* The next id after out[0 .. n), whose text's hash is h. */
static int32_t expect_next(const struct req *r, uint64_t h, const int32_t *out, int32_t n)
{
    uint32_t mask[VOCAB / 32 + 1] = { 0 };
    int32_t id = r->think != NULL ? budget_wants(r, out, n) : -1, says = GUIDE_ANY;
    bool ban = n < r->min_new;

    if (n < r->n_force)
        return r->force[n];
    if (id >= 0)
        return id;
    if (r->guide != NULL)
        says = r->guide(r->guide_arg, out, n, mask);
    if (says >= 0)
        return says;
    for (int32_t i = 0; r->steer != NULL && r->steer->presence != 0 && i < n; i++)
        h = mix(h, (uint64_t) out[i]);
    id = draw(h, &r->sample, r->n_prompt + n - 1, ban);
    for (int32_t i = 0; i < 2 * VOCAB; i++) {
        bool no = says == GUIDE_MASK && (mask[id / 32] >> id % 32 & 1) == 0;

        no = no || (r->steer != NULL && r->steer->allow != NULL
                    && (r->steer->allow[id / 32] >> id % 32 & 1) == 0);
        for (int32_t k = 0; ban && k < r->n_stop_id; k++)
            no = no || r->stop_id[k] == id;
        id = no ? (id + 1) % VOCAB : id;
    }
    return id;
}

static int32_t expect(const struct req *r, int32_t *out, enum req_finish *fin)
{
    int32_t all[2 * LEN_MAX], n = 0;

    memcpy(all, r->tok, (size_t) r->n_prompt * sizeof(int32_t));
    *fin = FIN_LENGTH;
    while (n < r->max_new) {
        int32_t len = r->n_prompt + n, id;
        uint64_t h = 1;

        for (int32_t p = 0; p < len; p++)
            h = mix(h, (uint64_t) all[p]);
        id = expect_next(r, h, out, n);
        if (r->lp.p != NULL && r->lp.p[2 * n] != logprob(h, id))
            return -1;
        for (int32_t i = 0; i < r->n_stop_id && n >= r->min_new; i++)
            if (r->stop_id[i] == id)
                *fin = FIN_STOP;
        if (*fin == FIN_STOP)
            break;
        out[n++] = all[len] = id;
    }
    return n;
}

#endif
