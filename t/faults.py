"""Engines that lie, against the real nginx: a request ends in an error and never as if it were
whole, the next one is answered over a new link, and the worker stays the same process. And the real
engine while it loads."""
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from urllib.parse import unquote

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, LIMIT, Stack, done, ok, same, until
from wire import (HEARTBEAT, OPTIONAL, PAD, REP_ALIVE, REP_DATA, REP_END, REP_HEAD, REP_STATS,
                  REQ_CANCEL, REQ_END, REQ_HEAD, Side, hello, pair)

JSON = pair(b"content-type", b"application/json")
UNKNOWN = (1 << 64) - 1


def rep_head(status=200, body=UNKNOWN, pairs=JSON, n=1, flags=0):
    return struct.pack("<QHHI", body, status, n, flags) + pairs


def end(reason=0):
    return struct.pack("<II", reason, 0)


class Link(Side):
    """The engine's end towards one worker; each request is played by the last part of its URI."""

    def __init__(self, sock, honest):
        self.honest = honest
        data, fds, _, _ = socket.recv_fds(sock, 128, 1)
        self.n_slot, self.window, e2w = struct.unpack_from("<III", data, 20)
        super().__init__(self.n_slot, self.window, e2w, 0)
        self.sock = sock
        self.meet(fds[0])
        socket.send_fds(sock, [hello(7, n_slot=self.n_slot, window=self.window, e2w=e2w)],
                        [self.fd])
        os.close(self.fd)

    def pulse(self):
        """Whatever is played, and however long that takes here."""
        beat = 0
        while not self.over.wait(0.05):
            beat += 1
            self.word(HEARTBEAT, beat)

    def run(self):
        self.over = threading.Event()
        threading.Thread(target=self.pulse, daemon=True).start()
        try:
            while not self.closed(0.001):
                for record in self.records(REQ_END, limit=0.02):
                    self.answer(*record)
        finally:
            self.over.set()

    def answer(self, kind, slot, gen, p):
        if kind == REQ_HEAD:
            self.seq[slot] = 0
            uri = unquote(p[16:16 + struct.unpack_from("<I", p, 8)[0]].decode())
            name = "good" if self.honest else uri.split("/")[-1]
            self.play(PLAYS[name][1], slot, gen)
            PLAYED.add(name)
        if kind == REQ_CANCEL:
            self.put(REP_END, end(1), slot, gen)

    def play(self, play, slot, gen):
        for step in play:
            if callable(step):
                step(self, slot, gen)
            else:
                kind, payload, *kw = step
                self.put(kind, payload, **{"slot": slot, "gen": gen, **(kw[0] if kw else {})})


class Engine:
    """What Stack wants of a process."""

    def __init__(self, path, honest=False):
        self.honest = honest
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            link = Link(self.listener.accept()[0], self.honest)
            threading.Thread(target=link.run, daemon=True).start()

    def poll(self):
        return None

    def send_signal(self, _):
        pass

    def wait(self, _=None):
        pass


class Faulty(Stack):
    """/next/ has another engine, which is honest."""

    def start_engine(self):
        self.engine = Engine(self.sock)
        self.honest = Engine(self.sock + ".honest", True)

    def start_nginx(self):
        with open(self.dir + "/nginx.conf", "w") as f:
            f.write(self.conf.replace("infer_pool gemma", f"""infer_pool two {{
                engine unix:{self.sock} max_fails=0; engine unix:{self.sock}.honest backup; }}
            infer_pool gemma""", 1).replace("location /", "location /next/ { infer_pass two; }"
                                            " location /", 1))
        super().start_nginx()


def pause(k, slot, gen):
    """What was said before has been read and sent."""
    while k.consumed() != k.tail and not k.closed(0.002):
        pass


def ring(tail, *words):
    """Garbage where the next record should be."""
    def step(k, slot, gen):
        pause(k, slot, gen)
        at = k.tail % k.ring
        struct.pack_into(f"<{len(words)}I", k.own, k.ring_off + at, *words)
        k.publish(k.tail + tail)
    return step


