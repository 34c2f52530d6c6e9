"""What clients and operators see of the core: cached tokens, who shares them, refusals and when to
come again, classes, the admin routes, /load, and a dashboard of metrics that exist."""
import concurrent.futures
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, ENDLESS, LIMIT, Stack, done, endless, ok, same, until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONG = [{"role": "user", "content": "Tell me of the sea, the hills and the rain. " * 8}]
FOREVER = {"prompt": "a", "max_tokens": ENDLESS, "ignore_eos": True, "temperature": 0}


class Call:
    """One request over the wire, as a worker would send it; under way until it is read."""
    def __init__(self, method, uri, body=None, key=None, request_id=None, *more):
        h = [f":key:{key}"] * (key is not None) + [f"x-request-id:{request_id}"] * bool(request_id)
        self.out, self.text = tempfile.TemporaryFile(), None
        with tempfile.TemporaryFile() as f:
            f.write(b"" if body is None else json.dumps(body).encode())
            f.seek(0)
            self.p = subprocess.Popen([f"{BUILD}/t/helpers/wire_client", SOCK, method, uri, "-",
                                       *[x for v in h for x in ("-H", v)], *more], stdin=f,
                                      stdout=self.out, stderr=subprocess.PIPE)

    def read(self):
        if self.text is None:
            self.note = self.p.communicate(timeout=3 * LIMIT)[1].decode()
            self.out.seek(0)
            head, _, self.text = self.out.read().decode().partition("\n\n")
            lines = head.split("\n")
            self.status = int(lines[0].split()[1]) if lines[0].startswith("status") else 0
            self.headers = dict(x.split(": ", 1) for x in lines[1:] if ": " in x)
        return self

    def so_far(self):
        return os.pread(self.out.fileno(), 1 << 20, 0).decode(errors="replace")

    def leave(self):
        self.p.kill()
        self.p.communicate()

    @property
    def json(self):
        return json.loads(self.read().text)

    @property
    def error(self):
        e = self.json["error"]
        return (self.status, e["type"], e["code"], e["param"])


def get(uri):
    return Call("GET", uri).json


def post(uri, key=None, **body):
    return Call("POST", uri, body, key)


def cached(key=None, **more):
    u = post(CHAT, key, **{"messages": LONG, "max_tokens": 2, "temperature": 0, **more}).json
    return u["usage"]["prompt_tokens_details"]["cached_tokens"]


def metric(name):
    text = Call("GET", "/metrics").read().text
    m = re.search(rf"^{re.escape(name)}(?:{{.*?}})? (\S+)$", text, re.M)
    return float(m.group(1)) if m else None


def becomes(name, want):
    return until(lambda: get("/load")[name] == want) \
        or ok(False, f"/load: {name} becomes {want}")


def is_ready():
    return os.path.exists(SOCK) and Call("GET", "/ready").read().status == 200


def prefixes():
    same(cached(), 0, "the first of its kind: nothing is cached")
    n = cached()
    ok(n >= 96 and n % 16 == 0, f"the second: {n} tokens")
    same(cached(key="alice"), 0, "of another key: nothing")
    same((cached(key="alice"), cached(key="alice" * 2000)), (n, 0), "keys of any length")
    same((cached(cache_salt="s"), cached(cache_salt="s")), (0, n), "of another salt: nothing")
    same(cached(key="alice", cache_salt="s"), 0, "a key and a salt are neither of them")
    same(cached(key="", cache_salt="s"), n, "an empty key is none")
    same(cached(n=2), n, "n = 2: the prompt counts once")
    before = metric("vllm:prefix_cache_hits_total")
    all_in = metric("vllm:prefix_cache_queries_total")
    ev = post(CHAT, messages=LONG, max_tokens=2, stream=True,
              stream_options={"include_usage": True}).read().text.split("\n\n")
    u = json.loads(ev[-3][6:])["usage"]
    same(u["prompt_tokens_details"]["cached_tokens"], n, "a stream says it in its last chunk")
    same(metric("vllm:prefix_cache_hits_total") - before, n, "and /metrics")
    same(metric("vllm:prefix_cache_queries_total") - all_in, u["prompt_tokens"], "of all")
    same(Call("POST", "/admin/reset_prefix_cache").json,
         {"status": "ok"}, "reset_prefix_cache")
    same((cached(), cached()), (0, n), "forgets them, and they come back")
    same(Call("POST", TEXT, {"prompt": "a", "max_tokens": 1}).json["usage"]
         ["prompt_tokens_details"]["cached_tokens"], 0, "cached_tokens is there where nothing is")


