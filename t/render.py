#!/usr/bin/env python3
"""`inferd render` prints the official template's own bytes, or refuses in words.

usage: t/render.py [build/inferd] [t/golden/chat_cases.jsonl]      prints TAP

Every case must come out byte for byte. A refused line makes the exit status 1, a clean run 0.
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


def main():
    with open(CASES) as f:
        cases = [json.loads(x) for x in f]
    rc, got = render([json.dumps(c) for c in cases])
    ok(rc == 0 and len(got) == len(cases) == 60, "%d cases rendered, status 0" % len(cases))
    for c, g in zip(cases, got):
        same = g.get("text") == c["expected"]
        ok(same, c["name"])
        if not same:
            print("# got  %s\n# want %s" % (json.dumps(g), json.dumps(c["expected"])))

    hello = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
    want = "<bos><|turn>user\nHello<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
    rc, got = render([hello, "{", hello])
    ok(rc == 1 and [sorted(g) for g in got] == [["text"], ["error"], ["text"]]
       and got[2]["text"] == want, "a bad line does not stop the next; defaults are the template's")
    print("1..%d" % n_test)
    sys.exit(failed != 0)


main()
