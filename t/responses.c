/* responses.c - /v1/responses: each body as the chat that it becomes, each refusal under its own
 * name, the life of every item in a stream, and whole answers. */
#include "chat_of.h"
#include "dialect.h"
#include "tap.h"

#include <stdlib.h>

#define USER(content)  "{\"role\":\"user\",\"content\":" content "}"
#define MODEL(content) "{\"role\":\"assistant\",\"content\":" content "}"

#define SCHEMA "\"name\":\"n\",\"schema\":{},\"strict\":true"

/* One more field, and what it adds to the chat. */
static void field(const char *json, const char *chat)
{
    char body[600], want[600];

    snprintf(body, sizeof(body), "{\"input\":\"hi\"%s%s}", *json != '\0' ? "," : "", json);
    if (chat[0] == '!')
        snprintf(want, sizeof(want), "%s", chat);
    else
        snprintf(want, sizeof(want), "{\"messages\":[" USER("\"hi\"") "]%s%s}",
                 *chat != '\0' ? "," : "", chat);
    is_str(chat_of(ASK_RESPONSES, body), want, "%s", json);
}

static void fields(void)
{
    field("", "");
    field("\"model\":\"m\",\"stream\":true,\"top_p\":0.5,\"temperature\":2,\"seed\":7",
          "\"model\":\"m\",\"stream\":true,\"top_p\":0.5,\"temperature\":2,\"seed\":7");
    field("\"max_output_tokens\":1", "\"max_completion_tokens\":1");
    field("\"max_output_tokens\":0", "!max_output_tokens");
    field("\"max_output_tokens\":2147483648", "!max_output_tokens");
    field("\"max_output_tokens\":1.5", "!max_output_tokens");
    field("\"max_output_tokens\":null", "");
    field("\"temperature\":2.01", "!temperature");
    field("\"top_p\":-0.1", "!top_p");
    field("\"stream\":1", "!stream");
    field("\"stream_options\":{\"include_obfuscation\":false}", "");
    field("\"stream_options\":{\"include_obfuscation\":true}",
          "!stream_options.include_obfuscation");
    field("\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"}",
          "\"reasoning_effort\":\"low\"");
    field("\"reasoning\":{\"effort\":null}", "");
    field("\"reasoning\":{\"effort\":\"huge\"}", "!!reasoning_effort");
    field("\"reasoning\":{\"summary\":1}", "!reasoning.summary");
    field("\"reasoning\":{\"summary\":\"short\"}", "!reasoning.summary");
    field("\"reasoning\":{\"summary\":\"\"}", "!reasoning.summary");
    field("\"reasoning\":{\"summary\":null,\"generate_summary\":\"concise\"}", "");
    field("\"reasoning\":{\"summary\":\"none\",\"generate_summary\":\"detailed\"}", "");
    field("\"reasoning\":{\"generate_summary\":[]}", "!reasoning.generate_summary");
    field("\"reasoning\":1", "!reasoning");
    field("\"text\":{\"format\":{\"type\":\"text\"}}", "\"response_format\":{\"type\":\"text\"}");
    field("\"text\":{\"format\":{}}", "!text.format.type");
    field("\"text\":{\"format\":{\"type\":\"json_object\"}}",
          "\"response_format\":{\"type\":\"json_object\"}");
    field("\"text\":{\"format\":{\"type\":\"json_schema\"," SCHEMA "}}",
          "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{" SCHEMA "}}");
    field("\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\"}}", "!text.format.schema");
    field("\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":{}}}", "!text.format.name");
    field("\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\".\",\"schema\":{}}}",
          "!text.format.name");
    field("\"text\":{\"format\":{\"type\":\"regex\"}}", "!text.format.type");
    field("\"text\":{\"format\":1}", "!text.format");
    field("\"metadata\":{\"a\":\"b\"},\"user\":\"u\",\"prompt_cache_key\":\"k\"",
          "\"metadata\":{\"a\":\"b\"},\"user\":\"u\",\"prompt_cache_key\":\"k\"");
    field("\"store\":true,\"include\":[\"reasoning.encrypted_content\"],\"background\":false", "");
    field("\"store\":1", "!store");
    field("\"include\":[\"message.output_text.logprobs\"]", "!include");
    field("\"include\":\"x\"", "!include");
    field("\"truncation\":\"disabled\",\"top_logprobs\":0", "");
    field("\"truncation\":\"auto\"", "!truncation");
    field("\"top_logprobs\":1", "!top_logprobs");
    field("\"background\":true", "!background");
    field("\"previous_response_id\":\"resp_1\"", "!previous_response_id");
    field("\"conversation\":\"c\"", "!conversation");
    field("\"prompt\":{\"id\":\"p\"}", "!prompt");
    field("\"max_tool_calls\":1", "!max_tool_calls");
    field("\"instructions\":1", "!instructions");
    field("\"new\":1", "");
    is_int(n_unknown, 1, "an unknown field is counted");

    is_str(chat_of(ASK_RESPONSES, "{\"instructions\":\"be \\\"brief\\\"\",\"input\":\"hi\"}"),
           "{\"messages\":[{\"role\":\"system\",\"content\":\"be \\\"brief\\\"\"}," USER("\"hi\"")
           "]}", "instructions come first");
    is_str(chat_of(ASK_RESPONSES_COUNT, "{\"input\":\"hi\"}"),
           "{\"messages\":[" USER("\"hi\"") "]}", "the same to count");
    is_str(chat_of(ASK_RESPONSES_COUNT, "{\"store\":1}"), "!input", "and refused alike");
    is_str(chat_of(ASK_RESPONSES, "{}"), "!input", "input is required");
    is_str(chat_of(ASK_RESPONSES, "{\"input\":1}"), "!input", "of text or items");
    is_str(chat_of(ASK_RESPONSES, "{\"input\":[]}"), "!input", "one of them");
}

