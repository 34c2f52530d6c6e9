/* responses_out.c - /v1/responses: an answer is a list of items, and a stream tells each item's
 * life: added, delta, done. The last event repeats the whole answer, so it is kept in id->block. */
#include "openai_out.h"

#include <inttypes.h>
#include <string.h>

static void put_str(struct buf *b, struct slice s)
{
    buf_json_str(b, s.p != NULL ? s.p : "", s.n);
}

static void put_words(struct buf *b, const char *s)
{
    buf_json_str(b, s, strlen(s));
}

static struct slice slice_of(const struct buf *b)
{
    return (struct slice) { b->p, b->n };
}

/* The id of item n of this answer. */
static void put_item_id(struct buf *b, const struct out_id *id, enum said_kind kind, int32_t n)
{
    const char *prefix = kind == SAID_REASONING ? "rs" : kind == SAID_CONTENT ? "msg" : "fc";

    buf_fmt(b, "\"%s_%s_%" PRId32 "\"", prefix, id->id + strlen("resp_"), n);
}

static void put_part(struct buf *b, enum said_kind kind, struct slice text)
{
    buf_fmt(b, "{\"type\":\"%s\",\"text\":",
            kind == SAID_REASONING ? "reasoning_text" : "output_text");
    put_str(b, text);
    buf_str(b, kind == SAID_REASONING ? "}" : ",\"annotations\":[],\"logprobs\":[]}");
}

/* Thoughts or text; p NULL: no part yet. */
static void put_text_item(struct buf *b, const struct out_id *id, int32_t n, enum said_kind kind,
                          struct slice text, const char *status)
{
    buf_str(b, "{\"id\":");
    put_item_id(b, id, kind, n);
    if (kind == SAID_REASONING)
        buf_fmt(b, ",\"type\":\"reasoning\",\"status\":\"%s\",\"summary\":[],\"content\":[",
                status);
    else
        buf_fmt(b, ",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[",
                status);
    if (text.p != NULL)
        put_part(b, kind, text);
    buf_str(b, "]}");
}

static void put_call_item(struct buf *b, const struct out_id *id, int32_t n, const char *call_id,
                          struct slice name, struct slice args, const char *status)
{
    buf_str(b, "{\"id\":");
    put_item_id(b, id, SAID_CALL, n);
    buf_fmt(b, ",\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":\"%s\",\"name\":", status,
            call_id);
    put_str(b, name);
    buf_str(b, ",\"arguments\":");
    put_str(b, args);
    buf_str(b, "}");
}

static const char *status_of(const char *finish)
{
    return finish == NULL ? "in_progress"
           : strcmp(finish, "length") == 0 ? "incomplete" : "completed";
}

/* {"id":.., up to and without "output". finish NULL: it goes on. */
static void put_head(struct buf *b, const struct out_id *id, const char *finish)
{
    const char *status = status_of(finish);

    buf_str(b, "{\"id\":");
    put_words(b, id->id);
    buf_fmt(b, ",\"object\":\"response\",\"created_at\":%" PRId64 ",\"status\":\"%s\","
            "\"error\":null,\"incomplete_details\":%s,\"model\":", id->created, status,
            strcmp(status, "incomplete") == 0 ? "{\"reason\":\"max_output_tokens\"}" : "null");
    put_words(b, id->model);
    if (id->tier != NULL)
        buf_fmt(b, ",\"service_tier\":\"%s\"", id->tier);
    buf_put(b, id->echo.p, id->echo.n);
}

static void put_usage(struct buf *b, const struct out_usage *u)
{
    buf_fmt(b, "{\"input_tokens\":%" PRId64 ",\"input_tokens_details\":{\"cached_tokens\":%" PRId64
            "},\"output_tokens\":%" PRId64 ",", u->prompt, u->cached, u->completion);
    buf_fmt(b, "\"output_tokens_details\":{\"reasoning_tokens\":%" PRId64 "},\"total_tokens\":%"
            PRId64 "}", u->reasoning, u->prompt + u->completion);
}