def refusals():
    run = Call("POST", TEXT, {**FOREVER, "stream": True}, "alice", "run")
    becomes("running", 1)
    wait = Call("POST", TEXT, {"prompt": [7] * 50000, "max_tokens": 1}, "alice", "wait")
    becomes("waiting", 1)
    load = get("/load")
    same({k: load[k] for k in ("ready", "draining", "running", "waiting", "queue_tokens")},
         {"ready": True, "draining": False, "running": 1, "waiting": 1, "queue_tokens": 50000},
         "/load")
    ok(0 < load["kv_usage"] < 1 and load["estimated_wait_ms"] >= 0, "part of the cache is in use")

    told = set()
    for stream in (False, True):
        r = post(TEXT, "alice", prompt="a", max_tokens=1, stream=stream)
        same(r.error, (429, "rate_limit_error", "rate_limit_exceeded", None),
             f"a third of a key that may have two, stream {stream}")
        r = post(TEXT, "bob", prompt=[7] * 16000, max_tokens=1, stream=stream)
        same(r.error, (503, "service_unavailable_error", "server_is_overloaded", None),
             "more tokens than may wait")
        ms = int(r.headers["retry-after-ms"])
        ok(100 <= ms <= 120000 and int(r.headers["retry-after"]) == (ms + 999) // 1000,
           f"to come again in {ms} ms")
        told.add(ms)
    ok(told != {1000}, "which is no constant")
    same(post(TEXT, prompt=[7] * 6000, max_tokens=1, n=3).error[2], "server_is_overloaded",
         "one of three choices that is refused refuses all")
    becomes("waiting", 1)
    same(post(TEXT, "bob", prompt="a", max_tokens=1, n=3).error[0::3], (400, "n"),
         "n above what a key may have")
    same((metric('inferd_refused_total{reason="quota"}'),
          metric('inferd_refused_total{reason="busy"}')), (2, 3), "all are counted")
    return run, wait


def aborts(run, wait):
    r = Call("POST", "/admin/abort?request_id=nobody")
    same(r.error, (404, "invalid_request_error", "request_not_found", "request_id"), "an unknown id")
    for uri in ("/admin/abort", "/admin/abort?request_id=" + "x" * 200, "/admin/abort?id=run"):
        same(Call("POST", uri).error[0::3], (400, "request_id"), uri[:30])
    same(Call("POST", "/admin/abort?x=1&request_id=%77ait&y").json, {"aborted": 1}, "abort: one waits")
    same(wait.error, (500, "server_error", "request_aborted", None), "it is told so")
    same(wait.headers["x-should-retry"], "false", "and not to come again")
    same(Call("POST", "/admin/abort?request_id=cmpl-run").json, {"aborted": 1}, "one runs")
    ev = run.read().text.split("\n\n")
    same((run.status, ev[-2:], json.loads(ev[-3][6:])["error"]["code"]),
         (200, ["data: [DONE]", ""], "request_aborted"), "its stream ends with an error event")
    ok("end 2 " in run.note and "finish abort" in run.note, "and is cut on the wire")
    becomes("running", 0)
    ok(until(lambda: get("/load")["kv_usage"] == 0), "its pages are free")
    for m, uri, want in (("GET", "/admin/drain", 405), ("GET", "/admin/abort", 405),
                         ("POST", "/admin/", 404), ("POST", "/admin/other", 404),
                         ("POST", "/load", 405)):
        same(Call(m, uri).error[0], want, f"{m} {uri}")


def classes():
    for batch, tier in (({"priority": 7, "service_tier": "auto"}, "flex"),
                        ({"service_tier": "flex"}, "flex")):
        run = Call("POST", TEXT, {**FOREVER, "stream": True}, None, "run")
        becomes("running", 1)
        first = Call("POST", TEXT, {**FOREVER, "stream": True, **batch}, None, "first")
        becomes("waiting", 1)
        second = Call("POST", TEXT, {"prompt": "a", "max_tokens": 9, "priority": -1,
                                     "service_tier": "default"})
        becomes("waiting", 2)
        Call("POST", "/admin/abort?request_id=run").read()
        same(second.json["service_tier"], "default", f"{batch} waits for who came later")
        ok(until(lambda: f'"service_tier":"{tier}"' in first.so_far()), "and runs in its class")
        ok(first.p.poll() is None, "thereafter")
        first.leave()
        run.leave()
    ok("service_tier" not in post(TEXT, prompt="a", max_tokens=1).json, "who asks for none gets none")


