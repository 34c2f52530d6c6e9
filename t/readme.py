"""Every command and configuration that the README and docs/ show, run as they stand."""
import glob
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import LIMIT, done, free_port, ok, same, until

readme = open("README.md").read()
manual = open("docs/nginx.md").read()
docs = readme + "".join(open(f).read() for f in glob.glob("docs/*.md"))


def run(cmd, **kw):
    return subprocess.run(cmd, shell=True, capture_output=True, text=True, timeout=900, **kw)


def said_where(root, prefix):
    """The installed docs name what is installed by its place, and link to nothing else."""
    there = f"{root}{prefix}/share/doc/inferd"
    text = {f: open(f).read() for f in [f"{there}/README.md", *glob.glob(f"{there}/docs/*.md")]}
    same(re.findall(r"/usr/\S+/inferd/[^\s;`]+", text[f"{there}/docs/nginx.md"]),
         [f"{prefix}/share/doc/inferd/nginx.example.conf", f"{prefix}/share/inferd/html/index.html",
          f"{prefix}/share/inferd/html"], f"the installed docs say where it is: {prefix}")
    for f, words in text.items():
        dead = [x for x in re.findall(r"\]\(([^)#]+)", words)
                if "://" not in x and not os.path.exists(f"{os.path.dirname(f)}/{x}")]
        dead += [x for x in re.findall(r"`(/(?:usr|lib)/[^\s`]+\.[a-z]+)`", words)
                 if not os.path.exists(root + x)]
        named = re.findall(r"conf/[a-z-]+[./]\S+/\S+|conf/(?:html|grafana)\S+", words)
        same((dead, named), ([], []), f"{f[len(root):]} names nothing that is elsewhere")


def units(root):
    """What systemd says of the units, with the binary where it is now."""
    path = f"{root}/lib/systemd/system/inferd@.service"
    unit = open(path).read()
    ok("ExecStart=/usr/bin/inferd serve" in unit, "the unit names the binary")
    ok("/usr/local" not in unit and "@PREFIX@" not in unit, "and nothing outside PREFIX")
    if not shutil.which("systemd-analyze"):
        print("# no systemd-analyze: the units are not verified")
        return
    with open(path, "w") as f:
        f.write(unit.replace("/usr/bin/inferd", f"{root}/usr/bin/inferd"))
    with open(f"{root}/lib/systemd/system/nginx.service", "w") as f:
        f.write("[Service]\nType=forking\nExecStart=/usr/sbin/nginx\nExecStop=/bin/false\n")
    for name in ("inferd@example", "nginx"):
        p = run(f"systemd-analyze verify {root}/lib/systemd/system/{name}.service")
        ok(p.returncode == 0 and not p.stderr, f"systemd-analyze verify {name}: {p.stderr[:200]}")
    with open(path, "w") as f:
        f.write(unit)


