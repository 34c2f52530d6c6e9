"""Check chat_template.jinja: transformers must render what render.py renders, byte for byte.

  python3 check.py MODEL_DIR [CASES.jsonl]

2,000 generated conversations; with CASES also a file of prompts of the official template, one JSON
object a line: messages, tools, chat_template_kwargs, add_generation_prompt, variant, expected.
"""
import copy
import json
import os
import random
import sys

from transformers.utils.chat_template_utils import render_jinja_template

import data
import render


def jinja(template, messages, tools, **kwargs):
    messages = copy.deepcopy(messages)
    for m in messages:
        for call in m.get("tool_calls") or []:
            call["function"]["arguments"] = render.arguments(call)
    out, _ = render_jinja_template([messages], tools=tools, chat_template=template, **kwargs)
    return out[0]


def main():
    with open(os.path.join(sys.argv[1], "chat_template.jinja"), encoding="utf-8") as f:
        template = f.read()
    rng, bad = random.Random(11), 0
    for _ in range(2000):
        e = data.example(rng)
        got = jinja(
            template,
            e["messages"],
            e["tools"],
            enable_thinking=e["thinking"],
            add_generation_prompt=True,
        )
        bad += got != e["prompt"]
    print(f"generated: {bad} of 2000 differ")
    n = 0
    for line in open(sys.argv[2], encoding="utf-8") if len(sys.argv) > 2 else []:
        c = json.loads(line)
        if c["variant"] != "large" or c.get("continue_final_message"):
            continue
        kwargs = {**c["chat_template_kwargs"], "add_generation_prompt": c["add_generation_prompt"]}
        same = jinja(template, c["messages"], c["tools"], **kwargs) == c["expected"]
        same &= render.render(c["messages"], c["tools"], **kwargs) == c["expected"]
        n, bad = n + 1, bad + (not same)
        if not same:
            print("differs:", c["name"])
    print(f"cases: {n}, in all {bad} differ")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
