"""`inferd bench serve` against a real server: its numbers are those of the server's /metrics, its
failures have names, its files can be read."""
import csv
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, LIMIT, Stack, done, free_port, ok, same

DIST = [f"{q}_{m}_ms" for m in ("ttft", "tpot", "itl", "e2el")
        for q in ("mean", "median", "std", "p50", "p90", "p99")]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def bench(url, *args):
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        p = subprocess.run([f"{BUILD}/inferd", "bench", "serve", "--url", url, "--random-vocab",
                            "1024", "--result-file", f.name, *map(str, args)],
                           capture_output=True, text=True, timeout=3 * LIMIT)
        text = f.read()
    return p, json.loads(text) if text else None


def refused(words, *args):
    p, _ = bench(*args)
    ok(p.returncode == 1 and p.stderr.count("\n") == 1 and all(w in p.stderr for w in words),
       p.stderr.strip())


NAMES = ["vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
         "vllm:time_to_first_token_seconds_sum", "vllm:time_to_first_token_seconds_count",
         "vllm:e2e_request_latency_seconds_sum"]


def closed(s):
    """Eight at once, all of one length: what the server counted is what we say."""
    before = [s.metric(n) for n in NAMES]
    p, r = bench(s.url + TEXT, "--num-prompts", 40, "--max-concurrency", 8, "--random-input-len", 50,
                 "--random-output-len", 20, "--num-warmups", 0, "--goodput", "ttft:600000",
                 "e2el:600000", "--seed", 1)
    prompt, out, ended, ttft, n_ttft, e2e = [s.metric(n) - b for n, b in zip(NAMES, before)]
    same(p.returncode, 0, "a closed loop" + p.stderr)
    same((r["completed"], r["failed"], r["errors"], r["short_answers"]), (40, 0, {}, 0), "all done")
    same((r["total_input_tokens"], r["total_output_tokens"]), (40 * 50, 40 * 20), "tokens")
    same((prompt, out, ended, n_ttft), (40 * 50, 40 * 20, 40, 40), "as the server counted them")
    ok(r["mean_ttft_ms"] >= 1e3 * ttft / 40 - 1, "nobody's first token is older than the server's: "
       f"{r['mean_ttft_ms']:.1f} and {1e3 * ttft / 40:.1f} ms")
    ok(1e3 * e2e / 40 - 1 <= r["mean_e2el_ms"] <= 1e3 * 8 * r["duration"] / 40 + 1,
       f"E2EL {r['mean_e2el_ms']:.1f} ms: not below the server's {1e3 * e2e / 40:.1f}, and eight after"
       f" each other fit into {r['duration']:.2f} s")
    want = r["mean_e2el_ms"] - r["mean_ttft_ms"]
    ok(abs(19 * r["mean_tpot_ms"] - want) < 0.01 * want, "TPOT is (E2EL - TTFT) / 19")
    ok(0.94 * r["mean_tpot_ms"] <= r["mean_itl_ms"] <= 19.1 * r["mean_tpot_ms"], "an event for a"
       f" token or for some, and one for the end: ITL {r['mean_itl_ms']:.2f} ms, TPOT"
       f" {r['mean_tpot_ms']:.2f}")
    same(r["request_goodput"], r["request_throughput"], "goals that nobody misses")
    ok(abs(r["output_throughput"] * r["duration"] - 800) < 1, "throughput is over the whole run")
    ok(all(r[d] >= 0 for d in DIST) and all(r[f"p50_{m}_ms"] <= r[f"p90_{m}_ms"]
       <= r[f"p99_{m}_ms"] and r[f"p50_{m}_ms"] == r[f"median_{m}_ms"]
       for m in ("ttft", "tpot", "itl", "e2el")), "percentiles rise")
    ok("Successful requests:" in p.stdout and "Request goodput (req/s):" in p.stdout, "a table")


