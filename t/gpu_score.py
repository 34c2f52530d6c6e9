#!/usr/bin/env python3
"""score --backend cuda on the three small checkpoints against transformers in float64: one line at
a time, all at once, in chunks of 7 tokens, token by token as answers are decoded. Prints TAP; without
a GPU of 8.0 or newer there is nothing to do, one that cannot be used is a failure.

The checkpoints are random and amplify every rounding, so the bar is what transformers' own bf16 run
deviates on the same prompts (bf16_deviation in expected.jsonl); after one token little can go wrong."""
import json
import os
import subprocess
import sys
import tempfile

LIMIT = 2e-2        # of the largest logit, after one token
INFERD = os.path.join(os.environ.get("TEST_BUILD", "build"), "inferd")
WAYS = [["--batch", "1"], ["--batch", "5"], ["--batch", "2", "--max-num-batched-tokens", "7"],
        ["--batch", "1", "--max-num-batched-tokens", "1"]]

# What inferd says where there is nothing to test on; another failure is one.
NO_GPU = ["no GPU driver here", "no GPU here", "8.0 is needed", "this build has the cpu backend only"]

n = failed = 0


def ok(cond, name):
    global n, failed
    n += 1
    failed += not cond
    print(f"{'ok' if cond else 'not ok'} {n} - {name}", flush=True)


def deviation(got, want):
    if len(got) != len(want):
        return float("inf")
    if not want:
        return 0.0
    worst = max(abs(g - w) for g, w in zip(got, want))
    return worst / max(abs(w) for w in want) if worst == worst else float("inf")


def expected(name):
    with open(f"t/golden/{name}/expected.jsonl") as f:
        return [json.loads(x) for x in f]


def score(name, way):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        for w in expected(name):
            f.write(json.dumps({"prompt": w["prompt"], "n": w["n"]}) + "\n")
        f.flush()
        run = subprocess.run([INFERD, "score", "--backend", "cuda", "--kv-cache-memory-bytes",
                              "64m", *way, f"t/golden/{name}", f.name],
                             capture_output=True, text=True)
    return run.returncode, [json.loads(x) for x in run.stdout.splitlines()], run.stderr.strip()


rc, _, why = score("moe", WAYS[0])
if rc != 0 and any(x in why for x in NO_GPU):
    print(f"1..0 # skipped: no GPU: {why}")
    sys.exit(0)

for name in "moe", "dense", "ple":
    want = expected(name)
    for way in WAYS:
        rc, got, why = score(name, way)
        ok(rc == 0 and len(got) == len(want), f"{name} {' '.join(way)}: {why or 'runs'}")
        if len(got) != len(want):
            continue
        ours = [deviation(g["last_logits"], w["last_logits"]) for g, w in zip(got, want)]
        bar = [w["bf16_deviation"] for w in want]
        ok(ours[0] <= LIMIT, f"{name}: one token deviates by {ours[0]:.2g}, allowed {LIMIT}")
        ok(sum(ours) <= sum(bar), f"{name}: {sum(ours) / len(ours):.2g} on average, transformers in"
           f" bf16 {sum(bar) / len(bar):.2g}")
        print("# " + " ".join(f"{g:.2g}({w:.2g})" for g, w in zip(ours, bar)))
        same = sum(g["greedy"] == w["greedy"] for g, w in zip(got, want))
        print(f"# {name}: greedy ids alike in {same} of {len(want)} prompts")

print(f"1..{n}")
sys.exit(failed != 0)
