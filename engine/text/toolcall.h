/* toolcall.h - one tool call in Gemma's syntax -> its name, and its arguments as JSON text.
 *
 * call:NAME{key:<|"|>text<|"|>,n:1,list:[true,{}]} becomes NAME and {"key": "text", "n": 1, ...}.
 * A transducer: JSON is written as the call is read and only ever appended to, whatever pieces the
 * text comes in. Once the name was told the arguments end as valid JSON, however bad the call is,
 * unless it was cut. Strings end by the token <|"|> alone; what a bare value is goes by the tool's
 * schema, and digits are copied, never converted. A repeated key is dropped with its value. */
#ifndef TEXT_TOOLCALL_H
#define TEXT_TOOLCALL_H

#include "said.h"
#include "toolset.h"

#define TOOLCALL_DEPTH_MAX 32           /* open objects and arrays; deeper brackets are data */
#define TOOLCALL_NAME_MAX  64           /* bytes */
#define TOOLCALL_HEAD_MAX  128          /* bytes up to the '{'; more is no call */
#define TOOLCALL_HOLD_MAX  (64u << 10)  /* bytes of a key, which is cut there, or of a value that
                                           decides its type at its end: beyond, it is a string */

struct toolcall_level {
    bool   array, any;                  /* any: has an element already */
    size_t keys_at;                     /* where its keys begin in keys */
    struct schema_place at;
};

struct toolcall {                       /* all private; zeroed before the first begin */
    const struct toolset *tools;
    int        state;
    bool       paren;                   /* f(...) instead of f{...} */
    int        depth, mute;             /* mute: a value at this depth is dropped; 0: none */
    struct buf text;                    /* the head, key or value that is being collected */
    struct buf keys;                    /* of the open objects, each a size_t and its bytes */
    struct buf json;                    /* scratch */
    struct schema_place place;          /* of the value that comes next */
    struct toolcall_level level[TOOLCALL_DEPTH_MAX];
};

/* Something was opened and not closed yet. */
bool toolcall_is_open(const struct toolcall *t);

/* Behind <|tool_call>. */
void toolcall_begin(struct toolcall *t, const struct toolset *tools);

/* Text, valid UTF-8 in whole characters. False: this is no call, nothing was told of it, and
 * t->text holds all that came since toolcall_begin. */
bool toolcall_text(struct toolcall *t, const char *p, size_t n, struct said *out);
/* The token <|"|>. */
void toolcall_quote(struct toolcall *t, struct said *out);

enum toolcall_end {
    TOOLCALL_CLOSED,                    /* by <tool_call|> or by what comes next */
    TOOLCALL_STOPPED,                   /* the model ended its turn: as good as closed */
    TOOLCALL_CUT,                       /* by a limit: JSON that is open stays open */
};
/* False: as with toolcall_text. */
bool toolcall_end(struct toolcall *t, enum toolcall_end how, struct said *out);
void toolcall_free(struct toolcall *t);

#endif