def drain(engine):
    run = Call("POST", TEXT, {**FOREVER, "max_tokens": 4000, "stream": True})
    becomes("running", 1)
    same(Call("POST", "/admin/drain").json["status"], "draining", "drain")
    same(Call("POST", "/admin/drain").json["status"], "draining", "again: the same")
    load, ready = get("/load"), Call("GET", "/ready").read()
    same((load["ready"], load["draining"], ready.status), (False, True, 503), "it is not ready")
    ok(run.read().text.endswith("data: [DONE]\n\n") and "end 0 " in run.note, "what runs is finished")
    same(engine.wait(LIMIT), 0, "and the engine has ended")


def engine():
    global SOCK
    with tempfile.TemporaryDirectory() as d:
        SOCK = f"{d}/s"
        with open(f"{d}/log", "w") as log:
            p = subprocess.Popen([f"{BUILD}/inferd", "serve", endless(f"{d}/demo"), "--uds", SOCK,
                                  "--max-num-seqs", "1", "--max-queue-tokens", "65536",
                                  "--max-requests-per-key", "2", "--api-threads", "2",
                                  "--max-queue-wait", "0", "--drain-timeout", "600",
                                  "--kv-cache-memory-bytes", "160m"], stderr=log)
        try:
            until(lambda: is_ready() or p.poll() is not None)
            prefixes()
            aborts(*refusals())
            classes()
            drain(p)
        except BaseException:
            print("# " + open(f"{d}/log").read().replace("\n", "\n# "))
            raise
        finally:
            p.kill()
            p.wait()


def corrupt():
    """A row of weights that is not a number: who uses it ends, others do not notice."""
    global SOCK
    with tempfile.TemporaryDirectory() as d:
        SOCK = f"{d}/s"
        shutil.copytree("t/golden/ple", f"{d}/model")
        with open(f"{d}/model/model.safetensors", "r+b") as f:
            n, = struct.unpack("<Q", f.read(8))
            t = json.loads(f.read(n))["model.language_model.embed_tokens_per_layer.weight"]
            f.seek(8 + n + t["data_offsets"][0] + 2 * 77 * t["shape"][1])
            f.write(b"\xc0\x7f" * t["shape"][1])
        p = subprocess.Popen([f"{BUILD}/inferd", "serve", f"{d}/model", "--uds", SOCK,
                              "--kv-cache-memory-bytes", "16m", "--max-model-len", "2048"],
                             stderr=subprocess.DEVNULL)
        try:
            until(lambda: is_ready() or p.poll() is not None)
            good = {"prompt": [2, 5, 9, 30], "max_tokens": 60, "temperature": 0, "ignore_eos": True,
                    "return_token_ids": True}
            alone = post(TEXT, **good).json["choices"][0]["token_ids"]
            beside = post(TEXT, **{**good, "max_tokens": 1000, "n": 16})
            until(lambda: get("/load")["running"] > 0 or beside.p.poll() is not None)
            for stream in (False, True):
                bad = post(TEXT, prompt=[2] * 40 + [77], max_tokens=9, stream=stream)
                same(bad.error, (500, "server_error", "internal_error", None), "NaN: an error")
                ok("not a finite number" in bad.text, "that says why")
                same(bad.headers["x-should-retry"], "false", "and that it would be so again")
            same(post(TEXT, prompt=[2, 77], max_tokens=9, n=3).error[0], 500, "n = 3")
            same(beside.json["choices"][0]["token_ids"][:60], alone, "the one beside goes on")
            same(post(TEXT, **good).json["choices"][0]["token_ids"], alone, "and the next")
            n = metric("vllm:corrupted_requests_total")
            ok(n >= 3, f"counted: {n}")
            same(p.poll(), None, "the engine lives")
        finally:
            p.kill()
            p.wait()


def fetch(url, body=None, key=None, **more):
    h = {"Content-Type": "application/json", **more}
    if key is not None:
        h["X-Key"] = key
    raw = body is None or isinstance(body, bytes)
    r = urllib.request.Request(url, body if raw else json.dumps(body).encode(), h)
    try:
        with urllib.request.urlopen(r, timeout=LIMIT) as f:
            return f.status, f.headers, f.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read().decode()


