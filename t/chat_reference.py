#!/usr/bin/env python3
"""20,000 random conversations through `inferd render`, against a second renderer.

usage: t/chat_reference.py [build/inferd] [conversations] [seed]      prints TAP

The second renderer is a straight, recursive reading of the template's rules, and shares nothing with
the C: where the two differ, one of them is wrong. Seeded, so that a difference comes back.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INFERD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/inferd")
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 4

Q = '<|"|>'
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"
MEDIA = {"image": "<|image|>", "image_url": "<|image|>", "audio": "<|audio|>",
         "input_audio": "<|audio|>", "video": "<|video|>", "video_url": "<|video|>"}


# ---- the second renderer

class Refused(Exception):
    """The template would fail, or print Python's notation of something that is no schema."""


def need(condition):
    if not condition:
        raise Refused


def by_key(obj):
    return sorted(obj.items(), key=lambda kv: "".join(c.lower() for c in kv[0]))


def value(x, quote_keys):
    if x is None:
        return "null"
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, str):
        return Q + x + Q
    if isinstance(x, dict):
        q = Q if quote_keys else ""
        return "{" + ",".join(q + k + q + ":" + value(v, quote_keys) for k, v in by_key(x)) + "}"
    if isinstance(x, list):
        return "[" + ",".join(value(v, quote_keys) for v in x) + "]"
    return repr(x)


def is_type(t):
    return t is None or isinstance(t, bool) or isinstance(t, str) and all(
        " " <= c <= "~" and c not in "'\\" for c in t)


def upper(schema):
    """The type in upper case, as the template's filter sees it: missing is empty, null is NONE."""
    if not isinstance(schema, dict) or "type" not in schema:
        return ""
    t = schema["type"]
    need(all(map(is_type, t)) if isinstance(t, list) else is_type(t))
    return str(t).upper()


def description(s):
    need(isinstance(s, str))
    return "description:" + Q + s + Q


def names(key, items):
    need(isinstance(items, list) and all(isinstance(x, str) for x in items))
    return key + ":[" + ",".join(Q + x + Q for x in items) + "]"


def items_of(schema):
    out = []
    for k, v in by_key(schema):
        if v is None:
            continue
        if k == "properties":
            out.append("properties:{" + (props(v) if isinstance(v, dict) else "") + "}")
        elif k == "required":
            out.append(names(k, v))
        elif k == "type":
            need(isinstance(v, (str, list)) and all(map(is_type, v)))
            out.append("type:" + value(v.upper() if isinstance(v, str)
                                       else [str(t).upper() for t in v], True))
        else:
            out.append(k + ":" + value(v, True))
    return "items:{" + ",".join(out) + "}"


def prop(key, schema):
    s = schema if isinstance(schema, dict) else {}
    kind, out = upper(s), []
    if s.get("description"):
        out.append(description(s["description"]))
    if kind == "STRING" and s.get("enum"):
        out.append("enum:" + value(s["enum"], True))
    if kind == "ARRAY" and isinstance(s.get("items"), dict) and s["items"]:
        out.append(items_of(s["items"]))
    if s.get("nullable"):
        out.append("nullable:true")
    if kind == "OBJECT":
        if isinstance(s.get("properties"), dict):
            out.append("properties:{" + props(s["properties"]) + "}")
        else:
            rest = {k: v for k, v in s.items() if k not in (
                "description", "type", "properties", "required", "nullable")}
            out.append("properties:{" + props(rest) + "}")
        if s.get("required"):
            out.append(names("required", s["required"]))
    out.append("type:" + Q + kind + Q)
    return key + ":{" + ",".join(out) + "}"


def props(obj):
    return ",".join(prop(k, v) for k, v in by_key(obj))


def declaration(fn):
    out = "declaration:" + fn["name"] + "{description:" + Q + (fn.get("description") or "") + Q
    p = fn.get("parameters")
    if p:
        out += ",parameters:{"
        if p.get("properties"):
            out += "properties:{" + props(p["properties"]) + "},"
        if p.get("required"):
            out += names("required", p["required"]) + ","
        if p.get("type"):
            out += "type:" + Q + upper(p) + Q + "}"
    if "response" in fn:
        r = fn["response"] or {}
        out += ",response:{"
        if r.get("description"):
            out += "description:" + Q + r["description"] + Q + ","
        if upper(r) == "OBJECT":
            out += "type:" + Q + "OBJECT" + Q + "}"
    return "<|tool>" + (out + "}").strip() + "<tool|>"


