/* translate.h - a body in another API's words, said again as the body of a chat request.
 *
 * So everything behind it (ask_read, the tools, the template, the sampler) knows one kind of
 * request. A table has a row for each field of the client's API; a row checks the field under the
 * client's own name and appends what it means to the chat body. null means absent, unknown fields
 * are counted. No recursion; the output is bounded by the input. */
#ifndef API_TRANSLATE_H
#define API_TRANSLATE_H

#include "openai_in.h"

#define TR_PATH_BYTES 64             /* "messages[3].content[1].text": longer ones are cut */

struct tr {
    const struct json *root;         /* the client's body */
    struct buf        *out;          /* the chat's, an object under way; sticky full */
    struct buf        *echo;         /* members that the answer repeats, each with a ',' before */
    struct api_err    *e;
    uint32_t           n_unknown;    /* fields that no table knows */
    struct slice       unknown;      /* the first of them */
    uint32_t           n_member;     /* of out */
    uint32_t           n_message;    /* of its messages */
};

struct tr_field {
    const char *name;
    int       (*put)(struct tr *t, const struct tr_field *f, const struct json *v,
                     const char *path);
    const char *to;                  /* the chat's field; NULL: checked, and without effect */
    double      min, max;            /* of a number; bytes of a string */
    const char *note;                /* tr_refuse: the JSON text that passes, or NULL: nothing;
                                        of a row that does not tell it: the type, for docs */
    const char *help;                /* for docs */
};

struct tr_set { const char *prefix; const struct tr_field *rows; };
extern const struct tr_set messages_sets[], responses_sets[];    /* rows NULL: the end */

/* "integer", "string", ...; NULL: of tr_refuse. */
const char *tr_type(const struct tr_field *f);

/* Every member of obj through its row. 0, or E_INVALID and *t->e. */
int  tr_fields(struct tr *t, const struct tr_field *table, const char *prefix,
               const struct json *obj);
/* Members of obj but these, names with a space between, are unknown fields. */
void tr_known(struct tr *t, const struct json *obj, const char *names);
__attribute__((format(printf, 2, 3)))
void tr_path(char *path, const char *fmt, ...);     /* [TR_PATH_BYTES] */
/* NULL where it is absent or null. */
const struct json *tr_get(const struct json *obj, const char *key);

/* Begin a member of the chat body: its value has to follow. */
void tr_member(struct tr *t, const char *name);
/* Begin an element of its messages: {"role":..., without an end. */
void tr_message(struct tr *t, const char *role);
/* {"type":"text","text":...} */
void tr_text_part(struct tr *t, struct slice text);
/* {"type":"function","function":{"name":..., without its two ends. */
void tr_function(struct tr *t, struct slice name);
/* The member tools; put appends one. None: no member. */
int  tr_tools(struct tr *t, const struct json *v, const char *path,
              int (*put)(struct tr *t, const struct json *tool, uint32_t i));

/* What an assistant said, gathered until it is one message of the chat. */
struct tr_said { struct buf thoughts, text, calls; };   /* calls: elements of an array */
/* args: an object, or a string that holds one. */
void tr_said_call(struct tr_said *m, struct slice id, struct slice name, const struct json *args);
void tr_said_put(struct tr *t, struct tr_said *m);      /* m is empty afterwards, and can go on */
void tr_said_free(struct tr_said *m);

int  tr_bad_type(struct tr *t, const char *path, const char *want, const struct json *v);
int  tr_missing(struct tr *t, const char *path);
/* The string at key of obj, which has to be there; path is the object's. */
int  tr_need_str(struct tr *t, const struct json *obj, const char *path, const char *key,
                 struct slice *s);

/* Rows that many fields share. */
int  tr_int(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_num(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_bool(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_str(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_object(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_copy(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);
int  tr_refuse(struct tr *t, const struct tr_field *f, const struct json *v, const char *path);

/* The APIs: all members of out, and of echo. */
int  messages_in(struct tr *t, enum ask_kind kind);    /* ASK_MESSAGES or ASK_COUNT */
int  responses_in(struct tr *t);

/* t: root, out, echo and e are set. out becomes a whole body for ask_read(.., ASK_CHAT, ..). */
int  tr_body(struct tr *t, enum ask_kind kind);

#endif
