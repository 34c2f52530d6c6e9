#!/usr/bin/env python3
"""`inferd render` prints the official template's own bytes, or refuses in words.

usage: t/render.py [build/inferd] [t/golden/chat_cases.jsonl]      prints TAP

Every case without tools and media must come out byte for byte; one with them must be refused by
name. A refused line makes the exit status 1, a clean run 0.
"""
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INFERD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/inferd")
CASES = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "t/golden/chat_cases.jsonl")

n_test = failed = 0


def ok(cond, name):
    global n_test, failed
    n_test += 1
    failed += not cond
    print("%sok %d - %s" % ("" if cond else "not ", n_test, name), flush=True)


def render(lines):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write("".join(x + "\n" for x in lines))
        f.flush()
        p = subprocess.run([INFERD, "render", f.name], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    return p.returncode, [json.loads(x) for x in p.stdout.decode().splitlines()]


def is_built(case):
    """Does the case do without tools and media?"""
    for m in case["messages"]:
        parts = m.get("content") if isinstance(m.get("content"), list) else []
        if (m["role"] == "tool" or m.get("tool_calls") or m.get("tool_responses")
                or any(p.get("type") != "text" for p in parts)):
            return False
    return not case["tools"]


def main():
    with open(CASES) as f:
        cases = [json.loads(x) for x in f]
    built = [c for c in cases if is_built(c)]
    other = [c for c in cases if not is_built(c)]

    rc, got = render([json.dumps(c) for c in built])
    ok(rc == 0 and len(got) == len(built), "%d cases rendered, status 0" % len(built))
    for c, g in zip(built, got):
        same = g.get("text") == c["expected"]
        ok(same, c["name"])
        if not same:
            print("# got  %s\n# want %s" % (json.dumps(g), json.dumps(c["expected"])))

    if other:
        rc, got = render([json.dumps(c) for c in other])
        ok(rc == 1 and len(got) == len(other), "%d cases refused, status 1" % len(other))
        for c, g in zip(other, got):
            ok("supported" in g.get("error", ""), "refused: %s: %s" % (c["name"], g.get("error")))

    hello = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
    want = "<bos><|turn>user\nHello<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
    rc, got = render([hello, "{", hello])
    ok(rc == 1 and [sorted(g) for g in got] == [["text"], ["error"], ["text"]]
       and got[2]["text"] == want, "a bad line does not stop the next; defaults are the template's")
    print("1..%d" % n_test)
    sys.exit(failed != 0)


main()
