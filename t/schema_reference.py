#!/usr/bin/env python3
"""Grammars made of schemas against the jsonschema package.

Random texts of each grammar must be JSON that the package calls valid; random valid values that are
written as the grammar writes them must be among its texts; values that the package calls invalid
must not be. In a call's syntax the texts go through the parser of calls first. Prints TAP.
"""
import copy
import json
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "helpers"))

from env import BUILD, done, ok
from schemas import all_schemas, deep_tool, wide

from jsonschema import Draft7Validator, Draft202012Validator

MARK = '<|"|>'
WALKS = 40
VALUES = 60
EXAMPLES = {                            # of formats and patterns
    "date": ["2024-02-29", "1999-12-31", "2023-02-29", "2023-04-31"],
    "time": ["23:59:59Z", "00:00:00.123+01:30"], "date-time": ["2024-02-29T01:02:03Z"],
    "duration": ["P1Y2M3D", "PT5M", "P3W", "P1DT2H"], "email": ["a.b@example.com"],
    "hostname": ["example.com", "a", "x-1.y"], "ipv4": ["0.0.0.0", "255.9.10.199"],
    "ipv6": ["::", "::1", "1:2:3:4:5:6:7:8", "fe80::1:2", "1::"],
    "uri": ["https://example.com/a?b=c#d", "mailto:a@b.c", "urn:isbn:1"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    r"^\d{5}$": ["01234"], r"^[A-Z]{2}-[0-9]{4,6}$": ["AB-1234", "ZZ-999999"], "^[a-z]+$": ["abc"],
    "[0-9]{3}": ["x123y", "000", "a\"\\123"], "^(a|b)*c?$": ["", "abac", "c"],
    "^[^ @]+@[^ @]+$": ["a@b"], "^.{2,4}$": ["ab", "\u00e9\"x\\"], "^$": [""],
}


def for_reference(s):
    """What the package does not know: nullable, and types in any case."""
    if isinstance(s, list):
        return [for_reference(x) for x in s]
    if not isinstance(s, dict):
        return s
    out = {k: for_reference(v) for k, v in s.items()}
    if isinstance(out.get("type"), str):
        out["type"] = out["type"].lower()
    if out.get("nullable") is True:
        out["type"] = [out["type"], "null"]
    return out


def validator(schema):
    cls = Draft7Validator if "draft-07" in schema.get("$schema", "") else Draft202012Validator
    return cls(for_reference(schema), format_checker=cls.FORMAT_CHECKER)


class Maker:
    """Random values of a schema, most of them valid, with their keys in the grammar's order."""

    def __init__(self, root, rng, call):
        self.root, self.rng, self.call = root, rng, call

    def follow(self, ref):
        s = self.root
        for step in ref.split("/")[1:]:
            s = s[step]
        return s

    def flat(self, s):
        """One alternative, with what holds beside it."""
        if s is True or s is False:
            return {}
        s, parts = dict(s), []
        if "$ref" in s:
            parts.append(self.follow(s.pop("$ref")))
        parts += s.pop("allOf", [])
        for word in ("anyOf", "oneOf"):
            if word in s:
                parts.append(self.rng.choice(s.pop(word)))
        for p in parts:
            p = self.flat(p)
            for k, v in p.items():
                if k == "properties":
                    s[k] = {**s.get(k, {}), **{n: {"allOf": [s[k][n], x]} if n in s.get(k, {})
                                               else x for n, x in v.items()}}
                elif k == "required":
                    s[k] = list(dict.fromkeys(s.get(k, []) + v))
                elif k == "enum" and k in s:
                    s[k] = [x for x in s[k] if x in v]
                else:
                    s.setdefault(k, v)
        return s

    def text(self, lo, hi):
        chars = "ab Z09\u00e9\u20ac\U0001f600:,{}[]" + ("" if self.call else "\"\\/\n\t\x01\x7f")
        return "".join(self.rng.choice(chars) for _ in range(self.rng.randint(lo, hi)))

    def make(self, s, depth=0):
        s = self.flat(s)
        if "const" in s:
            return s["const"]
        if s.get("enum"):
            return self.rng.choice(s["enum"])
        types = s.get("type")
        if types is None:
            types = "object" if "properties" in s or depth < 2 and self.rng.random() < 0.2 else \
                self.rng.choice(["null", "boolean", "integer", "number", "string"])
        if isinstance(types, list):
            types = self.rng.choice(types)
        if s.get("nullable") and self.rng.random() < 0.3:
            types = "null"
        return getattr(self, types.lower())(s, depth)

    def null(self, s, depth):
        return None

    def boolean(self, s, depth):
        return self.rng.random() < 0.5

    def bounds(self, s):
        lo = max(s.get("minimum", -10**6), s.get("exclusiveMinimum", -10**6))
        hi = min(s.get("maximum", 10**6), s.get("exclusiveMaximum", 10**6))
        if lo > hi:
            lo, hi = (lo, lo + 1000) if "minimum" in s or "exclusiveMinimum" in s else \
                (hi - 1000, hi)
        return lo, hi

    def integer(self, s, depth):
        lo, hi = self.bounds(s)
        lo, hi = int(lo), int(hi)
        return self.rng.choice([lo, hi, lo + 1, hi - 1, lo - 1, hi + 1, 0, 1,
                                self.rng.randint(lo, max(lo, hi))])

    def number(self, s, depth):
        lo, hi = self.bounds(s)
        x = self.rng.choice([lo, hi, self.rng.uniform(lo, hi), (lo + hi) / 2, lo - 0.5, hi + 0.001])
        x = round(x, self.rng.randint(0, 6)) + 0.0
        whole = x == int(x) and (self.rng.random() < 0.5 or abs(x) > 1e15 or "multipleOf" in s)
        return int(x) if whole else x

    def string(self, s, depth):
        for word in ("pattern", "format"):
            if s.get(word) in EXAMPLES:
                return self.rng.choice(EXAMPLES[s[word]])
        lo = s.get("minLength", 0)
        hi = s.get("maxLength", lo + 8)
        return self.rng.choice([lambda: self.text(lo, hi), lambda: self.text(lo, lo),
                                lambda: self.text(hi, hi), lambda: self.text(hi + 1, hi + 1)])()

    def array(self, s, depth):
        first, rest = s.get("prefixItems", []), s.get("items", True)
        if isinstance(rest, list):
            first, rest = rest, s.get("additionalItems", False)
        elif first and "items" not in s and s.get("minItems", 0) <= len(first):
            rest = False
        lo = s.get("minItems", 0)
        hi = min(s.get("maxItems", lo + 3), lo + 300)
        if rest is False:
            hi = min(hi, len(first))
        n = self.rng.choice([lo, max(lo, hi), self.rng.randint(lo, max(lo, hi))])
        if depth > 5:
            n = lo
        return [self.make(first[i] if i < len(first) else rest, depth + 1) for i in range(n)]

    def object(self, s, depth):
        props, must = s.get("properties", {}), s.get("required", [])
        other = s.get("additionalProperties", not props and "patternProperties" not in s)
        out = {}
        for k, v in props.items():
            if v is not False and (k in must or self.rng.random() < (0.5 if depth < 4 else 0)):
                out[k] = self.make(v, depth + 1)
        for k in must:
            if k not in props:
                out[k] = self.make(other if isinstance(other, dict) else {}, depth + 1)
        n = self.rng.randint(s.get("minProperties", 0), 3) if depth < 4 else 0
        for i in range(n):
            k = self.rng.choice("pqr") + str(i)
            if other is not False and k not in props and not (self.call and props):
                out[k] = self.make(other, depth + 1)
            for p, v in s.get("patternProperties", {}).items():
                out["x-" + "ab"[i % 2]] = self.make(v, depth + 1)
        return out


def spoil(v, rng):
    """Change one thing somewhere."""
    v = copy.deepcopy(v)
    at, hold, key = v, None, None
    while isinstance(at, (dict, list)) and at and rng.random() < 0.7:
        hold, key = at, rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        at = hold[key]
    new = rng.choice([None, True, 0, -1, 10**6, 1.5, "", "zzzzz", [], {}, [at], {"q": at}, "drop",
                      str(at)])
    if hold is None:
        return new
    if new == "drop":
        del hold[key]
    elif new == "zzzzz" and isinstance(hold, dict):
        hold[new] = 1
    else:
        hold[key] = new
    return v


def write_call(v, schema):
    """As the chat template writes arguments."""
    if isinstance(v, str):
        return MARK + v + MARK
    if isinstance(v, list):
        return "[" + ",".join(write_call(x, schema) for x in v) + "]"
    if isinstance(v, dict):
        return "{" + ",".join(call_key(k, schema) + ":" + write_call(v[k], schema)
                              for k in sorted(v, key=str.lower)) + "}"
    return json.dumps(v)


def call_key(k, schema):
    """Keys that a pattern allows may be anything, and so they are quoted."""
    bare = "patternProperties" not in schema and k and k == k.strip() and not any(c in ":,{}[]()" or ord(c) < 32 for c in k)
    return k if bare else MARK + k + MARK


def write(v, style, schema, rng):
    """Keys, and values that the schema lists, have one spelling; so have objects in such a list."""
    if style == "call":
        return write_call(v, schema)
    text = json.dumps(schema, ensure_ascii=False)
    tight = style == "tight" or '"enum": [null, true' in text or '"const": {' in text
    seps = (",", ":") if tight else rng.choice([(",", ":"), (", ", ": ")])
    return json.dumps(v, separators=seps,
                      ensure_ascii=text.isascii() and "pattern" not in text and rng.random() < 0.3)


class Grammars:
    def __init__(self):
        self.p = subprocess.Popen([f"{BUILD}/t/helpers/schema_walk"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)

    def ask(self, **q):
        self.p.stdin.write(json.dumps(q) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError("schema_walk died")
        return json.loads(line)


def check(grammars, name, schema, style, rng, count):
    valid = validator(schema).is_valid
    maker = Maker(schema, rng, style == "call")
    values = [maker.make(schema) for _ in range(VALUES)]
    values += [spoil(v, rng) for v in values]
    good = [v for v in values[:VALUES] if valid(v)]
    bad = [v for v in values if not valid(v)]
    if style == "call":
        good = [v for v in good if isinstance(v, dict)]
    texts = [write(v, style, schema, rng) for v in good + bad]
    n_good = len(good)
    got = grammars.ask(schema=schema, **{"as": style}, walks=WALKS, seed=rng.randrange(2**31),
                       texts=texts)
    if not ok("error" not in got, f"{name}, {style}: compiles"):
        print("#", got)
        return
    wrong = []
    for i, text in enumerate(got["walks"]):
        try:
            if not valid(json.loads(text)):
                wrong.append(text)
        except (ValueError, TypeError):
            wrong.append((got["calls"][i] if style == "call" else "", text))
    ok(not wrong, f"{name}, {style}: {WALKS} random texts are valid")
    refused = [t for t, y in zip(texts[:n_good], got["takes"]) if not y]
    ok(not refused, f"{name}, {style}: {n_good} valid values are texts")
    taken = [t for t, y in zip(texts[n_good:], got["takes"][n_good:]) if y]
    ok(not taken, f"{name}, {style}: {len(bad)} invalid ones are not")
    for what, list_ in (("text", wrong), ("refused", refused), ("taken", taken)):
        for t in list_[:3]:
            print(f"# {what}: {t!r}"[:500])
    if wrong or refused or taken:
        print("# schema:", json.dumps(schema)[:600])
    count[0] += n_good
    count[1] += len(bad)


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rng = random.Random(seed)
    grammars = Grammars()
    count = [0, 0, 0]
    for name, schema in all_schemas():
        maker = Maker(schema, random.Random(1), False)
        styles = ["json", "call"] if all(isinstance(maker.make(schema), dict) for _ in range(20)) \
            else [rng.choice(["json", "tight"])]
        for style in styles:
            check(grammars, name, schema, style, rng, count)
        count[2] += 1
    ok(count[2] >= 120, f"{count[2]} schemas")
    ok(count[0] > 40 * count[2] and count[1] > 20 * count[2],
       f"{count[0]} valid values, {count[1]} invalid ones")

    tools = [deep_tool(i) for i in range(128)]
    for style, what in (("json", wide(50, lambda i: i % 2 == 0)), ("call", wide(50, lambda i: 0)),
                        ("json", tools), ("call", tools)):
        got = grammars.ask(schema=what, **{"as": style}, walks=0, seed=1, texts=[])
        n = len(what) if isinstance(what, list) else 1
        if ok("error" not in got, f"{n} schemas, {style}"):
            print(f"# {got['us'] / 1000:.1f} ms, {got['states']} states")
        else:
            print("#", got)
    done()


main()