static void tools(void)
{
    field("\"tools\":[]", "");
    field("\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"strict\":true,"
          "\"parameters\":{\"type\":\"object\"}}]",
          "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\","
          "\"parameters\":{\"type\":\"object\"},\"strict\":true}}]");
    field("\"tools\":{}", "!tools");
    field("\"tools\":[1]", "!tools[0]");
    field("\"tools\":[{\"name\":\"f\"}]", "!tools[0].type");
    field("\"tools\":[{\"type\":\"function\"}]", "!tools[0].name");
    field("\"tools\":[{\"type\":\"web_search\"}]", "!tools[0].type");
    field("\"tool_choice\":\"none\"", "\"tool_choice\":\"none\"");
    field("\"tool_choice\":1", "!tool_choice");
    field("\"tool_choice\":{\"type\":\"allowed_tools\"}", "!tool_choice.type");
    field("\"tool_choice\":{\"type\":\"function\"}", "!tool_choice.name");
}

static void items(const char *json, const char *chat)
{
    char body[1200], want[1200];

    snprintf(body, sizeof(body), "{\"input\":[%s]}", json);
    if (chat[0] == '!')
        snprintf(want, sizeof(want), "%s", chat);
    else
        snprintf(want, sizeof(want), "{\"messages\":[%s]}", chat);
    is_str(chat_of(ASK_RESPONSES, body), want, "%s", json);
}

#define CALL(id)    "{\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"f\"," \
                    "\"arguments\":\"{}\"}"
#define RESULT(id)  "{\"type\":\"function_call_output\",\"call_id\":\"" id "\",\"output\":\"4\"}"
#define CHAT_CALL(id) "{\"type\":\"function\",\"id\":\"" id "\",\"function\":{\"name\":\"f\"," \
                      "\"arguments\":\"{}\"}}"
#define CHAT_RESULT(id) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"4\"}"
#define THOUGHT(s)  "{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[],\"content\":[{\"type\":" \
                    "\"reasoning_text\",\"text\":\"" s "\"}]}"
#define WROTE(s)    "{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":" \
                    "\"output_text\",\"text\":\"" s "\",\"annotations\":[]}]}"

