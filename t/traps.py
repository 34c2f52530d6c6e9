#!/usr/bin/env python3
"""Bodies that are wrong and connections that break, on every route that generates: the refusal is in
the words of its API, and what was taken for a client is given back."""
import json
import os
import random
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import LIMIT, Stack, done, ok, same, until  # noqa: E402

GOOD = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
}
TEXT = {"/v1/completions": "prompt", "/v1/responses": "input"}
R = random.Random(5)


def request(path, body, close=True):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n"
            ).encode() + body


def connect(s):
    return socket.create_connection(("127.0.0.1", s.port), timeout=LIMIT)


def read_all(c):
    got = b""
    while part := c.recv(65536):
        got += part
    c.close()
    return got


def post(s, path, body):
    c = connect(s)
    c.sendall(request(path, body))
    head, _, text = read_all(c).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(text)


def with_text(path, text):
    """A good body with this JSON text, raw, as what the user says."""
    body = json.dumps(GOOD[path]).encode()
    return body.replace(b'"Hi"', text)


def told(path, r):
    """Is it an error in the shape of this API?"""
    e = r.get("error", {})
    if path == "/v1/messages":
        return r.get("type") == "error" and sorted(e) == ["message", "type"] and r["request_id"]
    return sorted(e)[:1] == ["code"] and {"message", "type", "param", "code"} <= set(e)


def bodies(s):
    wrong = {
        "nothing": b"", "no JSON": b"hello", "half of it": b'{"model":', "a tail": b"{} {}",
        "an array": b"[]", "NaN": b'{"max_tokens":NaN}', "a NUL": b'{"a":"b"}\0',
        "a key twice": b'{"stream":true,"stream":false}', "depth": b"[" * 65 + b"]" * 65,
        "deep": b'{"a":' * 70 + b"1" + b"}" * 70, "bad UTF-8": b'{"model":"\xff"}',
        "an overlong form": b'{"model":"\xc0\xaf"}', "a number too long": b"1" * 100000,
    }
    for path in GOOD:
        bad = []
        for name, body in wrong.items():
            code, r = post(s, path, body)
            if code != 400 or not told(path, r):
                bad.append((name, code, r))
        for text in (b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"', b'"a\nb"', b'"\\x"'):
            code, r = post(s, path, with_text(path, text))
            if code != 400 or not told(path, r):
                bad.append((text, code, r))
        same(bad, [], f"{path}: {len(wrong) + 5} bodies that are none")

        for name, text in (("a NUL in a string", b'"a\\u0000b"'), ("a pair", b'"\\ud83d\\ude00"'),
                           ("the last character", b'"\xf4\x8f\xbf\xbf"'),
                           ("depth in a string", b'"' + b"[" * 1000 + b'"')):
            same(post(s, path, with_text(path, text))[0], 200, f"{path}: {name} is text")


def depths(s):
    """The deepest body that passes here grows by a level on its way to the chat."""
    def body(n, key):
        deep = "[" * n + "]" * n
        if key == "input":
            return json.dumps({**GOOD["/v1/messages"], "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "i", "name": "f", "input": {"x": "DEEP"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i"}]}],
            }).replace('"DEEP"', deep).encode()
        return json.dumps({**GOOD["/v1/messages"], "tools": [
            {"name": "f", "input_schema": {"default": "DEEP"}}]}).replace('"DEEP"', deep).encode()

    for key, above in (("input", 6), ("schema", 4)):
        code, r = post(s, "/v1/messages", body(65 - above, key))
        ok(code == 400 and "too deeply" in r["error"]["message"], f"depth 65 of {key}: no JSON")
        code, r = post(s, "/v1/messages", body(64 - above, key))
        want = (200, "") if key == "input" else (400, "32 deep")     # schemas have a limit too
        ok(code == want[0] and want[1] in str(r), f"depth 64 of {key}: {code}")


def slow(s):
    for path, body in GOOD.items():
        c = connect(s)
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for b in request(path, json.dumps(body).encode()):
            c.send(bytes([b]))
        got = read_all(c)
        ok(got.startswith(b"HTTP/1.1 200"), f"{path}: one byte at a time")

        c = connect(s)
        one = json.dumps(body).encode()
        c.sendall(request(path, one, False) + request(path, one))
        same(read_all(c).count(b"HTTP/1.1 200"), 2, f"{path}: two requests in one packet")


def memory(s):
    with open(f"/proc/{s.engine.pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def leaving(s):
    """Clients leave at any byte of the request, and at any time of the answer."""
    big = {p: with_text(p, b'"' + b"word " * 40000 + b'"') for p in GOOD}
    before = None
    for i in range(120):
        path = R.choice(list(GOOD))
        body = json.dumps({**GOOD[path], "stream": bool(i % 2), **({
            "max_output_tokens": 2000} if path == "/v1/responses" else {"max_tokens": 2000})})
        whole = request(path, R.choice([big[path], body.encode()]))
        c = connect(s)
        try:
            c.sendall(whole[:R.choice([R.randrange(len(whole)), len(whole)])])
            c.settimeout(R.choice([0.001, 0.05]))
            c.recv(R.choice([1, 4096]))
        except OSError:
            pass
        c.close()
        if i == 20:
            before = memory(s)
    until(lambda: (s.metric("vllm:num_requests_running"), s.metric("vllm:num_requests_waiting"),
                   s.metric("inferd_streams")) == (0, 0, 1))
    same((s.metric("vllm:num_requests_running"), s.metric("vllm:num_requests_waiting"),
          s.metric("inferd_streams")), (0, 0, 1), "everything that was left is let go")
    ok(until(lambda: s.metric("vllm:kv_cache_usage_perc") == 0), "its KV too")
    ok(memory(s) < before + 64 + 96, "and its memory, but for pages of the KV cache that were new:"
       f" {before:.0f} MiB, then {memory(s):.0f}")
    for path, body in GOOD.items():
        same(post(s, path, json.dumps(body).encode())[0], 200, f"{path}: and it goes on")


def main():
    with Stack() as s:
        bodies(s)
        depths(s)
        slow(s)
        leaving(s)
    done()


main()