def installed(d, root):
    """The installed engine, as the unit starts it, under the installed nginx example."""
    unit = open(f"{root}/lib/systemd/system/inferd@.service").read()
    start = re.search(r"^ExecStart=(.*)", unit, re.M)[1]
    options = re.search(r"^OPTIONS=(.*)", open(f"{root}/etc/inferd/example.env").read(), re.M)[1]
    for a, b in (("${MODEL}", "models/demo"), ("$OPTIONS", options), ("%i", "gemma"),
                 ("--max-model-len 32768", "--max-model-len 4096"),
                 ("/usr/bin/", f"{root}/usr/bin/"), ("/run/inferd/", f"{d}/")):
        start = start.replace(a, b)
    site = open(f"{root}/usr/share/doc/inferd/nginx.example.conf").read()
    ok("/usr/share/inferd/html" in site and "/usr/local" not in site, "its chat page is in PREFIX")
    port = free_port()
    for a, b in (("443 ssl", f"127.0.0.1:{port} ssl"), ("/run/inferd/", f"{d}/"),
                 ("/etc/ssl/certs/llm.example.com.pem", f"{d}/c"), ("/var/log/nginx/", f"{d}/"),
                 ("/etc/ssl/private/llm.example.com.key", f"{d}/k")):
        ok(a in site, f"the example has {a}")
        site = site.replace(a, b)
    with open(f"{d}/installed.conf", "w") as f:
        f.write(f"load_module {root}/usr/lib/nginx/modules/ngx_http_infer_module.so;\n"
                f"user root; events {{}} pid {d}/pid; error_log {d}/log;\n"
                f"http {{\naccess_log off;\n{site}}}\n")
    engine = subprocess.Popen(shlex.split(start), stderr=subprocess.DEVNULL)
    nginx = subprocess.Popen(["nginx", "-p", d, "-c", f"{d}/installed.conf", "-g", "daemon off;"])
    try:
        ask = f"curl -skN --max-time 60 https://127.0.0.1:{port}/v1/chat/completions " + \
              "-H 'Content-Type: application/json' -d " + shlex.quote(
                  '{"stream": true, "messages": [{"role": "user", "content": "Hello!"}]}')
        ok(until(lambda: "data: [DONE]" in run(ask).stdout), "the installed parts answer: "
           f"{run(ask).stdout[-80:]!r}")
        for opt, code in ((f"http://127.0.0.1:{port}/v1/models", "https_required"),
                          (f"--http1.1 -H 'Transfer-Encoding: gzip' https://127.0.0.1:{port}/v1/models",
                           "not_supported")):
            p = run(f"curl -sk --max-time 60 {opt}")
            ok(f'"code":"{code}"' in p.stdout, f"nginx's own words: {p.stdout}")
    finally:
        nginx.terminate()
        engine.terminate()
        ok(nginx.wait(LIMIT) == 0 and engine.wait(LIMIT) == 0, "and end")
    log = open(f"{d}/log").read()
    ok("[alert]" not in log and "[emerg]" not in log, "no alert")


def commands(text):
    """Those of a text, which may go on over lines inside quotes."""
    found, part = [], ""
    for line in text.splitlines():
        part += line + "\n"
        if part.count("'") % 2 == 0:
            found += [part.strip()] if part.strip() else []
            part = ""
    return found


tried_text = re.search(r"## Try it\n(.*?\n)```\nmake test\n", readme, re.S)[1]
tried = [c for lang, block in re.findall(r"^```(\w*)\n(.*?)^```$", tried_text, re.M | re.S)
         if lang == "" for c in commands(block)]


def here(cmd, d, port):
    """As the README shows it, for the demo of this test."""
    return cmd.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("build/demo", d) \
        .replace("make demo-stop", f"make demo-stop DEMO_DIR={d}")


def refusals(d):
    """Paths that make would cut in two."""
    for v in ("DESTDIR", "PREFIX", "DEMO_DIR"):
        p = run(f"make -n install {v}='{d}/a b'")
        ok(p.returncode == 2 and f"{v} has a blank" in p.stderr and p.stderr.count("\n") == 1,
           p.stderr.strip())
    os.mkdir(f"{d}/a b")
    p = run(f"make -f {os.path.abspath('Makefile')}", cwd=f"{d}/a b")
    ok(p.returncode == 2 and "CURDIR has a blank" in p.stderr, p.stderr.strip())
    same(os.listdir(f"{d}/a b"), [], "and nothing is done")


def dry(d):
    """make -n, with other flags than last time and where nothing is built: nothing changes."""
    def now():
        return {f"{at}/{f}": os.stat(f"{at}/{f}").st_mtime_ns
                for at, dirs, files in os.walk("build") for f in dirs + files
                if os.path.exists(f"{at}/{f}")}

    before = now()
    for args in ("ARCH=-march=other", f"BUILD={d}/dry"):
        p = run(f"make -n {args}")
        ok(p.returncode == 0 and " -c -o " in p.stdout, f"make -n {args}: {p.stderr}")
    ok("tools/build-module " in p.stdout, "it says what it would do")
    ok(now() == before and not os.path.exists(f"{d}/dry"), "and does nothing")


