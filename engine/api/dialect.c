#include "dialect.h"

const struct dialect *dialect_of(enum ask_kind kind)
{
    return kind == ASK_TEXT ? &dialect_text : &dialect_chat;
}
