/* messages.c - Anthropic's API: each body as the chat that it becomes, each refusal under its own
 * name, and the bytes of events, whole answers and errors. */
#include "chat_of.h"
#include "dialect.h"
#include "tap.h"

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

#define SCHEMA "{\"type\":\"json_schema\",\"schema\":{\"type\":\"null\"}}"
#define FORMAT "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":" \
               "{\"name\":\"answer\",\"schema\":{\"type\":\"null\"}}}"

/* One more field, and what it adds to the chat. */
static void field(const char *json, const char *chat)
{
    char body[600], want[600];

    snprintf(body, sizeof(body), "{\"max_tokens\":64," HI "%s%s}", *json != '\0' ? "," : "", json);
    if (chat[0] == '!')
        snprintf(want, sizeof(want), "%s", chat);
    else
        snprintf(want, sizeof(want), "{\"max_tokens\":64," HI "%s%s}",
                 *chat != '\0' ? "," : "", chat);
    is_str(chat_of(ASK_MESSAGES, body), want, "%s", json);
}

static void fields(void)
{
    field("", "");
    field("\"stream\":true,\"top_k\":0,\"top_p\":1,\"temperature\":0.5",
          "\"stream\":true,\"top_k\":0,\"top_p\":1,\"temperature\":0.5");
    field("\"temperature\":1", "\"temperature\":1");
    field("\"temperature\":1.01", "!temperature");
    field("\"temperature\":-1", "!temperature");
    field("\"temperature\":\"1\"", "!temperature");
    field("\"top_p\":2", "!top_p");
    field("\"top_k\":-1", "!top_k");
    field("\"top_k\":9223372036854775808", "!top_k");
    field("\"stop_sequences\":[\"a\",\"b\"]", "\"stop\":[\"a\",\"b\"]");
    field("\"stop_sequences\":[\"a\",\"b\",\"c\",\"d\",\"e\"]", "!stop_sequences");
    field("\"stop_sequences\":[\"\"]", "!stop_sequences");
    field("\"stop_sequences\":\"a\"", "!stop_sequences");
    field("\"stop_sequences\":[1]", "!stop_sequences");
    field("\"metadata\":{\"user_id\":\"u\"}", "\"user\":\"u\"");
    field("\"metadata\":{\"user_id\":null}", "");
    field("\"metadata\":{\"user_id\":1}", "!metadata.user_id");
    field("\"metadata\":1", "!metadata");
    field("\"service_tier\":\"auto\"", "");
    field("\"service_tier\":\"flex\"", "!service_tier");
    field("\"thinking\":{\"type\":\"disabled\"}",
          "\"chat_template_kwargs\":{\"enable_thinking\":false}");
    field("\"thinking\":{\"type\":\"adaptive\"}",
          "\"chat_template_kwargs\":{\"enable_thinking\":true}");
    field("\"thinking\":{\"type\":\"enabled\"}", "!thinking.budget_tokens");
    field("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":0}", "!thinking.budget_tokens");
    field("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":64}", "!thinking.budget_tokens");
    field("\"thinking\":{\"type\":\"maybe\"}", "!thinking.type");
    field("\"thinking\":true", "!thinking");
    field("\"cache_control\":{\"type\":\"ephemeral\"}", "");
    field("\"cache_control\":1", "!cache_control");
    field("\"mcp_servers\":[],\"output_config\":{}", "");
    field("\"mcp_servers\":[{}]", "!mcp_servers");
    field("\"output_config\":{\"effort\":\"low\"}", "");
    field("\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"low\"}",
          "\"chat_template_kwargs\":{\"enable_thinking\":true},\"reasoning_effort\":\"low\"");
    field("\"output_config\":{\"effort\":\"none\"}", "!output_config.effort");
    field("\"output_config\":{\"format\":" SCHEMA "}", FORMAT);
    field("\"output_format\":" SCHEMA, FORMAT);
    field("\"output_config\":{\"format\":{\"type\":\"json_schema\"}}",
          "!output_config.format.schema");
    field("\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":7}}",
          "!output_config.format.schema");
    field("\"output_config\":{\"format\":{\"type\":\"json_object\"}}",
          "!output_config.format.type");
    field("\"output_config\":{\"format\":{}}", "!output_config.format.type");
    field("\"output_config\":{\"format\":7}", "!output_config.format");
    field("\"output_format\":" SCHEMA ",\"output_config\":{\"format\":" SCHEMA "}",
          "!output_format");
    field("\"output_config\":1", "!output_config");
    field("\"context_management\":{\"edits\":[{\"type\":\"clear_thinking_20251015\"}]}", "");
    field("\"context_management\":{\"edits\":[{\"type\":\"clear_tool_uses_20250919\"}]}",
          "!context_management.edits[0]");
    field("\"context_management\":{\"edits\":1}", "!context_management.edits");
    field("\"context_management\":{\"edits\":[{}]}", "!context_management.edits[0].type");
    field("\"container\":\"c\"", "!container");
    field("\"container\":null", "");

    field("\"fast\":1,\"new\":{}", "");
    is_int(n_unknown, 2, "unknown fields are counted");
    is_str(chat_of(ASK_MESSAGES, "{" HI "}"), "!max_tokens", "max_tokens is required");
    is_str(chat_of(ASK_COUNT, "{" HI "}"), "{" HI "}", "but not to count");
    is_str(chat_of(ASK_MESSAGES, "{" HI ",\"max_tokens\":0}"), "!max_tokens", "and not 0");
    is_str(chat_of(ASK_MESSAGES, "{\"max_tokens\":1}"), "!messages", "messages are required");
    is_str(chat_of(ASK_MESSAGES, "[]"), "!", "an array is no body");
}

