"""Workers that lie, against the real engine: each loses its own link with one line in the log, and
nobody else notices."""
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, ENDLESS, LIMIT, done, endless, ok, same, until
from wire import (ACKS, ARMED, HEAD, MAGIC, MAJOR, NEED_SPACE, OPTIONAL, PAD, PAGE, REC, REP_DATA,
                  REP_END, REP_HEAD, REQ_BODY, REQ_CANCEL, REQ_END, REQ_HEAD, SEALS, Side, hello, pair)

CHAT = "/v1/chat/completions"
LONG = {"stream": True, "max_tokens": ENDLESS, "ignore_eos": True, "return_token_ids": True,
        "temperature": 0, "messages": [{"role": "user", "content": "Hello!"}]}


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(LIMIT)
    while True:
        try:
            s.connect(path)
            return s
        except BlockingIOError:             # the backlog is full
            time.sleep(0.01)


class Worker(Side):
    def __init__(self, n_slot=4, window=12288, ring=1 << 17, e2w=1 << 17, say=None, n_fd=1,
                 epoch=7, magic=MAGIC, major=MAJOR, **kw):
        super().__init__(n_slot, window, ring, n_slot, **kw)
        self.sock = connect(SOCK)
        socket.send_fds(self.sock, [say or hello(epoch, magic, major, n_slot, window, e2w)],
                        [self.fd] * n_fd)
        os.close(self.fd)

    def attach(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 128, 1)
        if not fds:
            raise RuntimeError(data[40:].rstrip(b"\0"))
        self.meet(fds[0])
        return self

    def request(self, body, uri=CHAT, slot=0, gen=1, end=True):
        body = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.seq[slot] = 0
        self.put(REQ_HEAD, req_head(uri, len(body)), slot, gen)
        for at in range(0, len(body), 32768):
            self.put(REQ_BODY, body[at:at + 32768], slot, gen)
        if end:
            self.put(REQ_END, b"", slot, gen)


def req_head(uri=CHAT, body=0, method=2, pairs=b"", n=0):
    uri = uri.encode("latin-1")
    return struct.pack("<QIHH", body, len(uri), method, n) + uri + pairs


# --- the attacks: each gets an attached worker ---

def cancelled_of_another_life(w):
    w.request(LONG, gen=5)
    w.records(REP_HEAD)
    for gen in (0, 1, 4, 6, 0xFFFFFFFF):
        w.put(REQ_CANCEL, gen=gen, seq=3)
        w.put(REQ_CANCEL, gen=gen, slot=3, seq=0)
    ok(any(r[0] == REP_DATA for r in w.records(REP_DATA)), "stale cancels: the stream goes on")
    w.put(REQ_CANCEL, gen=5)
    end = w.records(REP_END)
    ok(end and end[-1][0] == REP_END and end[-1][3][:4] == b"\1\0\0\0", "the right one ends it")


def running(w):
    w.request(LONG)
    w.records(REP_HEAD)


def raw(tail, *words):
    """Garbage at the start of the ring."""
    def attack(w):
        struct.pack_into(f"<{len(words)}I", w.own, w.ring_off, *words)
        w.publish(tail)
    return attack


def rec(*a, **kw):
    return lambda w: w.put(*a, **kw)


def head(payload, **kw):
    return lambda w: w.put(REQ_HEAD, payload, **kw)


def after_request(*steps):
    def attack(w):
        running(w)
        for s in steps:
            s(w)
    return attack


def steps(*all_steps):
    def attack(w):
        for s in all_steps:
            s(w)
    return attack


def acks(*values):
    """Acknowledge, let the engine look, once for each value."""
    def attack(w):
        running(w)
        for v in values:
            w.word(ACKS, v)
            w.bell()
            w.records(limit=0.3)
    return attack


def cancel_and_again(w):
    """Takes no record: the reply ring fills up, and does not overflow."""
    for gen in range(1, 5000):
        w.put(REQ_HEAD, req_head(body=9), gen=gen, seq=0)
        w.put(REQ_CANCEL, gen=gen, seq=1)