def opened(s):
    """Poisson arrivals: the last is due at n / rate; lengths in their range."""
    before = [s.metric(n) for n in NAMES]
    p, r = bench(s.url + TEXT, "--num-prompts", 30, "--request-rate", 15, "--random-input-len", 40,
                 "--random-output-len", 10, "--random-range-ratio", "0.5", "--random-prefix-len", 20,
                 "--goodput=ttft:0.001", "--num-warmups", 2)
    prompt, out = [s.metric(n) - b for n, b in zip(NAMES, before)][:2]
    same((p.returncode, r["completed"]), (0, 30), "an open loop" + p.stderr)
    ok(2 <= r["duration"], f"30 requests at 15 a second: {r['duration']:.2f} s")
    ok(32 * 40 <= prompt <= 32 * 80 and 32 * 5 <= out <= 32 * 15, "lengths in their range")
    ok(0 < prompt - r["total_input_tokens"] <= 2 * 80 and 0 < out - r["total_output_tokens"] <= 30,
       "warm-ups are not counted")
    same(r["request_goodput"], 0.0, "a goal that everybody misses")


def chat(s):
    p, r = bench(s.url + CHAT, "--num-prompts", 4, "--random-input-len", 12, "--random-output-len",
                 8, "--max-concurrency", 2, "--no-ignore-eos", "--temperature", "0")
    same((p.returncode, r["completed"], r["endpoint_type"]), (0, 4, "openai-chat"), "chat" + p.stderr)
    ok(r["total_input_tokens"] >= 4 * 12 and 0 < r["total_output_tokens"] <= 4 * 8,
       "tokens are those of the usage")


def files(s, d):
    path = f"{d}/rows.csv"
    args = (s.url + TEXT, "--num-prompts", 2, "--random-input-len", 8, "--random-output-len", 4,
            "--csv", path, "--commit", "abc", "--device", "one core", "--shape", "demo")
    same([bench(*args)[0].returncode for _ in range(2)], [0, 0], "two rows")
    with open(path) as f:
        rows = list(csv.DictReader(f))
    same([(x["commit"], x["device"], x["shape"], x["isl"], x["completed"], x["good_per_s"])
          for x in rows], [("abc", "one core", "demo", "8", "2", "")] * 2, "with all their words")
    with open("bench/results/serve.csv") as f:
        kept = list(csv.DictReader(x for x in f if x[0] != "#"))
    ok(kept and list(kept[0]) == list(rows[0]) and all(None not in x for x in kept),
       "bench/results/serve.csv has the same columns")
    with open(path, "w") as f:
        f.write("# ours\na,b\n")
    refused(["other columns"], *args)
    refused(["--commit"], *args, "--commit", "a,b")
    refused(["nowhere"], *args, "--csv", f"{d}/nowhere/x")


def failures(s):
    p, r = bench(s.url + TEXT, "--model", "another", "--num-prompts", 5, "--num-warmups", 0)
    same((p.returncode, r["failed"], len(r["errors"])), (1, 5, 1), "a model that is not there")
    ok(all(w in str(r["errors"]) for w in ("HTTP 404", "another")) and "failed 5 times" in p.stdout,
       str(r["errors"]))
    refused(["HTTP 404", "another"], s.url + TEXT, "--model", "another")
    refused(["/v1/models"], f"http://127.0.0.1:{free_port()}/v1/completions")
    p, r = bench(s.url + TEXT, "--random-input-len", 500, "--random-range-ratio", "0.1",
                 "--random-output-len", 1, "--num-prompts", 20, "--num-warmups", 0)
    ok(p.returncode == 0 and r["completed"] > 0 and r["failed"] > 0
       and r["completed"] + r["failed"] == 20 and sum(r["errors"].values()) == r["failed"],
       f"some prompts are too long, the others count: {r['errors']}")
    for url in ("localhost:1/v1/completions", s.url, s.url + "/v1/complete"):
        refused(["--url"], url)
    refused(["--goodput", "itl:5"], s.url + TEXT, "--goodput", "ttft:5", "itl:5")
    refused(["--request-rate"], s.url + TEXT, "--request-rate", "nan")
    refused(["--random-range-ratio"], s.url + TEXT, "--random-range-ratio", "1")


with Stack(serve_args=["--max-model-len", "512"], wait="1s") as s, tempfile.TemporaryDirectory() as d:
    closed(s)
    opened(s)
    chat(s)
    files(s, d)
    failures(s)
    s.engine.kill()
    s.engine.wait()
    p, r = bench(s.url + TEXT, "--model", "demo", "--num-prompts", 3, "--num-warmups", 0)
    ok(p.returncode == 1 and "HTTP 50" in str(r["errors"]), f"no engine: {r['errors']}")
done()
