#!/usr/bin/env python3
"""Make the tiny random checkpoints of t/forward.c and what transformers says about them.

    python3 t/golden/make_fixtures.py          (transformers 5.23, torch, safetensors, numpy)

Three models in t/golden/{moe,dense,ple}, weights in bf16, and in each an expected.jsonl computed by
transformers' own classes in float64. Everything is seeded: running it again changes nothing.

  moe    published form, two shards and vision tensors beside the text: MoE, k_eq_v, both layer types
  dense  as save_pretrained writes it (per_layer_config, "model." names, text only): k_eq_v
  ple    published form, one file: per-layer embeddings, shared KV, double-wide MLP
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

HERE = pathlib.Path(__file__).resolve().parent
WINDOW = 16
LENGTHS = (1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW)
GREEDY = 24
MARGIN = 0.01           # a greedy step closer than this is a coin toss: take another prompt

S, F = "sliding_attention", "full_attention"
COMMON = dict(
    vocab_size=512, hidden_size=96, intermediate_size=48, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, sliding_window=WINDOW, max_position_embeddings=4096,
    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6, final_logit_softcapping=30.0,
    pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
    attention_bias=False, hidden_size_per_layer_input=0, vocab_size_per_layer_input=512,
    rope_parameters={S: {"rope_type": "default", "rope_theta": 10000.0},
                     F: {"rope_type": "proportional", "partial_rotary_factor": 0.25,
                         "rope_theta": 1000000.0}})
MODELS = {
    "moe": dict(COMMON, num_hidden_layers=6, layer_types=[S, S, F] * 2, global_head_dim=32,
                num_global_key_value_heads=1, attention_k_eq_v=True, enable_moe_block=True,
                num_experts=8, top_k_experts=3, moe_intermediate_size=24),
    "dense": dict(COMMON, num_hidden_layers=4, layer_types=[S, F, S, F], global_head_dim=64,
                  num_global_key_value_heads=1, attention_k_eq_v=True, intermediate_size=100),
    "ple": dict(COMMON, num_hidden_layers=7, layer_types=[S, S, F, S, F, S, F], global_head_dim=32,
                hidden_size_per_layer_input=24, num_kv_shared_layers=3, use_double_wide_mlp=True),
}


def parameters(model):
    """Name and tensor of what a checkpoint holds."""
    return [(n, p) for n, p in list(model.named_parameters()) + list(model.named_buffers())
            if not n.endswith(("inv_freq", "embed_scale")) and n != "lm_head.weight"]


def random_value(name, shape, gen):
    """bf16 values that make every parameter matter and keep the logits apart; on gen's device."""
    def make(f):
        return f(shape, generator=gen, device=gen.device)

    if name.endswith("layer_scalar"):
        v = 0.6 + 0.6 * make(torch.rand)
    elif name == "model.norm.weight":
        v = 3 + 2 * make(torch.rand)
    elif len(shape) == 1:
        v = 0.5 + make(torch.rand)
    elif "embed_tokens" in name:
        v = 0.1 * make(torch.randn)
    else:
        v = make(torch.randn) * shape[-1] ** -0.5
    return v.bfloat16()


def randomise(model, gen):
    with torch.no_grad():
        for name, p in parameters(model):
            p.copy_(random_value(name, p.shape, gen).to(p.dtype))


def stored(name, prefix):
    """A parameter's name in a checkpoint."""
    return name.replace("model.", prefix, 1)


def tensors(model, prefix):
    return {stored(n, prefix): p.detach().bfloat16().contiguous().clone()
            for n, p in parameters(model)}


def published(text):
    text = dict(text, model_type="gemma4_text", dtype="bfloat16", attention_dropout=0.0,
                use_bidirectional_attention=None, initializer_range=0.02, use_cache=True)
    return {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
            "dtype": "bfloat16", "eos_token_id": [1, 106], "tie_word_embeddings": True,
            "image_token_id": 510, "audio_config": None, "text_config": text,
            "vision_config": {"model_type": "gemma4_vision", "hidden_size": 8}}


def save(name, model, text):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()

    if name == "dense":
        model.bfloat16().save_pretrained(out)
        (out / "generation_config.json").unlink(missing_ok=True)
        return

    (out / "config.json").write_text(json.dumps(published(text), indent=1) + "\n")
    (out / "generation_config.json").write_text(json.dumps(
        {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106, 50], "pad_token_id": 0,
         "temperature": 1.0, "top_k": 64, "top_p": 0.95}, indent=1) + "\n")
    all_of = tensors(model, "model.language_model.")
    if name == "ple":
        save_file(all_of, out / "model.safetensors", metadata={"format": "pt"})
        return

    all_of["model.vision_tower.std_bias"] = torch.ones(8, dtype=torch.bfloat16)
    all_of["model.embed_vision.embedding_projection.weight"] = torch.ones(64, 8).bfloat16()
    names = sorted(all_of)
    shards = {"model-00001-of-00002.safetensors": names[::2],
              "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({n: all_of[n] for n in part}, out / file, metadata={"format": "pt"})
    (out / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": sum(2 * t.numel() for t in all_of.values())},
         "weight_map": {n: file for file, part in shards.items() for n in part}}, indent=0) + "\n")


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]


def logprob_of_next(logits, ids):
    return torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]


def deviation(got, want):
    """Of the last logits: the largest difference, of the largest logit."""
    return float((got - want).abs().max() / want.abs().max())


def expect(model, n, gen):
    while True:
        ids = torch.randint(3, 510, (n,), generator=gen).tolist()
        first = logits(model, ids)
        greedy, close = [], False
        for _ in range(GREEDY):
            top = torch.topk(logits(model, ids + greedy)[-1], 2)
            close |= bool(top.values[0] - top.values[1] < MARGIN)
            greedy.append(int(top.indices[0]))
        if not close:
            break
    return {"prompt": ids, "n": GREEDY,
            "logprob_of_next": [round(float(x), 6) for x in logprob_of_next(first, ids)],
            "last_logits": [round(float(x), 6) for x in first[-1]], "greedy": greedy}


def bf16_deviation(config, model, rows):
    """What transformers' own bf16 run does to the last logits, of the largest: the bar for a GPU."""
    half = Gemma4ForCausalLM(config).eval()
    half.load_state_dict(model.state_dict())
    half = half.bfloat16()
    for row in rows:
        want = torch.tensor(row["last_logits"], dtype=torch.float64)
        got = logits(half, row["prompt"])[-1].double()
        row["bf16_deviation"] = round(deviation(got, want), 5)


def readable(out):
    for file in out.iterdir():
        file.chmod(0o644)


def main():
    for seed, (name, text) in enumerate(MODELS.items(), 41):
        gen = torch.Generator().manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        config = Gemma4TextConfig(**json.loads(json.dumps(text)), attn_implementation="eager",
                                  experts_implementation="eager")
        model = Gemma4ForCausalLM(config).double().eval()
        torch.set_default_dtype(torch.float32)
        randomise(model, gen)
        rows = [expect(model, n, gen) for n in LENGTHS]
        bf16_deviation(config, model, rows)
        save(name, model, text)
        with open(HERE / name / "expected.jsonl", "w") as f:
            for row in rows:
                f.write(json.dumps(row, separators=(",", ":")) + "\n")
        readable(HERE / name)
        spread = max(rows[-1]["last_logits"]) - min(rows[-1]["last_logits"])
        print(name, sum(p.numel() for p in model.parameters()), "parameters, logits span", spread,
              "greedy", rows[-1]["greedy"][:8])


if __name__ == "__main__":
    main()
