"""Exact-match test of the demo checkpoint on held-out prompts, greedy, with transformers.

  python3 eval.py MODEL_DIR [--n 500] [--seed 7] [--device cpu|cuda] [--show]

Prints one line per category and the total; exit code 1 when the total is under 90 %.
"""

import argparse
import collections
import json
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import Gemma4ForCausalLM, Gemma4TextConfig
from tokenizers import Tokenizer

import data

PREFIX = "model.language_model."
GOAL = 0.90


def text_config(model_dir):
    with open(os.path.join(model_dir, "config.json"), encoding="utf-8") as f:
        return Gemma4TextConfig(**json.load(f)["text_config"])


def load(model_dir, device):
    """The text model of the published file, bf16 weights in fp32 arithmetic."""
    model = Gemma4ForCausalLM(text_config(model_dir))
    state = load_file(os.path.join(model_dir, "model.safetensors"))
    state = {"model." + k.removeprefix(PREFIX): v.float() for k, v in state.items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.to(device).eval()


def generate(model, tok, prompts, device, new_max=160):
    """Greedy continuations to the stop token, as text with it."""
    ids = [tok.encode(p).ids for p in prompts]
    width = max(map(len, ids))
    x = torch.tensor([[0] * (width - len(i)) + i for i in ids], device=device)
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids], device=device)
    stop = [tok.token_to_id(s) for s in ("<eos>", "<turn|>", "<|tool_response>")]
    with torch.no_grad():
        y = model.generate(
            input_ids=x,
            attention_mask=mask,
            max_new_tokens=new_max,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )
    out = []
    for row in y[:, width:].tolist():
        end = next((i + 1 for i, t in enumerate(row) if t in stop), len(row))
        out.append(tok.decode(row[:end], skip_special_tokens=False))
    return out


def evaluate(model_dir, n=500, seed=7, device="cpu", show=False, batch=125):
    tok = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    model = load(model_dir, device)
    tests = sorted(data.test_set(n, seed), key=lambda e: len(e["prompt"]))
    good, seen = collections.Counter(), collections.Counter()
    for i in range(0, n, batch):
        part = tests[i : i + batch]
        for e, got in zip(part, generate(model, tok, [e["prompt"] for e in part], device)):
            cat = e["cat"] + (" + thinking" if e["thinking"] else "")
            seen[cat] += 1
            good[cat] += got == e["target"]
            if show and got != e["target"]:
                print(f"[{cat}] {e['prompt'][-150:]!r}\n  want {e['target']!r}\n  got  {got!r}")
    for cat in sorted(seen):
        print(f"{cat:24} {good[cat]:4} / {seen[cat]:4}")
    total = sum(good.values())
    print(f"{'all':24} {total:4} / {n:4}  {100 * total / n:.1f} %")
    return total / n


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model_dir")
    ap.add_argument("--n", type=int, default=500)
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--show", action="store_true")
    a = ap.parse_args()
    return 0 if evaluate(a.model_dir, a.n, a.seed, a.device, a.show) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