def without_thoughts(text):
    return "".join(p.split("<|channel>")[0] for p in text.split("<channel|>")).strip()


def content(m):
    clean = without_thoughts if m["role"] in ("assistant", "model") else str.strip
    c = m.get("content")
    if isinstance(c, str):
        return clean(c)
    return "".join(clean(p["text"]) if p["type"] == "text" else MEDIA.get(p["type"], "")
                   for p in c or [])


def arguments(call):
    a = call["function"].get("arguments")
    if a is None or a == "":
        return {}
    if isinstance(a, str):
        try:
            a = json.loads(a)
        except ValueError as e:
            raise Refused from e
    if not isinstance(a, dict):
        raise Refused
    return a


def response(name, body):
    if isinstance(body, dict):
        return "<|tool_response>response:" + name + value(body, False) + "<tool_response|>"
    return "<|tool_response>response:" + name + "{value:" + value(body, False) + "}<tool_response|>"


def result(calls, m):
    name = m.get("name") or "unknown"
    for c in calls:
        if c.get("id") == m.get("tool_call_id"):
            name = c["function"]["name"]
    body = m.get("content")
    if not isinstance(body, list):
        return response(name, body)
    return (response(name, "".join(p["text"] for p in body if p["type"] == "text"))
            + "".join(MEDIA.get(p["type"], "") for p in body))


def system_turn(case, thinking, first):
    out = "<|turn>system\n" + ("<|think|>\n" if thinking else "")
    if first is not None:
        c = first.get("content")
        out += c.strip() if isinstance(c, str) else "".join(
            (p.get("text") or "").strip() + " " for p in c or [])
    return out + "".join(declaration(t["function"]) for t in case["tools"] or []) + "<turn|>\n"


def turn(msgs, i, case, prev):
    """One message that is not a tool's: its text, and how it ended."""
    m, kw, ended = msgs[i], case["chat_template_kwargs"], None
    role = "model" if m["role"] == "assistant" else m["role"]
    out = "" if role == "model" and prev == "assistant" else "<|turn>" + role + "\n"
    last_user = max([k for k, x in enumerate(msgs) if x["role"] == "user"], default=-1)
    thought = m.get("reasoning") or m.get("reasoning_content")
    calls = m.get("tool_calls") or []
    if thought and (i > last_user or (kw.get("preserve_thinking") and calls)):
        out += "<|channel>thought\n" + thought + "\n<channel|>"
    for c in calls:
        out += "<|tool_call>call:" + c["function"]["name"] + value(arguments(c), False)
        out += "<tool_call|>"
        ended = "call"
    if m.get("tool_responses"):
        ended = "response"
        out += "".join(response(r.get("name") or "unknown", r["response"])
                       for r in m["tool_responses"])
    elif calls:
        for t in msgs[i + 1:]:
            if t["role"] != "tool":
                break
            out += result(calls, t)
            ended = "response"
    text = content(m)
    out += text
    after = [x["role"] for x in msgs[i + 1:] if x["role"] != "tool"]
    if case["continue_final_message"] and i == len(msgs) - 1:
        if not text.strip():
            raise Refused
        return out.rstrip(), ended
    if ended == "call":
        out += "<|tool_response>"
    elif role == "model" and after[:1] == ["assistant"]:
        pass
    elif not (ended == "response" and not text.strip() and not after):
        out += "<turn|>\n"
    return out, ended


