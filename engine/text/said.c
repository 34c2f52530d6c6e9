#include "said.h"

#include <stdlib.h>
#include <string.h>

static struct buf *bytes_of(struct said *s, enum said_kind kind)
{
    return kind == SAID_REASONING ? &s->reasoning : kind == SAID_CONTENT ? &s->content : &s->calls;
}

/* A part to append to, or NULL: out of memory. */
static struct said_part *open_part(struct said *s, enum said_kind kind)
{
    struct said_part *last = s->n_part > s->first ? &s->part[s->n_part - 1] : NULL;

    if (last != NULL && last->kind == kind && kind != SAID_CALL)
        return last;

    if (s->n_part == s->cap_part) {
        size_t cap = s->cap_part == 0 ? 8 : s->cap_part * 2;
        void  *p = realloc(s->part, cap * sizeof(s->part[0]));

        if (p == NULL) {
            s->content.full = true;
            return NULL;
        }
        s->part = p;
        s->cap_part = cap;
    }
    s->part[s->n_part] = (struct said_part) { .kind = kind };
    return &s->part[s->n_part++];
}

void said_put(struct said *s, enum said_kind kind, const char *p, size_t n)
{
    struct buf       *b = bytes_of(s, kind);
    struct said_part *part;
    size_t            before = b->n;

    if (n == 0 || s->content.full || (part = open_part(s, kind)) == NULL)
        return;
    buf_put(b, p, n);
    part->n += b->n - before;
    s->content.full |= b->full;
    s->n_call += kind == SAID_CALL;
}

size_t said_bytes(const struct said *s)
{
    return s->reasoning.n + s->content.n + s->calls.n;
}

bool said_front(const struct said *s, size_t max, struct said_part *part, struct slice *bytes)
{
    const struct buf *b;

    if (s->first == s->n_part)
        return false;

    *part = s->part[s->first];
    b = bytes_of((struct said *) s, part->kind);
    *bytes = (struct slice) { b->p, part->n };
    if (part->kind != SAID_CALL && part->n > max) {
        bytes->n = max;
        while (bytes->n > 0 && ((unsigned char) b->p[bytes->n] & 0xC0) == 0x80)
            bytes->n--;
    }
    return true;
}

void said_take(struct said *s, size_t n)
{
    struct said_part *part = &s->part[s->first];

    buf_cut(bytes_of(s, part->kind), n);
    s->n_taken += part->kind == SAID_CALL;
    part->n -= n;
    if (part->n == 0)
        s->first++;
    if (s->first == s->n_part)
        s->first = s->n_part = 0;
}

/* 24 letters and digits, the same whenever this call is asked for: splitmix64 of the key. */
static void call_id(const struct said *s, int32_t index, char id[SAID_ID_BYTES])
{
    static const char digit[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    memcpy(id, "call_", 5);
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t z = s->id_key[i % 2] + (3 * (uint64_t) index + i + 1) * 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        for (int k = 0; k < 8; k++, z /= 62)
            id[5 + 8 * i + k] = digit[z % 62];
    }
    id[29] = '\0';
}

void said_front_call(const struct said *s, struct said_part part, struct slice bytes,
                     struct said_call *call)
{
    bool begins = part.kind == SAID_CALL;

    *call = (struct said_call) { .index = s->n_taken - !begins };
    *(begins ? &call->name : &call->args) = bytes;
    call_id(s, call->index, call->id);
}

bool said_next_call(const struct said *s, struct said_walk *w, struct said_call *call)
{
    while (w->part < s->n_part && s->part[w->part].kind != SAID_CALL)
        w->part++;
    if (w->part == s->n_part)
        return false;

    *call = (struct said_call) { .index = w->index++ };
    call_id(s, call->index, call->id);
    call->name = (struct slice) { s->calls.p + w->at, s->part[w->part].n };
    w->at += s->part[w->part++].n;
    if (w->part < s->n_part && s->part[w->part].kind == SAID_ARGS) {
        call->args = (struct slice) { s->calls.p + w->at, s->part[w->part].n };
        w->at += s->part[w->part++].n;
    }
    call->cut = s->cut && w->index == s->n_call;
    return true;
}

void said_clear(struct said *s)
{
    s->reasoning.n = s->content.n = s->calls.n = 0;
    s->first = s->n_part = 0;
    s->n_taken = s->n_call;
}

void said_free(struct said *s)
{
    buf_free(&s->reasoning);
    buf_free(&s->content);
    buf_free(&s->calls);
    free(s->part);
    s->part = NULL;
    s->first = s->n_part = s->cap_part = 0;
}
