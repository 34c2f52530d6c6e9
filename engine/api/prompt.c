#include "work.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int no_memory(struct api_err *e)
{
    return api_err_set(e, 500, "server_error", "internal_error", NULL, "Out of memory.");
}

static int no_tokenizer(const char *param, struct api_err *e)
{
    return api_err_400(e, "unsupported_parameter", param, "The model directory has no "
                       "tokenizer.json: only prompts of token ids to /v1/completions are served.");
}

bool prompt_thinks(const struct api *a, const struct ask *ask)
{
    if (ask->thinking != ASK_UNSET)
        return ask->thinking == ASK_YES;
    if (ask->effort != ASK_UNSET)
        return ask->effort == ASK_YES;
    return !a->c.parse_messages && chat_asks_to_think(ask->messages);
}

int prompt_chat_text(const struct api *a, const struct ask *ask, struct buf *text,
                     struct spans *plain, struct api_err *e)
{
    struct chat_opts opts = {
        .variant = a->variant,
        .enable_thinking = prompt_thinks(a, ask),
        .preserve_thinking = ask->preserve_thinking,
        .add_generation_prompt = ask->add_generation == ASK_UNSET ? !ask->continue_final
                                                                  : ask->add_generation == ASK_YES,
        .continue_final_message = ask->continue_final,
        .mend = true,
        .plain = a->c.parse_messages ? NULL : plain,
    };
    struct err err;
    char       param[64] = "";

    if (chat_render(ask->messages, ask_tools(ask), &opts, text, param, &err) != 0)
        return err.code == E_INVALID
               ? api_err_400(e, "invalid_value", param[0] != '\0' ? param : "messages", "%s",
                             err.msg)
               : no_memory(e);
    return text->full ? no_memory(e) : 0;
}

/* plain: where no control token is looked for. */
static int put_text(const struct api *a, struct slice s, const struct spans *plain, bool bos,
                    const char *param, struct prompt_set *out, struct api_err *e)
{
    size_t     at = out->ids.n, least = s.n / a->tok_bytes_max;   /* tokens */
    struct err err;

    if (a->tok == NULL)
        return no_tokenizer(param, e);
    out->text_bytes += s.n;
    if (out->text_bytes > API_TEXT_BYTES_MAX)
        return api_err_400(e, "context_length_exceeded", param, "The text of '%s' is longer than "
                           "%u bytes.", param, API_TEXT_BYTES_MAX);
    if (out->for_context && least >= (size_t) a->c.model_len_max) {
        api_err_400(e, "context_length_exceeded", param, "This model's maximum context length is "
                    "%d tokens. However, the text of '%s' has at least %zu.", a->c.model_len_max,
                    param, least);
        e->n_prompt_tok = (int64_t) least;
        e->n_ctx = a->c.model_len_max;
        return E_INVALID;
    }
    if (bos && ids_put(&out->ids, a->mc->bos) != 0)
        return no_memory(e);
    if (tok_encode_around(a->tok, s.p, s.n, plain, &out->ids, &err) != 0)
        return err.code == E_INVALID ? api_err_400(e, "invalid_value", param, "%s", err.msg)
                                     : no_memory(e);

    /* A text that brings its own <bos> gets no second one. */
    if (bos && out->ids.n > at + 1 && out->ids.p[at + 1] == a->mc->bos) {
        memmove(out->ids.p + at, out->ids.p + at + 1,
                (out->ids.n - at - 1) * sizeof(out->ids.p[0]));
        out->ids.n--;
    }
    return 0;
}

/* A client that writes its own prompt writes its own control tokens. */
static int put_raw(const struct api *a, struct slice s, bool bos, struct prompt_set *out,
                   struct api_err *e)
{
    static const struct spans nothing;

    return put_text(a, s, &nothing, bos, "prompt", out, e);
}

static int put_ids(const struct api *a, const struct json *list, struct prompt_set *out,
                   struct api_err *e)
{
    int64_t id;

    for (const struct json *v = list->child; v != NULL; v = v->next) {
        if (json_int(v, &id) != 0 || id < 0 || id >= a->mc->vocab)
            return api_err_400(e, "invalid_value", "prompt",
                               "'prompt': token ids are integers from 0 to %d.", a->mc->vocab - 1);
        if (ids_put(&out->ids, (int32_t) id) != 0)
            return no_memory(e);
    }
    return 0;
}

