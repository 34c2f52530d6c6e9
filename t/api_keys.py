#!/usr/bin/env python3
"""API keys: which route needs which, the words of a refusal, tenants, SIGHUP, and no key in a log."""
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, "t/helpers")
from env import BUILD, LIMIT, Stack, done, ok, same, until  # noqa: E402

ALICE, ALICE2, BOB, OPS = "sk-alice-0001", "sk-alice-0002", "sk-bob-000001", "sk-operator-01"
LONG = "An old tale of the sea. " * 12


def call(s, path, key=None, body=None, name="Authorization"):
    head = {"Content-Type": "application/json"} if body is not None else {}
    if key is not None:
        head[name] = f"Bearer {key}" if name == "Authorization" else key
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=LIMIT)
    c.request("GET" if body is None else "POST", path,
              None if body is None else json.dumps(body), head)
    r = c.getresponse()
    text = r.read()
    c.close()
    kind = r.getheader("content-type", "")
    return r.status, json.loads(text) if "json" in kind else text, r


def complete(s, key, prompt):
    code, r, _ = call(s, "/v1/completions", key,
                      {"prompt": prompt, "max_tokens": 1, "temperature": 0})
    return r["usage"]["prompt_tokens_details"]["cached_tokens"] if code == 200 else code


def doors(s):
    ask = {"prompt": "x", "max_tokens": 1}

    for path in ("/health", "/ready"):
        same(call(s, path)[0], 200, f"{path} asks for no key")
    for path in ("/v1/models", "/v1/models/demo", "/metrics", "/version", "/server_info", "/load"):
        same([call(s, path)[0], call(s, path, BOB)[0]], [401, 200], f"{path} asks for one")
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize",
                 "/apply-template", "/admin/drain", "/admin/abort", "/admin/reset_prefix_cache",
                 "/nowhere"):
        same(call(s, path, body=ask)[0], 401, f"so does {path}")
    same(call(s, "/nowhere", BOB)[0], 404, "a key that is let in learns what is not there")
    same(call(s, "/v1/completions", BOB)[0], 405, "and what the method is")

    code, r, head = call(s, "/v1/completions", body=ask)
    same((code, r["error"]["type"], r["error"]["code"], head.getheader("www-authenticate")),
         (401, "authentication_error", "invalid_api_key", "Bearer"), "401 in OpenAI's shape")
    ok("needed" in r["error"]["message"], "no key is told from")
    code, r, _ = call(s, "/v1/completions", "sk-wrong-0001", ask)
    ok(code == 401 and "not valid" in r["error"]["message"] and "sk-wrong" not in str(r),
       "a wrong one, which is not repeated")
    for key in ("", ALICE[:-1], ALICE + "x", ALICE.upper(), "alice", "Bearer"):
        same(call(s, "/v1/models", key)[0], 401, f"{key!r} is no key")
    same(call(s, "/v1/models", ALICE, name="x-api-key")[0], 200, "x-api-key is as good")
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=LIMIT)
    c.request("GET", "/v1/models", headers={"Authorization": "Basic Zm9v", "x-api-key": ALICE})
    same(c.getresponse().status, 200, "beside another authorization too")
    c.close()

    code, r, _ = call(s, "/admin/reset_prefix_cache", ALICE, {})
    same((code, r["error"]["type"]), (403, "permission_error"), "a client is no operator")
    same(call(s, "/admin/reset_prefix_cache", OPS, {})[0], 200, "the operator is")
    same(complete(s, OPS, "x"), 0, "and may generate")


def tenants(s):
    same(complete(s, ALICE, LONG), 0, "a prompt that is new")
    ok(complete(s, ALICE2, LONG) > 0, "another key of the same name shares its prefix")
    same(complete(s, BOB, LONG), 0, "another name does not")


def reload(s, path):
    def wait(key, code):
        return until(lambda: call(s, "/v1/models", key)[0] == code)

    with open(path, "w") as f:
        f.write(f"{BOB} bob\n{OPS} ops admin\nsk-carol-00001\n")
    s.engine.send_signal(signal.SIGHUP)
    ok(wait("sk-carol-00001", 200), "SIGHUP brings a new key")
    same(call(s, "/v1/models", ALICE)[0], 401, "and one that is gone is gone")
    with open(path, "w") as f:
        f.write(f"{ALICE} alice\nshort\n")
    s.engine.send_signal(signal.SIGHUP)
    until(lambda: ":2: a key has" in s.log("inferd.log"))
    same((call(s, "/v1/models", ALICE)[0], call(s, "/v1/models", BOB)[0]), (401, 200),
         "a wrong file changes nothing, and the log says where")


def main():
    with tempfile.NamedTemporaryFile("w", suffix=".keys", delete=False) as f:
        f.write(f"# clients\n{ALICE} alice\n{ALICE2} alice\n{BOB} bob\n# us\n{OPS} ops admin\n")
    try:
        with Stack(serve_args=["--api-key-file", f.name]) as s:
            doors(s)
            tenants(s)
            reload(s, f.name)
            logs = s.log("inferd.log") + s.log("error.log") + s.log("access.log")
            ok(not any(k in logs for k in (ALICE, ALICE2, BOB, OPS)), "no key stands in a log")
    finally:
        os.unlink(f.name)

    p = subprocess.run([f"{BUILD}/inferd", "serve", "models/demo", "--uds", "build/t/keys.sock",
                        "--api-key-file", f.name], capture_output=True, text=True, timeout=LIMIT)
    ok(p.returncode == 1 and f.name in p.stderr, "without its file the engine does not start")
    done()


main()
