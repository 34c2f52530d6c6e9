#!/usr/bin/env python3
"""Random regular expressions, and GBNF of the same languages, against Python's re, which they are
written for a second time.

usage: t/regex_reference.py [patterns] [seed]      default 12500; prints TAP

Texts are matches that follow the expression, changed here and there, and random ones. In the
spelling of JSON strings a text is allowed if it is what json.dumps writes of a text that matches.
"""
import json
import os
import random
import re
import subprocess
import sys
import unicodedata
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MATCH = os.path.join(ROOT, os.environ.get("TEST_BUILD", "build"), "t/helpers/gram_match")
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 12500
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
CHARS = list("abcABz019_- .]^{\"\\/\n\t\r\b\f\v\x00\x01\x1f\x7f") + list("éßΣ中\u2028\u00a0😀𐀀")
SPECIAL = set("\\^$.|?*+()[{")
CLASSES = {"d": "0123456789", "w": "abz_09A", "s": " \t\n\r\f\v"}


class Pattern:
    """What one expression is: as we read it, as re does, as GBNF; and texts that follow it."""

    def __init__(self, ours, theirs, gbnf, make, anchored=False, counts=0):
        self.ours, self.theirs, self.gbnf, self.make = ours, theirs, gbnf, make
        self.anchored, self.counts = anchored, counts       # counts inside each other


def char(rng, special):
    """One character and how it is written: ours, theirs."""
    c = rng.choice(CHARS)
    code = ord(c)
    how = rng.random()
    if how < 0.05:
        return c, "\\u{%X}" % code, "\\U%08x" % code
    if how < 0.1 and code > 0xFFFF:
        high, low = 0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code & 0x3FF)
        return c, "\\u%04X\\u%04x" % (high, low), c
    if how < 0.15 and code < 0x100:
        return c, "\\x%02x" % code, "\\x%02x" % code
    if how < 0.2 and code < 0x10000:
        return c, "\\u%04x" % code, "\\u%04x" % code
    if c in special or how < 0.3 and not c.isalnum() and c.isascii():
        return c, "\\" + c, "\\" + c
    return c, c, c


def one_char(rng):
    c, ours, theirs = char(rng, SPECIAL)
    return Pattern(ours, theirs, '"%s"' % "".join("\\U%08x" % ord(x) for x in c)
                   if rng.random() < 0.5 or c in '\\"\n' else '"%s"' % c, lambda: c)


def one_class(rng):
    name = rng.choice("dwsDWS")
    text = "\\" + name
    return Pattern(text, text, "[%s]" % text, lambda: rng.choice(CLASSES.get(name, CHARS)))


def one_set(rng):
    ours, theirs, likely = "", "", []
    special = set("\\]^-[")
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        if kind < 0.2:
            name = rng.choice("dwsDWS")
            ours += "\\" + name
            theirs += "\\" + name
            likely += CLASSES.get(name, CHARS)
        elif kind < 0.5:
            a, b = sorted((char(rng, special) for _ in range(2)), key=lambda x: x[0])
            ours += a[1] + "-" + b[1]
            theirs += a[2] + "-" + b[2]
            likely += [a[0], b[0], chr((ord(a[0]) + ord(b[0])) // 2)]
        else:
            a = char(rng, special)
            ours += a[1]
            theirs += a[2]
            likely.append(a[0])
    edge = rng.random()
    if edge < 0.1:
        ours, theirs = ours + "-", theirs + "-"
    elif edge < 0.2:
        ours, theirs = "-" + ours, "-" + theirs
    likely = [c for c in likely if not "\ud800" <= c <= "\udfff"]
    no = "^" if rng.random() < 0.3 else ""
    return Pattern("[%s%s]" % (no, ours), "[%s%s]" % (no, theirs), "[%s%s]" % (no, ours),
                   lambda: rng.choice(CHARS if no else likely))


def count(rng, p):
    low = rng.randint(0, 3)
    high = low + rng.randint(0, 2)
    mark, least, most = rng.choice([("*", 0, 3), ("+", 1, 3), ("?", 0, 1),
                                    ("{%d}" % low, low, low), ("{%d,}" % low, low, low + 2),
                                    ("{%d,%d}" % (low, high), low, high)])
    lazy = rng.choice(["", "", "?"])
    return Pattern(p.ours + mark + lazy, p.theirs + mark + lazy, p.gbnf + mark,
                   lambda: "".join(p.make() for _ in range(rng.randint(least, most))), False,
                   p.counts + 1)


def group(rng, p):
    opener = rng.choice([("(", "("), ("(?:", "(?:"), ("(?<n%d>", "(?P<n%d>"), ("(?P<n%d>",) * 2])
    rng.number += 1
    ours, theirs = (o % rng.number if "%" in o else o for o in opener)
    gbnf = "(%s)" % p.gbnf
    if rng.random() < 0.5:
        gbnf = "rule-%d" % rng.number
        rng.rules += "%s ::= %s\n" % (gbnf, p.gbnf)
    return Pattern(ours + p.ours + ")", theirs + p.theirs + ")", gbnf, p.make, p.anchored, p.counts)


def joined(parts, with_, make):
    return Pattern(with_.join(p.ours for p in parts), with_.join(p.theirs for p in parts),
                   (with_ or " ").join(p.gbnf for p in parts), make,
                   any(p.anchored for p in parts), max([0] + [p.counts for p in parts]))


def item(rng, depth):
    kind = rng.random()
    if kind < 0.08:
        return Pattern(*rng.choice([("^", "^"), ("$", "\\Z")]), "", lambda: "", True)
    if depth > 0 and kind < 0.35:
        p = group(rng, anything(rng, depth - 1))
    elif kind < 0.5:
        p = one_set(rng)
    elif kind < 0.6:
        p = one_class(rng)
    elif kind < 0.65:
        p = Pattern(".", ".", "[^\\n]", lambda: rng.choice(CHARS))
    else:
        p = one_char(rng)
    if rng.random() < 0.3 and p.counts < 2:     # re takes a lifetime for more
        if p.anchored:
            return Pattern(p.ours + "?", p.theirs + "?", "", lambda: rng.choice([p.make(), ""]),
                           True, p.counts)
        return count(rng, p)
    return p


def anything(rng, depth):
    rows = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        row = [item(rng, depth) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4]))]
        rows.append(joined(row, "", lambda row=row: "".join(p.make() for p in row)))
    return joined(rows, "|", lambda: rng.choice(rows).make())


