"""Train the demo tokenizer on our own generated text and write it in Gemma's tokenizer.json shape.

  python3 tokenizer.py MODEL_DIR [VOCAB_SIZE]

Merges are learned inside words only and digits stay single, as in Gemma's vocabulary; the written
file has Gemma's pre-tokenizer, which splits nothing.
"""

import json
import os
import random
import sys

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import data

SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|audio>",
    "<audio|>",
    "<|audio|>",
    "<|video|>",
]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
CHARS = ["\u2581", "\n", "\t"] + [chr(c) for c in range(0x21, 0x7F)]
RUNS = [("\n", "\n"), ("\u2581", "\u2581"), ("\u2581\u2581", "\u2581\u2581")]
VOCAB_SIZE = 1024


def corpus(n):
    rng = random.Random(5)
    for _ in range(n):
        e = data.example(rng)
        text = e["prompt"] + e["target"]
        for s in SPECIAL:
            text = text.replace(s, "\0")
        yield from text.split("\0")


def learn(n_merges):
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581?[A-Za-z]+|[^A-Za-z]"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=len(CHARS) + n_merges,
        initial_alphabet=CHARS,
        limit_alphabet=len(CHARS),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(60000), trainer)
    return [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]


def build(vocab_size):
    fixed = SPECIAL + BYTES + CHARS + [a + b for a, b in RUNS]
    merges = learn(vocab_size - len(fixed))
    vocab = {t: i for i, t in enumerate(fixed + [a + b for a, b in merges])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": s,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, s in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [list(m) for m in merges + RUNS],
        },
    }


def main():
    out = sys.argv[1]
    tok = build(int(sys.argv[2]) if len(sys.argv) > 2 else VOCAB_SIZE)
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tok, f, ensure_ascii=False, indent=1)
        f.write("\n")
    conf = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(conf, f, indent=2)
        f.write("\n")
    print(len(tok["model"]["vocab"]), "entries,", len(tok["model"]["merges"]), "merges")


if __name__ == "__main__":
    main()
