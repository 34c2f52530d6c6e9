/* api_out.c - the bytes of errors, chunks and whole answers. */
#include "dialect.h"
#include "tap.h"

static struct out_id chat = {
    .id = "chatcmpl-7f3", .chat = true, .model = "gemma-4", .fingerprint = "fp_1",
    .created = 1790000000, .include_usage = true,
};

#define HEAD "data: {\"id\":\"chatcmpl-7f3\",\"object\":\"chat.completion.chunk\"," \
             "\"created\":1790000000,\"model\":\"gemma-4\",\"system_fingerprint\":\"fp_1\"," \
             "\"choices\":["
#define USAGE "{\"prompt_tokens\":12,\"completion_tokens\":9,\"total_tokens\":21," \
              "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}," \
              "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0," \
              "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"

static struct buf b;
static const struct dialect *d = &dialect_chat;

static const char *text(void)
{
    buf_put(&b, "", 1);
    b.n = 0;
    return b.p;
}

static void stream(void)
{
    struct out_usage  u = { .prompt = 12, .completion = 9 };
    struct out_choice c = { .role = true, .text = SLICE("Hel"), .stop_id = -1 };

    d->delta(&b, &chat, &c, NULL);
    is_str(text(), HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"},"
           "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n", "the first chunk");

    c = (struct out_choice) { .text = SLICE("l\"o\n"), .stop_id = -1 };
    chat.include_usage = false;
    d->delta(&b, &chat, &c, NULL);
    chat.include_usage = true;
    is_str(text(), HEAD "{\"index\":0,\"delta\":{\"content\":\"l\\\"o\\n\"},"
           "\"logprobs\":null,\"finish_reason\":null}]}\n\n", "a chunk, no usage asked");

    c = (struct out_choice) { .index = 1, .role = true, .reasoning = SLICE("hm"), .stop_id = -1 };
    d->delta(&b, &chat, &c, NULL);
    is_str(text(), HEAD "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"reasoning\":\"hm\","
           "\"reasoning_content\":\"hm\"},\"logprobs\":null,\"finish_reason\":null}],"
           "\"usage\":null}\n\n", "reasoning under both names");

    c = (struct out_choice) { .finish = "stop", .stop_id = 106 };
    d->delta(&b, &chat, &c, NULL);
    is_str(text(), HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\","
           "\"stop_reason\":106}],\"usage\":null}\n\n", "the last chunk of a choice");

    d->end(&b, &chat, &u);
    is_str(text(), HEAD "],\"usage\":" USAGE "}\n\ndata: [DONE]\n\n", "the end, with usage");
    chat.include_usage = false;
    d->end(&b, &chat, &u);
    is_str(text(), "data: [DONE]\n\n", "the end, without");
}

static void calls(void)
{
    struct said       said = { .id_key = { 1, 2 } };
    struct out_choice c = { .role = true, .stop_id = -1,
                            .call = { .id = "call_x", .name = SLICE("f") } };
    struct out_id     id = chat;

    id.include_usage = false;
    d->delta(&b, &id, &c, NULL);
    is_str(text(), HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,"
           "\"tool_calls\":[{\"index\":0,\"id\":\"call_x\",\"type\":\"function\","
           "\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]},"
           "\"logprobs\":null,\"finish_reason\":null}]}\n\n", "a call begins");

    c = (struct out_choice) { .stop_id = -1, .call = { .index = 1, .id = "call_x",
                                                       .args = SLICE("{\"x\":") } };
    d->delta(&b, &id, &c, NULL);
    is_str(text(), HEAD "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":"
           "{\"arguments\":\"{\\\"x\\\":\"}}]},"
           "\"logprobs\":null,\"finish_reason\":null}]}\n\n", "more of its arguments");

    said_put(&said, SAID_CALL, "f", 1);
    said_put(&said, SAID_ARGS, "{}", 2);
    said_put(&said, SAID_CALL, "g", 1);
    c = (struct out_choice) { .stop_id = -1, .said = &said, .finish = "tool_calls" };
    d->whole_choice(&b, &id, &c);
    ok(strstr(text(), "\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"call_") != NULL
       && strstr(b.p, "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"call_") != NULL
       && strstr(b.p, "{\"name\":\"g\",\"arguments\":\"\"}}]},\"logprobs\":null,"
                 "\"finish_reason\":\"tool_calls\"") != NULL, "whole calls: %s", b.p);
    said_free(&said);
}

static void errors(void)
{
    struct api_err e;

    api_err_400(&e, "invalid_value", "top_p", "'%s' is \"wrong\".", "top_p");
    is_int(d->error(&b, &e, "r"), 400, "its status");
    is_str(text(), "{\"error\":{\"message\":\"'top_p' is \\\"wrong\\\".\",\"type\":"
           "\"invalid_request_error\",\"param\":\"top_p\",\"code\":\"invalid_value\"}}",
           "an error");

    api_err_set(&e, 500, "server_error", NULL, NULL, "x");
    d->fail(&b, &chat, &e);
    is_str(text(), "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,"
           "\"code\":null}}\n\ndata: [DONE]\n\n", "an error in mid-stream");
}

static void whole(void)
{
    struct out_usage  u = { .prompt = 12, .completion = 9 };
    struct out_choice c = { .reasoning = SLICE("r"), .finish = "length", .stop_id = -1 };
    struct out_id     id = chat;

    d->whole_begin(&b, &id);
    d->whole_choice(&b, &id, &c);
    d->whole_end(&b, &id, &u);
    is_str(text(), "{\"id\":\"chatcmpl-7f3\",\"object\":\"chat.completion\","
           "\"created\":1790000000,\"model\":\"gemma-4\",\"system_fingerprint\":\"fp_1\","
           "\"choices\":[{\"index\":0,"
           "\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
           "\"reasoning\":\"r\",\"reasoning_content\":\"r\"},\"logprobs\":null,"
           "\"finish_reason\":\"length\",\"stop_reason\":null}],\"usage\":" USAGE "}",
           "thoughts only: content is null");

    id.chat = false;
    c = (struct out_choice) { .text = SLICE("t"), .finish = "stop", .stop_id = -1,
                              .stop_str = SLICE("END") };
    d->whole_begin(&b, &id);
    d->whole_choice(&b, &id, &c);
    d->whole_end(&b, &id, &u);
    ok(strstr(text(), "\"object\":\"text_completion\"") != NULL
       && strstr(b.p, "\"choices\":[{\"index\":0,\"text\":\"t\",\"logprobs\":null,"
                 "\"finish_reason\":\"stop\",\"stop_reason\":\"END\"}]") != NULL,
       "a completion ended by a stop string");
}

int main(void)
{
    stream();
    calls();
    errors();
    whole();
    buf_free(&b);
    return done_testing();
}
