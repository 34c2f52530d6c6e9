"""The fields of a request that tell how tokens are chosen and what is told of them, by the official
client: bounds, what they do against a reference made of `inferd score`, and that neither company
nor overlap leaves a trace."""
import concurrent.futures
import json
import math
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, LIMIT, Stack, done, ok, same

import openai

ASK = [{"role": "user", "content": "Hello!"}]
IDS = [2, 300, 301, 400, 300, 555, 620, 300]
VOCAB = 1024


def completion(more=None, **kw):
    kw = {"model": "demo", "prompt": IDS, "temperature": 0, "max_tokens": 12, **kw}
    return client.completions.create(**kw, extra_body={"return_token_ids": True, **(more or {})})


def refusal(make):
    try:
        make()
    except openai.BadRequestError as e:
        return e.body["param"], e.body["code"]
    return None


def logits_after(prompts):
    """last_logits of each list of ids."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        for p in prompts:
            f.write(json.dumps({"prompt": p, "n": 0}) + "\n")
        f.flush()
        out = subprocess.run([f"{BUILD}/inferd", "score", "models/demo", f.name, "--batch", "8"],
                             capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    return [json.loads(line)["last_logits"] for line in out.splitlines()]


def along(ids):
    """The logits before each of the generated ids."""
    return logits_after([IDS + ids[:i] for i in range(len(ids))])


def log_softmax(x):
    m = max(x)
    s = m + math.log(sum(math.exp(v - m) for v in x))
    return [v - s for v in x]


# --- bounds ---

BOUNDS = [  # name, good, bad; chat and completions alike unless the value says otherwise
    ("presence_penalty", [-2, 2, 0], [-2.001, 2.001, 2**63, "1", [], True]),
    ("frequency_penalty", [-2, 2], [-2.001, 2.001, -2**63, "1", {}]),
    ("repetition_penalty", [1e-30, 1e30, 1], [0, -1, 1e31, "1"]),
    ("logit_bias", [{}, {"0": 100}, {str(VOCAB - 1): -100}],
     [{str(VOCAB): 1}, {"-1": 1}, {"a": 1}, {"01": 1}, {"5": 100.01}, {"5": "1"}, {"5": None}, [], 1,
      {str(2**63): 1}, {"5": -2**63}]),
    ("allowed_token_ids", [[0], [VOCAB - 1, 5]], [[], [VOCAB], [-1], ["5"], [1.5], [2**63], 5]),
    ("bad_words", [[], ["a"], ["x" * 256], ["a"] * 128],
     [[""], ["x" * 257], ["a"] * 129, [5], "a", ["x y z w " * 30] * 128]),
    ("stop_token_ids", [[], [VOCAB - 1]], [[VOCAB], [-1], ["a"], [2**63]]),
    ("min_tokens", [0, 3], [4, -1, 2**63, "1", 1.5]),
    ("prompt_logprobs", [0, 20], [21, -1, 2**63, "1", True]),
    ("stream_interval", [1, 1024], [0, 1025, -1, 2**63, "1"]),
    ("truncate_prompt_tokens", [-1, 1, 4096], [0, -2, 2**63, "1", 4097]),
    ("truncation_side", ["left", "right"], ["middle", 1]),
    ("n", [1], [0, -1, 129, 2**63, "1", 1.5]),
    ("return_progress", [False], [True, 1, "true"]),
    ("return_tokens_as_token_ids", [True, False], [1, "true"]),
    ("store", [True, False], [1, "no"]),
    ("metadata", [{}, {"k" * 64: "v" * 512}], [{"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, [], "a"]),
    ("repetition_detection", [{"max_pattern_size": 1024, "min_count": 2}, {"max_pattern_size": 0}],
     [{"max_pattern_size": 1025, "min_count": 2}, {"max_pattern_size": 5},
      {"max_pattern_size": 5, "min_count": 1}, {"max_pattern_size": 2, "min_pattern_size": 3,
                                                "min_count": 2}, 5, {"min_count": 2**63}]),
]
CHAT_BOUNDS = [
    ("top_logprobs", [0, 20], [21, -1, 2**63, "1", 0.5]),
    ("logprobs", [True], [1, "true", {}]),
    ("thinking_token_budget", [-1, 0, 2**31 - 1], [-2, 2**31, 2**63, "1"]),
    ("reasoning_budget", [-1, 0], [-2, 2**63, "1"]),
    ("reasoning_effort", ["none", "low", "max"], ["much", 3]),
    ("verbosity", ["medium"], ["low", 1]),
]


def bounds():
    def chat(name, v):
        return client.chat.completions.create(model="demo", messages=ASK, max_tokens=3, extra_body={
            "logprobs": True, **({"logprobs": v} if name == "logprobs" else {name: v})})

    def text(name, v):
        return completion({name: v}, max_tokens=3)

    for call, table in (("chat", BOUNDS + CHAT_BOUNDS), ("text", BOUNDS)):
        make = chat if call == "chat" else text
        for name, good, bad in table:
            r = [refusal(lambda v=v: make(name, v)) for v in good]
            same(r, [None] * len(good), f"{call}: {name}: what is allowed")
            r = [refusal(lambda v=v: make(name, v)) for v in bad]
            ok(all(x is not None and (x[0] or "").split(".")[0] == name for x in r),
               f"{call}: {name}: what is not, by name ({r})")

    same([refusal(lambda v=v: completion(logprobs=v)) for v in (0, 20)], [None, None],
         "completions: logprobs")
    same([refusal(lambda v=v: completion({"logprobs": v}))[0] for v in (21, -1, True, 2**63)],
         ["logprobs"] * 4, "and beyond")
    same(refusal(lambda: client.chat.completions.create(model="demo", messages=ASK,
                                                        extra_body={"top_logprobs": 2})),
         ("top_logprobs", "invalid_value"), "top_logprobs without logprobs")
    same(refusal(lambda: client.chat.completions.create(
        model="demo", messages=ASK, stream=True, extra_body={"prompt_logprobs": 2}))[0],
         "prompt_logprobs", "prompt_logprobs of a stream")
    same(refusal(lambda: completion({"best_of": 2}))[0], "best_of", "best_of is n")
    ok(refusal(lambda: completion({"best_of": 2}, n=2)) is None, "or refused")
    big = {str(i): 1 for i in range(VOCAB)}
    ok(refusal(lambda: completion({"logit_bias": big})) is None, "a bias for each of 1024 ids")


# --- what they do ---

def check_greedy(name, ids, bend):
    """Each id is the best of the bent logits; bend(logits, ids before) -> logits."""
    wrong = []
    for i, x in enumerate(along(ids)):
        x = bend(list(x), ids[:i])
        best = max(range(VOCAB), key=lambda k: (x[k], -k))
        if best != ids[i]:
            wrong.append((i, ids[i], best))
    same(wrong, [], f"{name}: every id is that of the reference")


def additive(presence, frequency):
    def bend(x, before):
        for i in set(before):
            x[i] -= presence + frequency * before.count(i)
        return x
    return bend


def repeated(p, prompt=IDS):
    def bend(x, before):
        for i in set(before) | set(prompt):
            x[i] = x[i] / p if x[i] > 0 else x[i] * p
        return x
    return bend


def biased(bias):
    def bend(x, before):
        for i, v in bias.items():
            x[i] += v
        return x
    return bend


def effects():
    ids = completion({"ignore_eos": True}, max_tokens=20).choices[0].token_ids
    check_greedy("nothing", ids, lambda x, before: x)

    for name, more, bend in (
            ("presence_penalty", {"presence_penalty": 2}, additive(2, 0)),
            ("frequency_penalty", {"frequency_penalty": 1.5}, additive(0, 1.5)),
            ("negative ones", {"frequency_penalty": -2, "presence_penalty": -1}, additive(-1, -2)),
            ("repetition_penalty", {"repetition_penalty": 1.8}, repeated(1.8)),
            ("one below 1", {"repetition_penalty": 0.5}, repeated(0.5)),
            ("all three", {"repetition_penalty": 1.3, "presence_penalty": 1, "frequency_penalty": 1},
             lambda x, b: additive(1, 1)(repeated(1.3)(x, b), b)),
            ("logit_bias", {"logit_bias": {"700": 9, str(ids[0]): -100}},
             biased({700: 9, ids[0]: -100}))):
        got = completion({"ignore_eos": True, **more}, max_tokens=20).choices[0].token_ids
        same(len(got), 20, f"{name}: 20 ids")
        ok(got != ids, f"{name} changes the answer")
        check_greedy(name, got, bend)

    few = [ids[0], 300, 301, 700]
    got = completion({"ignore_eos": True, "allowed_token_ids": few}, max_tokens=30, temperature=1.5,
                     seed=3).choices[0].token_ids
    ok(set(got) <= set(few) and len(got) == 30, f"allowed_token_ids: only those ({set(got)})")
    got = completion({"allowed_token_ids": [5], "logit_bias": {"5": -100}}).choices[0].token_ids
    same(got, [5] * 12, "one allowed id comes whatever its bias")


def words():
    def chat(**more):
        r = client.chat.completions.create(model="demo", messages=ASK, temperature=0, max_tokens=30,
                                           extra_body=more)
        return r.choices[0].message.content

    text = chat()
    word = max(text.replace("!", "").replace(".", "").replace(",", "").split(), key=len)
    ok(word not in chat(bad_words=[word]), f"bad_words: {word!r} of {text!r} does not come")
    two = " ".join(text.split()[:2])
    new = chat(bad_words=[two])
    ok(two not in new and new != text, f"nor does {two!r}: {new!r}")
    same(chat(bad_words=["no such word"]), text, "another word changes nothing")


def minimum():
    stop = completion(max_tokens=20).choices[0].token_ids
    some = stop[2]
    first = stop.index(some)
    r = completion({"stop_token_ids": [some]}, max_tokens=20).choices[0]
    same((r.token_ids, r.finish_reason, r.stop_reason), (stop[:first] + [some], "stop", some),
         "stop_token_ids end it")
    r = completion({"stop_token_ids": [some], "min_tokens": 8}, max_tokens=20).choices[0]
    ok(some not in r.token_ids[:8] and len(r.token_ids) >= 8, "min_tokens masks them")


def thinking():
    def think(**more):
        return client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "What is 12 + 30?"}], temperature=0,
            max_tokens=200, extra_body={"chat_template_kwargs": {"enable_thinking": True}, **more})

    def used(r):
        return r.usage.completion_tokens_details.reasoning_tokens

    free = think()
    n = used(free)
    ok(n > 4, f"it thinks: {n} tokens: {free.choices[0].message.reasoning!r}")
    for budget in (0, 1, 3, n - 3):
        r = think(thinking_token_budget=budget)
        same(used(r), budget + 2, f"a budget of {budget} tokens, and two of the channel's name: "
             f"{r.choices[0].message.content!r}")
        ok("<" not in (r.choices[0].message.content or ""), "and no marker in the answer")
        same(free.choices[0].message.reasoning.startswith(
            (getattr(r.choices[0].message, "reasoning", None) or "").rstrip()), True,
            "the same thoughts up to there")
    same(think(reasoning_budget=500).choices[0].message.reasoning, free.choices[0].message.reasoning,
         "a budget that is large enough changes nothing")


# --- logprobs ---

def near(a, b):
    return abs(a - b) < 2e-4


def chat_logprobs():
    args = dict(model="demo", messages=ASK, temperature=0.8, seed=5, max_tokens=16, logprobs=True,
                top_logprobs=20, extra_body={"presence_penalty": 1.5})
    r = client.chat.completions.create(**args).choices[0]
    c = r.logprobs.content
    same(b"".join(bytes(t.bytes) for t in c).decode(), r.message.content,
         "the bytes of the tokens are the text")
    ok(all(x.logprob >= y.logprob for t in c for x, y in zip(t.top_logprobs, t.top_logprobs[1:])),
       "the best come in order")
    ok(all(len(t.top_logprobs) == 20 and len({x.token for x in t.top_logprobs}) == 20 for t in c),
       "20 of them, no two alike")
    ok(all(sum(math.exp(x.logprob) for x in t.top_logprobs) < 1.0001 and t.logprob < 1e-6
           for t in c), "and they are probabilities")
    chunks = list(client.chat.completions.create(**args, stream=True))
    streamed = [t for x in chunks if x.choices[0].logprobs for t in x.choices[0].logprobs.content]
    same([t.model_dump() for t in streamed], [t.model_dump() for t in c], "the same in a stream")
    same(chunks[-1].choices[0].logprobs, None, "none where no token comes")
    ids = client.chat.completions.create(**{**args, "extra_body": {
        "presence_penalty": 1.5, "return_tokens_as_token_ids": True,
        "return_token_ids": True}}).choices[0]
    same([t.token for t in ids.logprobs.content],
         [f"token_id:{i}" for i in ids.token_ids[:len(c)]], "tokens as ids")
    same(client.chat.completions.create(model="demo", messages=ASK, max_tokens=2).choices[0].logprobs,
         None, "not asked for: null")


def silent_logprobs():
    """Tokens without text: their logprobs come as they do."""
    for _ in range(100):                    # a busy machine may send many at once
        chunks = list(client.completions.create(
            model="demo", prompt=IDS, temperature=0, max_tokens=40, logprobs=1, stream=True,
            extra_body={"ignore_eos": True, "allowed_token_ids": [1, 2, 3]}))
        n = [len(x.choices[0].logprobs.tokens) for x in chunks if x.choices[0].logprobs]
        if sum(n) != 40 or max(n) < 30:
            break
    ok(sum(n) == 40 and max(n) < 30, f"40 tokens without text in {len(n)} pieces")


def text_logprobs():
    r = completion({"presence_penalty": 2, "ignore_eos": True}, logprobs=5, temperature=1, seed=4)
    lp, ids = r.choices[0].logprobs, r.choices[0].token_ids
    want = [log_softmax(x) for x in along(ids)]
    ok(all(near(a, w[i]) for a, w, i in zip(lp.token_logprobs, want, ids)),
       "logprobs are of the raw logits, whatever the penalties")
    ok(all(near(a, b) for top, w in zip(lp.top_logprobs, want)
           for a, b in zip(sorted(top.values(), reverse=True), sorted(w, reverse=True)[:5])),
       "and so are the best five")
    ok(all(len(t) in (5, 6) and k in t for t, k in zip(lp.top_logprobs, lp.tokens)),
       "the token itself is always among them")
    text = r.choices[0].text
    ok(all(text[o:].startswith(t) or t.startswith("bytes:") or t.startswith("<")
           for o, t in zip(lp.text_offset, lp.tokens)), "text_offset is where a token begins")

    args = dict(prompt="The sea and the hills", max_tokens=4, echo=True, logprobs=2)
    echo = completion({"prompt_logprobs": 3}, **args).choices[0]
    lp, all_ids = echo.logprobs, echo.prompt_token_ids + echo.token_ids
    same((lp.token_logprobs[0], lp.top_logprobs[0]), (None, None), "nothing before the first token")
    same(len(lp.tokens), len(all_ids), "echo: the prompt's tokens and the answer's")
    w = [log_softmax(x) for x in logits_after([all_ids[:i] for i in range(1, len(all_ids))])]
    ok(all(near(a, x[i]) for a, x, i in zip(lp.token_logprobs[1:], w, all_ids[1:])),
       "echo: the prompt's logprobs")
    ok(all(echo.text[o:].startswith(t) for o, t in zip(lp.text_offset, lp.tokens)
           if not t.startswith("<")), "echo: offsets")
    pl = echo.prompt_logprobs
    ok(pl[0] is None and all(
        near(d[str(i)]["logprob"], x[i]) and d[str(i)]["rank"] == 1 + sum(v > x[i] for v in x)
        and len(d) in (3, 4) for d, x, i in zip(pl[1:], w, echo.prompt_token_ids[1:])),
       "prompt_logprobs: logprob and rank")
    none = completion(prompt="The sea and the hills", max_tokens=0, echo=True, logprobs=1).choices[0]
    same(none.logprobs.token_logprobs, lp.token_logprobs[:len(echo.prompt_token_ids)],
         "echo without an answer: the same logprobs")
    chunks = list(client.completions.create(model="demo", temperature=0, stream=True, n=2,
                                            extra_body={"return_token_ids": True}, **args))
    for k in range(2):
        mine = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].index == k
                and c.choices[0].logprobs]
        same([sum((getattr(m, f) for m in mine), []) for f in
              ("tokens", "token_logprobs", "text_offset")],
             [lp.tokens, lp.token_logprobs, lp.text_offset], f"echo in a stream, choice {k}")


# --- the rest ---

def rest():
    def stream(**more):
        return list(client.completions.create(model="demo", prompt=IDS, temperature=0, stream=True,
                                              max_tokens=24, extra_body={"ignore_eos": True,
                                                                         "return_token_ids": True,
                                                                         **more}))
    whole = completion({"ignore_eos": True}, max_tokens=24).choices[0]
    for interval in (1, 5, 1024):
        chunks = [c for c in stream(stream_interval=interval) if c.choices[0].token_ids]
        same(sum((c.choices[0].token_ids for c in chunks), []), whole.token_ids,
             f"stream_interval {interval}: every id")
        ok(all(len(c.choices[0].token_ids) >= interval for c in chunks[1:-1]), "in its steps")

    texts = client.post("/../tokenize", cast_to=object, body={
        "prompt": "extraordinary understanding everything", "return_token_strs": True})
    size, word = max((len(s), i) for s, i in zip(texts["token_strs"], texts["tokens"]))
    ok(size > 4, f"a token of {size} characters")
    chunks = stream(stream_interval=1024, allowed_token_ids=[word], max_tokens=900)
    same(sum((c.choices[0].token_ids for c in chunks), []), [word] * 900,
         "more text than a choice may hold does not wait for its interval")
    args = dict(prompt="a sea of hills " * 290, max_tokens=2, echo=True, logprobs=0, temperature=0)
    whole = client.completions.create(model="demo", **args).choices[0]
    chunks = list(client.completions.create(model="demo", stream=True, **args))
    same(("".join(c.choices[0].text for c in chunks),
          sum((c.choices[0].logprobs.tokens for c in chunks if c.choices[0].logprobs), [])),
         (whole.text, whole.logprobs.tokens), "nor does a long prompt with its logprobs")

    for k in range(100):                    # what is busy may not see each step of the prompt
        long = [2] + [300 + (i + k) % 150 for i in range(2200)]
        chunks = list(client.completions.create(model="demo", prompt=long, stream=True, max_tokens=2,
                                                extra_body={"return_progress": True}))
        p = [c.prompt_progress for c in chunks if getattr(c, "prompt_progress", None)]
        if len(p) > 1:
            break
    ok(len(p) > 1 and p[-1]["processed"] == p[-1]["total"] == len(long) and p[0]["cache"] == 0,
       f"return_progress: {p}")
    same(sorted(x["processed"] for x in p), [x["processed"] for x in p], "it only grows")
    ok(chunks[-1].choices[0].finish_reason == "length", "and the answer comes")

    cut = completion({"truncate_prompt_tokens": 3}).choices[0]
    same(cut.prompt_token_ids, IDS[-3:], "truncate_prompt_tokens keeps the end")
    cut = completion({"truncate_prompt_tokens": 3, "truncation_side": "right"}).choices[0]
    same(cut.prompt_token_ids, IDS[:3], "or the beginning")
    big = completion({"truncate_prompt_tokens": -1}, prompt=[2] + [300] * 5000, max_tokens=2)
    same(big.usage.prompt_tokens, 4094, "-1: what fits")

    chat = client.chat.completions.create(model="demo", messages=ASK, max_tokens=1, extra_body={
        "return_prompt_text": True})
    ok(chat.prompt_text.startswith("<bos><|turn>user\nHello!") and
       "<turn|>\n<|turn>model\n" in chat.prompt_text, f"return_prompt_text: {chat.prompt_text!r}")
    text = completion({"return_prompt_text": True}, prompt="The sea").choices[0]
    same(text.prompt_text, "<bos>The sea", "of a completion")
    loop = completion({"allowed_token_ids": [300], "repetition_detection": {
        "max_pattern_size": 3, "min_count": 4}}, max_tokens=200).choices[0]
    same((loop.finish_reason, loop.stop_reason, len(loop.token_ids)), ("stop", "repetition", 4),
         "repetition_detection")
    many = completion({"return_token_ids": False}, n=32, temperature=1, seed=1, max_tokens=2)
    same([c.index for c in many.choices], list(range(32)), "n = 32")


def alone_and_together(url):
    """Ten requests with everything at once, one after the other and all at the same time."""
    c = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)

    def one(k):
        r = c.completions.create(
            model="demo", prompt=IDS[:3 + k % 5] + [310 + k], temperature=0.9, seed=k, max_tokens=30,
            logprobs=3, presence_penalty=k % 3, frequency_penalty=k % 2,
            logit_bias={str(300 + k): 3} if k % 2 else {},
            extra_body={"ignore_eos": True, "repetition_penalty": 1 + k % 4 / 10,
                        "bad_words": ["the", "a b"] if k % 3 == 0 else [],
                        "min_tokens": k, "return_token_ids": True})
        return r.choices[0].token_ids, r.choices[0].logprobs.model_dump()

    alone = [one(k) for k in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        together = list(pool.map(one, range(10)))
    same([a == b for a, b in zip(alone, together)], [True] * 10, "alone and among others: same bits")
    return alone


with Stack() as s:
    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    bounds()
    effects()
    words()
    minimum()
    thinking()
    chat_logprobs()
    silent_logprobs()
    text_logprobs()
    rest()
    with_overlap = alone_and_together(s.url)

with Stack(serve_args=["--no-async-scheduling", "--strict"]) as s:
    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
    same(alone_and_together(s.url) == with_overlap, True, "and the same without overlap")
    same(refusal(lambda: completion({"no_such_field": 1})), ("no_such_field", "unknown_parameter"),
         "--strict")
    ok(refusal(lambda: completion({"user": "u"})) is None, "a known field passes")

done()
