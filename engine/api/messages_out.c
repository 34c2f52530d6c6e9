/* messages_out.c - Anthropic's words: named events, and blocks that open and close. */
#include "dialect.h"

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

/* What was read from the cache is not counted among the input. */
static void put_usage(struct buf *b, const struct out_usage *u)
{
    buf_fmt(b, "{\"input_tokens\":%" PRId64 ",\"cache_creation_input_tokens\":0,"
            "\"cache_read_input_tokens\":%" PRId64 ",\"output_tokens\":%" PRId64 "}",
            u->prompt - u->cached, u->cached, u->completion);
}

/* {"id":..,"type":"message",.. and no end. */
static void put_head(struct buf *b, const struct out_id *id)
{
    buf_str(b, "{\"id\":");
    put_words(b, id->id);
    buf_str(b, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    put_words(b, id->model);
}

static void put_stop(struct buf *b, const struct out_choice *c)
{
    const char *why = c->stop_str.p != NULL ? "stop_sequence"
                      : strcmp(c->finish, "length") == 0 ? "max_tokens"
                      : strcmp(c->finish, "tool_calls") == 0 ? "tool_use" : "end_turn";

    buf_fmt(b, "\"stop_reason\":\"%s\",\"stop_sequence\":", why);
    if (c->stop_str.p != NULL)
        put_str(b, c->stop_str);
    else
        buf_str(b, "null");
}

static int put_error(struct buf *b, const struct api_err *e)
{
    static const struct { int status, sent; const char *type; } types[] = {
        { 400, 400, "invalid_request_error" }, { 401, 401, "authentication_error" },
        { 403, 403, "permission_error" },      { 404, 404, "not_found_error" },
        { 405, 405, "invalid_request_error" }, { 413, 413, "request_too_large" },
        { 414, 414, "invalid_request_error" }, { 415, 415, "invalid_request_error" },
        { 429, 429, "rate_limit_error" },      { 503, 529, "overloaded_error" },
        { 504, 504, "timeout_error" },
    };
    size_t i = 0, n = sizeof(types) / sizeof(types[0]);

    while (i < n && types[i].status != e->status)
        i++;
    buf_fmt(b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
            i < n ? types[i].type : "api_error");
    put_words(b, e->msg);
    buf_str(b, "}");
    return i < n ? types[i].sent : e->status;
}

static int message_error(struct buf *b, const struct api_err *e, const char *request_id)
{
    int status = put_error(b, e);

    buf_str(b, ",\"request_id\":");
    put_words(b, request_id);
    buf_str(b, "}");
    return status;
}

/* Streams */

static void put_piece(struct buf *b, struct out_id *id, const char *type, const char *key,
                      struct slice piece)
{
    if (piece.n == 0)
        return;
    buf_fmt(b, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":%d,"
            "\"delta\":{\"type\":\"%s\",\"%s\":", id->block.n, type, key);
    put_str(b, piece);
    buf_str(b, "}}\n\n");
}

static void close_block(struct buf *b, struct out_id *id)
{
    if (!id->block.open)
        return;

    /* It stands for "these are my own thoughts"; nobody checks it when they come back. */
    if (id->block.kind == SAID_REASONING) {
        put_piece(b, id, "signature_delta", "signature", (struct slice) { id->id, strlen(id->id) });
    }
    buf_fmt(b, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\","
            "\"index\":%d}\n\n", id->block.n++);
    id->block.open = false;
}

static void open_block(struct buf *b, struct out_id *id, enum said_kind kind,
                       const struct out_choice *c)
{
    if (id->block.open && id->block.kind == kind && c->call.name.n == 0)
        return;
    close_block(b, id);
    id->block.open = true;
    id->block.kind = kind;

    buf_fmt(b, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":%d,"
            "\"content_block\":", id->block.n);
    if (kind == SAID_REASONING) {
        buf_str(b, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    } else if (kind == SAID_CONTENT) {
        buf_str(b, "{\"type\":\"text\",\"text\":\"\"}");
    } else {
        buf_fmt(b, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", c->call.id);
        put_str(b, c->call.name);
        buf_str(b, ",\"input\":{}}");
    }
    buf_str(b, "}\n\n");
}

static void message_delta(struct buf *b, struct out_id *id, const struct out_choice *c,
                          const struct out_usage *usage)
{
    if (c->role) {
        id->block.seq++;
        buf_str(b, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
        put_head(b, id);
        buf_str(b, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
        put_usage(b, usage);
        buf_str(b, "}}\n\n");
    }
    if (c->reasoning.n > 0) {
        open_block(b, id, SAID_REASONING, c);
        put_piece(b, id, "thinking_delta", "thinking", c->reasoning);
    } else if (c->text.n > 0) {
        open_block(b, id, SAID_CONTENT, c);
        put_piece(b, id, "text_delta", "text", c->text);
    } else if (c->call.name.n > 0 || c->call.args.n > 0) {
        open_block(b, id, SAID_CALL, c);
        put_piece(b, id, "input_json_delta", "partial_json", c->call.args);
    }
    if (c->finish != NULL) {
        close_block(b, id);
        buf_str(b, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
        put_stop(b, c);
        buf_str(b, "},\"usage\":");
        put_usage(b, usage);
        buf_str(b, "}\n\n");
    }
}

static void message_end(struct buf *b, struct out_id *id, const struct out_usage *usage)
{
    (void) id, (void) usage;            /* the last delta has told it */
    buf_str(b, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/* An event of its own, but none before message_start, which is always the first. */
static void message_ping(struct buf *b, const struct out_id *id)
{
    if (id->block.seq == 0)
        out_ping(b, id);
    else
        buf_str(b, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void message_fail(struct buf *b, struct out_id *id, const struct api_err *e)
{
    (void) id;
    buf_str(b, "event: error\ndata: ");
    put_error(b, e);
    buf_str(b, "}\n\n");
}

/* Whole answers */

static void message_begin(struct buf *b, struct out_id *id)
{
    put_head(b, id);
    buf_str(b, ",\"content\":[");
}

static void message_choice(struct buf *b, struct out_id *id, const struct out_choice *c)
{
    struct said_walk w = { 0 };
    struct said_call call;
    const char      *sep = "";

    if (c->reasoning.n > 0) {
        buf_str(b, "{\"type\":\"thinking\",\"thinking\":");
        put_str(b, c->reasoning);
        buf_str(b, ",\"signature\":");
        put_words(b, id->id);
        buf_str(b, "}");
        sep = ",";
    }
    if (c->text.n > 0) {
        buf_fmt(b, "%s{\"type\":\"text\",\"text\":", sep);
        put_str(b, c->text);
        buf_str(b, "}");
        sep = ",";
    }
    while (c->said != NULL && said_next_call(c->said, &w, &call)) {
        buf_fmt(b, "%s{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", sep, call.id);
        put_str(b, call.name);
        buf_str(b, ",\"input\":");
        if (call.cut)
            buf_str(b, "{}");                      /* stop_reason says why */
        else
            buf_put(b, call.args.p, call.args.n);  /* an object already */
        buf_str(b, "}");
        sep = ",";
    }
    buf_str(b, "],");
    put_stop(b, c);
}

static void message_whole_end(struct buf *b, struct out_id *id, const struct out_usage *usage)
{
    (void) id;
    buf_str(b, ",\"usage\":");
    put_usage(b, usage);
    buf_str(b, "}");
}

const struct dialect dialect_messages = {
    .id_prefix = "msg_", .id_header = "request-id",
    .prompt_field = "messages", .max_field = "max_tokens",
    .format_field = "output_config.format.schema", .schema_field = "input_schema",
    .named_events = true, .usage_on_delta = true,
    .delta = message_delta, .end = message_end, .ping = message_ping,
    .fail = message_fail,
    .whole_begin = message_begin, .whole_choice = message_choice,
    .whole_end = message_whole_end, .error = message_error,
};
