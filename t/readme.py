"""Every command and configuration that the README and docs/ show, run as they stand."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import done, free_port, ok

readme = open("README.md").read()
demo = open("docs/demo.txt").read()


def run(cmd, **kw):
    return subprocess.run(cmd, shell=True, capture_output=True, text=True, timeout=240, **kw)


def until(f, limit=20):
    end = time.time() + limit
    while not f() and time.time() < end:
        time.sleep(0.05)
    return f()


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
    drop_in = f"{root}/lib/systemd/system/nginx.service.d"
    shutil.copytree(f"{root}/etc/systemd/system/nginx.service.d", drop_in)
    for name in ("inferd@example", "nginx"):
        p = run(f"systemd-analyze verify {root}/lib/systemd/system/{name}.service")
        ok(p.returncode == 0 and not p.stderr, f"systemd-analyze verify {name}: {p.stderr[:200]}")
    with open(path, "w") as f:
        f.write(unit)


def installed(d, root):
    """The installed engine, as the unit starts it, under the installed nginx example."""
    unit = open(f"{root}/lib/systemd/system/inferd@.service").read()
    start = re.search(r"^ExecStart=(.*)", unit, re.M)[1]
    options = re.search(r"^OPTIONS=(.*)", open(f"{root}/etc/inferd/example.conf").read(), re.M)[1]
    for a, b in (("${MODEL}", "models/demo"), ("$OPTIONS", options), ("%i", "gemma"),
                 ("--max-model-len 32768", "--max-model-len 4096"),
                 ("/usr/bin/", f"{root}/usr/bin/"), ("/run/inferd/", f"{d}/")):
        start = start.replace(a, b)
    site = open(f"{root}/usr/share/doc/inferd/nginx.example.conf").read()
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
        ask = f"curl -skN --max-time 20 https://127.0.0.1:{port}/v1/chat/completions " + \
              "-H 'Content-Type: application/json' -d " + shlex.quote(
                  '{"stream": true, "messages": [{"role": "user", "content": "Hello!"}]}')
        ok(until(lambda: "data: [DONE]" in run(ask).stdout), "the installed parts answer: "
           f"{run(ask).stdout[-80:]!r}")
    finally:
        nginx.terminate()
        engine.terminate()
        ok(nginx.wait(20) == 0 and engine.wait(20) == 0, "and end")
    log = open(f"{d}/log").read()
    ok("[alert]" not in log and "[emerg]" not in log, "no alert")


# make demo: the answer, then each command that it tells of
p = run("make -s demo")
ok(p.returncode == 0, "make demo")
answer = re.search(r"What is inferd\?\n(.+)", p.stdout)
ok(answer and len(answer[1]) > 10, f"it answers: {answer[1] if answer else p.stdout + p.stderr}")
said = re.findall(r"^  (\S(?:[^\n]*\\\n)*[^\n]*)", demo, re.M)
ok(len(said) >= 4, "it says how to go on")
for cmd in said:
    if cmd.startswith("make demo-stop"):
        continue
    cmd = re.sub(r"^python3", "build/venv/bin/python", cmd)
    p = run(cmd, input="Hello!\n")
    ok(p.returncode == 0 and len(p.stdout.strip()) > 3, f"{cmd[:60]} ... : {p.stdout[-60:]!r}")
p = run("make -s demo-stop")
ok(p.returncode == 0, "make demo-stop")
ok(run("curl -s http://127.0.0.1:8080/health").returncode != 0, "and it is gone")

for cmd in re.findall(r"^build/inferd .*$", readme, re.M):
    p = run(cmd, input="Hello!\n")
    ok(p.returncode == (1 if "render" in cmd else 0) and p.stdout.strip(), cmd)

help_text = run("build/inferd serve --help").stdout
for opt in set(re.findall(r"(--[a-z][a-z-]+)", readme)):
    ok(opt in help_text, f"{opt} is an option of serve")

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
    for f in ("usr/bin/inferd", "usr/lib/nginx/modules/ngx_http_infer_module.so",
              "lib/systemd/system/inferd@.service", "etc/inferd/example.conf",
              "etc/systemd/system/nginx.service.d/inferd-drain.conf"):
        ok(os.path.exists(f"{root}/{f}"), f)
    units(root)
    installed(d, root)

for link in re.findall(r"\]\(([^)#]+)\)", readme):
    ok("://" in link or os.path.exists(link), f"link {link}")
for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.@-]+)`", readme):
    ok(os.path.exists(path) or path.startswith("modules/"), f"{path} exists")
done()
