/* fuzz/request.c - any body for any route: an ask within its limits, or an error in valid JSON. */
#include "dialect.h"
#include "translate.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const struct json_limits lim = { .bytes = 1 << 16, .depth = 64, .nodes = 5000 };
static const struct json_limits more = { .bytes = 1 << 20, .depth = 66, .nodes = 10000 };

/* The words of a refusal are JSON themselves. */
static void check_error(enum ask_kind kind, const struct api_err *e)
{
    struct json_doc   *d = NULL;
    const struct json *root;
    struct err         err;
    struct buf         b = { 0 };

    if (e->status < 400 || dialect_of(kind)->error(&b, e, "r") < 400
        || json_parse(&d, &root, b.p, b.n, &lim, &err) != 0)
        abort();
    json_free(d);
    buf_free(&b);
}

/* The first byte chooses the kind of body, the rest is the body. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    enum ask_kind      kind = n > 0 ? 1 << p[0] % 9 : 0;
    struct json_doc   *d = NULL, *chat = NULL;
    const struct json *root;
    struct api_err     e;
    struct ask         a;
    struct err         err;
    struct buf         b = { 0 }, echo = { 0 };
    int                rc = 0;

    if (n == 0 || json_parse(&d, &root, (const char *) p + 1, n - 1, &lim, &err) != 0)
        return 0;

    if ((kind & ASK_TRANSLATED) != 0) {
        rc = tr_body(&(struct tr) { .root = root, .out = &b, .echo = &echo, .e = &e }, kind);
        if (rc == 0 && json_parse(&chat, &root, b.p, b.n, &more, &err) != 0)
            abort();
    }
    if (rc == 0)
        rc = ask_read(&a, chat != NULL ? ASK_CHAT : kind, root, &e);

    if (rc != 0)
        check_error(kind, &e);
    else if (a.n < 1 || a.n > API_N_MAX || a.n_stop > API_STOP_MAX
             || a.n_stop_id > API_STOP_ID_MAX || a.temperature > 2 || a.top_p > 1
             || a.top_logprobs > API_LOGPROB_MAX || a.prompt_logprobs > API_LOGPROB_MAX
             || !(a.repetition > 0) || (a.logit_bias != NULL && a.logit_bias->n > API_BIAS_MAX)
             || a.stream_interval < 1 || (a.repeat_max > 0 && a.repeat_count < 2))
        abort();

    json_free(d);
    json_free(chat);
    buf_free(&b);
    buf_free(&echo);
    return 0;
}