def policy(d):
    """tools/install-deps, where all is missing and nothing can be installed: the policy of services
    is there meanwhile, and afterwards as it was before."""
    def now():
        return os.path.exists(at) and (open(at).read(), os.stat(at).st_mode)

    at = "/usr/sbin/policy-rc.d"
    for name, does in (("dpkg-query", "exit 1"),
                       ("apt-get", f'[ "$2" = update ] || {{ test -x {at} && echo held >&2; exit 9; }}')):
        with open(f"{d}/{name}", "w") as f:
            f.write(f"#!/bin/sh\n{does}\n")
        os.chmod(f"{d}/{name}", 0o755)
    before = now()
    p = run(f"PATH={d}:$PATH tools/install-deps build")
    same((p.returncode, p.stderr, now()), (9, "held\n", before), "the policy of services")


def metrics(there):
    """Every name that the docs tell of is one of /metrics."""
    for name in sorted(set(re.findall(r"`((?:vllm:|inferd_)[a-z_]+(?:{[a-z_,]+})?)`", docs))):
        base, _, ends = name.partition("{")
        for end in ends.rstrip("}").split(","):
            ok(re.search(rf"^# TYPE {base}{end} ", there, re.M), f"/metrics has {base}{end}")


def module():
    """The tables of docs/nginx.md are the module's, and so are the names in its sources."""
    source = "".join(open(f"ngx_module/ngx_http_infer_{f}.c").read() for f in ("module", "variables"))
    table = re.search(r"## Directives\n(.*?)\n\n[A-Z]", manual, re.S)[1]
    said = re.findall(r"^\| `(infer_[a-z_]+)", table, re.M)
    said += re.findall(r"`\$(infer_[a-z_]+)`", re.search(r"## Variables\n\n(.*?)\. ", manual, re.S)[1])
    same(sorted(said), sorted(re.findall(r'^    { ngx_string\("(infer_[a-z_]+)"\)', source, re.M)),
         "docs/nginx.md has all directives and variables")
    words = re.findall(r"^    { (\d{3}), ", open("ngx_module/ngx_http_infer_error.c").read(), re.M)
    for f, other in (("nginx.conf", ["497"]), ("inferd.example.conf", [])):
        listed = re.findall(r"^ *error_page ([\d ]+)[ =\d]* /infer_error;", open(f"conf/{f}").read(), re.M)
        same([w for w in words if w not in " ".join(listed)], other,
             f"conf/{f} brings to infer_error what it has words for")


def demo(d):
    """make demo, beside one that may be running: the answer, then each command that it tells of."""
    port = free_port()
    os.environ.update(DEMO_PORT=str(port), DEMO_DIR=d)
    p = run("make -s demo")
    ok(p.returncode == 0, "make demo")
    answer = re.search(r"What is inferd\?\n(.+)", p.stdout)
    ok(answer and len(answer[1]) > 10, f"it answers: {answer[1] if answer else p.stdout + p.stderr}")
    ok(p.stdout.count("\n") < 20 and f"listening on http://127.0.0.1:{port}/"
       in p.stdout, "it is short, and says where it listens")
    hints = commands(re.sub("^  ", "", p.stdout[p.stdout.index("\n  curl"):], flags=re.M))
    same([here(c, d, port) for c in tried[1:4]], hints, "it tells the README's commands")
    old = [open(f"{d}/{p}.pid").read().strip() for p in ("nginx", "inferd")]
    p = run("make -s demo")
    ok(p.returncode == 0 and f"in place of the demo that runs (pid {', '.join(old)})\n" in p.stdout
       and not any(os.path.exists(f"/proc/{pid}") for pid in old),
       f"another takes its place: {p.stdout + p.stderr}")
    demo_stays(d)
    workers = f"pgrep -P $(cat {d}/nginx.pid)"
    before = run(workers).stdout
    page = run(f"curl -sfi http://127.0.0.1:{port}/").stdout
    ok("Content-Type: text/html; charset=utf-8" in page and "<title>inferd</title>" in page
       and "X-Frame-Options: DENY" in page, "the chat page is there")
    stream, tool, stop = hints
    ok("data: [DONE]" in run(stream).stdout, "a stream")
    call = json.loads(run(tool).stdout)["choices"][0]["message"]["tool_calls"][0]["function"]
    same((call["name"], json.loads(call["arguments"])), ("get_weather", {"city": "Paris"}), "a call")
    python = here(re.search(r"```python\n(.*?)```", readme, re.S)[1], d, port)
    p = run("build/venv/bin/python -", input=python)
    ok(p.returncode == 0 and len(p.stdout) > 4, f"OpenAI's client: {p.stdout!r} {p.stderr}")
    same(re.findall(r"`build/demo/\S*`", tried_text), [], "no file of the demo has a fixed place")
    for log in re.findall(r"`([a-z]+\.log)`", tried_text):
        ok(os.path.getsize(f"{d}/logs/{log}") > 0, log)
    for path in ("/infer", "/metrics"):
        ok(f"`{path}`" in tried_text and run(f"curl -sf http://127.0.0.1:{port}{path}").stdout, path)
    metrics(run(f"curl -s http://127.0.0.1:{port}/metrics").stdout)
    p = run(here(tried[4], d, port))
    ok(p.returncode == 0, f"{tried[4]} {p.stderr}")
    ok(until(lambda: not set(before.split()) & set(run(workers).stdout.split())), "a reload it was")
    p = run(stop)
    ok(p.returncode == 0, stop)
    ok(run(f"curl -s http://127.0.0.1:{port}/health").returncode != 0, "and it is gone")
    demo_refusals(d, port)
    del os.environ["DEMO_PORT"], os.environ["DEMO_DIR"]