def dashboard(metrics):
    """Every name that a panel asks for is there, with the labels that it asks for."""
    have = {}
    for name, labels in re.findall(r"^([a-z0-9_:]+)(?:\{(.*)\})? \S+$", metrics, re.M):
        have.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    with open("conf/grafana/inferd.json") as f:
        board = json.load(f)
    exprs = [t["expr"] for p in board["panels"] for t in p.get("targets", [])]
    exprs += [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    wrong = []
    for expr in exprs:
        names = re.findall(r"\b((?:vllm:|inferd_)\w+)(?:\{([^}]*)\})?", expr)
        bad = [n for n, sel in names
               if n not in have or not set(re.findall(r"(\w+)[=!]", sel)) <= have[n]]
        wrong += [expr] if bad or not names else []
    same((len(exprs) > 40, wrong), (True, []), f"{len(exprs)} expressions of metrics that exist")
    told = {x for e in exprs for x in re.findall(r"by ?\(([^)]*)\)", e)}
    labels = set().union(*have.values())
    same({x.strip() for t in told for x in t.split(",")} - labels, set(), "so are labels summed by")


def through_nginx():
    extra = """infer_set_key $http_x_key;
        location /admin/ { deny all; infer_pass gemma; }
        location /admin/drain { infer_pass gemma; }"""
    body = {"messages": LONG, "max_tokens": 3, "temperature": 0}
    with Stack(model=None, extra=extra, serve_args=["--max-requests-per-key", "1"]) as s:
        got = [json.loads(fetch(s.url + CHAT, body, k)[2])["usage"]["prompt_tokens_details"]
               ["cached_tokens"] for k in ("a", "a", "b", None)]
        same((got[0], got[1] > 0, got[2:]), (0, True, [0, 0]), f"keys of nginx: {got}")
        lines = until(lambda: (x := re.findall(r" cached=(\d+) ", s.log("access.log")))[3:] and x)
        same([int(x) for x in lines if x != "-"][-4:], got, "$infer_cached_tokens says the same")
        same(fetch(s.url + "/admin/abort?request_id=1", {})[0], 403, "/admin/ is closed to others")
        run = urllib.request.urlopen(urllib.request.Request(
            s.url + TEXT, json.dumps({**FOREVER, "stream": True}).encode(),
            {"Content-Type": "application/json", "X-Key": "a"}), timeout=LIMIT)
        run.readline()
        status, h, text = fetch(s.url + CHAT, body, "a")
        same((status, json.loads(text)["error"]["code"]), (429, "rate_limit_exceeded"), "429")
        ok(h["Retry-After"] and int(h["Retry-After-Ms"]) >= 100, "with both headers")
        run.close()
        dashboard(fetch(s.url + "/metrics")[2])
        same(fetch(s.url + "/admin/drain", {})[0], 200, "drain")
        same(s.engine.wait(LIMIT), 0, "ends the engine")


def ids():
    """The id that a client has of its reply, of any status, stands in nginx's log."""
    hi = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
    with Stack() as s:
        told = [(status, h["x-request-id"]) for status, h, _ in (
            fetch(s.url + CHAT, hi), fetch(s.url + "/health"), fetch(s.url + "/nothing"),
            fetch(s.url + CHAT), fetch(s.url + CHAT, {**hi, "n": 129}),
            fetch(s.url + CHAT, {**hi, "model": "x"}, **{"Content-Type": "text/plain"}),
            fetch(s.url + CHAT, {**hi, "model": "x"}), fetch(s.url + "/tokenize", hi))]
        same([x[0] for x in told], [200, 200, 404, 405, 400, 415, 404, 200], "as asked")
        until(lambda: s.log("access.log").rstrip().endswith(told[-1][1]))
        lines = s.log("access.log")
        lost = [x for x in told if not re.search(f"^{x[0]} .* id={x[1]}$", lines, re.M)]
        same(lost, [], "the log has the id of every reply")
        same(re.findall(r" model=(\S+) in=(\d+|-) ", lines)[-8:],
             [("demo", "15"), *[("-", "-")] * 6, ("demo", "-")], "and numbers of generations only")


def patience():
    """Timeouts of nginx are for engines that hang, not for long answers and for those in a queue."""
    global SOCK
    got = {}

    def ask(name, **body):
        r = fetch(s.url + TEXT, body, **{"X-Request-Id": name})
        got[name] = (r[0], r[2])

    def start(name, **body):
        t = threading.Thread(target=ask, args=(name,), kwargs=body)
        t.start()
        return t

    with Stack(model=None, extra="infer_first_byte_timeout 10s; infer_read_timeout 10s;",
               serve_args=["--max-num-seqs", "1", "--max-queue-wait", "0"]) as s:
        SOCK = s.sock
        begin = time.time()
        run = start("long", **FOREVER)
        becomes("running", 1)
        others = [start("wait", prompt="a", max_tokens=3),
                  start("stream", prompt="a", max_tokens=3, ignore_eos=True, stream=True)]
        wire = Call("POST", TEXT, {"prompt": "a", "max_tokens": 3})
        run.join(12)
        same(fetch(s.url + "/admin/abort?request_id=long", {})[0], 200, "12 s: it still runs")
        for t in (run, *others):
            t.join()
        wire.read()
        life, took = int(wire.note.split()[-1]), time.time() - begin
        ok(1 <= life <= took / 5, f"{life} signs of life in {took:.1f} s")
        same(json.loads(got["long"][1])["error"]["code"], "request_aborted", "the long one is ended")
        same((got["wait"][0], got["stream"][0]), (200, 200), "those who waited have their answers")
        ok(got["stream"][1].endswith("data: [DONE]\n\n"), "a stream too")
        same(s.log("error.log").count("timed out"), 0, "no timeout")


def leaving(s):
    """What nginx still sees of an engine that drains: all but room for new generations."""
    late = []
    t = threading.Thread(target=lambda: late.append(
        fetch(s.url + TEXT, {**FOREVER, "n": 32}, **{"X-Request-Id": "late"})))
    t.start()
    until(lambda: s.metric("vllm:num_requests_running") == 32)
    same(fetch(s.url + "/admin/drain", {})[0], 200, "drain")
    load = json.loads(fetch(s.url + "/load")[2])
    same((load["ready"], load["draining"], load["running"]), (False, True, 32), "/load says so")
    ok("inferd_streams 2\n" in fetch(s.url + "/metrics")[2], "/metrics is there")
    same(fetch(s.url + "/admin/abort?request_id=none", b"")[0], 404, "its operator is heard")
    same(json.loads(fetch(s.url + "/admin/abort?request_id=late", {})[2]), {"aborted": 1},
         "with a body too: what runs can be aborted")
    t.join()
    same(json.loads(late[0][2])["error"]["code"], "request_aborted", "and is told so")
    same(s.engine.wait(LIMIT), 0, "the engine ends")


def abort_early():
    """Requests that generate nothing yet: their body is under way, or being read."""
    global SOCK

    def abort(name, over=lambda: False):
        for _ in range(3000):
            last = over()
            r = fetch(s.url + "/admin/abort?request_id=" + name, {})
            if r[0] != 404 or last:
                break
            time.sleep(0.01)
        return r[0], json.loads(r[2])

    with Stack(model=None) as s:
        SOCK = s.sock
        half = Call("POST", CHAT, {"messages": LONG}, None, "half", "--no-end")
        same(abort("half"), (200, {"aborted": 1}), "abort: the body is under way")
        same(half.error, (500, "server_error", "request_aborted", None), "it is told so")
        same(fetch(s.url + "/admin/abort?request_id=half", {})[0], 404, "and gone")

        book = {"prompt": "the hills and the sea " * 180000, "max_tokens": 1}
        names = ["book0", "book1", "book2"]
        with concurrent.futures.ThreadPoolExecutor(2 * len(names)) as pool:
            got = [pool.submit(fetch, s.url + TEXT, book, **{"X-Request-Id": name})
                   for name in names]
            ends = [pool.submit(abort, name, x.done) for name, x in zip(names, got)]
        ends = [x.result() for x in ends]
        got = [json.loads(x.result()[2])["error"]["code"] for x in got]
        ok((200, {"aborted": 1}) in ends, f"some that are being read: {ends}")
        same(got, ["request_aborted" if end[0] == 200 else "context_length_exceeded"
                   for end in ends], "all who are ended are told so, and nobody else")
        same(fetch(s.url + CHAT, {"messages": LONG, "max_tokens": 2})[0], 200, "the next is answered")
        leaving(s)


engine()
corrupt()
abort_early()
through_nginx()
ids()
patience()
done()
