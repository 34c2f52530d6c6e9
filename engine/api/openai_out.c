#include "openai_lp.h"
#include "openai_out.h"

#include <inttypes.h>
#include <string.h>

static void put_json(struct buf *b, const char *s)
{
    buf_json_str(b, s, strlen(s));
}

static void put_text(struct buf *b, struct slice s)
{
    buf_json_str(b, s.p != NULL ? s.p : "", s.n);
}

void out_error_member(struct buf *b, const struct api_err *e)
{
    buf_str(b, "\"error\":{\"message\":");
    put_json(b, e->msg);
    buf_fmt(b, ",\"type\":\"%s\",\"param\":", e->type);
    if (e->param[0] != '\0')
        put_json(b, e->param);
    else
        buf_str(b, "null");
    if (e->code != NULL)
        buf_fmt(b, ",\"code\":\"%s\"", e->code);
    else
        buf_str(b, ",\"code\":null");
    if (e->n_ctx > 0)
        buf_fmt(b, ",\"n_prompt_tokens\":%" PRId64 ",\"n_ctx\":%" PRId64, e->n_prompt_tok,
                e->n_ctx);
    buf_str(b, "}");
}

int out_error(struct buf *b, const struct api_err *e, const char *request_id)
{
    (void) request_id;                  /* a header tells it */
    buf_str(b, "{");
    out_error_member(b, e);
    buf_str(b, "}");
    return e->status;
}

void out_usage(struct buf *b, const struct out_usage *u)
{
    buf_fmt(b, "{\"prompt_tokens\":%" PRId64 ",\"completion_tokens\":%" PRId64
            ",\"total_tokens\":%" PRId64
            ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRId64 ",\"audio_tokens\":0}"
            ",\"completion_tokens_details\":{\"reasoning_tokens\":%" PRId64
            ",\"audio_tokens\":0,\"accepted_prediction_tokens\":0"
            ",\"rejected_prediction_tokens\":0}}",
            u->prompt, u->completion, u->prompt + u->completion, u->cached, u->reasoning);
}

void out_ids(struct buf *b, struct out_ids ids)
{
    char   text[16];
    int    n;

    buf_put(b, "[", 1);
    for (size_t i = 0; i < ids.n; i++) {
        n = snprintf(text, sizeof(text), "%s%" PRId32, i > 0 ? "," : "", ids.p[i]);
        buf_put(b, text, (size_t) n);
    }
    buf_put(b, "]", 1);
}

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...  and no end. */
static void put_head(struct buf *b, const struct out_id *id, const char *object)
{
    buf_str(b, "{\"id\":");
    put_json(b, id->id);
    buf_fmt(b, ",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", object, id->created);
    put_json(b, id->model);
    buf_fmt(b, ",\"system_fingerprint\":\"%s\"", id->fingerprint);
    if (id->tier != NULL)
        buf_fmt(b, ",\"service_tier\":\"%s\"", id->tier);
}

static const char *chunk_object(const struct out_id *id)
{
    return id->chat ? "chat.completion.chunk" : "text_completion";
}

/* Both names of the field: clients of either vLLM generation look for one of them. */
static void put_reasoning(struct buf *b, struct slice reasoning)
{
    buf_str(b, "\"reasoning\":");
    put_text(b, reasoning);
    buf_str(b, ",\"reasoning_content\":");
    put_text(b, reasoning);
}

static void put_stop_reason(struct buf *b, const struct out_choice *c)
{
    buf_str(b, ",\"stop_reason\":");
    if (c->stop_str.p != NULL)
        put_text(b, c->stop_str);
    else if (c->stop_id >= 0)
        buf_fmt(b, "%" PRId32, c->stop_id);
    else
        buf_str(b, "null");
}

static void put_finish(struct buf *b, const struct out_id *id, const struct out_choice *c,
                       bool whole)
{
    buf_str(b, ",\"logprobs\":");
    if (id->chat)
        lp_put_chat(b, c, whole);
    else
        lp_put_text(b, c, whole);
    if (c->finish != NULL)
        buf_fmt(b, ",\"finish_reason\":\"%s\"", c->finish);
    else
        buf_str(b, ",\"finish_reason\":null");

    if (whole || c->stop_str.p != NULL || c->stop_id >= 0)
        put_stop_reason(b, c);

    if (c->with_ids) {
        buf_str(b, ",\"token_ids\":");
        out_ids(b, c->ids);
    }
}

/* "id": ... of a whole call, or of its beginning: no arguments yet. */
static void put_call(struct buf *b, const struct said_call *call)
{
    buf_fmt(b, "\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", call->id);
    put_text(b, call->name);
    buf_str(b, ",\"arguments\":");
    put_text(b, call->args);
    buf_str(b, "}}");
}

static void put_call_delta(struct buf *b, const struct said_call *call)
{
    buf_fmt(b, "\"tool_calls\":[{\"index\":%" PRId32 ",", call->index);
    if (call->name.n > 0) {
        put_call(b, call);
    } else {
        buf_str(b, "\"function\":{\"arguments\":");
        put_text(b, call->args);
        buf_str(b, "}}");
    }
    buf_str(b, "]");
}

static void put_calls(struct buf *b, const struct said *said)
{
    struct said_walk w = { 0 };
    struct said_call call;

    while (said_next_call(said, &w, &call)) {
        buf_str(b, call.index == 0 ? ",\"tool_calls\":[{" : ",{");
        put_call(b, &call);
    }
    buf_str(b, "]");
}

