#include "dialect.h"

const struct dialect *dialect_of(enum ask_kind kind)
{
    return kind == ASK_TEXT ? &dialect_text
           : (kind & (ASK_MESSAGES | ASK_COUNT)) != 0 ? &dialect_messages : &dialect_chat;
}
