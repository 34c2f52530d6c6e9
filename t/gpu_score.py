#!/usr/bin/env python3
"""score --backend cuda on the three small checkpoints against transformers in float64: one line at
a time, all at once, in chunks of 7 tokens, token by token as answers are decoded. Prints TAP; without
a GPU of 8.0 or newer there is nothing to do, one that cannot be used is a failure.

The checkpoints are random and amplify every rounding, so the bar is what transformers' own bf16 run
deviates on the same prompts (bf16_deviation in expected.jsonl); after one token little can go wrong."""
import json
import sys

sys.path.insert(0, "t/helpers")
from env import done, ok
from gpu import need_gpu, score

LIMIT = 2e-2        # of the largest logit, after one token
WAYS = [["--batch", "1"], ["--batch", "5"], ["--batch", "2", "--max-num-batched-tokens", "7"],
        ["--batch", "1", "--max-num-batched-tokens", "1"]]


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


need_gpu()
for name in "moe", "dense", "ple":
    want = expected(name)
    for way in WAYS:
        rc, got, why = score(f"t/golden/{name}", want, "--kv-cache-memory-bytes", "64m", *way)
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

done()
