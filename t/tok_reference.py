#!/usr/bin/env python3
"""Encode and decode like the `tokenizers` library does: random strings and random ids.

usage: t/tok_reference.py [N] [DIR...]      N strings per tokenizer, default 100000

Tokenizers: each DIR/tokenizer.json (models/demo when no DIR is given and it is there) and a made-up
one of Gemma's size: 262,144 entries, its control tokens at their real ids, bytes at 238, merges of
random pairs in random order. Prints TAP.

Decoding is not the same by intent: of a run of byte tokens that is not valid UTF-8 as a whole, the
library makes one U+FFFD a byte, we keep the characters in it that are whole, because a stream has
already sent them. So ids are decoded here by our rule, and the library must agree on every line
whose byte runs are valid.
"""
import codecs
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>",
           47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>", 50: "<|tool_response>",
           51: "<tool_response|>", 52: '<|"|>', 98: "<|think|>", 100: "<|channel>",
           101: "<channel|>", 105: "<|turn>", 106: "<turn|>", 255999: "<|image>",
           256000: "<|audio>", 258880: "<|image|>", 258881: "<|audio|>", 258882: "<image|>",
           258883: "<audio|>", 258884: "<|video|>"}
SIZE = 262144
MARK = "\u2581"


def gemma_like(vocab, merges):
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    back = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": c, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, c in SPECIAL.items()],
        "normalizer": replace,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence",
                    "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }


def alphabet():
    chars = [MARK, "\n", "\t", "\r", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufe0f"]
    chars += [chr(c) for c in range(33, 127)]
    for lo, hi in ((0xA1, 0x250), (0x391, 0x450), (0x4E00, 0x4F00), (0x1F600, 0x1F640)):
        chars += [chr(c) for c in range(lo, hi)]
    return chars


def make_tokenizer(rng, string_merges):
    """Entries are joins of earlier entries, most often of short and common ones."""
    vocab = {c: i for i, c in SPECIAL.items()}
    taken = set(SPECIAL)
    for b in range(256):
        vocab["<0x%02X>" % b] = 238 + b
        taken.add(238 + b)
    free = [i for i in range(SIZE) if i not in taken]
    chars = alphabet()
    common = [MARK, "\n"] + list("etaoinshrdlu{\"}.,:<>|0123")
    words = list(dict.fromkeys(common + chars))
    ids = iter(free)
    for w in words:
        vocab[w] = next(ids)
    pairs = []
    left = len(free) - len(words)
    while left:
        a = words[int(len(words) * rng.random() ** 4)]
        b = words[int(len(words) * rng.random() ** 4)]
        if len(a) + len(b) > 24 or a + b in vocab:
            continue
        vocab[a + b] = next(ids)
        words.append(a + b)
        pairs.append((a, b))
        left -= 1
    # As in the real file, an entry has a merge for (nearly) every way to cut it in two.
    seen = set(pairs)
    for w in words:
        for cut in range(1, len(w)):
            p = (w[:cut], w[cut:])
            if p not in seen and p[0] in vocab and p[1] in vocab and rng.random() < 0.8:
                seen.add(p)
                pairs.append(p)
    # Mostly by the order of making, with neighbours swapped far, so that ranks are not tidy.
    order = sorted(range(len(pairs)), key=lambda i: i + rng.random() * 30000)
    merges = [pairs[i] for i in order]
    if string_merges:
        merges = ["%s %s" % p for p in merges]
    else:
        merges = [list(p) for p in merges]
    return gemma_like(vocab, merges)


def random_text(rng, words, chars):
    out = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.5:
            out.append(rng.choice(words))
        elif kind < 0.6:
            out.append(rng.choice(list(SPECIAL.values())))
        elif kind < 0.65:
            out.append(rng.choice(list(SPECIAL.values()))[:rng.randint(1, 6)])
        elif kind < 0.75:
            out.append(rng.choice(" \n\t" + MARK) * rng.randint(1, 9))
        elif kind < 0.85:
            c = rng.randrange(0x110000 if rng.random() < 0.3 else 0x3000)
            out.append(chr(c) if not 0xD800 <= c < 0xE000 else "?")
        elif kind < 0.87:
            out.append("<0x%02X>" % rng.randrange(256))
        elif kind < 0.88:
            out.append(rng.choice("ae 1") * rng.randint(10, 200))
        else:
            out += [rng.choice(chars) for _ in range(rng.randint(1, 10))]
    return "".join(out)


def random_ids(rng, n_vocab, byte_ids):
    out = []
    for _ in range(rng.randint(0, 8)):
        kind = rng.random()
        if kind < 0.5:
            out.append(rng.randrange(n_vocab))
        elif kind < 0.6:
            out.append(rng.choice(list(SPECIAL)))
        elif kind < 0.8:
            out += [byte_ids[b] for b in chr(rng.randrange(0x80, 0xD800)).encode()]
        else:
            out += [byte_ids[rng.randrange(256)] for _ in range(rng.randint(1, 5))]
    return [i for i in out if i < n_vocab]


codecs.register_error("fffd_a_byte", lambda e: ("\ufffd", e.start + 1))


def decode_by_our_rule(tok, ids, byte_of):
    """The text, and whether every run of byte tokens was valid UTF-8."""
    out, run, valid = [], b"", True
    for i in ids + [None]:
        if i in byte_of:
            run += bytes([byte_of[i]])
            continue
        if run:
            try:
                run.decode()
            except UnicodeDecodeError:
                valid = False
            out.append(run.decode("utf-8", "fffd_a_byte"))
            run = b""
        if i is not None:
            out.append((tok.id_to_token(i) or "").replace(MARK, " "))
    return "".join(out), valid


def run_cli(cli, folder, lines, *more):
    text = "".join(json.dumps(x) + "\n" for x in lines)
    p = subprocess.run([cli, folder, *more], input=text.encode(), stdout=subprocess.PIPE)
    if p.returncode != 0:
        sys.exit("tok_cli failed")
    return [json.loads(x) for x in p.stdout.splitlines()]


n_test = failed = 0


def ok(cond, name):
    global n_test, failed
    n_test += 1
    failed += not cond
    print("%sok %d - %s" % ("" if cond else "not ", n_test, name), flush=True)


def first_difference(kind, given, got, want):
    for g, a, b in zip(given, got, want):
        if a != b:
            print("# %s %s\n#   ours %s\n#   want %s" % (kind, json.dumps(g), a, b))
            return
    print("# %s: %d lines, want %d" % (kind, len(got), len(want)))


def check(name, cli, folder, n, rng):
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    vocab = tok.get_vocab()
    byte_ids = [vocab["<0x%02X>" % b] for b in range(256)]
    byte_of = {i: b for b, i in enumerate(byte_ids)}
    words = [w.replace(MARK, " ") for w in sorted(vocab, key=vocab.get)]
    texts = [random_text(rng, words, alphabet()) for _ in range(n)]

    for plain in (False, True):
        given = texts if not plain else texts[:n // 10]
        tok.encode_special_tokens = plain
        want = [e.ids for e in tok.encode_batch(given, add_special_tokens=False)]
        got = run_cli(cli, folder, given, *(["plain"] if plain else []))
        what = "specials as text" if plain else "specials parsed"
        if not plain:
            ids = want
        ok(got == want, "%s: encode, %s: %d strings, %d ids" %
           (name, what, len(given), sum(map(len, want))))
        if got != want:
            first_difference("encode", given, got, want)

    ids = ids[:n // 2] + [random_ids(rng, len(vocab), byte_ids) for _ in range(n // 2)]
    got = run_cli(cli, folder, ids)
    rule = [decode_by_our_rule(tok, i, byte_of) for i in ids]
    ok(got == [r[0] for r in rule], "%s: decode, %d lines by our rule" % (name, len(ids)))
    if got != [r[0] for r in rule]:
        first_difference("decode", ids, got, [r[0] for r in rule])
    library = tok.decode_batch(ids, skip_special_tokens=False)
    sane = [k for k in range(len(ids)) if rule[k][1]]
    ok(all(got[k] == library[k] for k in sane),
       "%s: decode, the library agrees on the %d lines with valid bytes" % (name, len(sane)))
    if not all(got[k] == library[k] for k in sane):
        first_difference("decode", [ids[k] for k in sane], [got[k] for k in sane],
                         [library[k] for k in sane])


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    folders = sys.argv[2:] or [d for d in [os.path.join(ROOT, "models/demo")]
                               if os.path.exists(os.path.join(d, "tokenizer.json"))]
    engine = os.path.join(ROOT, "engine")
    with tempfile.TemporaryDirectory() as tmp:
        cli = os.path.join(tmp, "tok_cli")
        subprocess.check_call(
            ["cc", "-std=gnu11", "-O2", "-I" + engine, "-I" + engine + "/text",
             "-I" + os.path.join(ROOT, "wire"), os.path.join(ROOT, "t/helpers/tok_cli.c"),
             engine + "/buf.c", engine + "/file.c", engine + "/json.c", engine + "/text/tok.c",
             engine + "/text/tok_load.c", "-lyajl", "-lm", "-o", cli])
        for d in folders:
            check(os.path.basename(d), cli, d, n, random.Random(1))
        for string_merges in (False, True):
            made = os.path.join(tmp, "made%d" % string_merges)
            os.mkdir(made)
            with open(made + "/tokenizer.json", "w") as f:
                json.dump(make_tokenizer(random.Random(2), string_merges), f, ensure_ascii=False)
            check("made up, merges as " + ("strings" if string_merges else "pairs"), cli, made,
                  n if not string_merges else n // 10, random.Random(3))
    print("1..%d" % n_test)
    sys.exit(failed != 0)


main()