def head_beyond(w):
    """Takes all, acknowledges all, but says that it took more than there was."""
    w.word(HEAD, 1 << 40)
    for gen in range(1, 100):
        w.word(ACKS, 0)
        w.put(REQ_HEAD, req_head("/metrics", method=1), gen=gen, seq=0)
        w.put(REQ_END, gen=gen, seq=1)
        taken, ended = 0, False
        while not ended:
            for kind, _, _, p in w.records(REP_END, limit=0.01, release=False):
                taken += REC + -(-len(p) // 8) * 8
                ended = kind == REP_END
            w.word(ACKS, taken)
            w.bell()
            if w.closed(0):
                return


RING, FULL = "nonsense in the ring", 1 << 17
ATTACKS = [
    ("a length beyond the ring", RING, raw(64, 0x7FFFFFFF, 2, 0, 1, 0, 0)),
    ("a length beyond the tail", RING, raw(24, 8, 2, 0, 1, 0, 0)),
    ("a length over the limit", RING, raw(65536, 32769, 2, 0, 1, 0, 0)),
    ("half a record", RING, raw(16, 0, 2, 0, 1)),
    ("an unaligned tail", RING, raw(25, 0, 3, 0, 1, 0, 0)),
    ("a tail beyond the ring", RING, raw(FULL + 8, 0, 3, 0, 1, 0, 0)),
    ("a huge tail", RING, raw(1 << 63, 0, 3, 0, 1, 0, 0)),
    ("all ones", RING, raw(FULL, *[0xFFFFFFFF] * 6)),
    ("zeroes", RING, raw(64, *[0] * 6)),
    ("a PAD in the middle", RING, raw(64, 0, PAD, 0, 0, 0, 0)),
    ("a tail that goes back", RING, after_request(lambda w: w.publish(8))),
    ("an unknown type", RING, rec(9)),
    ("a reply's type", RING, rec(REP_DATA, b"x")),
    ("a slot out of range", RING, rec(REQ_END, slot=4)),
    ("a slot far out of range", RING, rec(REQ_END, slot=0xFFFFFFFF)),
    ("unknown flags", RING, rec(REQ_END, flags=2)),
    ("something reserved", RING, rec(REQ_END, rsv=1)),
    ("an empty BODY", RING, rec(REQ_BODY)),
    ("an END with payload", RING, rec(REQ_END, b"x")),
    ("a HEAD over its limit", RING, head(bytes(16385))),
    ("HEAD twice on a slot", "request head", after_request(head(req_head(), seq=0))),
    ("HEAD that is not first", "request head", head(req_head(), seq=1)),
    ("a short HEAD", "request head", head(b"\0" * 15)),
    ("a HEAD of zeroes", "request head", head(b"\0" * 64)),
    ("a URI beyond the HEAD", "request head", head(struct.pack("<QIHH", 0, 999, 2, 0) + b"/")),
    ("no URI", "request head", head(req_head(""))),
    ("a URI with a control character", "request head", head(req_head("/a\nb"))),
    ("method 0", "request head", head(req_head(method=0))),
    ("method 4", "request head", head(req_head(method=4))),
    ("a body of 2^63 bytes", "request head", head(req_head(body=1 << 63))),
    ("33 pairs", "request head", head(req_head(pairs=pair(b"a", b"b") * 33, n=33))),
    ("a pair beyond the HEAD", "request head", head(req_head(pairs=b"\xff\xff\xff\xffa", n=1))),
    ("a pair that is missing", "request head", head(req_head(n=1))),
    ("bytes behind the pairs", "request head", head(req_head(pairs=b"xxxx"))),
    ("a name that is not UTF-8", "request head",
     head(req_head(pairs=pair(b"\xc3\x28", b"b"), n=1))),
    ("an upper-case name", "request head", head(req_head(pairs=pair(b"A", b"b"), n=1))),
    ("an empty name", "request head", head(req_head(pairs=pair(b"", b"b"), n=1))),
    ("a NUL in a value", "request head", head(req_head(pairs=pair(b"a", b"b\0"), n=1))),
    ("a gap in the sequence", "a gap", steps(head(req_head(body=3)), rec(REQ_BODY, b"x", seq=2))),
    ("the sequence goes back", "a gap", steps(head(req_head(body=3)), rec(REQ_BODY, b"x", seq=0))),
    ("more body than announced", "more of a body",
     steps(head(req_head(body=3)), rec(REQ_BODY, b"four"))),
    ("body after the end", "more of a body", after_request(rec(REQ_BODY, b"x"))),
    ("END without the body", "an end where", steps(head(req_head(body=3)), rec(REQ_END))),
    ("END twice", "an end where", after_request(rec(REQ_END))),
    ("acks beyond what was sent", "acknowledged more", acks(1 << 20)),
    ("acks of 2^64-1", "acknowledged more", acks((1 << 64) - 1)),
    ("garbage on the socket", "a byte on the socket", lambda w: w.bell(b"\0\xffHELLO")),
    ("a worker that says GOAWAY", "a byte on the socket", lambda w: w.bell(b"G")),
    ("a head beyond the tail", "reply ring", head_beyond),
    ("cancels for ever, takes nothing", "reply ring", cancel_and_again),
]


# --- the handshake ---

def not_a_memfd():
    fd = os.open("Makefile", os.O_RDONLY)
    try:
        s = connect(SOCK)
        socket.send_fds(s, [hello()], [fd])
        return s
    finally:
        os.close(fd)


def hellos():
    yield "another version", lambda: Worker(major=MAJOR + 1)
    yield "another magic", lambda: Worker(magic=1)
    yield "no slots", lambda: Worker(n_slot=4, say=hello(n_slot=0))
    yield "more slots than the ring holds", lambda: Worker(n_slot=4, say=hello(n_slot=16384))
    yield "a reply ring of 1 GiB", lambda: Worker(e2w=1 << 30)
    yield "a window of 1 byte", lambda: Worker(window=1)
    yield "no descriptor", lambda: Worker(n_fd=0)
    yield "two descriptors", lambda: Worker(n_fd=2)
    yield "nine descriptors", lambda: Worker(n_fd=9)
    yield "a file", not_a_memfd
    yield "no seals", lambda: Worker(seals=0)
    yield "a segment that may shrink", lambda: Worker(seals=SEALS & ~2)
    yield "a segment that is too short", lambda: Worker(more=-PAGE)
    yield "a segment that is too long", lambda: Worker(more=PAGE)
    yield "a segment with holes", lambda: Worker(holes=True)
    yield "a segment that lies of its size", lambda: Worker(fix=[(16, 1 << 40)])
    yield "a ring of 2^63 bytes", lambda: Worker(fix=[(32, 1 << 63)])
    yield "half a HELLO", lambda: Worker(say=hello()[:64])
    yield "garbage for a HELLO", lambda: Worker(say=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)


# --- the engine, and what must stay true of it ---

class Honest(threading.Thread):
    """Streams on a link of its own, one after the other, all alike."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stop, self.texts, self.error = False, [], None
        self.start()

    def run(self):
        try:
            while not self.stop:
                self.texts.append(stream(max_tokens=60))
        except Exception as e:                # reported by the test that looks at it
            self.error = repr(e)


def client(method, uri, body=""):
    p = subprocess.run([f"{BUILD}/t/helpers/wire_client", SOCK, method, uri, body],
                       capture_output=True, timeout=LIMIT)
    if p.returncode != 0:
        raise RuntimeError(p.stderr.decode())
    return p.stdout.decode()


def stream(**more):
    """The text and the ids of a whole stream."""
    events = client("POST", CHAT, json.dumps(dict(LONG, **more))).split("data: ")[1:]
    parts = [c for e in events if e[0] == "{" for c in json.loads(e)["choices"]]
    return ("".join(c["delta"].get("content", "") for c in parts),
            *[i for c in parts for i in c.get("token_ids") or []])


def metric(name):
    line = [x for x in client("GET", "/metrics").split("\n")
            if x.startswith(name + "{") or x.startswith(name + " ")]
    return float(line[0].split()[-1])


def idle():
    return metric("vllm:num_requests_running") == 0 and metric("vllm:num_requests_waiting") == 0 \
        and metric("vllm:kv_cache_usage_perc") == 0 and metric("inferd_streams") == 1


def log():
    with open(f"{DIR}/log") as f:
        return f.read()


def n_fd():
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def rss(what):
    """kB of a kind: Anon is the heap and the KV pages in use so far, Shmem the links' segments."""
    with open(f"/proc/{engine.pid}/status") as f:
        return int(re.search(rf"Rss{what}:\s+(\d+)", f.read())[1])


def dropped():
    return [line for line in log().split("\n") if " is dropped " in line]


def attack(name, why, fn):
    before = len(dropped())
    w = Worker().attach()
    fn(w)
    gone = w.closed()
    w.close()
    new = dropped()[before:]
    return gone and len(new) == 1 and why in new[0] or f"{name}: closed {gone}, log {new}"


def refuse(name, open_link):
    before = len(dropped())
    w = open_link()
    s = w if isinstance(w, socket.socket) else w.sock
    said = b""
    try:
        while chunk := s.recv(4096):
            said += chunk
    except ConnectionResetError:
        pass
    w.close()
    new = dropped()[before:]
    right = len(said) == 128 and said[16:20] != b"\0" * 4 and said[40:41] != b"\0"
    return right and len(new) == 1 or f"{name}: said {said!r}, log {new}"


def one_round():
    wrong = [r for a in ATTACKS if (r := attack(*a)) is not True]
    wrong += [r for h in hellos() if (r := refuse(*h)) is not True]
    return wrong


def ignored():
    """What an engine must take: nothing of it costs the link."""
    before = len(dropped())
    w = Worker().attach()
    w.put(OPTIONAL | 77, b"news")
    cancelled_of_another_life(w)
    w.word(ARMED, 0xFFFFFFFFFFFFFFFF)
    w.word(NEED_SPACE, 0xFFFFFFFFFFFFFFFF)
    for _ in range(2000):
        w.bell(b"W")
    w.request(LONG, slot=1, gen=1)
    w.word(ACKS + 8, 100)
    w.records(REP_HEAD)
    w.word(ACKS + 8, 0)                      # acks that go back only cost credit
    w.bell()
    w.request(b"x" * 20000, uri="/\u00ff\u00fe", slot=2)
    ok(any(r[0] == REP_END and r[1] == 2 for r in w.records(REP_END)),
       "unknown optional records, bells for ever, acks that go back: the link stays")
    same(dropped()[before:], [], "and nothing is logged")
    w.close()


def never_acks():
    w = Worker().attach()
    for slot in range(4):
        w.request(dict(LONG, max_tokens=200), slot=slot)
    until(lambda: metric("vllm:num_requests_running") == 0)
    got = []

    def n_bytes():
        got.extend(REC + -(-len(r[3]) // 8) * 8 for r in w.records(limit=0.2))
        return sum(got)
    until(lambda: n_bytes() > 12288)
    got = n_bytes()
    ok(12288 < got <= 4 * 12288, f"four streams without an ack: {got} bytes, within the windows")
    w.close()
    ok(until(idle), "its death frees all four")


def big_bodies():
    """A body counts from its head on, and no longer when its request is cancelled."""
    w = Worker(n_slot=8, ring=1 << 20).attach()
    for slot in range(5):
        w.put(REQ_HEAD, req_head(body=60 << 20), slot)
    same([(r[1], r[3][0]) for r in w.records(REP_END)], [(4, 3)],
         "300 MB announced: the fifth body of 60 MB is given back")
    for slot in range(4):
        w.put(REQ_CANCEL, slot=slot)

    text = json.dumps({"messages": [{"role": "user", "content": "x" * (40 << 20)}]}).encode()
    for gen in range(2, 10):
        w.request(text, gen=gen)             # to be read for a while
        w.put(REQ_CANCEL, gen=gen)
    ends = []
    until(lambda: ends.extend(r for r in w.records(limit=0.1) if r[0] == REP_END) or len(ends) >= 12)
    w.put(REQ_HEAD, req_head(body=60 << 20), slot=5)
    w.put(REQ_CANCEL, slot=5)
    same([r[3][0] for r in w.records(REP_END) if r[1] == 5], [1],
         "320 MB of cancelled bodies do not count any more")
    w.close()


def floods():
    """Connects without HELLO: beyond the limit they are turned away, below it they run out."""
    long = subprocess.Popen([f"{BUILD}/t/helpers/wire_client", SOCK, "POST", CHAT,
                             json.dumps(LONG)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first = os.read(long.stdout.fileno(), 10)
    socks = [connect(SOCK) for _ in range(1000)]
    waiting = set(socks)

    def refused():
        for s in list(waiting):
            s.setblocking(False)
            try:
                if b"too many links" in s.recv(128):
                    waiting.discard(s)
            except BlockingIOError:
                pass
        return 1000 - len(waiting)

    ok(until(lambda: refused() > 800) and refused() < 1000,
       f"1,000 connects: {refused()} are turned away in words")
    ok(until(lambda: "never said HELLO" in log() and n_fd() < 40),
       "the others run out of time")
    for s in socks:
        s.close()
    ok(first and long.poll() is None and os.read(long.stdout.fileno(), 1 << 20)
       and os.read(long.stdout.fileno(), 1 << 20), "a stream goes on all the while")
    long.kill()
    long.communicate()
    same(client("GET", "/version")[:10], "status 200", "and a new link is taken")


def strangers():
    """Who may connect is the file's mode."""
    same(oct(os.stat(SOCK).st_mode & 0o777), "0o600", "the socket's mode is 0600")
    if os.getuid() != 0:
        ok(True, "# SKIP not root: no other user to try")
        return
    os.chmod(DIR, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            connect(SOCK)
            os._exit(1)
        except PermissionError:
            os._exit(0)
    same(os.waitpid(pid, 0)[1], 0, "another user is refused by the kernel")


resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
DIR = tempfile.mkdtemp(prefix="inferd-h-")
SOCK = DIR + "/s"
with open(DIR + "/log", "wb") as f:
    engine = subprocess.Popen([f"{BUILD}/inferd", "serve", endless(DIR + "/demo"), "--uds", SOCK,
                               "--max-num-seqs", "16", "--kv-cache-memory-bytes", "160m"], stderr=f,
                              env=dict(os.environ, ASAN_OPTIONS="quarantine_size_mb=1"))
try:
    ok(until(lambda: "is ready" in log() or engine.poll() is not None), "the engine is up")
    fds = n_fd()
    want = stream(max_tokens=60)
    strangers()
    honest = Honest()
    same(one_round(), [], f"{len(ATTACKS)} attacks and {len(list(hellos()))} false HELLOs: each "
         "costs its link, in one line")
    ignored()
    big_bodies()
    until(lambda: len(honest.texts) > 3)
    honest.stop = True
    honest.join(LIMIT)
    n = len(honest.texts)
    ok(honest.error is None and n > 3 and set(honest.texts) == {want} and len(want) == 61,
       f"{n} streams on other links: the same text each, whole ({honest.error})")
    ok(until(idle), "no request, no page and no stream is left")
    never_acks()
    floods()
    kb = rss("Anon")
    same(one_round(), [], "all of them again")
    never_acks()
    kb = rss("Anon") - kb
    ok(kb < 16384, f"memory does not grow ({kb} kB)")
    ok(until(lambda: n_fd() == fds and rss("Shmem") == 0), "no file and no segment is left")
    same(engine.poll(), None, "the engine is up")
    engine.terminate()
    same(engine.wait(LIMIT), 0, "and ends in peace")
    same([x for x in log().split("\n") if "ERROR: " in x or "runtime error" in x], [], "no report")
finally:
    if engine.poll() is None:
        engine.kill()
    engine.wait()
    subprocess.run(["rm", "-rf", DIR])
done()
