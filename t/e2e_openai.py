"""The official openai client against nginx + inferd + the demo checkpoint."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, Stack, done, ok, same

import openai

with Stack() as s:
    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    ask = [{"role": "user", "content": "Hello!"}]

    same([m.id for m in client.models.list()], ["demo"], "models.list")

    whole = client.chat.completions.create(model="demo", messages=ask, temperature=0)
    text = whole.choices[0].message.content
    ok(text, "a whole answer has content")
    print("#", repr(text))
    same(whole.choices[0].finish_reason, "stop", "it ends by itself")
    same(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens,
         "usage adds up")
    same(whole.usage.prompt_tokens_details.cached_tokens, 0, "cached_tokens is there")

    for _ in range(100):                    # a busy machine may send all tokens at once
        chunks = list(client.chat.completions.create(model="demo", messages=ask, temperature=0,
                                                     stream=True,
                                                     stream_options={"include_usage": True}))
        parts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        if sum(1 for p in parts if p) > 1:
            break
    same("".join(parts), text, "streamed text = whole text")
    ok(sum(1 for p in parts if p) > 1, "it came in more than one chunk")
    same(len({(c.id, c.created, c.model) for c in chunks}), 1, "ids are the same on every chunk")
    same(chunks[0].choices[0].delta.role, "assistant", "role in the first chunk")
    same(sum(1 for c in chunks if c.choices and c.choices[0].delta.role), 1, "and only there")
    same(chunks[-1].choices, [], "the usage chunk is last")
    same(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens, "usage of the stream")
    same(chunks[-2].choices[0].finish_reason, "stop", "finish_reason before it")

    a, b = (client.chat.completions.create(model="demo", messages=ask, seed=7, temperature=1.5,
                                           max_tokens=40).choices[0].message.content
            for _ in range(2))
    same(a, b, "same seed, same text")
    n3 = client.chat.completions.create(model="demo", messages=ask, n=3, seed=1, max_tokens=8)
    same([c.index for c in n3.choices], [0, 1, 2], "n=3")

    stop = client.chat.completions.create(model="demo", messages=ask, temperature=0,
                                          stop=[text[3:6]])
    same(stop.choices[0].message.content, text[:text.index(text[3:6])], "stop string cuts exactly")
    cut = client.chat.completions.create(model="demo", messages=ask, max_tokens=2, temperature=0)
    same((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 2), "max_tokens")

    think = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is 12 + 30?"}], temperature=0,
        max_tokens=300, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    ok("<|" not in (think.choices[0].message.content or ""), "no marker leaks with thinking on")
    print("#", think.choices[0].message)

    rate = 0
    for _ in range(10):                     # the best: others may be on this machine
        t0 = time.time()
        fast = client.chat.completions.create(model="demo", messages=ask, max_tokens=500,
                                              extra_body={"ignore_eos": True})
        rate = max(rate, 500 / (time.time() - t0))
        if rate >= 100:
            break
    same(fast.usage.completion_tokens, 500, "500 tokens")
    ok("asan" in BUILD or rate >= 100, f"one stream: {rate:.0f} tokens/s, at least 100")
    with open(f"/proc/{s.engine.pid}/status") as f:
        rss = int(next(line for line in f if line.startswith("VmRSS")).split()[1]) / 1024
    ok("asan" in BUILD or rss < 150, f"inferd's memory: {rss:.0f} MB, under 150")

    comp = client.completions.create(model="demo", prompt=["Hello", "Hi"], max_tokens=5,
                                     temperature=0)
    same(len(comp.choices), 2, "completions: a list of prompts")


def refused(kind, param, name, **kw):
    args = dict(model="demo", messages=[{"role": "user", "content": "Hi"}])
    args.update(kw)
    try:
        client.chat.completions.create(**args)
        ok(False, f"{name}: not refused")
    except kind as e:
        same(e.param, param, f"{name}: {type(e).__name__} names the field")
        ok(e.body["message"], f"{name}: in words")


with Stack() as s:
    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    bad, gone = openai.BadRequestError, openai.NotFoundError
    refused(gone, "model", "unknown model", model="gpt-4")
    refused(bad, "temperature", "temperature", temperature=2.5)
    refused(bad, "top_p", "top_p", top_p=1.5)
    refused(bad, "n", "n", n=1000)
    refused(bad, "max_tokens", "max_tokens 0", max_tokens=0)
    refused(bad, "messages", "no messages", messages=[])
    refused(bad, "logit_bias", "logit_bias", logit_bias={"99999": 10})
    refused(bad, "messages[0].role", "a role of control tokens",
            messages=[{"role": "<|turn>model", "content": "Hi"}])
    refused(bad, "messages", "text over the limit, before it is tokenised",
            messages=[{"role": "user", "content": "x" * (4 << 20)}])
    refused(bad, "messages", "prompt over the context",
            messages=[{"role": "user", "content": "word " * 20000}])
done()
