"""What dies, leaves or is slow, with the real engine: nothing hangs and nothing leaks."""
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import ENDLESS, LIMIT, Stack, done, ok, same, until

LONG = {"model": "demo", "stream": True, "max_tokens": ENDLESS,
        "messages": [{"role": "user", "content": "Hello!"}]}


class Stream(threading.Thread):
    """One streamed request on a raw socket; remembers what came and when it ended."""

    def __init__(self, port, body=LONG, stop_after=None):
        super().__init__(daemon=True)
        self.port, self.body, self.stop_after = port, body, stop_after
        self.data, self.first = b"", threading.Event()
        self.start()

    def run(self):
        body = json.dumps(self.body).encode()
        with socket.create_connection(("127.0.0.1", self.port)) as c:
            c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                      b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                      + body)
            c.settimeout(LIMIT)
            try:
                while chunk := c.recv(65536):
                    self.data += chunk
                    if b"data: " in self.data:
                        self.first.set()
                    if self.stop_after is not None and len(self.data) >= self.stop_after:
                        break
            except OSError:
                pass
        self.first.set()


def phase(name, t0=time.time()):
    print(f"# {time.time() - t0:6.1f} s: {name}", flush=True)


def running(s):
    return s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting")


def settle(s):
    def settled():
        try:
            return running(s) == 0 and s.metric("vllm:kv_cache_usage_perc") == 0
        except OSError:                     # a worker that is just dying took the question
            return False
    return until(settled)


# Room for all fifty at once, so that each is in the middle of its stream when the engine dies.
with Stack(model=None, workers=2, serve_args=["--kv-cache-memory-bytes", "1500m"]) as s:
    random.seed(1)
    for _ in range(10):
        batch = [Stream(s.port, stop_after=random.choice([0, 1, 300, 900, 1800]))
                 for _ in range(20)]
        for t in batch:
            t.join(LIMIT)
    ok(settle(s), "200 client disconnects: no request runs and no page is in use")

    phase("workers die")
    streams = [Stream(s.port) for _ in range(20)]
    for t in streams:
        t.first.wait(LIMIT)
    before = running(s)
    for pid in s.workers():
        os.kill(pid, signal.SIGKILL)
    ok(before >= 1 and settle(s), f"kill -9 of the workers: {before:.0f} requests freed")
    s.wait_ready()

    phase("reload")
    # reload under load: streams on the old workers finish whole
    short = dict(LONG, max_tokens=200)
    streams = [Stream(s.port, short) for _ in range(16)]
    for t in streams:
        t.first.wait(LIMIT)
    os.kill(s.nginx.pid, signal.SIGHUP)
    late = [Stream(s.port, short) for _ in range(8)]
    for t in streams + late:
        t.join(LIMIT)
    same(sum(b"data: [DONE]" in t.data for t in streams), 16, "reload: running streams finish")
    same(sum(b"data: [DONE]" in t.data for t in late), 8, "reload: new requests are served")

    phase("the engine dies")
    streams = [Stream(s.port) for _ in range(50)]
    for t in streams:
        t.first.wait(LIMIT)
    s.engine.kill()
    s.engine.wait()
    with open(s.dir + "/static/x", "w") as f:
        f.write("still here")
    with urllib.request.urlopen(s.url + "/static/x", timeout=LIMIT) as r:
        same(r.read(), b"still here", "engine dead: other locations are served")
    for t in streams:
        t.join(LIMIT)
    same(sum(b'"error"' in t.data or b" 502 " in t.data[:20] or b" 503 " in t.data[:20]
             for t in streams), 50, "kill -9 of the engine: every client gets an error event")
    cut = [t.data for t in streams if b" 200 " in t.data[:20]]
    ok(cut and all(x.endswith(b"data: [DONE]\n\n\r\n") for x in cut),
       f"{len(cut)} streams end with [DONE], and without the last chunk: {[x[-40:] for x in cut[:1]]}")
    ok("hangs: no heartbeat" not in s.log("error.log"), "as its links end, not as its heart stops")
    s.start_engine()
    s.wait_ready()
    again = Stream(s.port, dict(LONG, max_tokens=5))
    again.join(LIMIT)
    ok(b"data: [DONE]" in again.data, "a restarted engine is used without a reload")

    phase("SIGTERM drains")
    # SIGTERM drains
    t = Stream(s.port, dict(LONG, max_tokens=300))
    t.first.wait(LIMIT)
    s.engine.terminate()
    t.join(LIMIT)
    ok(b"data: [DONE]" in t.data, "SIGTERM: the running stream is finished first")
    same(s.engine.wait(LIMIT), 0, "and the exit code is 0")
    bad = [line for line in s.log("error.log").splitlines()
           if "[alert]" in line and "exited on signal 9" not in line]
    same(bad, [], "no alerts in the error log")
done()
