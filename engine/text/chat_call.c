/* chat_call.c - what the model called, and what came back. */
#include "chat_priv.h"

#include <string.h>

const struct json *chat_list(const struct json *m, const char *key)
{
    const struct json *j = chat_get(m, key);

    return j != NULL && j->type == JSON_ARRAY && j->n > 0 ? j : NULL;
}

const char *chat_media(struct slice type)
{
    static const char *const media[][2] = {
        { "image", "<|image|>" }, { "image_url", "<|image|>" },
        { "audio", "<|audio|>" }, { "input_audio", "<|audio|>" },
        { "video", "<|video|>" }, { "video_url", "<|video|>" },
    };

    for (size_t i = 0; i < sizeof(media) / sizeof(media[0]); i++)
        if (slice_is(type, media[i][0]))
            return media[i][1];
    return NULL;
}

/* Arguments are an object, or the JSON text of one; none at all is {}. */
static int put_arguments(struct render *r, const struct json *args, const char *at)
{
    static const struct json empty = { .type = JSON_OBJECT };
    struct json_limits       lim = { .depth = CHAT_DEPTH_MAX, .nodes = CHAT_ARG_NODES_MAX };
    struct json_doc         *doc = NULL;
    struct err               why;
    int                      rc;

    if (args == NULL || (args->type == JSON_STRING && args->text.n == 0))
        args = &empty;
    if (args->type == JSON_STRING) {
        lim.bytes = args->text.n;
        rc = json_parse(&doc, &args, args->text.p, args->text.n, &lim, &why);
        if (rc < 0)
            return rc == E_INVALID ? chat_bad(r, at, " is not the text of an object. %s", why.msg)
                                   : err_set(r->e, rc, "%s", why.msg);
    }
    if (args->type == JSON_OBJECT)
        rc = chat_value(r, args, false, at);
    else
        rc = chat_bad(r, at, " must be an object or the JSON text of one, not %s",
                      json_type_name(args->type));
    json_free(doc);
    return rc;
}

int chat_calls(struct render *r, const struct json *m, uint32_t i)
{
    uint32_t k = 0;
    int      rc;

    for (const struct json *c = json_get(m, "tool_calls")->child; c != NULL; c = c->next, k++) {
        const struct json *fn = json_get(c, "function"), *name = json_get(fn, "name");

        if (name == NULL || name->type != JSON_STRING || name->text.n == 0)
            return chat_bad(r, chat_at(r, "messages[%u].tool_calls[%u].function.name", i, k),
                            " must be a string that is not empty");
        buf_str(r->out, "<|tool_call>call:");
        chat_put(r, name->text);
        rc = put_arguments(r, chat_get(fn, "arguments"),
                           chat_at(r, "messages[%u].tool_calls[%u].function.arguments", i, k));
        if (rc < 0)
            return rc;
        buf_str(r->out, "<tool_call|>");
    }
    return 0;
}

static bool same_id(const struct json *a, const struct json *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->type == JSON_STRING && b->type == JSON_STRING && a->text.n == b->text.n
           && memcmp(a->text.p, b->text.p, a->text.n) == 0;
}

/* Whose result is it? The last call of that id knows; else the result itself may say. */
static struct slice name_of(const struct json *calls, const struct json *result)
{
    const struct json *id = chat_get(result, "tool_call_id"), *name = chat_get(result, "name");

    for (const struct json *c = calls == NULL ? NULL : calls->child; c != NULL; c = c->next)
        if (same_id(chat_get(c, "id"), id))
            name = json_get(json_get(c, "function"), "name");
    return name != NULL && name->type == JSON_STRING && name->text.n > 0 ? name->text
                                                                         : SLICE("unknown");
}

static void open_response(struct render *r, struct slice name)
{
    buf_str(r->out, "<|tool_response>response:");
    chat_put(r, name);
}

/* The texts of a list of parts are one string, untrimmed; its media stand behind the block. */
static int put_parts(struct render *r, const struct json *parts, uint32_t i)
{
    buf_str(r->out, Q);
    for (const struct json *p = parts->child; p != NULL; p = p->next) {
        const struct json *type = json_get(p, "type"), *text = chat_get(p, "text");

        if (type == NULL || type->type != JSON_STRING
            || (text != NULL && text->type != JSON_STRING))
            return chat_bad(r, chat_at(r, "messages[%u].content", i),
                            ": a part must be an object with a type, and its text a string");
        if (text != NULL && slice_is(type->text, "text"))
            chat_put(r, text->text);
    }
    buf_str(r->out, Q "}<tool_response|>");

    for (const struct json *p = parts->child; p != NULL; p = p->next) {
        const char *media = chat_media(json_get(p, "type")->text);

        if (media != NULL)
            buf_str(r->out, media);
    }
    return 0;
}

/* One tool message, message i. */
static int put_result(struct render *r, const struct json *calls, const struct json *m, uint32_t i)
{
    const struct json *body = chat_get(m, "content");

    open_response(r, name_of(calls, m));
    buf_str(r->out, "{value:");
    if (body != NULL && body->type == JSON_ARRAY)
        return put_parts(r, body, i);
    if (body != NULL && body->type != JSON_STRING)
        return chat_bad(r, chat_at(r, "messages[%u].content", i),
                        " must be a string or an array, not %s", json_type_name(body->type));
    if (body == NULL) {
        buf_str(r->out, "null");
    } else {
        buf_str(r->out, Q);
        chat_put(r, body->text);
        buf_str(r->out, Q);
    }
    buf_str(r->out, "}<tool_response|>");
    return 0;
}

/* Gemma's own form: [{"name":..,"response":..}] in the message of the calls. */
static int put_responses(struct render *r, const struct json *list, uint32_t i)
{
    uint32_t k = 0;
    int      rc;

    for (const struct json *t = list->child; t != NULL; t = t->next, k++) {
        const struct json *x = json_get(t, "response");
        const char        *at = chat_at(r, "messages[%u].tool_responses[%u].response", i, k);

        if (x == NULL)
            return chat_bad(r, at, " is required");
        open_response(r, name_of(NULL, t));
        buf_str(r->out, x->type == JSON_OBJECT ? "" : "{value:");
        rc = chat_value(r, x, false, at);
        if (rc < 0)
            return rc;
        buf_str(r->out, x->type == JSON_OBJECT ? "<tool_response|>" : "}<tool_response|>");
    }
    return 0;
}

int chat_results(struct render *r, const struct json *m, uint32_t i, bool *any)
{
    const struct json *own = chat_list(m, "tool_responses"), *calls = chat_list(m, "tool_calls");
    int                rc = 0;

    *any = own != NULL;
    if (own != NULL)
        return put_responses(r, own, i);
    if (calls == NULL)
        return 0;

    for (m = m->next, i++; m != NULL && rc == 0; m = m->next, i++) {
        if (!slice_is(json_get(m, "role")->text, "tool"))
            break;
        *any = true;
        rc = put_result(r, calls, m, i);
    }
    return rc;
}
