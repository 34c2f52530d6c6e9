/* chat_of.h - for the tests of other APIs: the chat body that a client's becomes. */
#ifndef T_CHAT_OF_H
#define T_CHAT_OF_H

#include "translate.h"

#include <stdio.h>
#include <string.h>

static struct buf      b;               /* what was written; text() takes it */
static struct api_err  e;               /* the last refusal */
static uint32_t        n_unknown;       /* of the last body */

static const char *text(void)
{
    buf_put(&b, "", 1);
    b.n = 0;
    return b.p;
}

/* The chat body that json becomes, or the param of its refusal: behind "!", or behind "!!" if it
 * was the chat that is wrong. */
static const char *chat_of(enum ask_kind kind, const char *json)
{
    static const struct json_limits lim = { .bytes = 1 << 20, .depth = 64, .nodes = 100000 };
    static char        refused[80];
    static struct ask  a;
    struct json_doc   *d = NULL, *d2 = NULL;
    const struct json *root;
    struct buf         echo = { 0 };
    struct err         err;
    struct tr          t;
    int                rc;

    if (json_parse(&d, &root, json, strlen(json), &lim, &err) != 0)
        return "not JSON";
    b.n = 0;
    t = (struct tr) { .root = root, .out = &b, .echo = &echo, .e = &e };
    rc = tr_body(&t, kind);
    n_unknown = t.n_unknown;
    json_free(d);
    buf_free(&echo);
    if (rc != 0) {
        snprintf(refused, sizeof(refused), "!%s", e.param);
        b.n = 0;
        return refused;
    }
    if (json_parse(&d2, &root, b.p, b.n, &lim, &err) != 0)
        return "translated to what is not JSON";
    if (ask_read(&a, ASK_CHAT, root, &e) != 0) {
        json_free(d2);
        snprintf(refused, sizeof(refused), "!!%s", e.param);
        b.n = 0;
        return refused;
    }
    json_free(d2);
    return text();
}

#endif
