"""Gemma 4 prompt text from OpenAI-style messages, `large` variant.

The training data, the evaluation and the check of chat_template.jinja share this one renderer.
arguments of a tool call may be a JSON string (as on the wire) or an object.
"""

import json

Q = '<|"|>'
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"
MEDIA = {
    "image": "<|image|>",
    "image_url": "<|image|>",
    "audio": "<|audio|>",
    "input_audio": "<|audio|>",
    "video": "<|video|>",
}
SCHEMA_KEYS = ("description", "type", "properties", "required", "nullable")


def by_key(obj):
    return sorted(obj.items(), key=lambda kv: kv[0].lower())


def value(x, quote_keys=False):
    if x is None:
        return "null"
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, str):
        return Q + x + Q
    if isinstance(x, dict):
        return "{" + pairs(x, quote_keys) + "}"
    if isinstance(x, (list, tuple)):
        return "[" + ",".join(value(v, quote_keys) for v in x) + "]"
    return repr(x)


def pairs(obj, quote_keys=False):
    return ",".join(
        (Q + k + Q if quote_keys else k) + ":" + value(v, quote_keys) for k, v in by_key(obj)
    )


def names(items):
    return "[" + ",".join(Q + str(s) + Q for s in items) + "]"


def items_body(items):
    out = []
    for k, v in by_key(items):
        if v is None:
            continue
        if k == "properties":
            out.append("properties:{" + (props(v) if isinstance(v, dict) else "") + "}")
        elif k == "required":
            out.append("required:" + names(v))
        elif k == "type":
            up = v.upper() if isinstance(v, str) else [s.upper() for s in v]
            out.append("type:" + value(up))
        else:
            out.append(k + ":" + value(v, True))
    return ",".join(out)


def prop(schema):
    if not isinstance(schema, dict):
        return "type:" + Q + Q
    kind = str(schema["type"]).upper() if "type" in schema else ""
    out = []
    if schema.get("description"):
        out.append("description:" + Q + schema["description"] + Q)
    if kind == "STRING" and schema.get("enum"):
        out.append("enum:" + value(schema["enum"], True))
    if kind == "ARRAY" and isinstance(schema.get("items"), dict) and schema["items"]:
        out.append("items:{" + items_body(schema["items"]) + "}")
    if schema.get("nullable"):
        out.append("nullable:true")
    if kind == "OBJECT":
        inner = schema.get("properties")
        if not isinstance(inner, dict):
            inner = {k: v for k, v in schema.items() if k not in SCHEMA_KEYS}
        out.append("properties:{" + props(inner) + "}")
        if schema.get("required"):
            out.append("required:" + names(schema["required"]))
    out.append("type:" + Q + kind + Q)
    return ",".join(out)


def props(properties):
    return ",".join(k + ":{" + prop(v) + "}" for k, v in by_key(properties))


def declaration(tool):
    fn = tool["function"]
    s = "declaration:" + fn["name"] + "{description:" + Q + (fn.get("description") or "") + Q
    par = fn.get("parameters")
    if par:
        s += ",parameters:{"
        if par.get("properties"):
            s += "properties:{" + props(par["properties"]) + "},"
        if par.get("required"):
            s += "required:" + names(par["required"]) + ","
        if par.get("type"):
            s += "type:" + Q + str(par["type"]).upper() + Q + "}"
    if "response" in fn:
        res = fn["response"]
        s += ",response:{"
        if res.get("description"):
            s += "description:" + Q + res["description"] + Q + ","
        if str(res.get("type", "")).upper() == "OBJECT":
            s += "type:" + Q + "OBJECT" + Q + "}"
    return s + "}"


def strip_thoughts(s):
    return "".join(p.split("<|channel>")[0] for p in s.split("<channel|>")).strip()


def content(msg, role):
    clean = strip_thoughts if role == "model" else str.strip
    c = msg.get("content")
    if isinstance(c, str):
        return clean(c)
    out = ""
    for part in c or []:
        if part.get("type") == "text":
            out += clean(part["text"])
        else:
            out += MEDIA.get(part.get("type"), "")
    return out


def thought(msg):
    return msg.get("reasoning") or msg.get("reasoning_content")


def arguments(call):
    args = call["function"].get("arguments")
    return json.loads(args) if isinstance(args, str) and args else args or {}


def response(name, body):
    inside = pairs(body) if isinstance(body, dict) else "value:" + value(body)
    return "<|tool_response>response:" + name + "{" + inside + "}<tool_response|>"


def tool_result(msg, calls):
    name = msg.get("name") or "unknown"
    for call in calls:
        if call.get("id") == msg.get("tool_call_id"):
            name = call["function"]["name"]
    body, media = msg.get("content"), ""
    if isinstance(body, list):
        media = "".join(MEDIA.get(p.get("type"), "") for p in body if p.get("type") != "text")
        body = "".join(p["text"] for p in body if p.get("type") == "text")
    return response(name, body) + media


def head(messages, tools, enable_thinking):
    """The system turn, and the messages left after it."""
    first = bool(messages) and messages[0]["role"] in ("system", "developer")
    if not (enable_thinking or tools or first):
        return "", messages
    s = "<|turn>system\n" + ("<|think|>\n" if enable_thinking else "")
    if first:
        c = messages[0].get("content")
        if isinstance(c, str):
            s += c.strip()
        else:
            s += "".join((p.get("text") or "").strip() + " " for p in c or [])
        messages = messages[1:]
    for tool in tools or []:
        s += "<|tool>" + declaration(tool).strip() + "<tool|>"
    return s + "<turn|>\n", messages


def render(
    messages,
    tools=None,
    enable_thinking=False,
    preserve_thinking=False,
    add_generation_prompt=True,
    large=True,
):
    s, messages = head(messages, tools, enable_thinking)
    s = "<bos>" + s
    last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    last = prev_role = None
    for i, m in enumerate(messages):
        if m["role"] == "tool":
            continue
        last = None
        role = "model" if m["role"] == "assistant" else m["role"]
        if not (role == "model" and prev_role == "assistant"):
            s += "<|turn>" + role + "\n"
        calls = m.get("tool_calls") or []
        if thought(m) and (i > last_user or (preserve_thinking and calls)):
            s += "<|channel>thought\n" + thought(m) + "\n<channel|>"
        for call in calls:
            s += "<|tool_call>call:" + call["function"]["name"] + "{" + pairs(arguments(call))
            s += "}<tool_call|>"
            last = "tool_call"
        after = i + 1
        while after < len(messages) and messages[after]["role"] == "tool":
            after += 1
        answers = [
            response(r.get("name") or "unknown", r.get("response"))
            for r in m.get("tool_responses") or []
        ]
        if not answers and calls:
            answers = [tool_result(t, calls) for t in messages[i + 1 : after]]
        if answers:
            s += "".join(answers)
            last = "tool_response"
        text = content(m, role)
        s += text
        follow = messages[after]["role"] if after < len(messages) else None
        if last == "tool_call" and not answers:
            s += "<|tool_response>"
        elif role == "model" and follow == "assistant" and (not calls or answers):
            pass
        elif not (answers and not text.strip() and follow is None):
            s += "<turn|>\n"
        prev_role = m["role"]
    if add_generation_prompt:
        if last is None:
            s += "<|turn>model\n" + (EMPTY_THOUGHT if large and not enable_thinking else "")
        elif last == "tool_response" and enable_thinking:
            s += "<|channel>thought\n"
    return s
