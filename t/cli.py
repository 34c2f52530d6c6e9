"""The subcommands as a user types them: exit codes, one line for each mistake, no traces."""
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, LIMIT, done, ok, same

BIG = "bench/configs/gemma-4-26B-A4B-it"


def run(*args, stdin=""):
    return subprocess.run([f"{BUILD}/inferd", *args], input=stdin, capture_output=True, text=True,
                          timeout=LIMIT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def refused(words, *args):
    p = run(*args)
    lines = p.stderr.strip().splitlines()
    ok(p.returncode == 1 and lines and all(w in lines[-1] for w in words)
       and len([x for x in lines if x.startswith("inferd: ")]) == 1,
       f"inferd {' '.join(args)}: {lines[-1] if lines else p.returncode}")


same(run().returncode, 2, "no command: usage")
same(run("--help").returncode, 0, "--help")
same((run("-h").stdout, run("plan", "-h").stdout), (run("--help").stdout,
     run("plan", "--help").stdout), "-h")
for cmd in "serve", "plan", "inspect", "score", "render", "chat", "bench engine", "bench pace", \
        "bench serve":
    ok(f"usage: inferd {cmd} " in run(*cmd.split(), "--help").stdout, f"{cmd} --help")
same(run("bench", "--help").stdout, run("--help").stdout, "bench --help")
same(run("bench").returncode, 2, "bench what?")
for words in ["brew"], ["bench", "tea"]:
    p = run(*words)
    same((p.returncode, p.stderr.splitlines()[0]),
         (2, f"inferd: unknown command {' '.join(words)}"), "an unknown command")

p = run("plan", BIG, "--memory-bytes", "143771m", "--backend", "cuda", "--max-model-len", "32768")
same(p.returncode, 0, "plan of the 26B needs no weights and no GPU")
ok("25233141790" in p.stdout, "its parameters are those published")
ok("12800 B a token" in p.stdout and "204800 B a token" in p.stdout, "its KV bytes a token")
print("#", p.stdout.replace("\n", "\n# "))
refused(["weights and scratch need 48128 MiB", "--memory-bytes is 24576 MiB"], "plan", BIG,
        "--memory-bytes", "24g")
p = run("plan", BIG, "--backend", "cuda", "--memory-bytes", "143771m", "--max-model-len", "32768",
        "--kv-cache-memory-bytes", "16g")
ok(p.returncode == 0 and p.stdout.splitlines()[-1].startswith("together ")
   and p.stdout.endswith(" of 143771.0 MiB\n"), f"16 GiB of cache fit: {p.stdout[-60:]}")
for memory, kv, words in ("143771m", "16t", "does not fit: "), ("24g", "16g", "the GPU has 24576 MiB"):
    refused([words], "plan", BIG, "--backend", "cuda", "--memory-bytes", memory, "--max-model-len",
            "32768", "--kv-cache-memory-bytes", kv)
for cmd in ["plan"], ["serve", "--uds", "nowhere/x.sock"], ["bench", "engine", "--contexts", "8"]:
    refused(["does not fit: ", "lower --kv-cache-memory-bytes to "], *cmd, "models/demo",
            "--kv-cache-memory-bytes", str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 48128 << 20:
    refused(["this machine has", "--memory-bytes 143771m"], "plan", BIG)
refused(["raise --kv-cache-memory-bytes to "], "plan", BIG, "--kv-cache-memory-bytes", "1m",
        "--memory-bytes", "141g")
refused(["--max-model-len"], "plan", BIG, "--max-model-len", "262145")
refused(["--max-num-seqs", "1024"], "serve", "models/demo", "--max-num-seqs", "1025")
refused(["--kv-session-tokens", "5000", "--max-model-len"], "serve", "models/demo",
        "--kv-session-tokens", "5000")
refused(["--max-queue-tokens", "--max-model-len"], "serve", "models/demo", "--max-queue-tokens",
        "4095")
refused(["--max-num-seqs", "--max-num-batched-tokens"], "serve", "models/demo",
        "--max-num-seqs", "65", "--max-num-batched-tokens", "64")
refused(["one request of 4096 tokens", "MiB", "--kv-cache-memory-bytes"], "serve", "models/demo",
        "--kv-cache-memory-bytes", "1m")
# Whatever the machine has: run() hides it.
for cmd in ["serve"], ["bench", "engine", "--contexts", "8"]:
    refused(["--backend"], *cmd, "models/demo", "--backend", "cuda")
refused(["--prompt-tokens: 100000", "4096 positions"], "bench", "pace", "models/demo")
refused(["--contexts: 8192", "4096 positions"], "bench", "engine", "models/demo")
refused(["--decodes 64", "--max-num-batched-tokens"], "bench", "pace", "t/golden/moe",
        "--decodes", "64", "--max-num-batched-tokens", "64")
for more in [], ["--itl-target-ms", "1"], ["--load-format", "dummy", "--no-async-scheduling"]:
    p = run("bench", "pace", "t/golden/moe", "--prompt-tokens", "300", "--decodes", "4",
            "--max-num-batched-tokens", "64", "--max-model-len", "2048", *more)
    head, row = [x.split(",") for x in p.stdout.splitlines()[-2:]]
    row = dict(zip(head, row, strict=True))
    same((p.returncode, row["prompt"], row["decodes"], row["budget"]), (0, "300", "4", "64"),
         f"bench pace {' '.join(more)}")
    ok(0 < float(row["decode_ms"]) <= float(row["decode_p99_ms"])
       and 0 < float(row["gap_ms"]) <= float(row["gap_p99_ms"]) == float(row["gap_max_ms"]),
       f"gaps {row['gap_ms']} to {row['gap_max_ms']} ms; 99 % of less than 100 are all")
p = run("bench", "engine", "t/golden/moe", "--batches", "1,3", "--contexts", "5,40",
        "--max-num-batched-tokens", "16", "--kv-cache-memory-bytes", "8m", "--commit", "abc",
        "--device", "one core")
rows = list(csv.DictReader(p.stdout.splitlines()))
same((p.returncode, [(x["what"], x["batch"], x["context"]) for x in rows]),
     (0, [("prefill", "1", "5"), ("prefill", "1", "40")]
      + [("decode", b, c) for b in "13" for c in ("5", "40")]), "bench engine: what was asked for")
ok(all(float(x["ms"]) > 0 and x["model"] == "moe" and x["commit"] == "abc"
       and x["device"] == "one core" for x in rows), "its rows say of which commit and device")
with open("bench/results/engine.csv") as f:
    head = next(x for x in f if x[0] != "#").strip()
ok(p.stdout.startswith(head + ","), "bench/results/engine.csv has the same columns before")
refused(["--max-model-len"], "bench", "pace", "models/demo", "--prompt-tokens", "10",
        "--max-model-len", "20")
refused(["--max-model-len"], "bench", "pace", "models/demo", "--prompt-tokens", "10",
        "--max-model-len", "12")
refused(["nowhere", "config.json"], "serve", "nowhere")
refused(["nowhere"], "render", "nowhere")

for args in (["--help"], ["plan", "--help"], ["plan", BIG, "--memory-bytes", "143771m"],
             ["inspect", "models/demo"], ["api"],
             ["bench", "engine", "models/demo", "--batches", "1", "--contexts", "8"]):
    cmd = [f"{BUILD}/inferd", *args]
    with open("/dev/full", "w") as full:
        p = subprocess.run(cmd, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
    ok(p.returncode == 1 and p.stderr.strip().splitlines()[-1].startswith("inferd: "),
       f"inferd {' '.join(args)}: a full disk is told")
    p = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', *cmd], stderr=subprocess.PIPE, text=True,
                       timeout=LIMIT)
    ok(p.returncode == 1 and "inferd: " in p.stderr, "and so is a stdout that is closed")

p = run("api")
with open("docs/api.md") as f:
    ok(p.returncode == 0 and p.stdout == f.read(),
       "docs/api.md is what the tables say (if not: build/inferd api > docs/api.md)")
for route in ("POST /v1/messages", "POST /v1/responses", "GET /v1/models/{id}"):
    ok(f"`{route}`" in p.stdout, f"it tells of {route}")
libs = subprocess.run(["ldd", f"{BUILD}/inferd"], capture_output=True, text=True).stdout
ok("libyajl" in libs and "libcurl" not in libs, "a server does not need libcurl")

p = run("inspect", "models/demo")
same(p.returncode, 0, "inspect")
ok("experts" in p.stdout and "large" in p.stdout, "it names experts and the template")

p = run("chat", "models/demo", "--temperature", "0", stdin="Hello!\nWhat is 2 + 3?\n")
same(p.returncode, 0, "chat ends with its input")
ok(len(p.stdout.strip()) > 10, "and answers: " + p.stdout.replace("\n", " / "))


def broken(change, *words):
    with tempfile.TemporaryDirectory() as d:
        for f in os.listdir("models/demo"):
            shutil.copy(f"models/demo/{f}", d)
        change(d)
        refused(words, "chat", d)


def edit(name, **kw):
    def change(d):
        with open(f"{d}/{name}") as f:
            c = json.load(f)
        c["text_config"].update(kw)
        with open(f"{d}/{name}", "w") as f:
            f.write(json.dumps(c))
    return change


def replace(name, make):
    def change(d):
        os.remove(f"{d}/{name}")
        make(f"{d}/{name}")
    return change


def cut(d):
    os.truncate(d + "/model.safetensors", 100000)


for args in ([], ["ask"], ["ask", "a", "b"], ["stop", "now"], ["other"]):
    p = subprocess.run(["tools/demo-server", *args], capture_output=True, text=True, timeout=LIMIT)
    ok(p.returncode == 2 and p.stderr.startswith("usage: ") and p.stdout == "",
       f"demo-server {' '.join(args)}: usage")

broken(cut, "model.safetensors")
broken(lambda d: os.remove(d + "/model.safetensors"), "model.safetensors")
broken(lambda d: os.truncate(d + "/tokenizer.json", 1000), "tokenizer.json")
for name in os.listdir("models/demo"):
    if name != "tokenizer_config.json":
        broken(replace(name, os.mkfifo), name, "not a regular file")
        broken(replace(name, lambda path: os.symlink(path, path)), name, "symbolic links")
broken(edit("config.json", rms_norm_eps=float("nan")), "config.json")
broken(edit("config.json", hidden_size=-1), "config.json", "hidden_size")
broken(edit("config.json", num_hidden_layers=10**9), "config.json", "num_hidden_layers")
broken(edit("config.json", num_experts="eight"), "config.json", "num_experts")
broken(edit("config.json", hidden_size=4096), "model.safetensors")
done()
