"""Train the demo checkpoint from scratch with transformers' own Gemma 4 classes, on one GPU.

  python3 train.py MODEL_DIR [--seconds 420] [--rows 128] [--workers 14] [--compile]

MODEL_DIR holds config.json and tokenizer.json; model.safetensors is written there: bf16, published
tensor names. The learning rate follows the clock, so the run takes --seconds on any machine.
Conversations are packed into rows of 512 tokens and attend to themselves only.
"""

import argparse
import math
import os
import random
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Gemma4ForCausalLM
from transformers.models.gemma4 import modeling_gemma4 as gemma

import data
from eval import PREFIX, text_config

ROW = 512
BALANCE = 0.01  # weight of the loss that spreads tokens over the experts


class Balance(torch.autograd.Function):
    """Identity on the router's probabilities [tok, expert]; its gradient is that of
    BALANCE * n_expert * sum_e(share of tokens at e * mean probability of e)."""

    @staticmethod
    def forward(ctx, probs, share):
        ctx.save_for_backward(share)
        return probs.clone()

    @staticmethod
    def backward(ctx, grad):
        (share,) = ctx.saved_tensors
        return grad + BALANCE * share.numel() / grad.shape[0] * share, None


def route(self, hidden):
    """The router of the model class, plus Balance."""
    hidden = self.norm(hidden) * self.scale * self.scalar_root_size
    probs = F.softmax(self.proj(hidden), dim=-1, dtype=torch.float32)
    top = torch.topk(probs.detach(), self.config.top_k_experts, dim=-1).indices
    share = F.one_hot(top, probs.shape[-1]).float().mean(dim=(0, 1))
    probs = Balance.apply(probs, share)
    weights = probs.gather(-1, top)
    weights = weights / weights.sum(dim=-1, keepdim=True) * self.per_expert_scale[top]
    return probs, weights, top


def all_experts(self, hidden, top, weights):
    """Same sum as the model class, by running every expert: faster than sorting at this size."""
    n, width = self.num_experts, self.intermediate_dim
    dense = torch.zeros(hidden.shape[0], n, device=hidden.device, dtype=weights.dtype)
    dense = dense.scatter(1, top, weights)
    gate, up = (
        F.linear(hidden, self.gate_up_proj.flatten(0, 1)).view(-1, n, 2 * width).chunk(2, dim=-1)
    )
    act = self.act_fn(gate) * up * dense[..., None].to(gate.dtype)
    return F.linear(act.flatten(1), self.down_proj.transpose(1, 2).flatten(0, 1).t())


class Rows(torch.utils.data.IterableDataset):
    """Endless packed batches: ids, document number and loss mask, each [rows, ROW]."""

    def __init__(self, model_dir, rows, seed):
        self.tok = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
        self.rows, self.seed = rows, seed

    def examples(self, rng):
        while True:
            batch = [data.example(rng) for _ in range(256)]
            batch = [e for e in batch if not e["held"]]
            whole = self.tok.encode_batch([e["prompt"] + e["target"] for e in batch])
            head = self.tok.encode_batch([e["prompt"] for e in batch])
            for w, h in zip(whole, head):
                n = len(h.ids)
                # The server encodes the prompt alone: drop what would merge over its end.
                ids = w.ids if w.ids[:n] == h.ids else None
                if ids and len(ids) <= ROW:
                    yield ids, n

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self.seed}/{info.id if info else 0}")
        source, held = self.examples(rng), None
        while True:
            out = np.zeros((3, self.rows, ROW), dtype=np.int64)
            for r in range(self.rows):
                at = doc = 0
                while True:
                    ids, n = held or next(source)
                    held = None
                    if at + len(ids) > ROW:
                        held = ids, n
                        break
                    doc += 1
                    out[0, r, at : at + len(ids)] = ids
                    out[1, r, at : at + len(ids)] = doc
                    out[2, r, at + n : at + len(ids)] = 1
                    at += len(ids)
            yield torch.from_numpy(out)