static void history(void)
{
    items("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\"},"
          "{\"type\":\"input_text\",\"text\":\"b\"}]}", USER("\"ab\""));
    items("{\"role\":\"developer\",\"content\":\"d\"},{\"type\":\"message\",\"role\":\"user\","
          "\"content\":\"u\"}", "{\"role\":\"developer\",\"content\":\"d\"}," USER("\"u\""));
    items(USER("\"u\"") "," THOUGHT("hm") "," WROTE("so") "," CALL("1") "," CALL("2") ","
          RESULT("1") "," RESULT("2"),
          USER("\"u\"") ",{\"role\":\"assistant\",\"reasoning\":\"hm\",\"content\":\"so\","
          "\"tool_calls\":[" CHAT_CALL("1") "," CHAT_CALL("2") "]}," CHAT_RESULT("1") ","
          CHAT_RESULT("2"));
    items(USER("\"u\"") "," CALL("1") "," RESULT("1") "," CALL("2") "," RESULT("2"),
          USER("\"u\"") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" CHAT_CALL("1")
          "]}," CHAT_RESULT("1") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
          CHAT_CALL("2") "]}," CHAT_RESULT("2"));
    items(WROTE("a") "," WROTE("b"), MODEL("\"a\"") "," MODEL("\"b\""));
    items(WROTE("a") "," THOUGHT("t") "," WROTE("b"), MODEL("\"a\"")
          ",{\"role\":\"assistant\",\"reasoning\":\"t\",\"content\":\"b\"}");
    items(USER("\"u\"") ",{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[]}", USER("\"u\""));

    items("1", "!input[0]");
    items("{\"type\":1}", "!input[0].type");
    items("{\"type\":\"item_reference\",\"id\":\"x\"}", "!input[0].type");
    items("{}", "!input[0].role");
    items("{\"role\":\"critic\",\"content\":\"x\"}", "!input[0].role");
    items("{\"role\":\"user\"}", "!input[0].content");
    items("{\"role\":\"user\",\"content\":1}", "!input[0].content");
    items("{\"role\":\"user\",\"content\":[1]}", "!input[0].content[0]");
    items("{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}",
          "!input[0].content[0].type");
    items("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\"}]}",
          "!input[0].content[0].text");
    items("{\"role\":\"assistant\"}", "!input[0].content");
    items("{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\"}]}",
          "!input[0].content[0].type");
    items(USER("\"u\"") ",{\"type\":\"function_call\"}", "!input[1].call_id");
    items("{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\",\"arguments\":{}}",
          "!input[0].arguments");
    items("{\"type\":\"function_call_output\",\"output\":\"4\"}", "!input[0].call_id");
    items("{\"type\":\"function_call_output\",\"call_id\":\"1\"}", "!input[0].output");
    items(THOUGHT("a\\u0000b"), "{\"role\":\"assistant\",\"reasoning\":\"a\\u0000b\","
          "\"content\":null}");
}

/* Answers */

static const struct dialect *const d = &dialect_responses;
static const struct out_usage      usage = { .prompt = 12, .cached = 8, .completion = 5,
                                             .reasoning = 2 };

#define USAGE "\"usage\":{\"input_tokens\":12,\"input_tokens_details\":{\"cached_tokens\":8}," \
              "\"output_tokens\":5,\"output_tokens_details\":{\"reasoning_tokens\":2}," \
              "\"total_tokens\":17}}"
#define HEAD(status, details) \
    "{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":9,\"status\":\"" status "\"," \
    "\"error\":null,\"incomplete_details\":" details ",\"model\":\"m\",\"tools\":[]"
#define EVENT(name, n, rest) \
    "event: " name "\ndata: {\"type\":\"" name "\",\"sequence_number\":" n rest "}\n\n"
#define CHARS(s) "{\"type\":\"output_text\",\"text\":\"" s "\",\"annotations\":[],\"logprobs\":[]}"
#define TEXT_ITEM(n, status, parts) \
    "{\"id\":\"msg_1_" n "\",\"type\":\"message\",\"status\":\"" status "\"," \
    "\"role\":\"assistant\",\"content\":[" parts "]}"
#define MIND(s) "{\"type\":\"reasoning_text\",\"text\":\"" s "\"}"
#define MIND_ITEM(n, status, parts) \
    "{\"id\":\"rs_1_" n "\",\"type\":\"reasoning\",\"status\":\"" status "\"," \
    "\"summary\":[],\"content\":[" parts "]}"
#define CALL_ITEM(n, status, args) \
    "{\"id\":\"fc_1_" n "\",\"type\":\"function_call\",\"status\":\"" status "\"," \
    "\"call_id\":\"call_1\",\"name\":\"f\",\"arguments\":\"" args "\"}"

static struct out_id fresh(void)
{
    return (struct out_id) { .id = "resp_1", .chat = true, .model = "m", .created = 9,
                             .echo = SLICE(",\"tools\":[]") };
}

static void delta(struct out_id *id, struct out_choice c, const char *want, const char *what)
{
    d->delta(&b, id, &c, NULL);
    is_str(text(), want, "%s", what);
}

