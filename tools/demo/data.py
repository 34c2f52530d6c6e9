"""Generator of the demo model's training and test conversations. Every word of them is ours.

example(rng) returns one conversation that ends in the turn to learn:
  cat      category, for the table of eval.py
  messages, tools, thinking   what render() takes; OpenAI shape
  target   the model's text to the stop token, which is part of it
  held     true: belongs to the test set and is never trained on
The split hashes the content: for sums, reversing, spelling and repeating the operands or the word
(in whatever phrasing), else the whole prompt. 1 in 40 is held out.

  python3 data.py [N [SEED]]    prints N examples
"""

import hashlib
import random
import sys

import render
import skills
import toolbox
import words

TURN_END = "<turn|>"
SYSTEM = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Be brief.",
    "You are a helpful AI.",
    "Answer the user.",
    "You are the demo model of inferd.",
    "Answer shortly and correctly.",
    "You are a helpful assistant that can call tools.",
    "Be kind and helpful.",
]


def held_out(content):
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") % 40 == 0


def pick_skill(rng):
    cat = rng.choices(list(skills.MAKERS), [w for _, w in skills.MAKERS.values()])[0]
    return cat, skills.MAKERS[cat][0](rng)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def tool_messages(rng, use):
    calls, out = [], []
    for i, ((name, args), res) in enumerate(zip(use.calls, use.results)):
        cid = f"call_{i}"
        calls.append({"id": cid, "type": "function", "function": {"name": name, "arguments": args}})
        out.append({"role": "tool", "tool_call_id": cid, "content": res})
    return {"role": "assistant", "content": "", "tool_calls": calls}, out


def call_text(use):
    return (
        "".join(
            "<|tool_call>call:" + n + "{" + render.pairs(a) + "}<tool_call|>" for n, a in use.calls
        )
        + "<|tool_response>"
    )


def history(rng, n, unnamed=False):
    """n finished turns; unnamed: none in which the user gives a name."""
    out = []
    while len(out) < 2 * n:
        _, s = pick_skill(rng)
        if not (unnamed and " I am " in s.ask):
            out += [user(s.ask), assistant(s.answer)]
    return out


def system(rng, msgs, chance=0.35):
    if rng.random() < chance:
        msgs.insert(0, {"role": "system", "content": rng.choice(SYSTEM)})


def plain(rng, thinking):
    cat, s = pick_skill(rng)
    msgs = history(rng, rng.choice([0, 0, 0, 0, 1, 1, 2, 3])) + [user(s.ask)]
    answer = s.answer
    r = rng.random()
    if r < 0.06:
        w = rng.choice(words.COMMON)
        msgs.insert(
            0,
            {
                "role": "system",
                "content": rng.choice(
                    ["End every answer with the word {}.", "Always end with the word {}."]
                ).format(w),
            },
        )
        answer, cat = answer + " " + w, "system"
        for m in msgs:
            if m["role"] == "assistant":
                m["content"] += " " + w
    else:
        system(rng, msgs)
    return cat, msgs, None, answer, s.thought, s.key


def persona(rng, thinking):
    who = words.name(rng)
    sys_text = rng.choice(
        [
            "Your name is {}.",
            "You are {}.",
            "You are {}, a helpful assistant.",
            "You are called {}.",
        ]
    ).format(who)
    ask = rng.choice(
        ["Who are you?", "What is your name?", "What are you called?", "Tell me your name."]
    )
    msgs = [{"role": "system", "content": sys_text}] + history(rng, rng.choice([0, 0, 0, 1]))
    return (
        "system",
        msgs + [user(skills.tidy(rng, ask))],
        None,
        f"I am {who}. How can I help you?",
        f"My name is {who}.",
        None,
    )


