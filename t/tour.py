#!/usr/bin/env python3
"""The official clients of OpenAI and Anthropic, as they come, through every endpoint: whole and
streamed, tools and thoughts both ways, and the errors as the exceptions that the clients know."""
import json
import os
import sys

import anthropic
import openai

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import Stack, done, ok, same  # noqa: E402

ASK = "Hello! What is inferd?"
SAYS = "inferd is an engine"
USER = [{"role": "user", "content": ASK}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
KEYS = "sk-tour-client-1 tour\nsk-tour-operator ops admin\n"


def fails(kind, status, call, name):
    try:
        call()
    except kind as e:
        return ok(e.status_code == status, f"{name}: {kind.__name__} {status}") and e
    except Exception as e:      # noqa: BLE001 - any other one is the failure
        print(f"# {type(e).__name__}: {e}")
    return ok(False, f"{name}: {kind.__name__} {status}") and None


def chat(c):
    r = c.chat.completions.create(model="demo", messages=USER, max_tokens=40, temperature=0)
    ok(r.choices[0].message.content.startswith(SAYS), "chat: a whole answer")
    same((r.object, r.model, r.choices[0].finish_reason in ("stop", "length")),
         ("chat.completion", "demo", True), "its shape")
    u = r.usage
    ok(u.total_tokens == u.prompt_tokens + u.completion_tokens > 0, "its usage")

    text, usage, ids = "", None, set()
    for k in c.chat.completions.create(model="demo", messages=USER, max_tokens=40, temperature=0,
                                       stream=True, stream_options={"include_usage": True}):
        ids.add(k.id)
        usage = k.usage or usage
        text += "".join(x.delta.content or "" for x in k.choices)
    same(text, r.choices[0].message.content, "streamed: the same text")
    same((len(ids), usage.completion_tokens), (1, u.completion_tokens), "one id, and the usage")

    with c.chat.completions.stream(model="demo", messages=USER, max_tokens=40,
                                   temperature=0) as s:
        same(s.get_final_completion().choices[0].message.content, text, "by the stream helper")

    r = c.chat.completions.create(model="demo", messages=USER, n=3, max_tokens=8, seed=7)
    same([x.index for x in r.choices], [0, 1, 2], "three answers")
    r = c.chat.completions.create(model="demo", messages=USER, max_tokens=200, temperature=0,
                                  reasoning_effort="high")
    m = r.choices[0].message
    ok(m.reasoning_content and SAYS in m.content, "thoughts beside the content")
    ok(r.usage.completion_tokens_details.reasoning_tokens > 0, "which are counted")


def chat_tools(c):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    ask = {"model": "demo", "messages": [{"role": "user", "content": "Weather in Oslo?"}],
           "tools": [tool], "temperature": 0, "max_tokens": 100}

    r = c.chat.completions.create(tool_choice="required", **ask)
    calls = r.choices[0].message.tool_calls
    ok(calls and calls[0].function.name == "get_weather", "a call of the only tool")
    ok(isinstance(json.loads(calls[0].function.arguments), dict), "with arguments in JSON")
    same(r.choices[0].finish_reason, "tool_calls", "is what ended the answer")

    with c.chat.completions.stream(tool_choice="required", **ask) as s:
        streamed = s.get_final_completion().choices[0].message.tool_calls
    same([x.function.arguments for x in streamed], [x.function.arguments for x in calls],
         "streamed: the same call")

    back = ask["messages"] + [r.choices[0].message,
                              {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    r = c.chat.completions.create(**{**ask, "messages": back})
    ok(r.choices[0].message.content is not None or r.choices[0].message.tool_calls,
       "its result is taken back")


def completions(c):
    r = c.completions.create(model="demo", prompt="The sea", max_tokens=8, temperature=0)
    same((r.object, r.choices[0].finish_reason), ("text_completion", "length"), "completions")
    text = "".join(k.choices[0].text for k in c.completions.create(
        model="demo", prompt="The sea", max_tokens=8, temperature=0, stream=True))
    same(text, r.choices[0].text, "streamed: the same text")
    r = c.completions.create(model="demo", prompt=["a", "b"], max_tokens=2, echo=True)
    same([x.text[0] for x in r.choices], ["a", "b"], "two prompts, echoed")


def responses(c):
    ask = {"model": "demo", "input": ASK, "temperature": 0, "max_output_tokens": 200}
    r = c.responses.create(**ask)
    ok(r.output_text.startswith(SAYS) and r.status == "completed", "responses: a whole answer")
    ok(r.usage.total_tokens == r.usage.input_tokens + r.usage.output_tokens, "its usage")

    with c.responses.stream(reasoning={"effort": "high"}, **ask) as s:
        kinds, seq = [], []
        for e in s:
            kinds.append(e.type)
            seq.append(e.sequence_number)
        final = s.get_final_response()
    same([x.type for x in final.output], ["reasoning", "message"], "streamed: thoughts, then text")
    same((kinds[0], kinds[-1]), ("response.created", "response.completed"), "first and last event")
    same(seq, list(range(len(seq))), "numbered without a gap")
    ok("response.reasoning_text.delta" in kinds and "response.output_text.delta" in kinds,
       "with both kinds of deltas")

    r = c.responses.input_tokens.count(model="demo", input=ASK, reasoning={"effort": "high"})
    same((r.object, r.input_tokens), ("response.input_tokens", final.usage.input_tokens),
         "input_tokens: what it costs")
    for more in ({"summary": "detailed"}, {"summary": None}, {"generate_summary": "auto"}):
        r = c.responses.create(reasoning={"effort": "low", **more}, **ask)
        same((r.output[0].summary, r.reasoning.summary), ([], more.get("summary")),
             f"{more}: thoughts, and no summary of them")

    r = c.responses.create(**{**ask, "max_output_tokens": 2})
    same((r.status, r.incomplete_details.reason), ("incomplete", "max_output_tokens"), "cut short")

    tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
    first = {"role": "user", "content": "Weather in Oslo?"}
    r = c.responses.create(**{**ask, "input": [first]}, tools=[tool], tool_choice="required")
    call = r.output[-1]
    same((call.type, call.name), ("function_call", "get_weather"), "a call")
    r = c.responses.create(**{**ask, "input": [first, *r.output, {
        "type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]}, tools=[tool])
    same(r.status, "completed", "its result is taken back, beside the items as they came")

    e = fails(openai.BadRequestError, 400, lambda: c.responses.create(
        **ask, previous_response_id="resp_1"), "nothing is stored")
    same(e and e.param, "previous_response_id", "and the field is named")


def messages(c):
    ask = {"model": "demo", "messages": USER, "max_tokens": 200, "extra_body": {"temperature": 0}}
    r = c.messages.create(**ask)
    ok(r.content[0].text.startswith(SAYS), "messages: a whole answer")
    same((r.role, r.stop_reason), ("assistant", "end_turn"), "its end")
    same(r.id, "msg_" + r._request_id, "the client knows the request's id")
    with c.messages.stream(**ask) as s:
        same("".join(s.text_stream), r.content[0].text, "streamed: the same text")
        m = s.get_final_message()
    same((m.stop_reason, m.usage.output_tokens), ("end_turn", r.usage.output_tokens), "its end")

    r = c.messages.create(thinking={"type": "enabled", "budget_tokens": 2}, **ask)
    short = r.content[0].thinking
    r = c.messages.create(thinking={"type": "enabled", "budget_tokens": 100}, **ask)
    ok(0 < len(short) < len(r.content[0].thinking), "a budget ends the thoughts")
    r = c.messages.create(thinking={"type": "adaptive"}, **ask)
    same([b.type for b in r.content], ["thinking", "text"], "thoughts are a block of their own")
    with c.messages.stream(thinking={"type": "adaptive"}, output_config={"effort": "high"},
                           **ask) as s:
        m = s.get_final_message()
    same([b.type for b in m.content], ["thinking", "text"], "streamed too")
    ok(m.content[0].signature, "with a signature")
    r = c.messages.create(**{**ask, "messages": USER + [
        {"role": "assistant", "content": m.content}, {"role": "user", "content": "Go on."}]})
    ok(r.content, "they can be sent back")

    r = c.messages.create(stop_sequences=["engine"], system="Be brief.", **ask)
    ok(r.stop_reason in ("stop_sequence", "end_turn"), "stop sequences, a system prompt")
    r = c.messages.create(**ask)
    same(c.messages.count_tokens(model="demo", messages=USER).input_tokens,
         r.usage.input_tokens + r.usage.cache_read_input_tokens, "count_tokens: what it costs")

    tool = {"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}
    first = {"role": "user", "content": "Weather in Oslo?"}
    call = {**ask, "messages": [first], "tools": [tool], "tool_choice": {"type": "any"}}
    r = c.messages.create(**call)
    use = r.content[-1]
    same((use.type, use.name, r.stop_reason), ("tool_use", "get_weather", "tool_use"), "a call")
    ok(isinstance(use.input, dict), "whose input is an object")
    with c.messages.stream(**call) as s:
        same(s.get_final_message().content[-1].input, use.input, "streamed: the same input")
    r = c.messages.create(**{**ask, "tools": [tool], "messages": [
        first, {"role": "assistant", "content": r.content}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}]})
    ok(r.stop_reason, "its result is taken back")


def models(c, a):
    same([m.id for m in c.models.list()], ["demo", "tour"], "the models, an alias too")
    same(c.models.retrieve("tour").id, "tour", "one of them")
    fails(openai.NotFoundError, 404, lambda: c.models.retrieve("gpt"), "no other")
    r = c.chat.completions.create(model="tour", messages=USER, max_tokens=1)
    same(r.model, "tour", "an alias is told back")
    same(a.messages.create(model="tour", messages=USER, max_tokens=1).model, "tour", "there too")


def errors(s, c, a):
    ask = {"model": "demo", "messages": USER, "max_tokens": 5}
    wrong = openai.OpenAI(base_url=s.url + "/v1", api_key="sk-wrong-key", max_retries=0)
    e = fails(openai.AuthenticationError, 401,
              lambda: wrong.chat.completions.create(**ask), "a wrong key")
    same(e and e.code, "invalid_api_key", "its code")
    wrong = anthropic.Anthropic(base_url=s.url, api_key="sk-wrong-key", max_retries=0)
    fails(anthropic.AuthenticationError, 401, lambda: wrong.messages.create(**ask), "Anthropic's")

    e = fails(openai.BadRequestError, 400, lambda: c.chat.completions.create(
        **{**ask, "temperature": 3}), "a bad value")
    same(e and e.param, "temperature", "its field")
    fails(openai.NotFoundError, 404, lambda: c.chat.completions.create(
        **{**ask, "model": "gpt"}), "an unknown model")
    e = fails(openai.BadRequestError, 400, lambda: c.chat.completions.create(
        **{**ask, "max_tokens": 100000}), "too long an answer")
    same(e and e.code, "context_length_exceeded", "its code")
    e = fails(openai.BadRequestError, 400, lambda: c.responses.create(
        model="demo", input="x", max_output_tokens=100000), "there too")
    same(e and e.param, "max_output_tokens", "under its own name")

    e = fails(anthropic.BadRequestError, 400, lambda: a.messages.create(
        **ask, extra_body={"temperature": 1.5}), "Anthropic's bounds")
    same(e and e.body["error"]["type"], "invalid_request_error", "its type")
    same(e and e.request_id, e and e.body["request_id"], "the request's id, by header and body")
    fails(anthropic.NotFoundError, 404, lambda: a.messages.create(
        **{**ask, "model": "claude"}), "an unknown model")
    fails(openai.PermissionDeniedError, 403, lambda: c.post(
        s.url + "/admin/drain", cast_to=object), "no client drains us")


def main():
    keys = os.path.join("build", "t", "tour.keys")
    with open(keys, "w") as f:
        f.write(KEYS)
    with Stack(serve_args=["--api-key-file", keys, "--served-model-name", "tour"]) as s:
        c = openai.OpenAI(base_url=s.url + "/v1", api_key="sk-tour-client-1", max_retries=0)
        a = anthropic.Anthropic(base_url=s.url, api_key="sk-tour-client-1", max_retries=0)
        chat(c)
        chat_tools(c)
        completions(c)
        responses(c)
        messages(a)
        models(c, a)
        errors(s, c, a)
    os.unlink(keys)
    done()


main()