/* One message, or several, and the chat's. */
static void message(const char *json, const char *chat)
{
    char body[1200], want[1200];

    snprintf(body, sizeof(body), "{\"messages\":[%s]}", json);
    if (chat[0] == '!')
        snprintf(want, sizeof(want), "%s", chat);
    else
        snprintf(want, sizeof(want), "{\"messages\":[%s}", chat);
    is_str(chat_of(ASK_COUNT, body), want, "%s", json);
}

#define USER(content)  "{\"role\":\"user\",\"content\":" content "}"
#define MODEL(content) "{\"role\":\"assistant\",\"content\":" content "}"
#define RESULT(more)   "{\"type\":\"tool_result\",\"tool_use_id\":\"t\"" more "}"
#define CALL(more)     "[{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"f\"" more "}]"
#define TOOL(content)  "{\"role\":\"tool\",\"tool_call_id\":\"t\",\"content\":\"" content "\"}"
#define PART(s)        "{\"type\":\"text\",\"text\":\"" s "\"}"

static void messages(void)
{
    message(USER("[" PART("a") "," PART("b") "]"), USER("[" PART("a") "," PART("b") "]") "]");
    message(USER("[" RESULT(",\"content\":\"4\"") "," PART("go") "]"),
            TOOL("4") "," USER("[" PART("go") "]") "]");
    message(USER("[" PART("x") "," RESULT(",\"is_error\":true,\"content\":[" PART("no") ","
                 PART("way") "]") "]"),
            USER("[" PART("x") "]") "," TOOL("error: no\\nway") "]");
    message(USER("[" RESULT("") "]"), TOOL("") "]");
    message(MODEL("[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"}," PART("t")
                  ",{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"f\",\"input\":{\"x\":[1.50]}}]")
            "," USER("\"\""),
            "{\"role\":\"assistant\",\"reasoning\":\"hm\",\"content\":\"t\",\"tool_calls\":["
            "{\"type\":\"function\",\"id\":\"i\",\"function\":{\"name\":\"f\","
            "\"arguments\":{\"x\":[1.50]}}}]}," USER("\"\"") "]");
    message(MODEL("\"The\""), MODEL("\"The\"") "],\"continue_final_message\":true");

    message("", "!messages");
    message("1", "!messages[0]");
    message("{}", "!messages[0].role");
    message("{\"role\":\"user\"}", "!messages[0].content");
    message("{\"role\":\"system\",\"content\":\"x\"}", "!messages[0].role");
    message("{\"role\":{},\"content\":\"x\"}", "!messages[0].role");
    message(USER("1"), "!messages[0].content");
    message(USER("[]"), "!messages[0].content");
    message(USER("[1]"), "!messages[0].content[0]");
    message(USER("[{}]"), "!messages[0].content[0].type");
    message(USER("[" PART("a") ",{\"type\":\"text\"}]"), "!messages[0].content[1].text");
    message(USER("[{\"type\":\"image\",\"source\":{}}]"), "!messages[0].content[0].type");
    message(USER("[{\"type\":\"tool_use\"}]"), "!messages[0].content[0].type");
    message(USER("[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":1}]"),
            "!messages[0].content[0].cache_control");
    message(USER("[{\"type\":\"tool_result\"}]"), "!messages[0].content[0].tool_use_id");
    message(USER("[" RESULT(",\"content\":[{\"type\":\"image\"}]") "]"),
            "!messages[0].content[0].content[0].type");
    message(USER("[" RESULT(",\"is_error\":1") "]"),
            "!messages[0].content[0].is_error");
    message(MODEL("[{\"type\":\"redacted_thinking\",\"data\":\"x\"}]"),
            "!messages[0].content[0].type");
    message(MODEL(CALL(",\"input\":\"{}\"")), "!messages[0].content[0].input");
    message(MODEL(CALL("")), "!messages[0].content[0].input");

    is_str(chat_of(ASK_COUNT, "{\"system\":[" PART("be") "," PART("brief") "]," HI "}"),
           "{\"messages\":[{\"role\":\"system\",\"content\":\"be\\nbrief\"},"
           "{\"role\":\"user\",\"content\":\"hi\"}]}", "the system prompt comes first");
    is_str(chat_of(ASK_COUNT, "{\"system\":1," HI "}"), "!system", "and is text");
    is_str(chat_of(ASK_COUNT, "{\"thinking\":{\"type\":\"adaptive\"},\"messages\":["
                   USER("\"a\"") "," MODEL("\"b\"") "]}"), "!messages[1]",
           "no prefilled answer with thoughts");
}

