"""Tool calls of the demo checkpoint through nginx: streamed and whole, by choice and by force.

The prompts are those of tools/demo/toolbox.py, which the demo was trained on the like of."""
import http.client
import json
import os
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(__file__)
sys.path[:0] = [os.path.join(HERE, "helpers"), os.path.join(HERE, "../tools/demo")]
from env import LIMIT, Stack, done, ok, same

import openai
import toolbox

N = 200


def tool(name, props=None, **more):
    fn = {"name": name, **more}
    if props is not None:
        fn["parameters"] = {"type": "object", "properties": props}
    return {"type": "function", "function": fn}


CITY = {"city": {"type": "string", "description": "City name"}}
WEATHER = tool("get_weather", CITY, description="Get the weather.")
TIME = tool("get_time", CITY, description="Current time")
ADD = tool("add", {"a": {"type": "integer"}, "b": {"type": "integer"}}, description="Add.")
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
CALL = ("get_weather", {"city": "Paris"})


def post(port, body, uri="/v1/chat/completions"):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    c.request("POST", uri, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    return r.status, r.read().decode()


def chat(s, **body):
    body = {"messages": ASK, "tools": [WEATHER, ADD], "temperature": 0, "max_tokens": 120, **body}
    status, text = post(s.port, body)
    return json.loads(text) if status == 200 else (status, json.loads(text)["error"]["code"],
                                                   json.loads(text)["error"]["param"])


def stream(s, **body):
    """Choice 0 put together again: (message, finish_reason, deltas)."""
    body = {"messages": ASK, "tools": [WEATHER, ADD], "temperature": 0, "max_tokens": 120,
            "stream": True, **body}
    events = [e[6:] for e in post(s.port, body)[1].split("\n\n")[:-1]]
    assert events[-1] == "[DONE]"
    deltas, message, finish = [], {"content": "", "reasoning": "", "tool_calls": []}, None
    for e in map(json.loads, events[:-1]):
        choice = e["choices"][0]
        delta = choice["delta"]
        deltas.append(delta)
        finish = choice["finish_reason"] or finish
        for k in ("content", "reasoning"):
            message[k] += delta.get(k) or ""
        for c in delta.get("tool_calls", ()):
            if "id" in c:
                assert c["index"] == len(message["tool_calls"])
                message["tool_calls"].append({**c, "function": dict(c["function"])})
            else:
                message["tool_calls"][c["index"]]["function"]["arguments"] += \
                    c["function"]["arguments"]
    return message, finish, deltas


def calls(message):
    return [(c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls") or ()]


def one(answer):
    c = answer["choices"][0]
    return c["message"], c["finish_reason"]


def arguments_alone(deltas):
    return all(set(d) == {"tool_calls"} and list(d["tool_calls"][0]) == ["index", "function"]
               and list(d["tool_calls"][0]["function"]) == ["arguments"] for d in deltas)


def in_pieces(s):
    """A busy machine may send all tokens at once: one stream of a hundred must be seen in parts."""
    for _ in range(100):
        rest = stream(s)[2][1:-1]
        if not arguments_alone(rest):
            return False
        if len(rest) > 2:
            return True
    return False


def shapes(s):
    m, fin = one(chat(s))
    same((calls(m), fin, m["content"]), ([CALL], "tool_calls", None), "a whole answer")
    same(set(m["tool_calls"][0]), {"id", "type", "function"}, "its call has three members")
    ok(re.fullmatch("call_[0-9a-zA-Z]{24}", m["tool_calls"][0]["id"]), "and an id")

    m, fin, deltas = stream(s)
    same((calls(m), fin, m["content"]), ([CALL], "tool_calls", ""), "a streamed one")
    first, rest = deltas[0], deltas[1:-1]
    same((first["role"], first["content"], first["tool_calls"][0]["function"]),
         ("assistant", None, {"name": "get_weather", "arguments": ""}), "begins with the name")
    ok(rest and arguments_alone(rest), "then come arguments alone")
    same(deltas[-1], {}, "and nothing with the end")

    ids = [c["message"]["tool_calls"][0]["id"] for c in chat(s, n=3)["choices"]]
    same(len(set(ids)), 3, "every choice has ids of its own")

    two = [{"role": "user", "content": "What is the weather in Paris and Rome?"}]
    m, fin = one(chat(s, messages=two))
    same((calls(m), fin), ([CALL, ("get_weather", {"city": "Rome"})], "tool_calls"), "two calls")
    m, fin, deltas = stream(s, messages=two)
    same([c["index"] for d in deltas for c in d.get("tool_calls", ()) if "id" in c], [0, 1],
         "are numbered in a stream")
    ok(in_pieces(s), "arguments come in pieces")
    for f in (lambda **k: one(chat(s, **k)), lambda **k: stream(s, **k)[:2]):
        m, fin = f(messages=two, parallel_tool_calls=False)
        same((calls(m), fin), ([CALL], "tool_calls"), "parallel_tool_calls: false ends with one")
    u = chat(s, messages=two, parallel_tool_calls=False)["usage"]["completion_tokens"]
    ok(u < chat(s, messages=two)["usage"]["completion_tokens"], f"and costs no more: {u} tokens")


def choices(s):
    m, fin = one(chat(s, tool_choice="none"))
    same((m.get("tool_calls"), fin), (None, "stop"), "none")
    bare = chat(s, tools=None)["usage"]["prompt_tokens"]
    same(chat(s, tool_choice="none")["usage"]["prompt_tokens"], bare, "leaves them out of the prompt")
    same(chat(s, tools=[])["usage"]["prompt_tokens"], bare, "as no tools at all")
    m, fin = one(chat(s, tool_choice="auto", messages=[{"role": "user", "content": "Hello!"}]))
    ok(fin == "stop" and m["content"] and "tool_calls" not in m, "auto may talk")

    hello = [{"role": "user", "content": "Hello!"}]
    for thinking in (False, True):
        more = {"messages": hello, "chat_template_kwargs": {"enable_thinking": thinking}}
        for seed in range(8):
            m, fin, _ = stream(s, tool_choice="required", temperature=1, seed=seed, **more)
            if fin == "length":
                continue
            ok(fin == "tool_calls" and {n for n, _ in calls(m)} <= {"get_weather", "add"}
               and m["content"] == "", f"required, thinking {thinking}, seed {seed}: {m}")
        for name in ("add", "get_weather"):
            m, fin, _ = stream(s, **more, tool_choice={"type": "function",
                                                       "function": {"name": name}})
            same([c["function"]["name"] for c in m["tool_calls"]], [name],
                 f"{name} by name, thinking {thinking}")

    m, fin = one(chat(s, tool_choice="required", thinking_token_budget=2,
                      chat_template_kwargs={"enable_thinking": True}))
    same((calls(m), m["reasoning"], fin), ([CALL], "I call", "tool_calls"), "after a short thought")
    m, fin = one(chat(s, tool_choice="required", max_tokens=3))
    same((fin, m.get("tool_calls"), m["content"]), ("length", None, ""),
         "cut in the name: no call, and no content")
    m, fin, _ = stream(s, tool_choice="required", max_tokens=3)
    same((fin, m["tool_calls"], m["content"]), ("length", [], ""),
         "and so in a stream")
    m, fin, _ = stream(s, max_tokens=8)
    ok(fin == "length" and len(m["tool_calls"]) == 1
       and m["tool_calls"][0]["function"]["arguments"].startswith("{")
       and not m["tool_calls"][0]["function"]["arguments"].endswith("}"), "cut in the arguments")
    m, fin = one(chat(s, stop=["Paris", "}"]))
    same((calls(m), fin), ([CALL], "tool_calls"), "stop strings are not looked for in arguments")


def refusals(s):
    def no(want, what, **body):
        same(chat(s, **body), want, what)

    bad = (400, "invalid_value", "tool_choice")
    name = {"type": "function", "function": {"name": "sub"}}
    no(bad, "a tool that is not there", tool_choice=name)
    no(bad, "required of none", tool_choice="required", tools=[])
    no(bad, "a name of none", tool_choice=name, tools=None)
    no(bad, "required of other ids", tool_choice="required", allowed_token_ids=[300])
    no(bad, "another word", tool_choice="any")
    no(bad, "an empty object", tool_choice={})
    for v in (7, [], True):
        no((400, "invalid_type", "tool_choice"), f"tool_choice: {v!r}", tool_choice=v)
    no((400, "invalid_type", "parallel_tool_calls"), "parallel_tool_calls: 1",
       parallel_tool_calls=1)
    no((400, "missing_required_parameter", "tool_choice.function.name"), "no name",
       tool_choice={"type": "function", "function": {}})
    many = [tool(f"t{i}") for i in range(129)]
    no((400, "invalid_value", "tools"), "129 tools", tools=many)
    ok("choices" in chat(s, tools=many[:128], max_tokens=1), "128 tools")
    no((400, "unsupported_parameter", "functions"), "the old functions", functions=[{"name": "f"}])


def back(s):
    """The result of a call is answered, with the thoughts of before and without."""
    m, _ = one(chat(s))
    history = ASK + [m, {"role": "tool", "tool_call_id": m["tool_calls"][0]["id"],
                         "content": "21 degrees, sunny"}]
    m, fin = one(chat(s, messages=history))
    ok(fin == "stop" and "21" in m["content"] and "tool_calls" not in m, f"says {m['content']!r}")


def generated(s):
    rng = random.Random(20261121)
    uses = [toolbox.pick(rng) for _ in range(N)]
    bodies = [{"messages": [{"role": "user", "content": u.ask}],
               "tools": toolbox.with_others(rng, u, 3),
               "chat_template_kwargs": {"enable_thinking": i % 2 == 1}}
              for i, u in enumerate(uses)]

    def run(i):
        if i % 4 < 2:
            return one(chat(s, **bodies[i]))
        return stream(s, **bodies[i])[:2]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, range(N)))
    right = valid = split = 0
    for i, (m, fin) in enumerate(answers):
        try:
            got = calls(m)
            valid += 1
        except ValueError:
            got = None
        if got == uses[i].calls and fin == "tool_calls":
            right += 1
        else:
            print("#", uses[i].ask, got, m)
        said = json.dumps([m.get("content"), m.get("reasoning")])
        split += bool(m.get("reasoning")) == (i % 2 == 1) \
            and not re.search(r"thought|<\||\|>", said)
    ok(right >= 0.95 * N, f"{right} of {N} generated prompts give the right call")
    same(valid, N, "all arguments are JSON")
    same(split, N, "thoughts are where they belong, and only with thinking on")


def anthropic(s):
    """Where a call's arguments are an object and not its text, a cut one must still be one."""
    body = {"model": "demo", "messages": ASK, "temperature": 0, "tools": [
        {"name": "get_weather", "description": "Get the weather.",
         "input_schema": {"type": "object", "properties": CITY}}]}
    for n, want in ((120, ({"city": "Paris"}, "tool_use")), (8, ({}, "max_tokens"))):
        m = json.loads(post(s.port, {**body, "max_tokens": n}, "/v1/messages")[1])
        same((m["content"][-1]["input"], m["stop_reason"]), want, f"/v1/messages, {n} tokens")


def official(s):
    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    chunks = client.chat.completions.create(model="demo", messages=ASK, tools=[WEATHER, TIME],
                                            temperature=0, stream=True)
    name, args = "", ""
    for c in chunks:
        for d in c.choices[0].delta.tool_calls or ():
            name += d.function.name or ""
            args += d.function.arguments or ""
    same((name, json.loads(args)), CALL, "the official client puts the stream together")


with Stack() as s:
    shapes(s)
    choices(s)
    refusals(s)
    back(s)
    official(s)
    anthropic(s)
    generated(s)
done()