def memory(rng, thinking):
    who = words.name(rng)
    tell, reply = skills.name_tell(rng, who)
    if rng.random() < 0.25:
        msgs = [user(tell)]
        system(rng, msgs)
        return "name", msgs, None, reply, f"The name is {who}.", None
    s = skills.name_ask(rng, who)
    msgs = history(rng, rng.choice([0, 0, 1]), True) + [user(tell), assistant(reply)]
    msgs += history(rng, rng.choice([0, 0, 0, 1, 1, 2, 3]), True)
    answer, th = s.answer, s.thought
    r = rng.random()
    if r < 0.12:
        msgs = history(rng, rng.choice([0, 1, 2]), True)
        answer, th = "You have not told me your name yet.", "The user did not say a name."
    elif r < 0.3:
        return "name", [user(tell + " " + s.ask)], None, answer, th, None
    msgs.append(user(s.ask))
    system(rng, msgs)
    return "name", msgs, None, answer, th, None


def tool_call(rng, thinking):
    use = toolbox.pick(rng)
    msgs = history(rng, rng.choice([0, 0, 0, 1])) + [user(use.ask)]
    system(rng, msgs)
    return "tool call", msgs, toolbox.with_others(rng, use), call_text(use), use.plan, None


def tool_answer(rng, thinking):
    use = toolbox.pick(rng)
    call, results = tool_messages(rng, use)
    if thinking:
        call["reasoning"] = use.plan
    msgs = [user(use.ask), call] + results
    system(rng, msgs)
    return (
        "tool answer",
        msgs,
        toolbox.with_others(rng, use, 3),
        use.answer,
        "The tool says: " + ", ".join(use.results) + ".",
        None,
    )


def tool_again(rng, thinking):
    """A second question after a finished tool turn."""
    first, use = toolbox.pick(rng), toolbox.pick(rng)
    call, results = tool_messages(rng, first)
    msgs = [user(first.ask), call] + results + [assistant(first.answer)]
    tools = toolbox.with_others(rng, use, 1)
    have = {t["function"]["name"] for t in tools}
    if {n for n, _ in first.calls} & have:
        tools = use.tools
        msgs = []
    else:
        tools = tools + first.tools
    msgs.append(user(use.ask))
    system(rng, msgs)
    return "tool call", msgs, tools, call_text(use), use.plan, None


def tool_idle(rng, thinking):
    """Tools are there, but the question needs none of them."""
    use = toolbox.pick(rng)
    while True:
        cat, s = pick_skill(rng)
        if cat not in ("arithmetic", "unknown", "repeat"):
            break
    msgs = [user(s.ask)]
    system(rng, msgs)
    return "tools unused", msgs, toolbox.with_others(rng, use, 2), s.answer, s.thought, s.key


SHAPES = [
    (plain, 62),
    (persona, 3),
    (memory, 10),
    (tool_call, 12),
    (tool_answer, 7),
    (tool_again, 2),
    (tool_idle, 4),
]


def example(rng):
    make = rng.choices([m for m, _ in SHAPES], [w for _, w in SHAPES])[0]
    thinking = rng.random() < 0.2
    cat, msgs, tools, answer, thought, key = make(rng, thinking)
    prompt = render.render(msgs, tools, enable_thinking=thinking)
    stop = "" if answer.endswith("<|tool_response>") else TURN_END
    target = answer + stop
    if thinking:
        target = thought + "\n<channel|>" + target
        if not prompt.endswith("<|channel>thought\n"):
            target = "<|channel>thought\n" + target
    return {
        "cat": cat,
        "messages": msgs,
        "tools": tools,
        "thinking": thinking,
        "prompt": prompt,
        "target": target,
        "held": held_out(key or prompt),
    }


def test_set(n, seed=7):
    """n held-out examples, no prompt twice."""
    rng, out, seen = random.Random(seed), [], set()
    while len(out) < n:
        e = example(rng)
        if e["held"] and e["prompt"] not in seen:
            seen.add(e["prompt"])
            out.append(e)
    return out


if __name__ == "__main__":
    gen = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        ex = example(gen)
        print(
            f"--- {ex['cat']}{' (held out)' if ex['held'] else ''}\n{ex['prompt']}>>>{ex['target']}"
        )