def overrun(k, slot, gen):
    for _ in range(k.window // 4000 + 2):
        k.put(REP_DATA, b"x" * 4000, slot, gen)


def stale(k, slot, gen):
    for g in (gen - 1, gen + 1, 0, 0xFFFFFFFF):
        k.put(REP_DATA, b"STALE", slot, g & 0xFFFFFFFF, seq=1)
        k.put(REP_END, end(), slot, g & 0xFFFFFFFF, seq=1)
    k.put(REP_DATA, b"STALE", k.n_slot - 1, gen, seq=0)


def alive(k, slot, gen):
    """More than the window holds, but for what the worker acknowledges."""
    for _ in range(k.window // 24 // 100 + 1):
        for _ in range(100):
            k.put(REP_ALIVE, b"", slot, gen)
        pause(k, slot, gen)


def together(*play):
    """Records that become visible at once."""
    def step(k, slot, gen):
        publish, k.publish = k.publish, lambda: None
        k.play(play, slot, gen)
        k.publish = publish
        k.publish()
    return step


STATS = struct.pack("<IIIIQ", 1, 0, 2, 0, 0) + b"a\nb\x1b" + b"m" * 60 + b"f" * 16 + b"i" * 136
HEAD, ONE = (REP_HEAD, rep_head()), (REP_DATA, b"one", {"flags": 1})
DONE = (REP_END, end())
SHORT, STREAM = (REP_HEAD, rep_head(body=4)), (REP_HEAD, rep_head(flags=1))
# Before the head nginx answers 502; after it the answer is cut or ends in an error event.
FIRST, LATER = "502", "broken"


def both(name, step):
    yield name + ", first", FIRST, [step]
    yield name + ", with a head that waits", FIRST, [SHORT, (REP_DATA, b"one"), pause, step]
    yield name + ", later", LATER, [HEAD, ONE, pause, step]


def all_plays():
    yield "good", "whole", [HEAD, ONE, DONE]
    yield "ready", "whole", [(REP_HEAD, rep_head(body=2)), (REP_DATA, b"{}"), DONE]
    yield "stale generations", "whole", [HEAD, ONE, stale, DONE]
    yield "an optional record", "whole", [HEAD, (OPTIONAL | 9, b"news"), ONE, DONE]
    yield "signs of life", "whole", [alive, HEAD, alive, ONE, alive, DONE]
    yield "nothing but signs of life", FIRST, [alive, DONE]
    yield "stats with control characters", "whole", [HEAD, ONE, (REP_STATS, STATS), DONE]

    yield from both("an unknown type", (9, b""))
    yield from both("a request's type", (REQ_HEAD, b"x" * 20))
    yield from both("a PAD in the middle", ring(64, 0, PAD, 0, 0, 0, 0))
    yield from both("a length beyond the ring", ring(64, 0x7FFFFFFF, REP_DATA, 0, 1, 0, 0))
    yield from both("a length beyond the tail", ring(24, 8, REP_DATA, 0, 1, 0, 0))
    yield from both("half a record", ring(16, 0, REP_DATA, 0, 1))
    yield from both("an unaligned tail", ring(25, 0, REP_DATA, 0, 1, 0, 0))
    yield from both("a tail beyond the ring", ring(1 << 40, 0, REP_DATA, 0, 1, 0, 0))
    yield from both("a tail that goes back", ring(-64, 0, REP_DATA, 0, 1, 0, 0))
    yield from both("a slot out of range", (REP_DATA, b"x", {"slot": 1 << 20}))
    yield from both("unknown flags", (REP_DATA, b"x", {"flags": 2}))
    yield from both("something reserved", (REP_DATA, b"x", {"rsv": 1}))
    yield from both("empty data", (REP_DATA, b""))
    yield from both("a short END", (REP_END, b"\0\0\0\0"))
    yield from both("short STATS", (REP_STATS, b"x" * 100))
    yield from both("a byte on the socket", lambda k, slot, gen: k.bell(b"X"))
    yield from both("a dead socket", lambda k, slot, gen: k.sock.shutdown(2))

    yield from both("END_ERROR", (REP_END, end(2)))
    yield from both("END_CANCELLED for nothing", (REP_END, end(1)))
    yield from both("END with a reason of its own", (REP_END, end(77)))
    yield from both("a gap in the sequence", (REP_DATA, b"x", {"seq": 9}))
    yield "busy after the head", LATER, [HEAD, ONE, pause, (REP_END, end(3))]
    yield "END without a head", FIRST, [DONE]
    yield "data without a head", FIRST, [ONE, DONE]
    yield "a head twice", LATER, [HEAD, ONE, pause, HEAD, DONE]
    yield "more than its length", LATER, [SHORT, ONE, pause, ONE, DONE]
    yield "less than its length", LATER, [SHORT, ONE, pause, DONE]
    for name, head in (("an answer", SHORT), ("a stream", STREAM)):
        yield name + " and a gap at once", FIRST, [together(head, ONE, (REP_DATA, b"x",
                                                                        {"seq": 9}))]
        yield name + " and a head again at once", FIRST, [together(head, ONE, head)]
        yield name + " and garbage at once", FIRST, [together(head, ONE, (9, b""))]
    yield "more than its length at once", FIRST, [together(SHORT, ONE, ONE, DONE)]
    yield "less than its length at once", FIRST, [together(SHORT, ONE, DONE)]
    yield "an error at once", FIRST, [together(SHORT, ONE, (REP_END, end(2)))]
    yield "an error of a stream at once", LATER, [together(STREAM, ONE, (REP_END, end(2)))]
    yield "no regard to credit", LATER, [HEAD, ONE, pause, together(overrun), DONE]

    for name, head in (
            ("status 99", rep_head(99)), ("status 600", rep_head(600)), ("status 0", rep_head(0)),
            ("no content type", rep_head(pairs=b"", n=0)),
            ("a pair that is missing", rep_head(n=2)),
            ("33 pairs", rep_head(pairs=JSON * 33, n=33)),
            ("unknown head flags", rep_head(flags=4)),
            ("bytes behind the pairs", rep_head(pairs=JSON + b"junk")),
            ("a newline in a value", rep_head(pairs=JSON + pair(b"x", b"a\r\nb: c"), n=2)),
            ("a name that is not UTF-8", rep_head(pairs=JSON + pair(b"\xc3\x28", b"a"), n=2)),
            ("a body of 2^63 bytes", rep_head(body=1 << 63))):
        yield name, FIRST, [(REP_HEAD, head), ONE, DONE]


PLAYS = {name.replace(" ", "-").replace(",", ""): (want, play) for name, want, play in all_plays()}
PLAYED = set()


def ask(port, uri):
    """502, whole, broken, or what came instead."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        c.request("POST", uri, b"{}")
        r = c.getresponse()
        try:
            body = r.read()
        except http.client.IncompleteRead as e:
            return "broken" if e.partial.startswith(b"one") else repr(e.partial)
        if r.status != 200:
            error = json.loads(body)["error"]
            return f"{r.status}" if error["message"] and error["code"] else repr(body)
        if b'"error"' in body and body.startswith(b"one"):
            return "broken"
        return "whole" if body in (b"one", b"{}") else repr(body[:200])
    except (ConnectionError, http.client.HTTPException) as e:
        return repr(e)
    finally:
        c.close()


def lying_engines():
    with Faulty() as s:
        before, wrong = s.workers(), {}
        for name, (want, _) in PLAYS.items():
            got = ask(s.port, f"/v1/{name}")
            after = ask(s.port, "/v1/good")
            if (got, after) != (want, "whole"):
                wrong[name] = (got, after)
            if want == FIRST and ask(s.port, "/next/" + name) != "whole":
                wrong[name] = "what another engine says is not the answer"
        same(wrong, {}, f"{len(PLAYS)} plays: each ends as it must, and the next request is served")
        until(lambda: PLAYED == set(PLAYS))
        same(set(PLAYS) - PLAYED, set(), "each was played to its end")
        same(s.workers(), before, "by the same worker")
        log = s.log("error.log")
        same([x for x in log.split("\n") if "[alert]" in x or "[emerg]" in x], [], "no alert")
        ok(any("a\\x0Ab\\x1B" in x for x in s.log("access.log").split("\n")),
           "control characters of the engine's words are escaped in the log")


# The loader asks isatty() at each step of its progress: here it waits for our word, each time until
# the pipe is closed.
STEP = """
#include <stdlib.h>
#include <unistd.h>
int isatty(int fd) { char c; (void) fd; (void) !read(atoi(getenv("STEP")), &c, 1); return 0; }
"""


class Loading(Stack):
    def start_engine(self):
        with open(self.dir + "/step.c", "w") as f:
            f.write(STEP)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.dir + "/step.so",
                        self.dir + "/step.c"], check=True)
        self.nginx = self.engine = None
        step, self.step = os.pipe()
        log = open(self.dir + "/inferd.log", "ab")
        self.engine = subprocess.Popen(
            [f"{BUILD}/inferd", "serve", self.model, "--served-model-name", "demo", "--uds",
             self.sock, "--kv-cache-memory-bytes", "96m"], stdout=log, stderr=log,
            pass_fds=[step], env=dict(os.environ, LD_PRELOAD=self.dir + "/step.so", STEP=str(step)))
        os.close(step)

    def wait_ready(self, limit=LIMIT):
        pass                                # that is what is tested


def get(port, method, uri, body=None):
    while True:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        try:
            c.request(method, uri, body)
            break
        except ConnectionRefusedError:      # nginx is on its way
            time.sleep(0.01)
    r = c.getresponse()
    return r.status, dict((k.lower(), v) for k, v in r.getheaders()), json.loads(r.read())


def loading():
    chat = json.dumps({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4})
    parts, etas, refused, codes = [], [], None, set()
    with Loading() as s:
        limit = time.time() + LIMIT
        while time.time() < limit and s.engine.poll() is None:
            status, _, ready = get(s.port, "GET", "/ready")
            codes.add(status)
            if status == 200:
                break
            if ready.get("state") == "loading":
                parts.append(ready["progress"])
                etas.append(ready["eta_s"])
                refused = refused or get(s.port, "POST", "/v1/chat/completions", chat)
                if len(parts) < 50:
                    os.write(s.step, b"x")
                elif len(parts) == 50:
                    os.close(s.step)        # enough was seen
            time.sleep(0.01)
        ok(len(set(parts)) > 3 and parts == sorted(parts) and parts[-1] <= 1,
           f"/ready tells how far it is: {len(set(parts))} steps up to {parts[-1:]}")
        ok(any(etas) and all(e is None or e >= 0 for e in etas), "and how long it takes")
        same(codes, {503, 200}, "with 503, at last 200")
        status, head, body = refused
        ok(status == 503 and head.get("retry-after") and body["error"]["code"],
           f"a chat meanwhile: 503, Retry-After, {body}")
        status, _, body = get(s.port, "POST", "/v1/chat/completions", chat)
        ok(status == 200 and body["choices"][0]["message"]["content"], "and is answered after that")


lying_engines()
if BUILD == "build/asan":
    ok(True, "# SKIP a preloaded library and the sanitizer do not mix")
else:
    loading()
done()
