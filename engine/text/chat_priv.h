/* chat_priv.h - what the files of the renderer share: chat.c turns, chat_call.c calls and their
 * results, chat_decl.c tool declarations, chat_value.c JSON values in the model's notation.
 *
 * Nothing here recurses on input: what nests is walked with an array of CHAT_DEPTH_MAX levels. */
#ifndef TEXT_CHAT_PRIV_H
#define TEXT_CHAT_PRIV_H

#include "chat.h"

#define CHAT_DEPTH_MAX 64               /* of a value, and of a tool's schema */
#define CHAT_REF_HOPS_MAX  8            /* a $ref to a $ref to .. */
#define CHAT_TOOLS_BYTES_MAX (4u << 20) /* of all declarations */
#define CHAT_ARG_NODES_MAX (1u << 20)   /* values in the arguments of one call */

#define Q "<|\"|>"                      /* one token: it opens and closes a string */

/* Children of the objects that are being printed, the innermost on top. */
struct chat_kids { const struct json **v; size_t n, cap; };

struct render {
    const struct chat_opts *opts;
    struct buf             *out;
    struct chat_kids        kids;
    char                    at[64];     /* chat_at's */
    char                   *param;      /* [64] or NULL */
    struct err             *e;
};

/* The path of a field, as clients know it; it stands in r->at until the next one. */
__attribute__((format(printf, 2, 3)))
const char *chat_at(struct render *r, const char *fmt, ...);

/* Refuse the field at this path; the words follow the path: " must be ..". Returns E_INVALID. */
__attribute__((format(printf, 3, 4)))
int  chat_bad(struct render *r, const char *at, const char *fmt, ...);

/* Print what may be a client's: whatever it spells, it is no control token (opts->plain). */
void chat_put(struct render *r, struct slice s);

/* json_get; NULL also for null. */
const struct json *chat_get(const struct json *o, const char *key);

/* Push o's children in the template's order: by lower-cased key, equal ones as they came. They are
 * r->kids.v[n before] onwards; the caller sets r->kids.n back. E_FULL: no memory. */
int  chat_sort(struct render *r, const struct json *o);

/* Print any value; quote: keys in Q too. at: the field to refuse if it is nested too deeply or
 * holds a number that no double does. */
int  chat_value(struct render *r, const struct json *x, bool quote, const char *at);

/* All declarations; tools is an ARRAY. */
int  chat_tools(struct render *r, const struct json *tools);

/* The tool_calls of m (message i): an ARRAY that is not empty. */
int  chat_calls(struct render *r, const struct json *m, uint32_t i);

/* The results of m: its own tool_responses, else, if it has calls, the tool messages right after.
 * *any: there was one. */
int  chat_results(struct render *r, const struct json *m, uint32_t i, bool *any);

/* tool_calls or tool_responses, if they are there and not empty, else NULL. */
const struct json *chat_list(const struct json *m, const char *key);

/* The placeholder of a part of this type, or NULL. */
const char *chat_media(struct slice type);

#endif