def demo_stays(d):
    """What another make demo could not use is told before it builds anything or ends the one that runs."""
    pids = [open(f"{d}/{p}.pid").read().strip() for p in ("nginx", "inferd")]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for more, words in (({"DEMO_PORT": str(port)}, f"port {port} is taken by another program; choose "
                             f"one: make demo DEMO_PORT={port % 65535 + 1} DEMO_DIR={d}\n"),
                            ({"DEMO_PORT": "0"}, "no port"), ({"DEMO_PORT": "65536"}, "no port"),
                            ({"DEMO_PORT": "abc"}, "no port"), ({"DEMO_PORT": "08081"}, "no port"),
                            ({"DEMO_DIR": f"{d}/{'x' * (97 - len(d))}"}, "longer than the 107 bytes"),
                            ({"DEMO_DIR": f"{d}/none/demo"}, f"{d}/none is missing"),
                            ({"DEMO_DIR": f"{d}/a|b"}, "letters, digits and")):
            p = run("make -s demo", env={**os.environ, **more})
            ok(p.returncode != 0 and words in p.stderr and p.stdout == "", f"{more}: {p.stdout + p.stderr}")
    ok(all(os.path.exists(f"/proc/{pid}") for pid in pids), "the demo that runs is left alone")
    p = run("tools/demo-server check", env={**os.environ, "DEMO_DIR": f"{d}/{'x' * (96 - len(d))}",
                                            "DEMO_PORT": str(free_port())})
    same((p.returncode, p.stderr), (0, ""), "107 bytes are a path")


def demo_refusals(d, port):
    """Not root, a port that is taken, a place that nginx cannot use, a pid that is another process's
    now: before anything is built."""
    for cmd in ("tools/demo-server start", "make -s demo"):
        with socket.create_server(("127.0.0.1", port)):
            p = run(cmd)
        ok(p.returncode != 0 and "is taken" in p.stderr.splitlines()[0] and p.stdout == "",
           p.stdout + p.stderr)
    os.mkdir(f"{d}/bin")
    with open(f"{d}/bin/id", "w") as f:
        f.write("#!/bin/sh\necho 1000\n")
    os.chmod(f"{d}/bin/id", 0o755)
    p = run(f"PATH={d}/bin:$PATH make -s demo")
    ok(p.returncode != 0 and p.stderr.startswith("run as root") and p.stdout == "",
       p.stdout + p.stderr)
    ok(not os.path.exists(f"{d}/inferd.pid") and not os.path.exists(f"{d}/demo.sock"), "none started")
    os.mkdir(f"{d}/own", 0o700)
    p = run(f"DEMO_DIR={d}/own/demo tools/demo-server start")
    ok(p.returncode == 1 and "cannot enter" in p.stderr, p.stderr.strip())
    other = subprocess.Popen(["sleep", "6000"])
    with open(f"{d}/nginx.pid", "w") as f:
        f.write(str(other.pid))
    ok(run("tools/demo-server stop").returncode == 0 and other.poll() is None,
       "stop ends no foreign process")
    other.kill()
    other.wait()


