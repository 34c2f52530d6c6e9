/* t/chat.c - the golden prompts through chat_render, what is refused and where, the variant. */
#include "chat.h"
#include "sha256.h"
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

static const struct json_limits lim = { .bytes = 1 << 24, .depth = 32, .nodes = 1 << 20 };

static bool flag(const struct json *o, const char *key, bool def)
{
    const struct json *j = json_get(o, key);

    return j == NULL || j->type == JSON_NULL ? def : j->type == JSON_TRUE;
}

static struct chat_opts opts_of(const struct json *c)
{
    const struct json *kw = json_get(c, "chat_template_kwargs"), *v = json_get(c, "variant");

    return (struct chat_opts) {
        .variant = v != NULL && slice_is(v->text, "small") ? CHAT_SMALL : CHAT_LARGE,
        .enable_thinking = flag(kw, "enable_thinking", false),
        .preserve_thinking = flag(kw, "preserve_thinking", false),
        .add_generation_prompt = flag(c, "add_generation_prompt", true),
        .continue_final_message = flag(c, "continue_final_message", false),
    };
}

/* Parse {"messages":..} as a request and render it. */
static int render(const char *p, size_t n, struct buf *out, char param[64], struct err *e)
{
    struct json_doc   *d;
    const struct json *c;
    struct chat_opts   o;
    int                rc = json_parse(&d, &c, p, n, &lim, e);

    if (rc < 0)
        return rc;
    o = opts_of(c);
    rc = chat_render(json_get(c, "messages"), json_get(c, "tools"), &o, out, param, e);
    json_free(d);
    return rc;
}

/* All cases; those with tools or media must be refused. */
static void golden(void)
{
    FILE   *f = fopen("t/golden/chat_cases.jsonl", "r");
    char   *line = NULL;
    size_t  cap = 0;
    ssize_t n;
    int     n_same = 0, n_refused = 0;

    if (!ok(f != NULL, "t/golden/chat_cases.jsonl is there"))
        return;
    while ((n = getline(&line, &cap, f)) > 0) {
        struct json_doc   *d;
        const struct json *c;
        struct buf         out = { 0 };
        struct err         e = { 0 };
        char               param[64], name[80];
        int                rc = render(line, (size_t) n, &out, param, &e);

        json_parse(&d, &c, line, (size_t) n, &lim, NULL);
        snprintf(name, sizeof(name), "%.*s", (int) json_get(c, "name")->text.n,
                 json_get(c, "name")->text.p);
        if (rc == 0) {
            struct slice want = json_get(c, "expected")->text;

            n_same++;
            ok(out.n == want.n && memcmp(out.p, want.p, want.n) == 0, "%s", name);
        } else {
            n_refused++;
            ok(out.n == 0 && param[0] != '\0' && strstr(e.msg, "supported") != NULL,
               "%s refused: %s", name, e.msg);
        }
        buf_free(&out);
        json_free(d);
    }
    ok(n_same >= 28 && n_same + n_refused == 60, "%d rendered, %d refused", n_same, n_refused);
    free(line);
    fclose(f);
}

static void refused(void)
{
    static const char *const rows[][3] = {
        { "{}", "messages", "must be an array" },
        { "{\"messages\":[]}", "messages", "not empty" },
        { "{\"messages\":[\"x\"]}", "messages[0]", "must be an object, not a string" },
        { "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "must be a string" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":7}]}", "messages[1].role",
          "must be a string" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages[0].content",
          "must be a string or an array, not a number" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]",
          "must be an object" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}",
          "messages[0].content[0].type", "must be a string" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
          "{\"type\":\"image_url\"}]}]}", "messages[0].content[1].type", "\"image_url\"" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
          "messages[0].content[0].text", "must be a string" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]}]}",
          "messages[0].tool_calls", "not supported" },
        { "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role",
          "not supported" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"reasoning\":1}]}",
          "messages[0].reasoning", "must be a string" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}", "tools",
          "not supported" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":{}}", "tools",
          "must be an array" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}],"
          "\"continue_final_message\":true}", "continue_final_message", "exclude each other" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"continue_final_message\":true,"
          "\"add_generation_prompt\":false}", "messages[0].role", "needs an assistant's" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\" \"}],"
          "\"continue_final_message\":true,\"add_generation_prompt\":false}",
          "messages[0].content", "no text to continue" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf out = { 0 };
        struct err e = { 0 };
        char       param[64] = "";

        buf_str(&out, "before");
        is_int(render(rows[i][0], strlen(rows[i][0]), &out, param, &e), E_INVALID, "refuse %zu", i);
        is_str(param, rows[i][1], "its path");
        ok(strstr(e.msg, rows[i][2]) != NULL, "its words: %s", e.msg);
        ok(out.n == 6, "nothing was appended");
        buf_free(&out);
    }
}