def changed(rng, text):
    for _ in range(rng.randint(0, 2)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(["", rng.choice(CHARS), text[at:at + 2]]) + \
            text[at + rng.randint(0, 2):]
    return text


def texts_of(rng, p):
    out = ["", rng.choice(CHARS)]
    for _ in range(6):
        made = p.make()[:12]
        out += [made, changed(rng, made)]
    return out + [rng.choice(CHARS) + out[2], out[3] + rng.choice(CHARS), out[4] + "\n"]


def spelled(text):
    return json.dumps(text, ensure_ascii=False)[1:-1]


def respelled(rng, text):
    """Another way to write the same JSON string, or nearly."""
    if not text:
        return "\\"
    at = rng.randrange(len(text))
    c = text[at]
    other = rng.choice(["\\u%04x" % ord(c), "\\u%04X" % ord(c), "\\/", c, "\\" + c])
    return spelled(text[:at]) + other + spelled(text[at + 1:])


def unspelled(json_text):
    """The text, or None if this is not how json.dumps writes it."""
    try:
        text = json.loads('"' + json_text + '"')
    except ValueError:
        return None
    return text if isinstance(text, str) and spelled(text) == json_text else None


def wanted(kind, theirs, texts):
    out = []
    for t in texts:
        if kind.endswith("json"):
            t = unspelled(t)
        found = t is not None and (theirs.search(t) if kind.startswith("search")
                                   else theirs.fullmatch(t))
        out.append(int(bool(found)))
    return out


def run(lines):
    p = subprocess.run([MATCH], input="".join(json.dumps(x) + "\n" for x in lines).encode(),
                       stdout=subprocess.PIPE)
    got = [json.loads(x) for x in p.stdout.splitlines()]
    if p.returncode != 0 or len(got) != len(lines):
        print("Bail out! gram_match died at line %d: %s" % (len(got), lines[len(got):][:1]))
        sys.exit(1)
    return got


n_test = failed = 0


def ok(cond, name):
    global n_test, failed
    n_test += 1
    failed += not cond
    print("%sok %d - %s" % ("" if cond else "not ", n_test, name), flush=True)


def check(kind, n, rng):
    lines, want = [], []
    for _ in range(n):
        rng.number, rng.rules = 0, ""
        p = anything(rng, 3)
        while kind == "ebnf" and p.anchored:
            rng.rules = ""
            p = anything(rng, 3)
        texts = texts_of(rng, p)
        if kind.endswith("json"):
            texts = [spelled(t) for t in texts] + [respelled(rng, t) for t in texts[:6]] + texts[:3]
        theirs = re.compile(p.theirs, re.ASCII)
        lines.append({"kind": kind, "texts": texts, "pattern":
                      p.ours if kind != "ebnf" else "%sroot ::= %s" % (rng.rules, p.gbnf)})
        want.append(wanted(kind, theirs, texts))
    got = run(lines)
    bad = large = n_yes = 0
    for line, g, w in zip(lines, got, want):
        if isinstance(g, dict) and "too large" in g["error"]:
            large += 1
            continue
        if isinstance(g, dict) and "no text" in g["error"]:
            g = [0] * len(w)
        n_yes += sum(w)
        if g != w:
            bad += 1
            if bad <= 5:
                print("# %s\n#   ours %s\n#   want %s" % (json.dumps(line), g, w))
    ok(bad == 0 and large <= n // 200, "%s: %d expressions, %d too large, %d texts, %d match" %
       (kind, n, large, sum(map(len, want)), n_yes))


def check_categories():
    """Every run of a category begins and ends where it should; of the tables' version of Unicode."""
    if unicodedata.unidata_version != "14.0.0":
        ok(True, "categories # SKIP Unicode %s" % unicodedata.unidata_version)
        return
    of = [unicodedata.category(chr(c)) for c in range(0x110000)]
    edges = sorted({c + d for c in range(1, 0x110000) if of[c] != of[c - 1] for d in (-1, 0)}
                   | {0, 0x10FFFF})
    edges = [c for c in edges if not 0xD800 <= c < 0xE000]
    names = sorted(set(of) - {"Cn", "Cs", "Co"}) + list("LMNPSZ")
    got = run([{"kind": "regex", "pattern": "\\p{%s}" % n, "texts": [chr(c) for c in edges]}
               for n in names])
    for name, g in zip(names, got):
        ok(g == [int(of[c].startswith(name)) for c in edges], "\\p{%s}: %s characters" %
           (name, sum(g) if isinstance(g, list) else g))


def main():
    warnings.simplefilter("ignore", FutureWarning)
    for i, kind in enumerate(("regex", "search", "regex_json", "search_json", "ebnf")):
        check(kind, COUNT // 5, random.Random(SEED * 5 + i))
    check_categories()
    print("1..%d" % n_test)
    sys.exit(failed != 0)


main()