static void tools(void)
{
    field("\"tools\":[]", "");
    field("\"tools\":[{\"name\":\"f\",\"description\":\"d\","
          "\"input_schema\":{\"type\":\"object\"}}]",
          "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\","
          "\"parameters\":{\"type\":\"object\"}}}]");
    field("\"tools\":{}", "!tools");
    field("\"tools\":[1]", "!tools[0]");
    field("\"tools\":[{\"name\":\"f\"}]", "!tools[0].input_schema");
    field("\"tools\":[{\"name\":\"f\",\"input_schema\":[]}]", "!tools[0].input_schema");
    field("\"tools\":[{\"input_schema\":{}}]", "!tools[0].name");
    field("\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}]", "!tools[0].type");
    field("\"tool_choice\":{\"type\":\"auto\"}", "\"tool_choice\":\"auto\"");
    field("\"tool_choice\":{\"type\":\"none\"}", "\"tool_choice\":\"none\"");
    field("\"tool_choice\":{\"type\":\"all\"}", "!tool_choice.type");
    field("\"tool_choice\":{\"type\":\"tool\"}", "!tool_choice.name");
    field("\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":1}",
          "!tool_choice.disable_parallel_tool_use");
    field("\"tool_choice\":\"auto\"", "!tool_choice");
}

/* Answers */

static const struct dialect *const d = &dialect_messages;

static void delta(struct out_id *id, struct out_choice c, const char *want, const char *what)
{
    static const struct out_usage u = { .prompt = 12, .cached = 8, .completion = 5 };

    d->delta(&b, id, &c, &u);
    is_str(text(), want, "%s", what);
}

#define USAGE "\"usage\":{\"input_tokens\":4,\"cache_creation_input_tokens\":0," \
              "\"cache_read_input_tokens\":8,\"output_tokens\":5}"