static void stream(void)
{
    struct out_id id = fresh();

    delta(&id, (struct out_choice) { .role = true, .reasoning = SLICE("h\"") },
          EVENT("response.created", "0", ",\"response\":" HEAD("in_progress", "null")
                ",\"output\":[],\"usage\":null}")
          EVENT("response.in_progress", "1", ",\"response\":" HEAD("in_progress", "null")
                ",\"output\":[],\"usage\":null}")
          EVENT("response.output_item.added", "2", ",\"output_index\":0,\"item\":"
                MIND_ITEM("0", "in_progress", ""))
          EVENT("response.content_part.added", "3", ",\"item_id\":\"rs_1_0\",\"output_index\":0,"
                "\"content_index\":0,\"part\":" MIND(""))
          EVENT("response.reasoning_text.delta", "4", ",\"item_id\":\"rs_1_0\",\"output_index\":0,"
                "\"content_index\":0,\"delta\":\"h\\\"\""), "a thought begins");
    delta(&id, (struct out_choice) { .text = SLICE("a") },
          EVENT("response.reasoning_text.done", "5", ",\"item_id\":\"rs_1_0\",\"output_index\":0,"
                "\"content_index\":0,\"text\":\"h\\\"\"")
          EVENT("response.content_part.done", "6", ",\"item_id\":\"rs_1_0\",\"output_index\":0,"
                "\"content_index\":0,\"part\":" MIND("h\\\""))
          EVENT("response.output_item.done", "7", ",\"output_index\":0,\"item\":"
                MIND_ITEM("0", "completed", MIND("h\\\"")))
          EVENT("response.output_item.added", "8", ",\"output_index\":1,\"item\":"
                TEXT_ITEM("1", "in_progress", ""))
          EVENT("response.content_part.added", "9", ",\"item_id\":\"msg_1_1\",\"output_index\":1,"
                "\"content_index\":0,\"part\":" CHARS(""))
          EVENT("response.output_text.delta", "10", ",\"item_id\":\"msg_1_1\",\"output_index\":1,"
                "\"content_index\":0,\"delta\":\"a\",\"logprobs\":[]"), "text closes it");
    delta(&id, (struct out_choice) { .text = SLICE("b") },
          EVENT("response.output_text.delta", "11", ",\"item_id\":\"msg_1_1\",\"output_index\":1,"
                "\"content_index\":0,\"delta\":\"b\",\"logprobs\":[]"), "and goes on");
    delta(&id, (struct out_choice) { .call = { .id = "call_1", .name = SLICE("f") } },
          EVENT("response.output_text.done", "12", ",\"item_id\":\"msg_1_1\",\"output_index\":1,"
                "\"content_index\":0,\"text\":\"ab\",\"logprobs\":[]")
          EVENT("response.content_part.done", "13", ",\"item_id\":\"msg_1_1\",\"output_index\":1,"
                "\"content_index\":0,\"part\":" CHARS("ab"))
          EVENT("response.output_item.done", "14", ",\"output_index\":1,\"item\":"
                TEXT_ITEM("1", "completed", CHARS("ab")))
          EVENT("response.output_item.added", "15", ",\"output_index\":2,\"item\":"
                CALL_ITEM("2", "in_progress", "")), "a call");
    delta(&id, (struct out_choice) { .call = { .args = SLICE("{}") } },
          EVENT("response.function_call_arguments.delta", "16", ",\"item_id\":\"fc_1_2\","
                "\"output_index\":2,\"delta\":\"{}\""), "its arguments");
    delta(&id, (struct out_choice) { .finish = "tool_calls" },
          EVENT("response.function_call_arguments.done", "17", ",\"item_id\":\"fc_1_2\","
                "\"output_index\":2,\"arguments\":\"{}\"")
          EVENT("response.output_item.done", "18", ",\"output_index\":2,\"item\":"
                CALL_ITEM("2", "completed", "{}")), "the end of it");
    d->end(&b, &id, &usage);
    is_str(text(), EVENT("response.completed", "19", ",\"response\":" HEAD("completed", "null")
           ",\"output\":[" MIND_ITEM("0", "completed", MIND("h\\\"")) ","
           TEXT_ITEM("1", "completed", CHARS("ab")) "," CALL_ITEM("2", "completed", "{}") "],"
           USAGE), "the last event has all of it");
    out_close(&id);
}

