"""Structured output of the demo checkpoint through nginx: what is asked for comes, streamed and
whole, with thoughts and without, in each API's words; what cannot be enforced is refused.

The model is far too small to write JSON by itself: what is right is right because it had to be."""
import http.client
import json
import os
import random
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
import jsonschema
import shapes
from env import Stack, done, ok, same

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
PERSON = {"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
    "langs": {"type": "array", "items": {"enum": ["c", "perl"]}, "maxItems": 3}},
    "required": ["name", "age", "langs"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
TOOL = {"type": "function", "function": {"name": "put", "strict": True, "parameters": PERSON}}
LOOSE = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}


def post(s, body, uri=CHAT):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=120)
    c.request("POST", uri, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    text = r.read().decode()
    c.close()
    return r.status, text


def special(text):
    with open("models/demo/tokenizer.json") as f:
        return next(t["id"] for t in json.load(f)["added_tokens"] if t["content"] == text)


def chat(s, **body):
    body = {"messages": ASK, "max_tokens": 400, **body}
    status, text = post(s, body)
    assert status == 200, text
    return json.loads(text)["choices"]


def events(text):
    return [json.loads(e[6:]) for e in text.split("\n\n") if e.startswith("data: {")]


def stream(s, uri=CHAT, **body):
    """Choice 0 put together: content, reasoning, calls, finish_reason."""
    status, text = post(s, {"max_tokens": 400, "stream": True, **body}, uri)
    assert status == 200, text
    content, thought, calls, finish = "", "", [], None
    for e in events(text):
        choice = e["choices"][0]
        finish = choice["finish_reason"] or finish
        if uri == TEXT:
            content += choice["text"]
            continue
        content += choice["delta"].get("content") or ""
        thought += choice["delta"].get("reasoning") or ""
        for c in choice["delta"].get("tool_calls", ()):
            if "id" in c:
                calls.append([c["function"]["name"], ""])
            calls[c["index"]][1] += c["function"]["arguments"]
    return content, thought, calls, finish


def answer(s, streamed, **body):
    if streamed:
        return stream(s, **{"messages": ASK, **body})
    c = chat(s, **body)[0]
    m = c["message"]
    return (m["content"] or "", m.get("reasoning") or "",
            [[t["function"]["name"], t["function"]["arguments"]] for t in m.get("tool_calls", ())],
            c["finish_reason"])


def wrong(text, schema):
    """What is wrong with this document, or None."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except ValueError as e:
        return f"{e}: {text!r}"
    except jsonschema.ValidationError as e:
        return f"{e.message}: {text!r}"


def every_schema(s):
    rng = random.Random(20261121)
    jobs = []
    for i, schema in enumerate(shapes.some(rng, 100)):
        for temperature in (0, 1):
            jobs.append((schema, i % 2 == temperature, {
                "temperature": temperature, "seed": i, **(THINK if i % 3 == 0 else {}),
                "thinking_token_budget": 40, "response_format": {
                    "type": "json_schema", "json_schema": {"name": "s", "schema": schema,
                                                           "strict": True}}}))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda j: answer(s, j[1], **j[2]), jobs))
    whole = bad = thoughts = 0
    for (schema, _, body), (text, thought, calls, finish) in zip(jobs, got):
        thoughts += bool(thought)
        if finish == "stop":
            whole += 1
            why = wrong(text, schema)
            if why or calls:
                bad += 1
                print("#", json.dumps(schema), why)
            elif re.search(r"\s\s|[\[{]\s|\n", re.sub(r'"(\\.|[^"\\])*"', "", text)):
                bad += 1
                print("# spaces:", text)
    same(bad, 0, f"{whole} of {len(jobs)} answers ended by themselves, all of them are valid")
    ok(whole > len(jobs) * 0.7, "as most of them do")
    ok(thoughts > 10, f"{thoughts} behind a thought")


def every_form(s):
    """Each field of each API's clients, in a chat and as a completion."""
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    ebnf = 'root ::= "<" word ("," word){0,3} ">"\nword ::= [a-f]{1,4}\n'

    def is_json(t):
        return wrong(t, number) is None

    def is_object(t):
        return isinstance(json.loads(t), dict)

    def is_date(t):
        return re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-\d\d", t)

    def is_word(t):
        return t in ("red", "green", "blue", "été")

    def is_list(t):
        return re.fullmatch("<[a-f]{1,4}(,[a-f]{1,4}){0,3}>", t)

    date, words = r"\d{4}-(0[1-9]|1[0-2])-\d{2}", ["red", "green", "blue", "été"]
    forms = [
        ({"response_format": {"type": "json_object"}}, is_object),
        ({"structured_outputs": {"json": number}}, is_json),
        ({"structured_outputs": {"json": json.dumps(number)}}, is_json),
        ({"structured_outputs": {"json_object": True}}, is_object),
        ({"structured_outputs": {"regex": date}}, is_date),
        ({"structured_outputs": {"choice": words}}, is_word),
        ({"structured_outputs": {"grammar": ebnf}}, is_list),
        ({"guided_json": number}, is_json), ({"guided_regex": date}, is_date),
        ({"guided_choice": words}, is_word), ({"guided_grammar": ebnf}, is_list),
        ({"json_schema": number}, is_json), ({"json_schema": json.dumps(number)}, is_json),
        ({"grammar": ebnf}, is_list), ({"regex": date}, is_date), ({"ebnf": ebnf}, is_list),
    ]
    for fields, right in forms:
        name = json.dumps(fields)[:70]
        n = bad = 0
        for seed in range(4):
            more = {"temperature": seed % 2, "seed": seed, "max_tokens": 300, **fields}
            if seed < 2:
                text, _, _, finish = stream(s, TEXT, prompt="The sea", **more)
            else:
                text, _, _, finish = answer(s, seed == 2, **more)
            n += finish == "stop"
            if finish == "stop" and not right(text):
                bad += 1
                print("#", name, repr(text))
        ok(bad == 0 and n > 0, f"{name}: {n} of 4 answers, all right")

    text = chat(s, structured_outputs={"json": PERSON, "disable_any_whitespace": True},
                temperature=1, seed=3)[0]["message"]["content"]
    ok(" " not in re.sub(r'"(\\.|[^"\\])*"', "", text), f"disable_any_whitespace: {text!r}")


def beside(s):
    """With other fields."""
    c = chat(s, response_format=FORMAT, n=3, temperature=1, seed=1)
    whole = [x["message"]["content"] for x in c if x["finish_reason"] == "stop"]
    same([wrong(t, PERSON) for t in whole], [None] * len(whole), f"n = 3: {whole}")
    ok(len({x["message"]["content"] for x in c}) > 1, "each with a grammar of its own")

    c = chat(s, response_format=FORMAT, logprobs=True, top_logprobs=3, temperature=0)[0]
    lp = c["logprobs"]["content"]
    same(b"".join(bytes(t["bytes"]) for t in lp).decode(), c["message"]["content"],
         "logprobs are those of the tokens that came")
    ok(any(t["logprob"] < t["top_logprobs"][0]["logprob"] for t in lp),
       "of the model's own logits: it would have said something else")

    text, _, _, finish = stream(s, messages=ASK, response_format=FORMAT, max_tokens=6)
    ok(finish == "length" and wrong(text, PERSON) and text.startswith('{"name":'),
       f"cut by max_tokens: {finish}, {text!r}")
    c = chat(s, guided_choice=["abcdef"], min_tokens=50)[0]
    same((c["message"]["content"], c["finish_reason"]), ("abcdef", "stop"),
         "min_tokens: where nothing can follow it ends")
    c = chat(s, regex="[a-z]+", min_tokens=20, max_tokens=21, temperature=1, seed=1)[0]
    ok(re.fullmatch("[a-z]{20,}", c["message"]["content"]), "where more can follow it goes on")
    c = chat(s, guided_choice=["one two three"], stop=["two"])[0]
    same((c["message"]["content"], c["finish_reason"]), ("one ", "stop"), "stop strings stop")
    c = chat(s, regex="x+", allowed_token_ids=[300], max_tokens=9)[0]
    same((c["message"]["content"], c["finish_reason"]), ("", "length"),
         "allowed_token_ids that fit nothing end it, and it is not called whole")
    same(chat(s, regex="[0-9]{3}", bad_words=["1"], temperature=0)[0]["finish_reason"], "stop",
         "bad_words")

    m = chat(s, guided_choice=["done"], **THINK, thinking_token_budget=3, temperature=0)[0]["message"]
    same(m["content"], "done", f"behind a thought of a budget: {m['reasoning']!r}")
    seen = [answer(s, True, guided_choice=["no", "yes"], **THINK, temperature=1, seed=i,
                   max_tokens=900) for i in range(8)]
    same([c for c, _, _, f in seen if f == "stop" and c not in ("yes", "no")], [],
         f"behind thoughts of any length: {sum(bool(t) for _, t, _, _ in seen)} of 8 thought")
    m = [{"role": "assistant", "content": "It is "}]
    c, _, _, finish = answer(s, False, messages=ASK + m, continue_final_message=True, regex="a|b")
    ok(c in ("a", "b") and finish == "stop", f"a message that goes on: {c!r}")


def calls(s):
    """Tools beside a format, strict ones, and both by force."""
    both = {"tools": [LOOSE], "response_format": FORMAT}
    kinds = set()
    for seed in range(12):
        likes = {"logit_bias": {str(special("<|tool_call>")): -100 * (seed % 3 == 0)}}
        text, _, called, finish = answer(s, seed % 2 == 0, **both, temperature=1.5, seed=seed,
                                         **likes)
        if finish == "length":
            continue
        kinds.add(finish)
        right = wrong(text, PERSON) is None if finish == "stop" else \
            text == "" and {n for n, _ in called} == {"get_weather"} and \
            all(isinstance(json.loads(a), dict) for _, a in called)
        ok(right, f"a document or calls: {finish} {text!r} {called}")
    same(kinds, {"stop", "tool_calls"}, "either of them")
    m = chat(s, **both, tool_choice="none", temperature=0)[0]
    same((wrong(m["message"]["content"], PERSON), m["finish_reason"]), (None, "stop"),
         "tool_choice none: the document")
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        _, _, called, finish = answer(s, False, **both, tool_choice=choice, temperature=0)
        same((finish, called[0][0]), ("tool_calls", "get_weather"), f"{choice} goes before a format")

    n = bad = 0
    for choice in ("required", {"type": "function", "function": {"name": "put"}}):
        for seed in range(10):
            more = THINK if seed % 3 == 0 else {}
            text, _, called, finish = answer(s, seed % 2 == 0, tools=[TOOL, LOOSE], **more,
                                             tool_choice=choice, temperature=1, seed=seed,
                                             thinking_token_budget=20, max_tokens=600)
            if finish != "tool_calls":
                continue
            n += 1
            for name, args in called:
                why = wrong(args, PERSON) if name == "put" else None
                if why or text:
                    bad += 1
                    print("#", why, text)
    ok(bad == 0 and n >= 10, f"strict tools by force: {n} answers, all arguments valid")
    _, _, called, finish = answer(s, False, tools=[TOOL], tool_choice="required", temperature=0,
                                  parallel_tool_calls=False)
    same((len(called), finish, wrong(called[0][1], PERSON)), (1, "tool_calls", None),
         "one call where one is asked for")
    strict = {**LOOSE, "function": {**LOOSE["function"], "strict": True, "parameters": {
        **LOOSE["function"]["parameters"], "required": ["city"], "additionalProperties": False}}}
    _, _, called, finish = answer(s, True, tools=[strict], temperature=0)
    same((finish, called[0][0], json.loads(called[0][1])),
         ("tool_calls", "get_weather", {"city": "Paris"}), "a strict tool that the model may choose")
    text, _, called, finish = answer(s, True, tools=[strict], temperature=0, messages=[
        {"role": "user", "content": "Hello!"}])
    ok(finish == "stop" and text and not called, f"or not: {text!r}")


def together(s):
    """32 at a time, each as it is alone: grammars of the same source are shared."""
    def job(i):
        form = [{"response_format": FORMAT}, {"regex": "[a-c]{5,40}"}, {},
                {"guided_choice": ["red", "green"]}, {"tools": [TOOL], "tool_choice": "required"},
                {"json_schema": shapes.some(random.Random(i), 1)[0]},
                {"tools": [LOOSE], "response_format": {"type": "json_object"}}, THINK][i % 8]
        return answer(s, i % 3 == 0, temperature=0, max_tokens=150, **form,
                      messages=[{"role": "user", "content": f"Tell me of {i}."}] if i % 2 else ASK)

    alone = [job(i) for i in range(32)]
    hits, misses = (s.metric(f"inferd_grammar_cache_{k}_total") for k in ("hits", "misses"))
    with ThreadPoolExecutor(32) as pool:
        at_once = list(pool.map(job, range(32)))
    same([a == b for a, b in zip(alone, at_once)], [True] * 32, "32 at once, each as alone")
    same(s.metric("inferd_grammar_cache_misses_total"), misses, "nothing was compiled again")
    ok(s.metric("inferd_grammar_cache_hits_total") >= hits + 24, "it was all there")


def refusals(s):
    def no(want, what, uri=CHAT, **body):
        status, text = post(s, {"messages": ASK, "max_tokens": 5, **body}, uri)
        e = json.loads(text).get("error", {})
        same((status, e.get("code"), e.get("param")), (400, *want), f"{what}: {e.get('message')}")

    def schema(js):
        return {"type": "json_schema", "json_schema": {"name": "x", "schema": js}}

    where = ("invalid_value", "response_format.json_schema.schema")
    no(where, "not", response_format=schema({"not": {"type": "null"}}))
    no(where, "a remote $ref", response_format=schema({"$ref": "http://example.org/x"}))
    no(where, "a $ref to nothing", response_format=schema({"$ref": "#/$defs/x"}))
    no(where, "a back reference", response_format=schema({"type": "string", "pattern": "(a)\\1"}))
    no(("invalid_value", "structured_outputs.regex"), "a broken expression",
       structured_outputs={"regex": "a("})
    no(("invalid_value", "regex"), "one that is too large", regex="(.{1000}x){1000}" * 9)
    no(("invalid_value", "grammar"), "left recursion", grammar='root ::= root "a" | "b"')
    no(("invalid_value", "ebnf"), "no root", ebnf='start ::= "a"')
    no(("invalid_value", "guided_json"), "a text that is no JSON", guided_json="{")
    no(("invalid_value", "guided_choice"), "no choice", guided_choice=[])
    no(("unsupported_parameter", "structured_outputs.structural_tag"), "structural_tag",
       structured_outputs={"structural_tag": "{}"})
    no(("invalid_value", "regex"), "two of them", response_format={"type": "json_object"}, regex="a")
    no(("invalid_value", "ignore_eos"), "ignore_eos", regex="a", ignore_eos=True)
    no(("missing_required_parameter", "response_format.json_schema.name"), "no name",
       response_format={"type": "json_schema", "json_schema": {"schema": {}}})
    for par in ({"type": "string"}, {"type": "object", "not": {}}):
        bad = {"type": "function", "function": {"name": "b", "strict": True, "parameters": par}}
        no(("invalid_value", "tools[1].function.parameters"), f"a strict tool of {par}",
           tools=[LOOSE, bad])
    loose = {"type": "function", "function": {"name": "b", "parameters": {"not": {}}}}
    same(chat(s, tools=[loose], max_tokens=1)[0]["finish_reason"], "length",
         "a schema that nothing is held to may say anything")
    no(("invalid_value", "text.format.schema"), "the same in /v1/responses", "/v1/responses",
       messages=None, max_tokens=None, input="hi", text={"format": {
           "type": "json_schema", "name": "x", "schema": {"not": {}}}})
    status, text = post(s, {"messages": ASK, "max_tokens": 9, "output_config": {"format": {
        "type": "json_schema", "schema": {"not": {}}}}}, "/v1/messages")
    ok(status == 400 and "output_config.format.schema" in text, f"and in /v1/messages: {text}")
    ok(s.metric("inferd_grammars_refused_total") > 8, "refusals are counted")
    same(answer(s, False, guided_choice=["fine"])[0], "fine", "and the next one is served")


def leaving(s):
    """Clients that go away in the middle."""
    for i in range(12):
        body = json.dumps({"messages": ASK, "stream": True, "max_tokens": 2000, "temperature": 1,
                           "seed": i, "regex": f"[a-z ]{{{100 + i},4000}}"}).encode()
        with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
            c.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
            if i % 3:
                c.recv(200)
    end = shapes.wait(lambda: s.metric("vllm:num_requests_running") == 0
                      and s.metric("inferd_streams") <= 1)
    ok(end, "nothing of them is left")
    same(answer(s, True, guided_choice=["still here"])[0], "still here", "the next one is served")


def counted(s):
    for kind in ("json_schema", "json_object", "regex", "choice", "grammar", "tools"):
        n = s.metric(f'inferd_guided_requests_total{{kind="{kind}"}}')
        ok(n > 0, f"{kind}: {n:.0f} requests")
    ok(s.metric("inferd_grammar_compile_seconds_sum") > 0
       and s.metric("inferd_grammar_compile_seconds_count") > 100, "compiling is timed")
    ok(0 < s.metric("inferd_grammar_cache_bytes") <= 256 << 20, "the cache is bounded")


if __name__ == "__main__":
    with Stack() as s:
        every_schema(s)
        every_form(s)
        beside(s)
        calls(s)
        together(s)
        refusals(s)
        leaving(s)
        counted(s)
    done()