def reference(case):
    msgs, thinking = case["messages"], bool(case["chat_template_kwargs"].get("enable_thinking"))
    first, out = None, "<bos>"
    if msgs[0]["role"] in ("system", "developer"):
        first, msgs = msgs[0], msgs[1:]
    if first is not None or thinking or case["tools"]:
        out += system_turn(case, thinking, first)
    prev = ended = None
    for i, m in enumerate(msgs):
        if m["role"] == "tool":
            continue
        text, ended = turn(msgs, i, case, prev)
        out += text
        prev = m["role"]
    if case["add_generation_prompt"]:
        if ended is None:
            out += "<|turn>model\n"
            if case["variant"] == "large" and not thinking:
                out += EMPTY_THOUGHT
        elif ended == "response" and thinking:
            out += "<|channel>thought\n"
    return out


# ---- what is thrown at both

R = random.Random(SEED)
PIECES = list("abcdeXYZ019 _-.:,{}[]()'\"\\/\n\t\0&<>|") + [
    "\u3000", "\u00a0", "\u200b", "\u2028", "\u0085", "\x1c", "\x1f", "\u1680", "\ufeff", "\u0130",
    "é", "É", "ß", "ẞ", "Ж", "ж", "Δ", "δ", "日本", "🦙", "👩‍👧", "e\u0301", "\U00010400",
    "\U00010428", Q, "<|channel>", "<channel|>", "<|channel>thought\n", "<turn|>", "<|turn>model\n",
    "<|tool_response>", "the ", "weather", "null", "true", "  ", "\r\n"]
TYPES = ["string", "STRING", "String", "number", "integer", "boolean", "array", "Array", "object",
         "OBJECT", "null", "any", ""]
KEYS = ["a", "A", "b", "B", "_", "z", "Zed", "alpha", "Alpha", "x y", "", "type", "description",
        "properties", "required", "nullable", "items", "enum", "1", "é", "É", "Ж", "ж", "日", "🦙"]


class Raw(str):
    """The text of a JSON number, to be written as it is."""


def dump(x, ascii_only):
    """JSON text: objects and arrays as Python has them, numbers as they were spelled."""
    if isinstance(x, Raw):
        return str(x)
    if isinstance(x, dict):
        return "{" + ", ".join(json.dumps(k, ensure_ascii=ascii_only) + ":" + dump(v, ascii_only)
                               for k, v in x.items()) + "}"
    if isinstance(x, list):
        return "[" + ",".join(dump(v, ascii_only) for v in x) + "]"
    return json.dumps(x, ensure_ascii=ascii_only)


def maybe(p):
    return R.random() < p


def text(longest=6):
    return "".join(R.choice(PIECES) for _ in range(R.randrange(longest + 1)))


def number():
    kind = R.randrange(8)
    if kind == 0:
        return Raw(R.choice(["0", "-0", "-0.0", "0.0", "1.0", "1e5", "1E+2", "2.50", "0e0", "1e16",
                             "1e-5", "123456789012345678", "9007199254740993.0", "5e-324",
                             "1.7976931348623157e308", "0.1", "1e22", "1e23", "100000.0"]))
    if kind < 4:
        return Raw(str(R.randrange(-1000, 1000) if maybe(0.8) else R.randrange(10 ** 40)))
    if kind == 4:
        return Raw(repr(R.choice([1, -1]) * 2.0 ** R.randrange(-1074, 1024)))
    if kind == 5:
        return Raw("%.*f" % (R.randrange(1, 9), R.uniform(-1e6, 1e6)))
    while True:
        d = struct.unpack("<d", R.randbytes(8))[0]
        if d == d and abs(d) != float("inf"):
            return Raw("%.17g" % d + ("" if "." in "%.17g" % d or "e" in "%.17g" % d else ".0"))


def key():
    return R.choice(KEYS) if maybe(0.8) else text(3)


def anything(depth):
    kind = R.randrange(9 if depth > 0 else 6)
    if kind < 3:
        return text()
    if kind == 3:
        return number()
    if kind < 6:
        return R.choice([None, True, False, "", "x"])
    if kind == 6:
        return [anything(depth - 1) for _ in range(R.randrange(4))]
    return {key(): anything(depth - 1) for _ in range(R.randrange(5))}


def a_type():
    if maybe(0.1):
        return [R.choice(TYPES) if maybe(0.9) else None for _ in range(R.randrange(3))]
    return None if maybe(0.03) else R.choice(TYPES)


