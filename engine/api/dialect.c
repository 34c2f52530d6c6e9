#include "dialect.h"

void out_close(struct out_id *id)
{
    buf_free(&id->block.text);
    buf_free(&id->block.name);
    buf_free(&id->block.items);
}

void out_ping(struct buf *b, const struct out_id *id)
{
    (void) id;
    buf_str(b, ": ping\n\n");
}

const struct dialect *dialect_of(enum ask_kind kind)
{
    switch (kind) {
    case ASK_TEXT:      return &dialect_text;
    case ASK_MESSAGES:
    case ASK_COUNT:     return &dialect_messages;
    case ASK_RESPONSES:
    case ASK_RESPONSES_COUNT: return &dialect_responses;
    default:            return &dialect_chat;
    }
}
