"""A real inferd on the demo checkpoint behind a real nginx, for the end-to-end tests; and TAP.

    with Stack() as s:      # s.url, s.engine (Popen), s.nginx (Popen), s.workers(), s.metric(name)

No limit here says how fast anything is: LIMIT is when a test gives up on a machine of any speed."""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

BUILD = os.environ.get("TEST_BUILD", "build")
SERVE = os.environ.get("TEST_SERVE", "").split()        # e.g. "--backend cuda"
LIMIT = 120
ENDLESS = 60000                             # tokens: minutes of work, longer than any test looks
_n = 0
_failed = 0
_given = set()


def ok(cond, name):
    global _n, _failed
    _n += 1
    _failed += not cond
    print(f"{'' if cond else 'not '}ok {_n} - {name}", flush=True)
    return bool(cond)


def same(got, want, name):
    if not ok(got == want, name):
        print(f"# got  {got!r}\n# want {want!r}", file=sys.stderr, flush=True)


def done():
    print(f"1..{_n}", flush=True)
    sys.exit(1 if _failed else 0)


def until(cond, limit=LIMIT):
    """Wait for it; its last value."""
    end = time.time() + limit
    while not (got := cond()) and time.time() < end:
        time.sleep(0.02)
    return got


def free_port():
    """Below the ports that the system gives to clients, so that none of them takes it meanwhile;
    none twice."""
    while True:
        port = random.SystemRandom().randrange(20000, 30000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def endless(path, ends=False):
    """The demo model in the directory path, with room for an answer of ENDLESS tokens and, unless
    ends, no token that ends one: what must still run when a test has looked at it does so on any
    machine."""
    os.mkdir(path)
    for name in os.listdir("models/demo"):
        os.symlink(os.path.abspath(f"models/demo/{name}"), f"{path}/{name}")

    def edit(name, change):
        with open(f"models/demo/{name}") as f:
            c = json.load(f)
        change(c)
        os.unlink(f"{path}/{name}")
        with open(f"{path}/{name}", "w") as f:
            json.dump(c, f)

    edit("config.json", lambda c: c["text_config"].update(max_position_embeddings=65536))
    if not ends:
        edit("generation_config.json", lambda c: c.update(suppress_tokens=list(range(24))))
    return path


CONF = """
user root;
worker_processes {workers};
load_module {module};
error_log {dir}/error.log info;
pid {dir}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format infer '$status $infer_status model=$infer_model in=$infer_prompt_tokens '
                     'cached=$infer_cached_tokens out=$infer_completion_tokens '
                     'fin=$infer_finish_reason ttft=$infer_ttft '
                     'tpot=$infer_tpot queue=$infer_queue_time id=$infer_request_id';
    access_log {dir}/access.log infer;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    infer_pool gemma {{ engine unix:{sock}; queue 512 timeout={wait}; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 20m;
        client_body_buffer_size 256k;
        location / {{ infer_pass gemma; }}
        location /static/ {{ alias {dir}/static/; }}
        {extra}
    }}
}}
"""


class Stack:
    """model: a directory, or None for endless(). wait: for an engine that is not there."""
    def __init__(self, workers=1, extra="", serve_args=(), model="models/demo", wait="60s"):
        self.dir = tempfile.mkdtemp(prefix="inferd-t-")
        self.sock = self.dir + "/engine.sock"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = model
        self.serve_args = list(serve_args)
        self.conf = CONF.format(workers=workers, dir=self.dir, sock=self.sock, port=self.port,
                                extra=extra, wait=wait,
                                module=os.path.abspath(f"{BUILD}/ngx_http_infer_module.so"))

    def __enter__(self):
        os.makedirs(self.dir + "/static")
        if self.model is None:
            self.model = endless(self.dir + "/model")
            self.serve_args[:0] = ["--kv-cache-memory-bytes", "160m"]
        with open(self.dir + "/nginx.conf", "w") as f:
            f.write(self.conf)
        try:
            self.start_engine()
            self.start_nginx()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_engine(self):
        log = open(self.dir + "/inferd.log", "ab")
        self.engine = subprocess.Popen(
            [f"{BUILD}/inferd", "serve", self.model, "--served-model-name", "demo",
             "--uds", self.sock, "--max-num-seqs", "64", "--kv-cache-memory-bytes", "96m",
             *self.serve_args, *SERVE], stdout=log, stderr=log)

    def start_nginx(self):
        self.nginx = subprocess.Popen([os.environ.get("TEST_NGINX_BINARY", "nginx"), "-p", self.dir,
                                       "-c", self.dir + "/nginx.conf", "-g", "daemon off;"])

    def wait_ready(self, limit=LIMIT):
        end = time.time() + limit
        while time.time() < end:
            try:
                with urllib.request.urlopen(self.url + "/ready", timeout=LIMIT) as r:
                    if r.status == 200:
                        return
            except OSError:
                pass
            if self.engine.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("not ready: " + self.log("inferd.log") + self.log("error.log"))

    def log(self, name):
        try:
            with open(f"{self.dir}/{name}", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def workers(self):
        out = subprocess.run(["pgrep", "-P", str(self.nginx.pid)], capture_output=True, text=True)
        return [int(p) for p in out.stdout.split()]

    def metric(self, name):
        with urllib.request.urlopen(self.url + "/metrics", timeout=LIMIT) as r:
            text = r.read().decode()
        total = [float(m) for m in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)]
        return sum(total) if total else None

    def __exit__(self, *exc):
        for p in (getattr(self, "nginx", None), getattr(self, "engine", None)):
            if p is None or p.poll() is not None:
                continue
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(LIMIT)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if exc and exc[0] is not None:
            print("#", self.log("error.log")[-2000:].replace("\n", "\n# "))
            print("#", self.log("inferd.log")[-2000:].replace("\n", "\n# "))
        shutil.rmtree(self.dir, ignore_errors=True)
