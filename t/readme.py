"""Every command and configuration that the README and docs/ show, run as they stand."""
import os
import re
import shlex
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import done, free_port, ok

readme = open("README.md").read()
demo = open("docs/demo.txt").read()


def run(cmd, **kw):
    return subprocess.run(cmd, shell=True, capture_output=True, text=True, timeout=240, **kw)


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

    p = run(f"make -s install DESTDIR={shlex.quote(d)}/root")
    ok(p.returncode == 0, "make install DESTDIR=")
    for f in ("usr/local/bin/inferd", "usr/lib/nginx/modules/ngx_http_infer_module.so",
              "lib/systemd/system/inferd@.service", "etc/inferd/example.conf",
              "etc/systemd/system/nginx.service.d/inferd-drain.conf"):
        ok(os.path.exists(f"{d}/root/{f}"), f)
    unit = open(f"{d}/root/lib/systemd/system/inferd@.service").read()
    ok("@PREFIX@" not in unit and "/usr/local/bin/inferd serve" in unit, "the unit names the binary")

for link in re.findall(r"\]\(([^)#]+)\)", readme):
    ok("://" in link or os.path.exists(link), f"link {link}")
for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.@-]+)`", readme):
    ok(os.path.exists(path) or path.startswith("modules/"), f"{path} exists")
done()