static void accepted(void)
{
    static const char *const rows[][2] = {
        { "{\"messages\":[{\"role\":\"user\",\"content\":null}],\"tools\":[]}",
          "<bos><|turn>user\n<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}],"
          "\"tools\":null}",
          "<bos><|turn>model\nx<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\" a \"},"
          "{\"type\":\"text\",\"text\":\"\\u2003b\\u0085\\u001c\"}]}],"
          "\"add_generation_prompt\":false}", "<bos><|turn>user\nab<turn|>\n" },
        { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a<channel|>b<|channel>c<channel|>"
          " d <|chan\"}],\"add_generation_prompt\":false}",
          "<bos><|turn>model\nab d <|chan<turn|>\n" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
          "\"content\":\"x\",\"reasoning\":\"\",\"reasoning_content\":\" r \"}],"
          "\"add_generation_prompt\":false}",
          "<bos><|turn>user\nq<turn|>\n<|turn>model\n<|channel>thought\n r \n<channel|>x<turn|>"
          "\n" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf out = { 0 };
        struct err e = { 0 };

        is_int(render(rows[i][0], strlen(rows[i][0]), &out, NULL, &e), 0, "accept %zu", i);
        buf_put(&out, "", 1);
        ok(strcmp(out.p, rows[i][1]) == 0, "prompt %zu", i);
        buf_free(&out);
    }

    struct buf  small = { .max = 40 };
    struct err  e = { 0 };
    const char *p = rows[0][0];

    is_int(render(p, strlen(p), &small, NULL, &e), E_FULL, "a prompt past the buffer's ceiling");
    buf_free(&small);
}

static void variant_row(const char *dir, const char *text, enum chat_variant want)
{
    char              path[80];
    enum chat_variant v;
    bool              known, found;
    FILE             *f;

    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir);
    f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    ok(chat_variant_detect(dir, &v, &known, &found, NULL) == 0 && found && !known && v == want,
       "an unknown template is told by the closed block");
    unlink(path);
}

static void variant(void)
{
    char              dir[] = "/tmp/inferd-chat-XXXXXX", *many = malloc(1000000);
    enum chat_variant v;
    bool              known = true, found = true;

    ok(mkdtemp(dir) != NULL, "a directory");
    is_int(chat_variant_detect(dir, &v, &known, &found, NULL), 0, "no template is no error");
    ok(!found && !known && v == CHAT_LARGE, "not found: large");
    variant_row(dir, "x{{ '<|channel>thought\\n<channel|>' }}", CHAT_LARGE);
    variant_row(dir, "x{{ '<|channel>thought\n<channel|>' }}", CHAT_SMALL);
    variant_row(dir, "", CHAT_SMALL);
    rmdir(dir);

    memset(many, 'a', 1000000);
    ok(sha256_64("", 0) == 0xe3b0c44298fc1c14u && sha256_64("abc", 3) == 0xba7816bf8f01cfeau
       && sha256_64(many, 1000000) == 0xcdc76e5c9914fb92u
       && sha256_64("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56)
          == 0x248d6a61d20638b8u, "SHA-256 of the standard's examples");
    free(many);
}

int main(void)
{
    golden();
    refused();
    accepted();
    variant();
    return done_testing();
}