def name_list():
    return [key() for _ in range(R.randrange(4))]


def schema(depth):
    """A schema, or something where one is expected."""
    if maybe(0.04):
        return R.choice([None, True, "string", [], ["x"], Raw("7")])
    s = {}
    for k, p, make in (("type", 0.9, a_type), ("description", 0.5, lambda: R.choice([text(), ""])),
                       ("enum", 0.3, lambda: R.choice([[], [text(), text()], anything(2)])),
                       ("nullable", 0.2, lambda: R.choice([True, False, None, "", "x", Raw("0"),
                                                           Raw("0.0"), Raw("1")])),
                       ("title", 0.2, text), ("default", 0.2, lambda: schema_free(2)),
                       ("anyOf", 0.1, lambda: [{"type": "null"}]),
                       ("additionalProperties", 0.2, lambda: R.choice([False, {"type": "string"}]))):
        if maybe(p):
            s[k] = make()
    if depth > 0 and maybe(0.5):
        s["properties"] = properties(depth - 1) if maybe(0.9) else R.choice([None, [], "x"])
    if depth > 0 and maybe(0.5):
        s["items"] = items(depth - 1) if maybe(0.9) else R.choice([None, [], [{"type": "string"}]])
    if maybe(0.4):
        s["required"] = name_list()
    pairs = list(s.items())
    R.shuffle(pairs)
    return dict(pairs)


def schema_free(depth):
    """Any value that may stand where the template takes every member for a schema."""
    return R.choice([None, True, text(), number(), [text()], {}, {"x": anything(depth)}])


def items(depth):
    s = {}
    for k, p, make in (("type", 0.8, lambda: R.choice(TYPES) if maybe(0.8) else
                        [R.choice(TYPES) for _ in range(R.randrange(3))]),
                       ("description", 0.3, text), ("enum", 0.2, lambda: [text(), number()]),
                       ("minLength", 0.2, number), ("default", 0.2, lambda: anything(3)),
                       ("items", 0.2, lambda: anything(2)), ("required", 0.2, name_list),
                       ("Type", 0.05, text), ("é", 0.05, lambda: anything(2))):
        if maybe(p):
            s[k] = make()
    if depth > 0 and maybe(0.3):
        s["properties"] = properties(depth - 1) if maybe(0.9) else R.choice([None, [], "x"])
    pairs = list(s.items())
    R.shuffle(pairs)
    return dict(pairs)


def properties(depth):
    return {key(): schema(depth) for _ in range(R.randrange(5))}


def parameters():
    p = {}
    if maybe(0.9):
        p["type"] = R.choice(["object", "OBJECT", "", None, ["object", "null"]])
    if maybe(0.8):
        p["properties"] = properties(3)
    if maybe(0.5):
        p["required"] = name_list()
    if maybe(0.2):
        p["additionalProperties"] = False
    return p


def tool():
    fn = {"name": R.choice(["f", "get_weather", "a-b", "Größe", "n.m"])}
    if maybe(0.8):
        fn["description"] = R.choice([text(), None, "Says so."])
    if maybe(0.9):
        fn["parameters"] = parameters() if maybe(0.95) else None
    if maybe(0.1):
        fn["response"] = R.choice([{}, None, {"type": "object"}, {"description": text()},
                                   {"type": R.choice(TYPES), "description": text()}])
    if maybe(0.2):
        fn["strict"] = True
    return {"type": "function", "function": fn}


def parts():
    out = []
    for _ in range(R.randrange(4)):
        kind = R.choice(["text", "text", "text", "other", *MEDIA])
        out.append({"type": kind, "text": text()} if kind == "text" else {"type": kind})
    return out


def a_content():
    kind = R.randrange(10)
    return None if kind == 0 else parts() if kind < 4 else text(10)


def call():
    args = {key(): anything(3) for _ in range(R.randrange(4))}
    spelled = dump(args, maybe(0.5))
    if maybe(0.02):
        spelled = R.choice(["[1]", "7", "{", "null", '"x"', " ", "{} {}"])
    fn = {"name": R.choice(["f", "get_weather", "n.m", "é"])}
    if maybe(0.9):
        fn["arguments"] = R.choice([spelled, spelled, args, "", None, "{}"])
    c = {"type": "function", "function": fn}
    if maybe(0.9):
        c["id"] = R.choice("abc") if maybe(0.9) else None
    return c