module()
with tempfile.TemporaryDirectory() as d:
    os.chmod(d, 0o755)
    demo(f"{d}/demo")
    refusals(d)
    dry(d)
    policy(d)

for cmd in re.findall(r"^build/inferd .*$", readme, re.M):
    p = run(cmd, input="Hello!\n")
    ok(p.returncode == 0 and p.stdout.strip(), cmd)

help_text = "".join(run(f"build/inferd {c} --help").stdout 
                    for c in ("serve", "plan", "bench engine", "bench pace", "bench serve"))
for opt in set(re.findall(r"(--[a-z][a-z-]+)", readme)):
    ok(opt in help_text, f"{opt} is an option of serve, plan or bench")

# the nginx.conf of the README, with this tree's module, a free port and a throw-away certificate
conf = re.search(r"```nginx\n(.*?)```", readme, re.S)[1]
with tempfile.TemporaryDirectory() as d:
    run(f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=t -days 1 -keyout {d}/k -out {d}/c")
    conf = conf.replace("modules/ngx_http_infer_module.so",
                        os.path.abspath("build/ngx_http_infer_module.so"))
    conf = conf.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{free_port()} ssl http2;"
                        f" ssl_certificate {d}/c; ssl_certificate_key {d}/k;")
    with open(f"{d}/nginx.conf", "w") as f:
        f.write(conf + f"events {{}} pid {d}/pid; error_log {d}/log;\n")
    p = run(f"nginx -t -p {d} -c {d}/nginx.conf")
    ok(p.returncode == 0, "nginx -t takes the README's configuration: " + p.stderr.strip()[-200:])

    root = f"{d}/root"
    p = run(f"make -s install DESTDIR={shlex.quote(root)} PREFIX=/usr")
    ok(p.returncode == 0, "make install DESTDIR= PREFIX=")
    said = manual.replace("DOC_DIR/", "/usr/share/doc/inferd/").replace("PREFIX/", "/usr/") \
        .replace("MODULE_DIR/", "/usr/lib/nginx/modules/").replace("UNIT_DIR/", "/lib/systemd/system/")
    said = re.search(r"\| file \|.*?\n\n", said, re.S)[0]
    said = [root + f for row in re.findall(r"^\| (`.*?) \|", said, re.M)
            for f in re.findall(r"`(.+?)`", row)]
    there = [f"{at}/{f}" for at, _, files in os.walk(root) for f in files]
    same(sorted(said), sorted(there), "all that docs/nginx.md lists is installed, and only that")
    said_where(root, "/usr")
    p = run(f"make -s install DESTDIR={shlex.quote(d + '/deep')} PREFIX=/usr/local/inferd")
    ok(p.returncode == 0, "make install with a PREFIX below the usual one")
    said_where(f"{d}/deep", "/usr/local/inferd")
    units(root)
    installed(d, root)
    p = run(f"make -s uninstall DESTDIR={shlex.quote(root)} PREFIX=/usr")
    left = [f"{at}/{f}" for at, _, files in os.walk(root) for f in files]
    same(left, [f"{root}/lib/systemd/system/nginx.service"], "make uninstall leaves what is another's")

for text, at in ((readme, ""), (manual, "docs/")):
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        ok("://" in link or os.path.exists(at + link), f"link {link}")
for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.@-]+)`", readme):
    ok(os.path.exists(path) or path.startswith(("modules/", "build/")), f"{path} exists")
done()
