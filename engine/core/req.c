#include <stdlib.h>

#include "err.h"
#include "req.h"

int req_alloc(struct req *r, int32_t n_prompt, int32_t max_new, int32_t page_tok)
{
    size_t n_key = (size_t) (n_prompt / page_tok), n_tok = (size_t) n_prompt + (size_t) max_new;

    r->key = malloc(n_key * sizeof(*r->key) + n_tok * sizeof(*r->tok));
    if (r->key == NULL)
        return E_FULL;
    r->tok = (int32_t *) (r->key + n_key);
    r->n_prompt = n_prompt;
    r->max_new = max_new;
    return 0;
}

void req_free(struct req *r)
{
    free(r->key);
    r->key = NULL;
    r->tok = NULL;
}

void req_reset(struct req *r)
{
    r->guided = r->guide != NULL;
    r->thinks = r->think != NULL && r->think->inside;
    r->n_inside = r->thinks ? r->think->n_free : 0;
    r->n_thought = r->n_close = 0;
}

/* The budget is used up when n more ids are inside. */
static bool used_up(const struct req *r, int32_t n)
{
    return r->n_inside + n >= r->think->n_free && (int64_t) r->n_thought + n >= r->think->budget;
}

/* The id of place n_prompt + n comes of the list. */
static bool is_forced(const struct req *r, int32_t n)
{
    return n < r->n_force;
}

void req_note(struct req *r, int32_t id)
{
    const struct req_think *t = r->think;

    if (t == NULL)
        return;
    if (!r->thinks) {
        r->thinks = id == t->open;
        r->n_inside = r->n_close = 0;
    } else if (req_closing(r) >= 0) {
        r->n_close++;
        r->thinks = r->n_close < t->n_close;
    } else if (id == t->close[t->n_close - 1]) {
        r->thinks = false;
    } else {
        r->n_thought += r->n_inside >= t->n_free;
        r->n_inside++;
    }
}

int32_t req_closing(const struct req *r)
{
    if (r->think == NULL || !r->thinks || is_forced(r, r->n_known - r->n_prompt) || !used_up(r, 0))
        return -1;
    return r->think->close[r->n_close];
}

bool req_must_know(const struct req *r)
{
    int32_t n = r->want_tok - r->n_known;          /* under way */

    if (n == 0 || is_forced(r, r->want_tok - r->n_prompt))
        return false;
    if (r->guided || r->think == NULL)
        return r->guided;
    if (r->thinks)
        return used_up(r, n);
    return n - 1 >= r->think->n_free && (int64_t) r->n_thought + n - 1 >= r->think->budget;
}