#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define MESSAGE "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\""

static void stream(void)
{
    struct out_id id = { .id = "msg_1", .chat = true, .model = "m" };

    delta(&id, (struct out_choice) { .role = true, .reasoning = SLICE("h\"m") },
          EVENT("message_start", ",\"message\":" MESSAGE ",\"content\":[],\"stop_reason\":null,"
                "\"stop_sequence\":null," USAGE "}")
          EVENT("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"thinking\","
                "\"thinking\":\"\",\"signature\":\"\"}")
          EVENT("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"thinking_delta\","
                "\"thinking\":\"h\\\"m\"}"), "a thought begins");
    delta(&id, (struct out_choice) { .text = SLICE("a") },
          EVENT("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"signature_delta\","
                "\"signature\":\"msg_1\"}")
          EVENT("content_block_stop", ",\"index\":0")
          EVENT("content_block_start", ",\"index\":1,\"content_block\":{\"type\":\"text\","
                "\"text\":\"\"}")
          EVENT("content_block_delta", ",\"index\":1,\"delta\":{\"type\":\"text_delta\","
                "\"text\":\"a\"}"), "text closes it");
    delta(&id, (struct out_choice) { .text = SLICE("b") },
          EVENT("content_block_delta", ",\"index\":1,\"delta\":{\"type\":\"text_delta\","
                "\"text\":\"b\"}"), "and goes on");
    delta(&id, (struct out_choice) { .call = { .id = "call_1", .name = SLICE("f") } },
          EVENT("content_block_stop", ",\"index\":1")
          EVENT("content_block_start", ",\"index\":2,\"content_block\":{\"type\":\"tool_use\","
                "\"id\":\"call_1\",\"name\":\"f\",\"input\":{}}"), "a call");
    delta(&id, (struct out_choice) { .call = { .args = SLICE("{\"x\":") } },
          EVENT("content_block_delta", ",\"index\":2,\"delta\":{\"type\":\"input_json_delta\","
                "\"partial_json\":\"{\\\"x\\\":\"}"), "its arguments");
    delta(&id, (struct out_choice) { .call = { .index = 1, .id = "call_2", .name = SLICE("g") } },
          EVENT("content_block_stop", ",\"index\":2")
          EVENT("content_block_start", ",\"index\":3,\"content_block\":{\"type\":\"tool_use\","
                "\"id\":\"call_2\",\"name\":\"g\",\"input\":{}}"), "another call");
    delta(&id, (struct out_choice) { .finish = "tool_calls" },
          EVENT("content_block_stop", ",\"index\":3")
          EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"tool_use\","
                "\"stop_sequence\":null}," USAGE), "the end of it");
    d->end(&b, &id, &(struct out_usage) { 0 });
    is_str(text(), EVENT("message_stop", ""), "the last event");

    id.block.n = 0;
    delta(&id, (struct out_choice) { .role = true },
          EVENT("message_start", ",\"message\":" MESSAGE ",\"content\":[],\"stop_reason\":null,"
                "\"stop_sequence\":null," USAGE "}"), "an answer of nothing opens no block");
    delta(&id, (struct out_choice) { .finish = "stop", .stop_str = SLICE("END") },
          EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"stop_sequence\","
                "\"stop_sequence\":\"END\"}," USAGE), "nor closes one");

    api_err_set(&e, 503, "service_unavailable_error", "draining", NULL, "Going.");
    d->fail(&b, &id, &e);
    is_str(text(), EVENT("error", ",\"error\":{\"type\":\"overloaded_error\","
                         "\"message\":\"Going.\"}"), "an error in mid-stream");
}