/* Streams */

/* {"type":..,"sequence_number":.. and no end. */
static void event(struct buf *b, struct out_id *id, const char *type)
{
    buf_fmt(b, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%" PRId32, type, type,
            id->block.seq++);
}

static void event_response(struct buf *b, struct out_id *id, const char *type,
                           const struct out_usage *usage)
{
    event(b, id, type);
    buf_str(b, ",\"response\":");
    put_head(b, id, id->block.finish);
    buf_str(b, ",\"output\":[");
    buf_put(b, id->block.items.p, id->block.items.n);
    buf_str(b, "],\"usage\":");
    if (usage != NULL)
        put_usage(b, usage);
    else
        buf_str(b, "null");
    buf_str(b, "}}\n\n");
}

static void put_item(struct buf *b, const struct out_id *id, struct slice text, const char *status)
{
    if (id->block.kind == SAID_CALL)
        put_call_item(b, id, id->block.n, id->block.call_id, slice_of(&id->block.name), text,
                      status);
    else
        put_text_item(b, id, id->block.n, id->block.kind, text, status);
}

/* An event of the open item: which one it is, and for its parts, which part. */
static void event_item(struct buf *b, struct out_id *id, const char *type)
{
    event(b, id, type);
    buf_str(b, ",\"item_id\":");
    put_item_id(b, id, id->block.kind, id->block.n);
    buf_fmt(b, ",\"output_index\":%" PRId32 "%s", id->block.n,
            id->block.kind == SAID_CALL ? "" : ",\"content_index\":0");
}

static void event_whole_item(struct buf *b, struct out_id *id, const char *type, struct slice text,
                             const char *status)
{
    event(b, id, type);
    buf_fmt(b, ",\"output_index\":%" PRId32 ",\"item\":", id->block.n);
    put_item(b, id, text, status);
    buf_str(b, "}\n\n");
}

static void event_part(struct buf *b, struct out_id *id, const char *type, struct slice text)
{
    event_item(b, id, type);
    buf_str(b, ",\"part\":");
    put_part(b, id->block.kind, text);
    buf_str(b, "}\n\n");
}

static const char *delta_type(enum said_kind kind, bool done)
{
    return kind == SAID_REASONING
           ? done ? "response.reasoning_text.done" : "response.reasoning_text.delta"
           : kind == SAID_CONTENT
           ? done ? "response.output_text.done" : "response.output_text.delta"
           : done ? "response.function_call_arguments.done"
                  : "response.function_call_arguments.delta";
}

/* A delta, or with done all of them together. */
static void event_text(struct buf *b, struct out_id *id, struct slice text, bool done)
{
    const char *key = !done ? "delta" : id->block.kind == SAID_CALL ? "arguments" : "text";

    event_item(b, id, delta_type(id->block.kind, done));
    buf_fmt(b, ",\"%s\":", key);
    put_str(b, text);
    buf_str(b, id->block.kind == SAID_CONTENT ? ",\"logprobs\":[]}\n\n" : "}\n\n");
}

static void close_item(struct buf *b, struct out_id *id, const char *finish)
{
    struct slice text = slice_of(&id->block.text);
    const char  *status = status_of(finish);

    if (!id->block.open)
        return;
    if (text.p == NULL)
        text.p = "";

    event_text(b, id, text, true);
    if (id->block.kind != SAID_CALL)
        event_part(b, id, "response.content_part.done", text);
    event_whole_item(b, id, "response.output_item.done", text, status);

    buf_str(&id->block.items, id->block.items.n > 0 ? "," : "");
    put_item(&id->block.items, id, text, status);
    id->block.text.n = 0;
    id->block.n++;
    id->block.open = false;
}