def masks(doc, window):
    same = doc[:, :, None] == doc[:, None, :]
    i = torch.arange(ROW, device=doc.device)
    gap = i[:, None] - i[None, :]
    full = (same & (gap >= 0))[:, None]
    return {"full_attention": full, "sliding_attention": full & (gap < window)}


def positions(doc):
    i = torch.arange(ROW, device=doc.device).expand_as(doc)
    new = torch.ones_like(doc, dtype=torch.bool)
    new[:, 1:] = doc[:, 1:] != doc[:, :-1]
    return i - torch.where(new, i, 0).cummax(dim=1).values


def fresh_model(cfg, device):
    torch.manual_seed(1)
    model = Gemma4ForCausalLM(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                p.fill_(p.numel() ** -0.25)  # scores of variance 1: the model scales by 1.0
            elif name.endswith(
                ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
            ):
                p.fill_(0.3)
            elif name.endswith("router.scale"):
                p.fill_(cfg.hidden_size**0.5)
            elif "experts." in name:
                p.normal_(0, 0.02)
        # A zero row would meet the norms' 1/sqrt(eps) in every layer: Balance's gradient blows up.
        model.model.embed_tokens.weight[cfg.pad_token_id].normal_(0, cfg.initializer_range)
    return model.to(device).train()


def optimizer(model, lr):
    mats = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": mats, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.98),
        fused=True,
    )


def save(model, path):
    out = {}
    for k, v in model.state_dict().items():
        if k != "lm_head.weight":
            out[PREFIX + k.removeprefix("model.")] = (
                v.detach().to("cpu", torch.bfloat16).contiguous()
            )
    save_file(out, path, metadata={"format": "pt"})


def step_loss(model, cfg, batch):
    ids, doc, mask = batch
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        hidden = model.model(
            input_ids=ids,
            attention_mask=masks(doc, cfg.sliding_window),
            position_ids=positions(doc),
            use_cache=False,
        ).last_hidden_state
        at = mask[:, 1:].bool()
        logits = model.lm_head(hidden[:, :-1][at]).float()
    cap = cfg.final_logit_softcapping
    return F.cross_entropy(cap * torch.tanh(logits / cap), ids[:, 1:][at])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model_dir")
    ap.add_argument("--seconds", type=float, default=420)
    ap.add_argument("--rows", type=int, default=128)
    ap.add_argument("--workers", type=int, default=14)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--out", help="file to write, if not MODEL_DIR/model.safetensors")
    a = ap.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    gemma.Gemma4TextRouter.forward = route
    gemma.Gemma4TextExperts.forward = all_experts
    cfg = text_config(a.model_dir)
    model = fresh_model(cfg, device)
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {device}", flush=True)
    if a.compile:
        for layer in model.model.layers:
            layer.compile()
    opt = optimizer(model, a.lr)
    load = torch.utils.data.DataLoader(
        Rows(a.model_dir, a.rows, a.seed),
        batch_size=None,
        num_workers=a.workers,
        pin_memory=device == "cuda",
        prefetch_factor=4 if a.workers else None,
    )
    start, n, tok, shown = time.time(), 0, 0, time.time()
    for batch in load:
        part = (time.time() - start) / a.seconds
        if part >= 1:
            break
        lr = a.lr * min(1, (n + 1) / 200) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * part)))
        for g in opt.param_groups:
            g["lr"] = lr
        loss = step_loss(model, cfg, batch.to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        n, tok = n + 1, tok + batch.shape[1] * ROW
        if time.time() - shown > 10 or n <= 3:
            shown = time.time()
            print(
                f"{shown - start:6.1f} s  step {n}  {tok / (shown - start) / 1e6:.2f} Mtok/s  "
                f"lr {lr:.1e}  loss {loss.item():.4f}",
                flush=True,
            )
    save(model, a.out or os.path.join(a.model_dir, "model.safetensors"))
    print(f"{n} steps, {tok / 1e6:.0f} M tokens, {time.time() - start:.0f} s", flush=True)
    os._exit(0)  # the endless workers need no orderly end


if __name__ == "__main__":
    main()