static void whole(void)
{
    static const struct out_usage u = { .prompt = 12, .cached = 8, .completion = 5 };
    struct out_id     id = { .id = "msg_1", .chat = true, .model = "m" };
    struct said       said = { 0 };
    struct out_choice c = { .reasoning = SLICE("r"), .text = SLICE("t"), .finish = "tool_calls",
                            .said = &said };

    said_put(&said, SAID_CALL, "f", 1);
    said_put(&said, SAID_ARGS, "{\"x\":1}", 7);
    d->whole_begin(&b, &id);
    d->whole_choice(&b, &id, &c);
    d->whole_end(&b, &id, &u);
    b.p[b.n] = '\0';
    ok(strncmp(b.p, MESSAGE ",\"content\":[{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":"
               "\"msg_1\"},{\"type\":\"text\",\"text\":\"t\"},{\"type\":\"tool_use\","
               "\"id\":\"call_",
               150) == 0, "blocks in order");
    ok(strstr(b.p, ",\"name\":\"f\",\"input\":{\"x\":1}}],\"stop_reason\":\"tool_use\","
              "\"stop_sequence\":null," USAGE "}") != NULL, "input is an object: %s", b.p);
    b.n = 0;
    said_free(&said);

    c = (struct out_choice) { .finish = "length" };
    d->whole_begin(&b, &id);
    d->whole_choice(&b, &id, &c);
    d->whole_end(&b, &id, &u);
    is_str(text(), MESSAGE ",\"content\":[],\"stop_reason\":\"max_tokens\",\"stop_sequence\":null,"
           USAGE "}", "nothing at all");
}

static void errors(void)
{
    static const struct { int status, sent; const char *type; } want[] = {
        { 400, 400, "invalid_request_error" }, { 401, 401, "authentication_error" },
        { 403, 403, "permission_error" }, { 404, 404, "not_found_error" },
        { 413, 413, "request_too_large" }, { 429, 429, "rate_limit_error" },
        { 500, 500, "api_error" }, { 503, 529, "overloaded_error" },
        { 504, 504, "timeout_error" },
    };
    char json[200];

    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        api_err_set(&e, want[i].status, "some_error", NULL, "x", "w\"");
        is_int(d->error(&b, &e, "r1"), want[i].sent, "%d is sent as %d", want[i].status,
               want[i].sent);
        snprintf(json, sizeof(json), "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":"
                 "\"w\\\"\"},\"request_id\":\"r1\"}", want[i].type);
        is_str(text(), json, "its body");
    }
    ok(dialect_of(ASK_COUNT) == d && dialect_of(ASK_MESSAGES) == d, "of both routes");
}

/* Members at every depth that nobody knows are counted; those of our own answers are known. */
static void unknown(void)
{
#define SAYS(more)  "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"" more
    static const struct { const char *json; uint32_t n; } rows[] = {
        { SAYS("}]}"), 0 }, { SAYS("}],\"new\":null}"), 1 }, { SAYS(",\"name\":\"x\"}]}"), 1 },
        { SAYS("},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
               "\"thinking\":\"b\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"c\","
               "\"citations\":null},{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"f\","
               "\"input\":{\"new\":1}}]},{\"role\":\"user\",\"content\":["
               "{\"type\":\"tool_result\",\"tool_use_id\":\"i\",\"content\":\"d\","
               "\"is_error\":false,\"cache_control\":{\"type\":\"ephemeral\"}}]}]}"), 0 },
        { SAYS("},{\"role\":\"user\",\"content\":["
               "{\"type\":\"text\",\"text\":\"b\",\"new\":1}]}]}"), 1 },
        { SAYS("}],\"system\":[{\"type\":\"text\",\"text\":\"b\",\"new\":1,\"newer\":2}]}"), 2 },
        { SAYS("}],\"tools\":[{\"name\":\"f\",\"input_schema\":{\"new\":1},\"defer\":true}],"
               "\"tool_choice\":{\"type\":\"auto\",\"mode\":1}}"), 2 },
        { SAYS("}],\"thinking\":{\"type\":\"adaptive\",\"new\":1}}"), 1 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ok(chat_of(ASK_COUNT, rows[i].json)[0] == '{', "%s", rows[i].json);
        is_int(n_unknown, rows[i].n, "unknown members");
    }
#undef SAYS
}

int main(void)
{
    unknown();
    fields();
    messages();
    tools();
    stream();
    whole();
    errors();
    buf_free(&b);
    return done_testing();
}