static void put_delta(struct buf *b, const struct out_choice *c)
{
    const char *sep = "";

    buf_str(b, ",\"delta\":{");
    if (c->role) {
        buf_str(b, "\"role\":\"assistant\"");
        sep = ",";
    }
    if (c->reasoning.n > 0) {
        buf_str(b, sep);
        put_reasoning(b, c->reasoning);
        sep = ",";
    }
    if (c->call.name.n > 0 || c->call.args.n > 0) {
        buf_fmt(b, "%s%s", sep, c->role ? "\"content\":null," : "");
        put_call_delta(b, &c->call);
    } else if (c->text.n > 0 || (c->role && c->reasoning.n == 0)) {
        buf_fmt(b, "%s\"content\":", sep);
        put_text(b, c->text);
    }
    buf_str(b, "}");
}

static void put_message(struct buf *b, const struct out_choice *c)
{
    bool calls = c->said != NULL && c->said->n_call > 0;

    buf_str(b, ",\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->text.n == 0 && (c->reasoning.n > 0 || calls))
        buf_str(b, "null");
    else
        put_text(b, c->text);
    buf_str(b, ",\"refusal\":null");
    if (c->reasoning.n > 0) {
        buf_str(b, ",");
        put_reasoning(b, c->reasoning);
    }
    if (calls)
        put_calls(b, c->said);
    buf_str(b, "}");
}

/* As the model read it, control tokens too. */
static void put_prompt_text(struct buf *b, const struct out_choice *c)
{
    struct tok_stream ts = { 0 };
    struct buf        text = { 0 };

    for (size_t i = 0; i < c->prompt_ids.n; i++)
        tok_stream_put(c->prompt_tok, &ts, c->prompt_ids.p[i], &text);
    tok_stream_end(&ts, &text);
    buf_str(b, ",\"prompt_text\":");
    put_text(b, (struct slice) { text.p, text.n });
    b->full = b->full || text.full;
    buf_free(&text);
}

/* What there is to tell of the prompt: of an answer in chat, of a choice in completions. */
static void put_prompt(struct buf *b, const struct out_choice *c)
{
    if (c->with_prompt_ids) {
        buf_str(b, ",\"prompt_token_ids\":");
        out_ids(b, c->prompt_ids);
    }
    if (c->prompt_tok != NULL)
        put_prompt_text(b, c);
    if (c->prompt_lp.wanted) {
        buf_str(b, ",\"prompt_logprobs\":");
        lp_put_prompt(b, c);
    }
}

static void put_progress(struct buf *b, const struct out_progress *p)
{
    buf_fmt(b, ",\"prompt_progress\":{\"total\":%" PRId64 ",\"cache\":%" PRId64
            ",\"processed\":%" PRId64 ",\"time_ms\":%" PRId64 "}", p->total, p->cached, p->read,
            p->ms);
}

/* The answer so far, and how it ended. */
static void put_choice(struct buf *b, const struct out_id *id, const struct out_choice *c,
                       bool whole)
{
    buf_fmt(b, "{\"index\":%" PRId32, c->index);
    if (!id->chat) {
        buf_str(b, ",\"text\":");
        put_text(b, c->text);
    } else if (whole) {
        put_message(b, c);
    } else {
        put_delta(b, c);
    }
    put_finish(b, id, c, whole);
    if (!id->chat)
        put_prompt(b, c);
    buf_str(b, "}");
}

static void out_chunk(struct buf *b, struct out_id *id, const struct out_choice *c,
                      const struct out_usage *usage)
{
    buf_str(b, "data: ");
    put_head(b, id, chunk_object(id));
    if (id->chat)
        put_prompt(b, c);
    buf_str(b, ",\"choices\":[");
    put_choice(b, id, c, false);
    buf_str(b, "]");
    if (c->progress != NULL)
        put_progress(b, c->progress);
    if (usage != NULL) {
        buf_str(b, ",\"usage\":");
        out_usage(b, usage);
    } else if (id->include_usage) {
        buf_str(b, ",\"usage\":null");
    }
    buf_str(b, "}\n\n");
}

static void out_end(struct buf *b, struct out_id *id, const struct out_usage *u)
{
    if (id->include_usage) {
        buf_str(b, "data: ");
        put_head(b, id, chunk_object(id));
        buf_str(b, ",\"choices\":[],\"usage\":");
        out_usage(b, u);
        buf_str(b, "}\n\n");
    }
    buf_str(b, "data: [DONE]\n\n");
}

static void out_fail(struct buf *b, struct out_id *id, const struct api_err *e)
{
    (void) id;
    buf_str(b, "data: ");
    out_error(b, e, NULL);
    buf_str(b, "\n\ndata: [DONE]\n\n");
}

static void out_whole_begin(struct buf *b, struct out_id *id)
{
    put_head(b, id, id->chat ? "chat.completion" : "text_completion");
}

static void out_whole_choice(struct buf *b, struct out_id *id, const struct out_choice *c)
{
    if (id->chat && c->index == 0)
        put_prompt(b, c);
    buf_str(b, c->index == 0 ? ",\"choices\":[" : ",");
    put_choice(b, id, c, true);
}

static void out_whole_end(struct buf *b, struct out_id *id, const struct out_usage *u)
{
    (void) id;
    buf_str(b, "],\"usage\":");
    out_usage(b, u);
    buf_str(b, "}");
}

#define OPENAI \
    .delta = out_chunk, .end = out_end, .ping = out_ping, \
    .fail = out_fail, .whole_begin = out_whole_begin, \
    .whole_choice = out_whole_choice, .whole_end = out_whole_end, .error = out_error

const struct dialect dialect_chat = {
    .id_prefix = "chatcmpl-", .prompt_field = "messages", .schema_field = "function.parameters",
    OPENAI
};

const struct dialect dialect_text = {
    .id_prefix = "cmpl-", .prompt_field = "prompt", .schema_field = "", OPENAI
};
