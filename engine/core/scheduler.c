#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler.h"

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

int sched_open(struct sched *s, struct kv *kv, int32_t step_tok_max, int32_t seq_max,
               struct err *e)
{
    memset(s, 0, sizeof(*s));
    s->kv = kv;
    s->step_tok_max = step_tok_max;
    s->run_max = min_i32(seq_max, step_tok_max);
    s->wait_tail = &s->wait_head;
    s->run = calloc((size_t) s->run_max, sizeof(*s->run));
    s->plan.item = calloc((size_t) s->run_max, sizeof(*s->plan.item));
    if (s->run == NULL || s->plan.item == NULL) {
        sched_close(s);
        return err_set(e, E_IO, "scheduler: out of memory");
    }
    return 0;
}

void sched_close(struct sched *s)
{
    free(s->run);
    free(s->plan.item);
    memset(s, 0, sizeof(*s));
}

void sched_add(struct sched *s, struct req *r)
{
    r->want_tok = r->n_prompt;
    r->next = NULL;
    *s->wait_tail = r;
    s->wait_tail = &r->next;
    s->n_wait++;
}

static void wait_pop(struct sched *s)
{
    s->wait_head = s->wait_head->next;
    if (s->wait_head == NULL)
        s->wait_tail = &s->wait_head;
    s->n_wait--;
}

static int32_t plan_add(struct sched *s, struct req *r, int32_t budget)
{
    int32_t n = min_i32(r->want_tok - r->seq.n_tok, budget);

    assert(n > 0);
    kv_grow(s->kv, &r->seq, n);
    s->plan.item[s->plan.n_item++] = (struct step_item) { r, n };
    s->plan.n_tok += n;
    return n;
}

/* A request is two counters: seq.n_tok (in the KV cache) and want_tok (prompt + sampled). Each step
 * moves the first towards the second within one token budget: prefill, chunks and decode are one
 * case. Who runs comes first. Somebody is admitted only with budget left over, so all before the
 * last in s->run want exactly one token, and only the last can be in the middle of its prompt. */
void sched_plan(struct sched *s)
{
    int32_t budget = s->step_tok_max;
    struct req *r;

    s->plan.n_item = s->plan.n_tok = 0;

    for (int32_t i = 0; i < s->n_run; i++)
        budget -= plan_add(s, s->run[i], budget);

    while (budget > 0 && s->n_run < s->run_max && (r = s->wait_head) != NULL) {
        if (kv_admit(s->kv, &r->seq, r->n_prompt + r->max_new) != 0)
            break;                  /* first come, first served: nobody overtakes */
        wait_pop(s);
        s->run[s->n_run++] = r;
        budget -= plan_add(s, r, budget);
    }
}

void sched_remove(struct sched *s, struct req *r)
{
    int32_t i = 0;

    while (i < s->n_run && s->run[i] != r)
        i++;
    assert(i < s->n_run);
    kv_release(s->kv, &r->seq);
    s->n_run--;
    memmove(s->run + i, s->run + i + 1, (size_t) (s->n_run - i) * sizeof(*s->run));
}

static bool goes(struct req *r, bool only_cancelled)
{
    return !only_cancelled || atomic_load_explicit(&r->cancel, memory_order_relaxed);
}

struct req *sched_take(struct sched *s, bool only_cancelled)
{
    struct req *out = NULL, **end = &out, *r, **link;
    int32_t n = 0;

    for (int32_t i = 0; i < s->n_run; i++) {
        r = s->run[i];
        if (!goes(r, only_cancelled)) {
            s->run[n++] = r;
            continue;
        }
        kv_release(s->kv, &r->seq);
        *end = r;
        end = &r->next;
    }
    s->n_run = n;

    for (link = &s->wait_head; (r = *link) != NULL; ) {
        if (!goes(r, only_cancelled)) {
            link = &r->next;
            continue;
        }
        *link = r->next;
        s->n_wait--;
        *end = r;
        end = &r->next;
    }
    s->wait_tail = link;

    *end = NULL;
    return out;
}
