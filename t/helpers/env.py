"""A real inferd on the demo checkpoint behind a real nginx, for the end-to-end tests; and TAP.

    with Stack() as s:      # s.url, s.engine (Popen), s.nginx_pid, s.workers(), s.metric(name)
"""
import os
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
_n = 0
_failed = 0


def ok(cond, name):
    global _n, _failed
    _n += 1
    _failed += not cond
    print(f"{'' if cond else 'not '}ok {_n} - {name}", flush=True)
    return bool(cond)


def same(got, want, name):
    if not ok(got == want, name):
        print(f"# got  {got!r}\n# want {want!r}", flush=True)


def done():
    print(f"1..{_n}", flush=True)
    sys.exit(1 if _failed else 0)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
    infer_pool gemma {{ engine unix:{sock}; queue 512 timeout=5s; }}
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
    def __init__(self, workers=1, extra="", serve_args=(), model="models/demo"):
        self.dir = tempfile.mkdtemp(prefix="inferd-t-")
        self.sock = self.dir + "/engine.sock"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = model
        self.serve_args = list(serve_args)
        self.conf = CONF.format(workers=workers, dir=self.dir, sock=self.sock, port=self.port,
                                extra=extra,
                                module=os.path.abspath(f"{BUILD}/ngx_http_infer_module.so"))

    def __enter__(self):
        os.makedirs(self.dir + "/static")
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
             *self.serve_args], stdout=log, stderr=log)

    def start_nginx(self):
        self.nginx = subprocess.Popen([os.environ.get("TEST_NGINX_BINARY", "nginx"), "-p", self.dir,
                                       "-c", self.dir + "/nginx.conf", "-g", "daemon off;"])

    def wait_ready(self, limit=20):
        end = time.time() + limit
        while time.time() < end:
            try:
                with urllib.request.urlopen(self.url + "/ready", timeout=2) as r:
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
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as r:
            text = r.read().decode()
        total = [float(m) for m in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)]
        return sum(total) if total else None

    def __exit__(self, *exc):
        for p in (getattr(self, "nginx", None), getattr(self, "engine", None)):
            if p is None or p.poll() is not None:
                continue
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if exc and exc[0] is not None:
            print("#", self.log("error.log")[-2000:].replace("\n", "\n# "))
            print("#", self.log("inferd.log")[-2000:].replace("\n", "\n# "))
        shutil.rmtree(self.dir, ignore_errors=True)
