/* tools.h - the tools of a request and the calls in its history: shapes and bounds.
 *
 * What passes here is printed by chat_render. A tool's name and schema are borrowed from the JSON
 * document of the body, and live as long as it does. */
#ifndef API_TOOLS_H
#define API_TOOLS_H

#include "json.h"
#include "limits.h"

struct api_err;

struct tool {
    struct slice       name;         /* [a-zA-Z0-9_-]{1,64}, no two alike */
    const struct json *schema;       /* of the arguments: an OBJECT, or NULL: nothing is said */
    bool               strict;       /* a call is held to it */
};

struct tools {
    const struct json *list;         /* ARRAY of the tools as they came, or NULL: none */
    uint32_t           n;
    struct tool        tool[API_TOOL_MAX];
};

/* v: the ARRAY of the field at path; an empty one is none. n_unknown counts fields that nobody
 * knows. 0, or E_INVALID and *e filled. */
int  tools_read(struct tools *t, const struct json *v, const char *path, uint32_t *n_unknown,
                struct api_err *e);

/* NULL: no tool of this name. */
const struct tool *tools_find(const struct tools *t, struct slice name);

/* tool_choice: "none", "auto", "required", or {"type":"function","function":{"name":..}}, then
 * *name is set too. */
enum tool_choice { TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED, TOOL_CHOICE_NAMED };
int  tools_read_choice(const struct json *v, const char *path, enum tool_choice *choice,
                       struct slice *name, struct api_err *e);
/* What it says together with the tools. */
int  tools_check_choice(const struct tools *t, enum tool_choice choice, struct slice name,
                        struct api_err *e);

/* The same for the tool_calls of a message in the history: ids, names, the type of arguments. That
 * the text of arguments is an object is left to chat_render, which needs it parsed. */
int  tools_check_calls(const struct json *v, const char *path, uint32_t *n_unknown,
                       struct api_err *e);

#endif
