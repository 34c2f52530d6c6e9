"""The module in nginxes that are built from source: dynamic with and without --with-compat, static.

build/nginx-src is the release that Debian's nginx is made of (tools/install-deps test)."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import LIMIT, Stack, done, ok, until

SRC = os.path.abspath("build/nginx-src")
FEW = "--error-log-path=stderr --with-cc-opt='-O0 -g0' " + " ".join(
    f"--without-http_{m}_module" for m in "charset ssi userid autoindex geo map split_clients "
    "referer proxy fastcgi uwsgi scgi grpc memcached limit_conn empty_gif browser".split())
ASK = json.dumps({"model": "demo", "stream": True, "temperature": 0, "messages": [
    {"role": "user", "content": "Hello! What is inferd?"}]}).encode()


def sh(cmd, cwd=None, **env):
    p = subprocess.run(cmd, shell=True, cwd=cwd, env={**os.environ, **env}, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise RuntimeError(f"{cmd}: {p.stdout[-1500:]}")


def chat(url):
    req = urllib.request.Request(url + "/v1/chat/completions", ASK,
                                 {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(req, timeout=LIMIT) as r:
            return r.read().decode()
    except OSError as e:
        return str(e)


def whole(text):
    return text.count('"content":"') > 3 and text.endswith("data: [DONE]\n\n")


def use(name, nginx, module):
    """One stream, reload under eight of them, one more, a quiet end."""
    os.environ["TEST_NGINX_BINARY"] = nginx
    s = Stack(workers=2)
    s.conf = re.sub(r"load_module .*;", f"load_module {module};" if module else "", s.conf)
    if nginx != "nginx":
        s.conf = re.sub(r"(fastcgi|uwsgi|scgi|proxy)_temp_path .*;", "", s.conf)
    with s:
        ok(whole(chat(s.url)), f"{name}: a stream")

        old, got = set(s.workers()), []
        threads = [threading.Thread(target=lambda: got.append(chat(s.url))) for _ in range(8)]
        for t in threads:
            t.start()
        s.nginx.send_signal(signal.SIGHUP)
        for t in threads:
            t.join()
        until(lambda: not old & set(s.workers()))
        ok(len(got) == 8 and all(map(whole, got)), f"{name}: streams under reload")
        ok(not old & set(s.workers()) and whole(chat(s.url)), f"{name}: new workers serve")

        s.nginx.send_signal(signal.SIGQUIT)
        ok(s.nginx.wait(LIMIT) == 0, f"{name}: ends")
        bad = re.findall(r".*\[(?:alert|crit|emerg)\].*|.*exited on signal.*",
                         s.log("error.log"))
        ok(not bad, f"{name}: no alert {bad[:3]}")


def refused(d, nginx, module):
    with open(d + "/refused.conf", "w") as f:
        f.write(f"load_module {module}; events {{}}")
    p = subprocess.run([nginx, "-t", "-p", d, "-c", d + "/refused.conf"],
                       capture_output=True, text=True)
    return p.returncode == 1 and "is not binary compatible" in p.stderr


def build_dynamic(d, cmd):
    """The docs' command for a source tree, and an nginx and its module without --with-compat."""
    sh(cmd)
    sh(f"tools/build-module {SRC} {d}/plain {d}/plain.so", NGINX_FLAGS=FEW)
    sh(f"make -s -f {d}/plain/Makefile binary", cwd=d + "/plain/tree")


def build_static(d):
    shutil.copytree(SRC, d + "/static")
    sh(f"./configure {FEW} --with-cc=clang --with-debug --add-module={shlex.quote(os.getcwd())}"
       " && make -s", cwd=d + "/static")


with tempfile.TemporaryDirectory(prefix="inferd-t-build-") as d:
    doc = re.search(r"^tools/build-module (/\S+) (\S+) (\S+)$", open("docs/nginx.md").read(), re.M)
    cmd = f"tools/build-module {SRC} {d}/{doc[2]} {d}/{doc[3]}"
    compat = f"{d}/{doc[3]}"
    before = sorted(os.listdir(SRC))
    with ThreadPoolExecutor() as pool:
        for b in [pool.submit(build_dynamic, d, cmd), pool.submit(build_static, d)]:
            b.result()

    ok(sorted(os.listdir(SRC)) == before, "the source tree is as it was")
    use("--with-compat, in Debian's nginx", "nginx", compat)
    use("without --with-compat", d + "/plain/nginx", d + "/plain.so")
    use("static, by clang", d + "/static/objs/nginx", None)
    ok(refused(d, d + "/plain/nginx", compat), "nginx without --with-compat wants a module without")
    ok(refused(d, "nginx", d + "/plain.so"), "and the other way round")
done()
