#!/usr/bin/env python3
"""What a stream says when it has nothing to say, and when it is cut: pings and errors in the words of
each API, and the official clients that read them."""
import http.client
import json
import os
import sys
import threading
import time

import anthropic
import openai

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import ENDLESS, LIMIT, Stack, done, ok, same, until  # noqa: E402

USER = [{"role": "user", "content": "Hello!"}]
BODY = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": ENDLESS},
    "/v1/completions": {"prompt": "a", "max_tokens": ENDLESS},
    "/v1/responses": {"input": "Hello!", "max_output_tokens": ENDLESS},
    "/v1/messages": {"messages": USER, "max_tokens": ENDLESS},
}


def post(s, path, **more):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=LIMIT)
    c.request("POST", path, json.dumps({**BODY[path], "stream": True, **more}),
              {"Content-Type": "application/json"})
    return c, c.getresponse()


def events(text):
    """[(name or None, data)], comments left out; None if it is no event stream."""
    out = []
    for block in text.split("\n\n")[:-1]:
        lines = [x for x in block.split("\n") if not x.startswith(":")]
        name = [x[7:] for x in lines if x.startswith("event: ")]
        data = [x[6:] for x in lines if x.startswith("data: ")]
        if len(lines) != len(name) + len(data):
            return None
        if data:
            out.append((name[0] if name else None, data[0]))
    return out


class Busy:
    """One endless request that has the only place, so that others wait."""
    def __init__(self, s):
        self.c, self.r = post(s, "/v1/completions")
        self.r.read(1)

    def end(self):
        self.c.sock and self.c.sock.close()
        self.r.close()
        self.c.close()


def pings(s):
    short = {p: {"max_output_tokens" if p == "/v1/responses" else "max_tokens": 3} for p in BODY}
    got = dict.fromkeys(BODY, "")

    def read(path):
        c, r = post(s, path, **short[path])
        while part := r.read1().decode():
            got[path] += part
        c.close()

    busy = Busy(s)
    threads = [threading.Thread(target=read, args=(p,)) for p in short]
    for t in threads:
        t.start()
    until(lambda: all(x.count(": ping\n\n") >= 2 for x in got.values()))
    busy.end()
    for t in threads:
        t.join()
    for path, text in got.items():
        head = text.split("\n\n")
        n = next(i for i, x in enumerate(head) if x != ": ping")
        ok(n >= 2, f"{path}: {n} pings while it waits")
        ok(events(text), f"{path}: the rest are events")
        ok("\nid:" not in text and "\nretry:" not in text, f"{path}: without ids")


def clients_skip_pings(s):
    c = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    a = anthropic.Anthropic(base_url=s.url, api_key="none", max_retries=0)
    got = {}

    def chat():
        got["chat"] = "".join(k.choices[0].delta.content or "" for k in c.chat.completions.create(
            model="demo", messages=USER, max_tokens=5, stream=True))

    def responses():
        with c.responses.stream(model="demo", input="Hello!", max_output_tokens=5) as r:
            got["responses"] = "".join(e.delta for e in r if e.type == "response.output_text.delta")

    def messages():
        with a.messages.stream(model="demo", messages=USER, max_tokens=5) as r:
            got["messages"] = r.get_final_text()

    busy = Busy(s)
    threads = [threading.Thread(target=f) for f in (chat, responses, messages)]
    for t in threads:
        t.start()
    until(lambda: s.metric("vllm:num_requests_waiting") == len(threads))
    time.sleep(1.5)                         # of which pings come in any case
    busy.end()
    for t in threads:
        t.join()
    same(sorted(k for k, v in got.items() if v), ["chat", "messages", "responses"],
         "the official clients skip them")


def end_of(stream):
    """What a client raises at the end of this stream; None: it ended well."""
    try:
        for _ in stream:
            pass
    except (anthropic.APIStatusError, openai.APIError) as e:
        return e
    return None


def cut(s):
    """The engine dies in the middle of four streams: nginx has the last word, in each one's words."""
    streams = {p: post(s, p) for p in ("/v1/chat/completions", "/v1/completions")}
    a = anthropic.Anthropic(base_url=s.url, api_key="none", max_retries=0)
    o = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    named = {"messages": a.messages.create(model="demo", messages=USER, max_tokens=ENDLESS,
                                           stream=True),
             "responses": o.responses.create(model="demo", input="Hello!", stream=True)}
    for _, r in streams.values():
        r.read(1)
    for it in named.values():
        next(iter(it))
    s.engine.kill()
    ends = {name: end_of(it) for name, it in named.items()}
    for path, (c, r) in streams.items():
        text = b""
        try:
            while part := r.read1():
                text += part
        except http.client.IncompleteRead as e:
            text += e.partial
        last = (events("x: 1\n\n" + text.decode()) or events(text.decode().split("\n\n", 1)[1]))[-2:]
        same((json.loads(last[0][1])["error"]["code"], last[1]), ("engine_lost", (None, "[DONE]")),
             f"{path}: an error event, then [DONE]")
        c.close()
    for name, e in ends.items():
        ok(e is not None and "engine" in str(e), f"{name}: {type(e).__name__}, in words")


def main():
    with Stack(model=None, serve_args=["--ping-interval", "1", "--max-num-seqs", "1"]) as s:
        pings(s)
        clients_skip_pings(s)
    with Stack(model=None) as s:
        cut(s)
    done()


main()
