#!/usr/bin/env python3
"""Two layers of the 26B-A4B's shape, one of each type, with random weights: `score --backend cuda`
against transformers in float64, on 64 prompts, some as long as the window and longer. One at a
time, all 64 at once, in chunks, token by token as answers are decoded; and all at once against each
alone. Prints TAP; without a GPU there is nothing to do, one that cannot be used is a failure.

    t/gpu_cut.py [--backend cpu] [--prompts 16]       (transformers 5.17, torch, safetensors)

The bar is transformers' own bf16 run over the same prompts, on the same device as the float64 one.
Roundings and the rare expert that flips at a near tie fall on other prompts there than here, so no
prompt is held against its own: the mean over all prompts, and over all logprobs, is at most theirs,
and none is further off than WORST times their worst, which chance does not double in so many draws.
A wrong page, position, expert or weight moves logits by a share of their own spread. One key among
a thousand (a window off by one) can hide in bf16's noise here: for that the small checkpoints
have a window of 16. Of two ways each is as near to float64 as that, and nearer to the other, since
most roundings are the same: the same bars.
"""
import argparse
import gc
import json
import shutil
import sys
import tempfile

sys.path[:0] = ["t/helpers", "t/golden"]
from env import done, ok
from gpu import need_gpu, score

CONFIG = "bench/configs/gemma-4-26B-A4B-it/config.json"
VOCAB = 8192        # the head of 262,144 rows is in t/gpu and bench/kernels
LENGTHS = [1, 1100, 1025, 1024, 1023, 511, 255, 129, 127, 65, 64, 63, 33, 31, 17, 16, 15, 2]
WAYS = [["--batch", "1"], ["--batch", "64"], ["--batch", "8", "--max-num-batched-tokens", "100"],
        ["--batch", "1", "--max-num-batched-tokens", "1"]]
WORST = 2           # of the bf16 run's worst
SANE = 0.05         # of the largest logit: a bf16 run further off in the mean is no bar
SEED = 26
PREFIX = "model.language_model."

# What the small checkpoints' values need at this width: an embedding about as large as what a layer
# adds, scores that leave more than one key a weight, and routing that weighs the experts it takes.
SCALE = {"embed_tokens.weight": 1 / 4, "q_norm.weight": 1 / 8, "router.proj.weight": 128}


def options():
    p = argparse.ArgumentParser()
    p.add_argument("--backend", default="cuda", help="of inferd; cpu tries the test itself")
    p.add_argument("--prompts", type=int, default=64)
    return p.parse_args()


opt = options()
if opt.backend == "cuda":
    need_gpu()
try:
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig
    from transformers.utils import logging
    import make_fixtures as fixtures
except ImportError as e:
    print(f"1..0 # skipped: {e}: pip install torch safetensors 'transformers>=5.17'")
    sys.exit(0)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
logging.disable_progress_bar()


def value(name, shape, gen):
    v = fixtures.random_value(name, shape, gen)
    for end, by in SCALE.items():
        if name.endswith(end):
            v *= by
    if name == "model.norm.weight":     # both signs, or the tied head has the last id far above all
        v *= 2 * torch.randint(2, shape, generator=gen, device=gen.device) - 1
    return v


def write(d):
    """The checkpoint; its text_config."""
    with open(CONFIG) as f:
        c = json.load(f)
    text = c["text_config"]
    text.update(num_hidden_layers=2, vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB,
                layer_types=["sliding_attention", "full_attention"])
    with open(f"{d}/config.json", "w") as f:
        json.dump(c, f)
    with torch.device("meta"):
        model = Gemma4ForCausalLM(Gemma4TextConfig(**text))
    gen = torch.Generator(DEVICE).manual_seed(SEED)
    save_file({fixtures.stored(name, PREFIX): value(name, p.shape, gen)
               for name, p in fixtures.parameters(model)}, f"{d}/model.safetensors",
              metadata={"format": "pt"})
    return text


def make_prompts():
    gen = torch.Generator().manual_seed(SEED)
    more = torch.randint(1, 100, (max(opt.prompts - len(LENGTHS), 0),), generator=gen).tolist()
    return [torch.randint(16, VOCAB, (n,), generator=gen).tolist()
            for n in LENGTHS[:opt.prompts] + more]


def reference(d, text, prompts, dtype, **how):
    """The last logits and the logprobs of each prompt, as transformers has them."""
    model = Gemma4ForCausalLM.from_pretrained(
        d, config=Gemma4TextConfig(**text, **how), dtype=dtype,
        key_mapping={"^" + PREFIX: "model."}).to(DEVICE)
    answers = []
    for ids in prompts:
        logits = fixtures.logits(model, ids).double()
        answers.append((logits[-1].cpu(), fixtures.logprob_of_next(logits, ids).cpu()))
    del model
    gc.collect()
    torch.cuda.empty_cache()            # inferd needs the memory next
    return answers


def ours(d, prompts, way):
    """The same of inferd; None if it failed."""
    rc, got, why = score(d, [{"prompt": p, "n": 0} for p in prompts], "--max-model-len", "2048",
                         "--kv-cache-memory-bytes", "2g", *way, backend=opt.backend)
    if not ok(rc == 0 and len(got) == len(prompts), f"{' '.join(way)}: {why or 'runs'}"):
        return None
    return [[torch.tensor(g[x], dtype=torch.float64) for x in ("last_logits", "logprob_of_next")]
            for g in got]


def deviations(got, want):
    """Of each prompt's last logits, of the largest; of each logprob, absolute."""
    return (torch.tensor([fixtures.deviation(g, w) for (g, _), (w, _) in zip(got, want)]),
            torch.cat([(g - w).abs() for (_, g), (_, w) in zip(got, want)]))


def compare(name, far, bar):
    for what, x, b in zip(("last logits", "logprobs"), far, bar):
        ok(x.mean() <= b.mean() and x.max() <= WORST * b.max(),
           f"{name}: {len(x)} {what} off by {x.mean():.2g} in the mean, {x.max():.2g} at most;"
           f" allowed {b.mean():.2g}, {WORST * b.max():.2g}")


def main(d):
    text, prompts = write(d), make_prompts()
    want = reference(d, text, prompts, torch.float64, attn_implementation="eager",
                     experts_implementation="eager")
    bar = deviations(reference(d, text, prompts, torch.bfloat16), want)
    ok(bar[0].mean() <= SANE, f"transformers in bf16 on {DEVICE}: last logits off by"
       f" {bar[0].mean():.2g} in the mean, {bar[0].max():.2g} at most")
    runs = [ours(d, prompts, way) for way in WAYS]
    for way, got in zip(WAYS, runs):
        if got is not None:
            far = deviations(got, want)
            compare(" ".join(way), far, bar)
            print("# " + " ".join(f"{x:.2g}({b:.2g})" for x, b in zip(far[0], bar[0])))
    if runs[0] is not None and runs[1] is not None:
        compare("64 at once against each alone", deviations(runs[1], runs[0]), bar)


room = shutil.disk_usage("/dev/shm").free > 4 << 30
with tempfile.TemporaryDirectory(dir="/dev/shm" if room else None) as d:
    main(d)
done()
