/* language.h - what an answer may be behind its thoughts: as a name for the cache, and compiled.
 *
 * A document of a format, calls of tools, or one of both. Arguments of strict tools are as their
 * schema allows, those of others any object. */
#ifndef API_LANGUAGE_H
#define API_LANGUAGE_H

#include "channel.h"
#include "grammar.h"
#include "openai_in.h"

struct language {
    const struct format *format;       /* NULL: no document */
    const struct tools  *tools;        /* NULL: no calls */
    struct slice         only;         /* of the tools the one that may be called; p NULL: all */
    bool                 many;         /* calls one after the other */
    bool                 heads;        /* of a call its beginning alone: the rest is free */
};

/* Languages of the same name are the same, if the tokenizer is. b: may become full. */
void language_name(const struct language *l, struct buf *b);

/* 0; E_INVALID or E_FULL, err in words, and in *tool the place of the tool that was wrong, or -1:
 * the format. deadline_ns: as of grammar_make. */
int  language_compile(struct grammar **out, const struct language *l,
                      const struct channel_ids *ids, uint64_t deadline_ns, int32_t *tool,
                      struct err *err);

#endif