def message():
    m = {"role": R.choice(["user", "user", "assistant", "assistant", "tool", "tool", "system",
                           "developer", "model", "critic"])}
    if maybe(0.95):
        m["content"] = a_content()
    for k in ("reasoning", "reasoning_content"):
        if maybe(0.2):
            m[k] = R.choice([text(), None, "", "Hm.\n"])
    if m["role"] == "tool":
        if maybe(0.9):
            m["tool_call_id"] = R.choice("abc") if maybe(0.9) else None
        if maybe(0.3):
            m["name"] = R.choice(["f", "ü", "", None])
    elif maybe(0.6 if m["role"] in ("assistant", "model") else 0.03):
        m["tool_calls"] = [call() for _ in range(R.randrange(4))]
    if maybe(0.05):
        m["tool_responses"] = [
            {"response": anything(2), **({"name": R.choice(["f", ""])} if maybe(0.7) else {})}
            for _ in range(R.randrange(3))]
    return m


def case():
    c = {"variant": R.choice(["large", "small"]), "tools": None,
         "messages": [message() for _ in range(R.randrange(1, 8))],
         "chat_template_kwargs": {k: maybe(0.5) for k in ("enable_thinking", "preserve_thinking")
                                  if maybe(0.6)},
         "add_generation_prompt": maybe(0.7), "continue_final_message": False}
    if maybe(0.4):
        c["tools"] = [tool() for _ in range(R.randrange(4))]
    if c["messages"][-1]["role"] == "assistant" and not c["add_generation_prompt"] and len(
            c["messages"]) > 1:
        c["continue_final_message"] = maybe(0.5)
    return c


def every_case():
    """One object with every letter that has a lower case, and with that, as keys in any order; what
    came after Unicode 14 is left out."""
    later = {0xA7CB, 0xA7CC, 0xA7DA, 0xA7DC, *range(0x10D50, 0x10D66)}
    upper_of = [chr(c) for c in range(0x110000)
                if not 0xD800 <= c < 0xE000 and chr(c).lower() != chr(c) and c not in later]
    keys = sorted({*upper_of, *(c.lower() for c in upper_of)})
    R.shuffle(keys)
    fn = {"name": "f", "arguments": {k: None for k in keys}}
    return {"variant": "small", "tools": None, "chat_template_kwargs": {},
            "messages": [{"role": "assistant", "tool_calls": [{"function": fn}]}],
            "add_generation_prompt": False, "continue_final_message": False}


# ---- both, side by side

def want(line):
    try:
        return reference(json.loads(line))
    except Refused:
        return None


def main():
    lines = [dump(case(), maybe(0.5)) for _ in range(COUNT)] + [dump(every_case(), True)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write("\n".join(lines) + "\n")
        f.flush()
        p = subprocess.run([INFERD, "render", f.name], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    got = [json.loads(x) for x in p.stdout.split(b"\n")[:-1]]
    print("1..4")
    print("%sok 1 - an answer for each of %d lines" % (
        "" if len(got) == len(lines) else "not ", len(lines)))

    wrong = n_refused = n_call = 0
    for line, g in zip(lines, got):
        w = want(line)
        n_refused += w is None
        n_call += "<|tool_call>" in (w or "")
        if w != g.get("text") or (w is None) != ("error" in g):
            wrong += 1
            if wrong <= 3:
                print("# in   %s\n# got  %s\n# want %s" % (line, json.dumps(g), json.dumps(w)))
    print("%sok 2 - the same bytes, %d differ" % ("not " if wrong else "", wrong))
    few = 0 < n_refused < len(lines) // 10
    print("%sok 3 - %d refused by both" % ("" if few else "not ", n_refused))
    print("%sok 4 - %d with calls" % ("" if n_call > COUNT // 5 else "not ", n_call))
    sys.exit(1 if wrong or not few or len(got) != len(lines) else 0)


main()
