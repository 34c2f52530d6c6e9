#include "toolcall.h"

#include <string.h>
#include <strings.h>

/* Where in a call the next character is. */
enum {
    HEAD,               /* up to the '{' */
    KEY, QUOTED_KEY,
    COLON,              /* after a quoted key */
    VALUE,              /* before its first character */
    STRING,             /* quoted, written as it comes */
    HELD,               /* quoted, but no string may stand here: decided at its end */
    BARE,               /* not quoted: decided at its end */
    LONG,               /* not quoted, too long for anything but a string: written as it comes */
    AFTER,              /* a value */
    DONE,
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice trim(const struct buf *b)
{
    struct slice s = { b->p, b->n };

    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    while (s.n > 0 && is_space(*s.p)) {
        s.p++;
        s.n--;
    }
    return s;
}

/* Output */

static void put(const struct toolcall *t, const char *json, size_t n, struct said *out)
{
    if (t->mute == 0)
        said_put(out, SAID_ARGS, json, n);
}

static void put_str(const struct toolcall *t, const char *json, struct said *out)
{
    put(t, json, strlen(json), out);
}

/* The inside of a JSON string. */
static void put_escaped(struct toolcall *t, const char *p, size_t n, struct said *out)
{
    if (t->mute != 0)
        return;
    t->json.n = 0;
    buf_json_text(&t->json, p, n);
    put(t, t->json.p, t->json.n, out);
}

static void put_string(struct toolcall *t, struct slice s, struct said *out)
{
    put_str(t, "\"", out);
    put_escaped(t, s.p, s.n, out);
    put_str(t, "\"", out);
}

/* Levels */

static struct toolcall_level *top(struct toolcall *t)
{
    return &t->level[t->depth - 1];
}

static void separate(struct toolcall *t, struct said *out)
{
    if (top(t)->any)
        put_str(t, ", ", out);
    top(t)->any = true;
}

/* A value begins: in an array its place is not set yet. */
static void begin_element(struct toolcall *t, struct said *out)
{
    if (!top(t)->array)
        return;
    separate(t, out);
    schema_element(&top(t)->at, &t->place);
}

static void push(struct toolcall *t, bool array, struct said *out)
{
    t->level[t->depth++] = (struct toolcall_level) {
        .array = array, .keys_at = t->keys.n, .at = t->place,
    };
    t->state = array ? VALUE : KEY;
    t->text.n = 0;
    put_str(t, array ? "[" : "{", out);
}

/* The value at this depth is complete. */
static void end_value(struct toolcall *t)
{
    if (t->mute == t->depth)
        t->mute = 0;
    t->state = AFTER;
}

static void pop(struct toolcall *t, struct said *out)
{
    if (t->mute == t->depth)
        t->mute = 0;
    put_str(t, top(t)->array ? "]" : "}", out);
    t->keys.n = top(t)->keys_at;
    t->depth--;
    end_value(t);
    if (t->depth == 0)
        t->state = DONE;
}

/* How many levels the bracket c closes: down to its opener. 0: it has none and is data. */
static int closes(const struct toolcall *t, char c)
{
    if (c == ')')
        return t->paren && t->depth == 1;
    if (c != '}' && c != ']')
        return 0;
    for (int i = t->depth; i > 0; i--)
        if (t->level[i - 1].array == (c == ']'))
            return t->depth - i + 1;
    return 0;
}

/* Keys. They are compared with all of their object: objects are small. */

/* Bytes of the characters of s that are not cut. */
static size_t whole_chars(struct slice s)
{
    size_t n = 0;
    int    k;

    while (n < s.n && (k = utf8_len(s.p + n, s.n - n)) > 0)
        n += (size_t) k;
    return n;
}

static bool is_repeated(const struct toolcall *t, struct slice key)
{
    size_t n;

    for (size_t at = t->level[t->depth - 1].keys_at; at < t->keys.n; at += sizeof(n) + n) {
        memcpy(&n, t->keys.p + at, sizeof(n));
        if (n == key.n && memcmp(t->keys.p + at + sizeof(n), key.p, n) == 0)
            return true;
    }
    return false;
}

static void end_key(struct toolcall *t, struct said *out)
{
    struct slice key = { t->text.p, t->text.n };

    if (t->state == KEY)
        key = trim(&t->text);
    if (t->text.n >= TOOLCALL_HOLD_MAX)
        key.n = whole_chars(key);
    t->state = VALUE;
    if (t->mute == 0) {
        if (is_repeated(t, key)) {
            t->mute = t->depth;
        } else {
            buf_put(&t->keys, &key.n, sizeof(key.n));
            buf_put(&t->keys, key.p, key.n);
            separate(t, out);
            put_string(t, key, out);
            put_str(t, ": ", out);
        }
    }
    schema_key(&top(t)->at, key, &t->place);
    t->text.n = 0;
}

/* Scalars */

/* A number as JSON writes it, from one that may have a plus, leading zeros or a bare point. 0, or
 * -1: it is none. */
static int number(struct slice s, struct buf *out, bool *is_int)
{
    const char *p = s.p, *end = s.p + s.n, *digits;
    size_t      n_int, n_frac = 0;

    out->n = 0;
    if (p < end && (*p == '-' || *p == '+')) {
        buf_put(out, p, *p == '-');
        p++;
    }
    for (digits = p; p < end && *p >= '0' && *p <= '9';)
        p++;
    n_int = (size_t) (p - digits);
    while (n_int > 1 && *digits == '0') {
        digits++;
        n_int--;
    }
    buf_put(out, n_int > 0 ? digits : "0", n_int > 0 ? n_int : 1);
    if (p < end && *p == '.') {
        for (digits = ++p; p < end && *p >= '0' && *p <= '9';)
            p++;
        n_frac = (size_t) (p - digits);
        if (n_frac > 0)
            buf_put(out, digits - 1, n_frac + 1);
    }
    *is_int = n_frac == 0;
    if (n_int + n_frac > 0 && p < end && (*p == 'e' || *p == 'E')) {
        digits = p++;
        p += p < end && (*p == '-' || *p == '+');
        if (p == end)
            return -1;
        while (p < end && *p >= '0' && *p <= '9')
            p++;
        *is_int = false;
        buf_put(out, digits, (size_t) (end - digits));
    }
    return n_int + n_frac > 0 && p == end && !out->full ? 0 : -1;
}

static bool is_word(struct slice s, const char *word)
{
    return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

/* TYPE_ bit of a JSON literal; 0: it is none as it stands. */
static uint32_t literal(struct slice s, struct buf *scratch)
{
    bool is_int;

    if (slice_is(s, "true") || slice_is(s, "false"))
        return TYPE_BOOLEAN;
    if (slice_is(s, "null"))
        return TYPE_NULL;
    if (number(s, scratch, &is_int) != 0 || scratch->n != s.n || memcmp(scratch->p, s.p, s.n) != 0)
        return 0;
    return is_int ? TYPE_INTEGER | TYPE_NUMBER : TYPE_NUMBER;
}

/* Text that means a value of types but is not spelled as JSON: the spelling, or p NULL. */
static struct slice meant(struct slice s, uint32_t types, struct buf *scratch)
{
    bool is_int;

    if ((types & TYPE_NULL) != 0 && (is_word(s, "null") || is_word(s, "none") || is_word(s, "nil")))
        return SLICE("null");
    if ((types & (TYPE_INTEGER | TYPE_NUMBER)) != 0 && number(s, scratch, &is_int) == 0
        && (is_int || (types & TYPE_NUMBER) != 0))
        return (struct slice) { scratch->p, scratch->n };
    if ((types & TYPE_BOOLEAN) != 0 && is_word(s, "true"))
        return SLICE("true");
    if ((types & TYPE_BOOLEAN) != 0 && is_word(s, "false"))
        return SLICE("false");
    return (struct slice) { NULL, 0 };
}

/* What text that is complete and not a string in itself stands for. False: a string after all. */
static bool resolve_bare(struct toolcall *t, struct slice s, struct slice *json)
{
    uint32_t types = schema_types(&t->place), is = literal(s, &t->json);

    if (is != 0) {
        *json = s;
        return types == 0 || (types & TYPE_STRING) == 0 || (types & is) != 0;
    }
    *json = meant(s, types, &t->json);
    return json->p != NULL;
}

static bool resolve_quoted(struct toolcall *t, struct slice s, struct slice *json)
{
    const struct json_limits lim = { TOOLCALL_HOLD_MAX, TOOLCALL_DEPTH_MAX, TOOLCALL_HOLD_MAX };
    uint32_t           types = schema_types(&t->place);
    struct json_doc   *doc;
    const struct json *root;
    bool               fits;

    *json = meant(s, types, &t->json);
    if (json->p != NULL)
        return true;
    if ((types & (TYPE_OBJECT | TYPE_ARRAY)) == 0 || json_parse(&doc, &root, s.p, s.n, &lim, NULL))
        return false;
    fits = (root->type == JSON_OBJECT && (types & TYPE_OBJECT) != 0)
           || (root->type == JSON_ARRAY && (types & TYPE_ARRAY) != 0);
    json_free(doc);
    *json = s;
    return fits;
}

static void end_bare(struct toolcall *t, struct said *out)
{
    struct slice s = trim(&t->text), json;

    if (resolve_bare(t, s, &json))
        put(t, json.p, json.n, out);
    else
        put_string(t, s, out);
    t->text.n = 0;
    end_value(t);
}

static void end_held(struct toolcall *t, struct said *out)
{
    struct slice s = { t->text.p, t->text.n }, json;

    if (resolve_quoted(t, trim(&t->text), &json))
        put(t, json.p, json.n, out);
    else
        put_string(t, s, out);
    t->text.n = 0;
    end_value(t);
}

/* Whatever is open at this depth but the object or array itself. */
static void end_open(struct toolcall *t, struct said *out)
{
    switch (t->state) {
    case STRING:
    case LONG:
        put_str(t, "\"", out);
        end_value(t);
        break;
    case HELD:
        end_held(t, out);
        break;
    case BARE:
        end_bare(t, out);
        break;
    case VALUE:
        if (!top(t)->array)
            put_str(t, "\"\"", out);
        end_value(t);
        break;
    default:                            /* a key without a value is forgotten */
        end_value(t);
    }
}

/* A comma, or a bracket that closes n levels. */
static void delimit(struct toolcall *t, int n, struct said *out)
{
    end_open(t, out);
    while (n-- > 0)
        pop(t, out);
}

static void comma(struct toolcall *t, struct said *out)
{
    end_open(t, out);
    t->state = top(t)->array ? VALUE : KEY;
    t->text.n = 0;
}

/* Collect one character; a value that grows too long becomes a string. */
static void collect(struct toolcall *t, char c, struct said *out)
{
    bool full = t->text.n >= TOOLCALL_HOLD_MAX;

    if (!full || t->state == HEAD)
        buf_put(&t->text, &c, 1);
    if (!full || (t->state != BARE && t->state != HELD))
        return;
    buf_put(&t->text, &c, 1);
    t->state = t->state == BARE ? LONG : STRING;
    put_str(t, "\"", out);
    put_escaped(t, t->text.p, t->text.n, out);
    t->text.n = 0;
}

/* One character outside of strings that are written as they come. */
static void step(struct toolcall *t, char c, struct said *out)
{
    int n = closes(t, c);

    if (t->state == QUOTED_KEY || t->state == HELD) {
        collect(t, c, out);
    } else if (n > 0) {
        delimit(t, n, out);
    } else if (c == ',') {
        comma(t, out);
    } else if (t->state == KEY || t->state == COLON) {
        if (c == ':')
            end_key(t, out);
        else if (t->state == KEY)
            collect(t, c, out);
    } else if (t->state == VALUE && !is_space(c)) {
        begin_element(t, out);
        if ((c == '{' || c == '[') && t->depth < TOOLCALL_DEPTH_MAX) {
            push(t, c == '[', out);
        } else {
            t->state = BARE;
            collect(t, c, out);
        }
    } else if (t->state == BARE) {
        collect(t, c, out);
    }
}

/* Head */

static bool is_name(struct slice s)
{
    if (s.n == 0 || s.n > TOOLCALL_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_' || c == '-' || c == '.'))
            return false;
    }
    return true;
}

/* "call:name", and the forms without "call" or without "call:" that models slip into. */
static struct slice name_of(const struct buf *head)
{
    struct slice s = trim(head);
    size_t       skip = s.n >= 5 && memcmp(s.p, "call:", 5) == 0 ? 5 : s.n > 0 && *s.p == ':';
    struct buf   rest = { .p = s.n > 0 ? (char *) s.p + skip : NULL, .n = s.n - skip };

    return trim(&rest);
}

static void open_call(struct toolcall *t, struct slice name, struct said *out)
{
    said_put(out, SAID_CALL, name.p, name.n);
    schema_root(t->tools, toolset_find(t->tools, name), &t->place);
    push(t, false, out);
}

/* False: what came is not the head of a call. */
static bool head(struct toolcall *t, char c, struct said *out)
{
    struct slice name;

    if (c != '{' && c != '(') {
        collect(t, c, out);
        return t->text.n <= TOOLCALL_HEAD_MAX;
    }
    name = name_of(&t->text);
    if (!is_name(name)) {
        collect(t, c, out);
        return false;
    }
    t->paren = c == '(';
    open_call(t, name, out);
    return true;
}

/* The calls of the header */

void toolcall_begin(struct toolcall *t, const struct toolset *tools)
{
    t->tools = tools;
    t->state = HEAD;
    t->paren = false;
    t->depth = t->mute = 0;
    t->text.n = t->keys.n = 0;
}

/* How many characters of a string that is written as it comes are its own. */
static size_t own(const struct toolcall *t, const char *p, size_t n)
{
    size_t k = 0;

    if (t->state == STRING)
        return n;
    while (k < n && p[k] != ',' && closes(t, p[k]) == 0)
        k++;
    return k;
}

bool toolcall_text(struct toolcall *t, const char *p, size_t n, struct said *out)
{
    for (size_t i = 0; i < n && t->state != DONE; i++) {
        if (t->state == HEAD) {
            if (head(t, p[i], out))
                continue;
            buf_put(&t->text, p + i + 1, n - i - 1);
            return false;
        }
        if (t->state == STRING || t->state == LONG) {
            size_t k = own(t, p + i, n - i);

            put_escaped(t, p + i, k, out);
            i += k;
            if (i == n)
                break;
        }
        step(t, p[i], out);
    }
    return true;
}

void toolcall_quote(struct toolcall *t, struct said *out)
{
    uint32_t types;

    switch (t->state) {
    case KEY:
        t->state = QUOTED_KEY;
        t->text.n = 0;
        break;
    case QUOTED_KEY:
        t->state = COLON;
        break;
    case VALUE:
        begin_element(t, out);
        types = schema_types(&t->place);
        t->state = types == 0 || (types & TYPE_STRING) != 0 ? STRING : HELD;
        t->text.n = 0;
        if (t->state == STRING)
            put_str(t, "\"", out);
        break;
    case STRING:
    case HELD:
        end_open(t, out);
        break;
    default:                            /* it means nothing there */
        break;
    }
}

/* What is held back is told as far as it goes, and nothing is closed. */
static void cut(struct toolcall *t, struct said *out)
{
    struct slice s = t->state == BARE ? trim(&t->text) : (struct slice) { t->text.p, t->text.n };
    struct slice json;

    if (t->state != BARE && t->state != HELD)
        return;
    if (t->state == BARE && resolve_bare(t, s, &json)) {
        put(t, json.p, json.n, out);
        return;
    }
    put_str(t, "\"", out);
    put_escaped(t, s.p, s.n, out);
}

bool toolcall_is_open(const struct toolcall *t)
{
    return t->depth > 0;
}

bool toolcall_end(struct toolcall *t, enum toolcall_end how, struct said *out)
{
    if (t->state == HEAD) {
        struct slice name = name_of(&t->text);

        if (how != TOOLCALL_CLOSED || toolset_find(t->tools, name) < 0)
            return false;
        open_call(t, name, out);
    }
    if (how == TOOLCALL_CUT)
        cut(t, out);
    else if (t->depth > 0)
        delimit(t, t->depth, out);
    return true;
}

void toolcall_free(struct toolcall *t)
{
    buf_free(&t->text);
    buf_free(&t->keys);
    buf_free(&t->json);
}