static void ends(void)
{
    struct out_id id = fresh();

    delta(&id, (struct out_choice) { .finish = "stop" }, "", "an answer of nothing has no item");
    d->end(&b, &id, &usage);
    is_str(text(), EVENT("response.completed", "0", ",\"response\":" HEAD("completed", "null")
           ",\"output\":[]," USAGE), "and is complete");

    api_err_set(&e, 500, "server_error", "internal_error", NULL, "Lost.");
    d->fail(&b, &id, &e);
    is_str(text(), EVENT("error", "1", ",\"code\":\"internal_error\",\"message\":\"Lost.\","
           "\"param\":null,\"error\":{\"message\":\"Lost.\",\"type\":\"server_error\",\"param\":"
           "null,\"code\":\"internal_error\"}"), "an error in mid-stream");
    out_close(&id);
}

static void whole_is(struct out_choice c, const char *want, const char *what)
{
    struct out_id id = fresh();

    d->whole_begin(&b, &id);
    d->whole_choice(&b, &id, &c);
    d->whole_end(&b, &id, &usage);
    is_str(text(), want, "%s", what);
}

static void whole(void)
{
    struct said said = { 0 };

    whole_is((struct out_choice) { .reasoning = SLICE("r"), .text = SLICE("t"), .finish = "stop" },
             HEAD("completed", "null") ",\"output\":[" MIND_ITEM("0", "completed", MIND("r")) ","
             TEXT_ITEM("1", "completed", CHARS("t")) "]," USAGE, "thoughts and text");
    whole_is((struct out_choice) { .text = SLICE("t"), .finish = "length" },
             HEAD("incomplete", "{\"reason\":\"max_output_tokens\"}") ",\"output\":["
             TEXT_ITEM("0", "incomplete", CHARS("t")) "]," USAGE, "text that was cut");
    whole_is((struct out_choice) { .finish = "stop" }, HEAD("completed", "null") ",\"output\":[],"
             USAGE, "nothing at all");

    said_put(&said, SAID_CALL, "f", 1);
    said_put(&said, SAID_ARGS, "{\"x\":1}", 7);
    d->whole_choice(&b, &(struct out_id) { .id = "resp_1", .model = "m" },
                    &(struct out_choice) { .finish = "tool_calls", .said = &said });
    buf_put(&b, "", 1);
    ok(strstr(b.p, "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}]") != NULL, "a call: %s", b.p);
    b.n = 0;
    said_free(&said);

    ok(dialect_of(ASK_RESPONSES) == d && dialect_of(ASK_RESPONSES_COUNT) == d, "of its routes");
}

/* Members at every depth that nobody knows are counted; those of our own answers are known. */
static void unknown(void)
{
    static const struct { const char *json; uint32_t n; } rows[] = {
        { "{\"input\":\"x\"}", 0 }, { "{\"input\":\"x\",\"a\":1,\"b\":null}", 2 },
        { "{\"input\":[{\"type\":\"message\",\"id\":\"m\",\"status\":\"completed\",\"role\":"
          "\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"a\","
          "\"annotations\":[],\"logprobs\":[]}]},"
          "{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[],\"content\":["
          "{\"type\":\"reasoning_text\",\"text\":\"b\"}],\"encrypted_content\":null},{\"type\":"
          "\"function_call\",\"id\":\"f\","
          "\"status\":\"completed\",\"call_id\":\"c\",\"name\":\"f\","
          "\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":"
          "\"d\"}]}", 0 },
        { "{\"input\":[{\"role\":\"user\",\"content\":\"a\",\"new\":1}]}", 1 },
        { "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\","
          "\"new\":1,\"typ\":2}]}]}", 2 },
        { "{\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"defer\":1}],"
          "\"tool_choice\":{\"type\":\"function\",\"name\":\"f\",\"mode\":1}}", 2 },
        { "{\"input\":\"x\",\"reasoning\":{\"effort\":\"low\",\"new\":1}}", 1 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ok(chat_of(ASK_RESPONSES, rows[i].json)[0] == '{', "%s", rows[i].json);
        is_int(n_unknown, rows[i].n, "unknown members");
    }
}

int main(void)
{
    unknown();
    fields();
    tools();
    history();
    stream();
    ends();
    whole();
    buf_free(&b);
    return done_testing();
}
