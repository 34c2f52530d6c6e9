#include "render.h"

#include "chat.h"

#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX (16u << 20)

static const struct json_limits limits = {
    .bytes = LINE_BYTES_MAX, .depth = 64, .nodes = 1u << 20
};

/* A boolean of o, or what it is by default. */
static int get_flag(const struct json *o, const char *key, bool *v, struct err *e)
{
    const struct json *j = json_get(o, key);

    if (j == NULL || j->type == JSON_NULL)
        return 0;
    if (j->type != JSON_TRUE && j->type != JSON_FALSE)
        return err_set(e, E_INVALID, "%s must be a boolean, not %s", key, json_type_name(j->type));
    *v = j->type == JSON_TRUE;
    return 0;
}

static int get_opts(const struct json *o, struct chat_opts *c, struct err *e)
{
    const struct json *variant = json_get(o, "variant");
    const struct json *kw = json_get(o, "chat_template_kwargs");
    int                rc;

    *c = (struct chat_opts) { .variant = CHAT_LARGE, .add_generation_prompt = true };
    if (variant != NULL && variant->type == JSON_STRING && slice_is(variant->text, "small"))
        c->variant = CHAT_SMALL;
    else if (variant != NULL
             && !(variant->type == JSON_STRING && slice_is(variant->text, "large")))
        return err_set(e, E_INVALID, "variant must be \"large\" or \"small\"");

    if (kw != NULL && kw->type != JSON_NULL && kw->type != JSON_OBJECT)
        return err_set(e, E_INVALID, "chat_template_kwargs must be an object");
    for (const struct json *k = kw == NULL ? NULL : kw->child; k != NULL; k = k->next)
        if (!slice_is(k->key, "enable_thinking") && !slice_is(k->key, "preserve_thinking"))
            return err_set(e, E_INVALID, "chat_template_kwargs: only enable_thinking and "
                           "preserve_thinking are known");

    if ((rc = get_flag(kw, "enable_thinking", &c->enable_thinking, e)) < 0
        || (rc = get_flag(kw, "preserve_thinking", &c->preserve_thinking, e)) < 0
        || (rc = get_flag(o, "add_generation_prompt", &c->add_generation_prompt, e)) < 0)
        return rc;
    return get_flag(o, "continue_final_message", &c->continue_final_message, e);
}

static int render_line(const char *p, size_t n, struct buf *text, struct err *e)
{
    struct json_doc   *d;
    const struct json *o;
    struct chat_opts   opts;
    int                rc = json_parse(&d, &o, p, n, &limits, e);

    if (rc < 0)
        return rc;
    if (o->type != JSON_OBJECT)
        rc = err_set(e, E_INVALID, "a line must be an object, not %s", json_type_name(o->type));
    else
        rc = get_opts(o, &opts, e);
    if (rc == 0)
        rc = chat_render(json_get(o, "messages"), json_get(o, "tools"), &opts, text, NULL, e);
    json_free(d);
    return rc;
}

int render_file(FILE *in, FILE *out, struct err *e)
{
    char    *line = NULL;
    size_t   cap = 0, n_line = 0, n_bad = 0;
    ssize_t  n;

    while ((n = getline(&line, &cap, in)) > 0) {
        struct buf text = { 0 }, answer = { 0 };
        struct err why = { 0 };

        n_line++;
        if (render_line(line, (size_t) n, &text, &why) == 0) {
            buf_str(&answer, "{\"text\": ");
            buf_json_str(&answer, text.p, text.n);
        } else {
            n_bad++;
            buf_str(&answer, "{\"error\": ");
            buf_json_str(&answer, why.msg, strlen(why.msg));
        }
        buf_str(&answer, "}\n");
        fwrite(answer.p, 1, answer.n, out);
        buf_free(&answer);
        buf_free(&text);
    }
    free(line);

    if (ferror(in) || fflush(out) != 0 || ferror(out))
        return err_set(e, E_IO, "render: reading or writing failed");
    if (n_bad > 0)
        return err_set(e, E_INVALID, "render: %zu of %zu lines refused", n_bad, n_line);
    return 0;
}