/* Of the ids from start on only so many as were asked for; the rest of them goes. */
static int truncate_ids(const struct api *a, const struct ask *ask, struct prompt_set *out,
                        size_t start, struct api_err *e)
{
    int64_t n_new = ask->max_completion_tok >= 0 ? ask->max_completion_tok : ask->max_tok;
    int64_t keep = ask->truncate, n_ctx = a->c.model_len_max;
    size_t  n = out->ids.n - start;

    if (keep == -2)
        return 0;
    if (keep > n_ctx)
        return api_err_400(e, "invalid_value", "truncate_prompt_tokens",
                           "'truncate_prompt_tokens' is %" PRId64 ", over the context of %" PRId64
                           " tokens.", keep, n_ctx);
    if (keep < 0)
        keep = n_ctx - (n_new >= 0 ? n_new : 1);
    if (keep < 1 || n <= (size_t) keep)
        return 0;
    if (!ask->truncate_right)
        memmove(out->ids.p + start, out->ids.p + out->ids.n - keep,
                (size_t) keep * sizeof(out->ids.p[0]));
    out->ids.n = start + (size_t) keep;
    return 0;
}

/* One prompt ends here. */
static int cut(const struct api *a, const struct ask *ask, struct prompt_set *out,
               const char *param, struct api_err *e)
{
    size_t start = out->n > 0 ? out->end[out->n - 1] : 0;

    if (truncate_ids(a, ask, out, start, e) != 0)
        return E_INVALID;

    if (out->ids.n == start)
        return api_err_400(e, "invalid_value", param, "'%s' must have at least one token.", param);

    out->end[out->n++] = out->ids.n;
    return 0;
}

static int put_list(const struct api *a, const struct ask *ask, bool bos, struct prompt_set *out,
                    struct api_err *e)
{
    const struct json *p = ask->prompt;

    if (p->n == 0)
        return api_err_400(e, "invalid_value", "prompt", "'prompt' must not be empty.");
    if (p->child->type == JSON_NUMBER)
        return put_ids(a, p, out, e) != 0 || cut(a, ask, out, "prompt", e) != 0 ? E_INVALID : 0;
    if (p->n > API_PROMPT_MAX)
        return api_err_400(e, "invalid_value", "prompt", "'prompt' may hold at most %d prompts.",
                           API_PROMPT_MAX);

    for (const struct json *v = p->child; v != NULL; v = v->next) {
        if (v->type != p->child->type || (v->type != JSON_STRING && v->type != JSON_ARRAY))
            return api_err_400(e, "invalid_type", "prompt", "'prompt' must be a string, a list of "
                               "strings, a list of token ids, or a list of such lists.");
        if ((v->type == JSON_STRING ? put_raw(a, v->text, bos, out, e)
                                    : put_ids(a, v, out, e)) != 0
            || cut(a, ask, out, "prompt", e) != 0)
            return E_INVALID;
    }
    return 0;
}

int prompt_read(const struct api *a, enum ask_kind kind, const struct ask *ask,
                struct prompt_set *out, struct api_err *e)
{
    struct buf   text = { 0 };
    struct spans plain = { 0 };
    bool         bos = ask->add_special != ASK_NO;
    int          rc;

    *out = (struct prompt_set) {
        .for_context = (kind & ASK_GENERATE) != 0 && ask->truncate == -2 };

    if (ask->messages != NULL) {
        if (a->tok == NULL)
            return no_tokenizer("messages", e);
        rc = prompt_chat_text(a, ask, &text, &plain, e);
        if (rc == 0)
            rc = put_text(a, (struct slice) { text.p, text.n }, &plain,
                          ask->add_special == ASK_YES, "messages", out, e);
        if (rc == 0)
            rc = cut(a, ask, out, "messages", e);
        spans_free(&plain);
        buf_free(&text);
    } else if (ask->prompt->type == JSON_STRING) {
        rc = put_raw(a, ask->prompt->text, bos, out, e);
        if (rc == 0 && (kind != ASK_TOKENIZE || out->ids.n > 0))
            rc = cut(a, ask, out, "prompt", e);
    } else {
        rc = put_list(a, ask, bos, out, e);
    }

    return rc;
}

void prompt_free(struct prompt_set *s)
{
    ids_free(&s->ids);
}