static void open_item(struct buf *b, struct out_id *id, enum said_kind kind,
                      const struct said_call *call)
{
    if (id->block.open && id->block.kind == kind && call->name.n == 0)
        return;
    close_item(b, id, "stop");
    id->block.open = true;
    id->block.kind = kind;
    id->block.name.n = 0;
    buf_put(&id->block.name, call->name.p, call->name.n);
    memcpy(id->block.call_id, call->id, sizeof(id->block.call_id));

    event_whole_item(b, id, "response.output_item.added", (struct slice) { NULL, 0 },
                     "in_progress");
    if (kind != SAID_CALL)
        event_part(b, id, "response.content_part.added", SLICE(""));
}

static void response_delta(struct buf *b, struct out_id *id, const struct out_choice *c,
                           const struct out_usage *usage)
{
    enum said_kind kind = c->reasoning.n > 0 ? SAID_REASONING : c->text.n > 0 ? SAID_CONTENT
                                                                              : SAID_CALL;
    struct slice   piece = kind == SAID_REASONING ? c->reasoning
                           : kind == SAID_CONTENT ? c->text : c->call.args;

    (void) usage;
    if (c->role) {
        event_response(b, id, "response.created", NULL);
        event_response(b, id, "response.in_progress", NULL);
    }
    if (piece.n > 0 || c->call.name.n > 0)
        open_item(b, id, kind, &c->call);
    if (piece.n > 0) {
        event_text(b, id, piece, false);
        buf_put(&id->block.text, piece.p, piece.n);
    }
    if (c->finish != NULL) {
        close_item(b, id, c->finish);
        id->block.finish = c->finish;
    }
}

static void response_end(struct buf *b, struct out_id *id, const struct out_usage *usage)
{
    bool cut = strcmp(status_of(id->block.finish), "incomplete") == 0;

    event_response(b, id, cut ? "response.incomplete" : "response.completed", usage);
}

/* Its own fields, and those by which the clients of OpenAI know an error in any stream. */
static void response_fail(struct buf *b, struct out_id *id, const struct api_err *e)
{
    event(b, id, "error");
    buf_fmt(b, ",\"code\":\"%s\",\"message\":", e->code != NULL ? e->code : e->type);
    put_words(b, e->msg);
    buf_str(b, ",\"param\":null,");
    out_error_member(b, e);
    buf_str(b, "}\n\n");
}

/* Whole answers */

static void response_begin(struct buf *b, struct out_id *id)
{
    (void) b, (void) id;                /* its status comes first, which the choice tells */
}

static void response_choice(struct buf *b, struct out_id *id, const struct out_choice *c)
{
    const char      *status = status_of(c->finish);
    bool             more = (c->said != NULL && c->said->n_call > 0);
    struct said_walk w = { 0 };
    struct said_call call;
    int32_t          n = 0;

    put_head(b, id, c->finish);
    buf_str(b, ",\"output\":[");
    if (c->reasoning.n > 0)
        put_text_item(b, id, n++, SAID_REASONING, c->reasoning,
                      c->text.n > 0 || more ? "completed" : status);
    if (c->text.n > 0) {
        buf_str(b, n > 0 ? "," : "");
        put_text_item(b, id, n++, SAID_CONTENT, c->text, more ? "completed" : status);
    }
    while (more && said_next_call(c->said, &w, &call)) {
        buf_str(b, n > 0 ? "," : "");
        put_call_item(b, id, n++, call.id, call.name, call.args,
                      call.index + 1 < c->said->n_call ? "completed" : status);
    }
    buf_str(b, "]");
}

static void response_whole_end(struct buf *b, struct out_id *id, const struct out_usage *usage)
{
    (void) id;
    buf_str(b, ",\"usage\":");
    put_usage(b, usage);
    buf_str(b, "}");
}

const struct dialect dialect_responses = {
    .id_prefix = "resp_", .prompt_field = "input", .max_field = "max_output_tokens",
    .format_field = "text.format.schema", .schema_field = "parameters",
    .named_events = true,
    .delta = response_delta, .end = response_end, .ping = out_ping, .fail = response_fail,
    .whole_begin = response_begin, .whole_choice = response_choice,
    .whole_end = response_whole_end, .error = out_error,
};
