#!/usr/bin/env python3
"""Streams of random token ids through nginx: tokens out per second, time to first token, time between
two tokens, until `inferd bench serve` takes over.

    bench/serve.py http://127.0.0.1:8080 MODEL --isl 610 --osl 422 --streams 1,64,100

Prompts are ids, so a model without a tokenizer will do (--load-format dummy). All streams of a round
start at once. Prints one CSV row for each."""
import argparse
import asyncio
import json
import random
import re
import statistics
import time
import urllib.parse

IDS = re.compile(rb'"token_ids":\[([0-9,]*)\]')


async def stream(a, seed):
    r, w = await asyncio.open_connection(a.host, a.port)
    rnd = random.Random(seed)
    body = json.dumps({
        "model": a.model, "prompt": [rnd.randrange(1000, a.vocab) for _ in range(a.isl)],
        "max_tokens": a.osl, "stream": True, "ignore_eos": True, "temperature": 1.0, "top_k": 0,
        "top_p": 1.0, "return_token_ids": True}).encode()
    w.write(f"POST /v1/completions HTTP/1.1\r\nHost: {a.host}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    start, seen, text = time.perf_counter(), [], b""
    while part := await r.read(1 << 16):
        text += part
        if b'"token_ids"' in part:
            seen.append(time.perf_counter())
    w.close()
    n = sum(len([x for x in m.split(b",") if x]) for m in IDS.findall(text))
    if n != a.osl:
        raise SystemExit(f"{n} tokens, not {a.osl}: {text[:400]!r}")
    return seen[0] - start, [b - c for b, c in zip(seen[1:], seen)]


async def main(a):
    print("streams,isl,osl,tok_per_s,ttft_p50_ms,itl_p50_ms,itl_p99_ms")
    for k, n in enumerate(a.streams):
        start = time.perf_counter()
        got = await asyncio.gather(*[stream(a, 10000 * k + i) for i in range(n)])
        wall = time.perf_counter() - start
        gaps = sorted(g for _, gs in got for g in gs)
        print(f"{n},{a.isl},{a.osl},{n * a.osl / wall:.1f},"
              f"{1e3 * statistics.median(t for t, _ in got):.1f},{1e3 * gaps[len(gaps) // 2]:.1f},"
              f"{1e3 * gaps[len(gaps) * 99 // 100]:.1f}", flush=True)


p = argparse.ArgumentParser()
p.add_argument("url")
p.add_argument("model")
p.add_argument("--isl", type=int, default=610)
p.add_argument("--osl", type=int, default=422)
p.add_argument("--vocab", type=int, default=200000)
p.add_argument("--streams", type=lambda s: [int(x) for x in s.split(",")], default=[1, 64, 100])
args = p.parse_args()
url = urllib.parse.urlsplit(args.url)
args.host, args.port = url.hostname, url.port or 80
asyncio.run(main(args))
