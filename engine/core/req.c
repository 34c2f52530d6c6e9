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
