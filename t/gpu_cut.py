#!/usr/bin/env python3
"""Two layers of the 26B-A4B's shape, one of each type, with random weights: score --backend cuda against
score --backend cpu, whose ops are the twins, on 64 prompts, some of them longer than the window. One
at a time, all 64 at once, in chunks, token by token as answers are decoded; and all at once against
each alone. Prints TAP; without a GPU there is nothing to do.

The tied head makes the last id of a prompt by far the likeliest here, so its logit does not count for
what a deviation is relative to."""
import json
import math
import os
import random
import subprocess
import sys
import tempfile

INFERD = os.path.join(os.environ.get("TEST_BUILD", "build"), "inferd")
CONFIG = "bench/configs/gemma-4-26B-A4B-it/config.json"
VOCAB = 8192        # the head of 262,144 rows is in t/gpu and bench/kernels
WORST, MEAN = 0.1, 0.02         # of the largest other logit; logprobs are absolute
LENGTHS = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 511, 1023, 1024, 1025, 1100]
WAYS = [["--batch", "1"], ["--batch", "64"], ["--batch", "8", "--max-num-batched-tokens", "100"],
        ["--batch", "1", "--max-num-batched-tokens", "1"]]
rnd = random.Random(26)
n = failed = 0


def ok(cond, name):
    global n, failed
    n += 1
    failed += not cond
    print(f"{'ok' if cond else 'not ok'} {n} - {name}", flush=True)


def write(d):
    """The model's directory, and the prompts."""
    with open(CONFIG) as f:
        c = json.load(f)
    c["text_config"].update(num_hidden_layers=2, vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB,
                            layer_types=["sliding_attention", "full_attention"])
    with open(f"{d}/config.json", "w") as f:
        json.dump(c, f)
    lengths = LENGTHS + [rnd.randrange(1, 100) for _ in range(64 - len(LENGTHS))]
    prompts = [[rnd.randrange(16, VOCAB) for _ in range(k)] for k in lengths]
    with open(f"{d}/prompts", "w") as f:
        f.writelines(json.dumps({"prompt": p, "n": 0}) + "\n" for p in prompts)
    return prompts


def score(d, backend, way):
    run = subprocess.run([INFERD, "score", d, f"{d}/prompts", "--backend", backend, "--load-format",
                          "dummy", "--max-model-len", "2048", "--kv-cache-memory-bytes", "2g", *way],
                         capture_output=True, text=True)
    return [json.loads(x) for x in run.stdout.splitlines()], run.stderr.strip()


def deviation(p, got, want):
    """Of the logits behind a prompt: the largest, and the root of the mean square."""
    far = [abs(g - w) for g, w in zip(got, want, strict=True)]
    top = max(abs(w) for i, w in enumerate(want) if i != p[-1])
    if not all(map(math.isfinite, far)):
        return math.inf, math.inf
    return max(far) / top, math.sqrt(sum(x * x for x in far) / len(far)) / top


def compare(name, prompts, got, want):
    both = [deviation(p, g["last_logits"], w["last_logits"])
            for p, g, w in zip(prompts, got, want, strict=True)]
    worst, mean = max(x for x, _ in both), sum(x for _, x in both) / len(both)
    ok(worst <= WORST and mean <= MEAN, f"{name}: logits off by at most {worst:.2g}, {mean:.2g} in the"
       " mean")
    lp = [abs(x - y) for g, w in zip(got, want)
          for x, y in zip(g["logprob_of_next"], w["logprob_of_next"], strict=True)]
    ok(sum(lp) / len(lp) <= MEAN * 10, f"{name}: {len(lp)} logprobs off by {sum(lp) / len(lp):.2g} in"
       f" the mean, at most {max(lp):.2g}")


with tempfile.TemporaryDirectory() as d:
    prompts = write(d)
    runs = {}
    for way in WAYS:
        got, why = score(d, "cuda", way)
        if not runs and not got and ("no GPU" in why or "cpu backend only" in why):
            print(f"1..0 # SKIP no GPU: {why.splitlines()[-1]}")
            sys.exit(0)
        ok(len(got) == len(prompts), f"{' '.join(way)}: {why.splitlines()[-1] if why else 'runs'}")
        if len(got) == len(prompts):
            runs[" ".join(way)] = got
    want, why = score(d, "cpu", WAYS[1])
    ok(len(want) == len(prompts), f"the twins: {why.splitlines()[-1] if why else 'run'}")
    for way, got in runs.items():
        compare(f"{way} against the twins", prompts, got, want)
    if len(runs) == len(WAYS):
        alone, together = (runs[" ".join(w)] for w in WAYS[:2])
        compare("64 at once against each alone", prompts, together, alone)
print(f"1..{n}")
sys.exit(failed != 0)
