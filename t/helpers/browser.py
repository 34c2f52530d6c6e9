"""Headless Chromium, driven over two pipes by its DevTools protocol; nothing but the standard library.

    with Browser(dir) as b:
        b.open(url); b.type("Hi"); b.key("Enter"); b.wait("document.title", "inferd")
"""
import json
import os
import select
import subprocess
import time

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), " ": (32, " "), "Shift": (16, "")}


class Browser:
    def __init__(self, dir):
        """dir: a directory of its own for the profile, made if it is not there."""
        self.dir, self.n, self.buf, self.log = dir, 0, b"", []

    def __enter__(self):
        cmd_r, self.w = os.pipe()
        self.r, ans_w = os.pipe()
        self.p = subprocess.Popen(
            ["sh", "-c", f'exec 3<&{cmd_r} 4>&{ans_w}; exec chromium "$@"', "sh", "--headless",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", f"--user-data-dir={self.dir}",
             "--remote-debugging-pipe", "about:blank"],
            pass_fds=(cmd_r, ans_w), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(cmd_r)
        os.close(ans_w)
        self.session = None
        pages = [t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"],
                                flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(domain + ".enable")
        return self

    def __exit__(self, *exc):
        self.p.terminate()
        try:
            self.p.wait(60)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        os.close(self.w)
        os.close(self.r)

    def _read(self, limit):
        """One message; events go to self.log."""
        end = time.time() + limit
        while b"\0" not in self.buf:
            left = end - time.time()
            if left <= 0 or not select.select([self.r], [], [], left)[0]:
                raise TimeoutError("chromium does not answer")
            piece = os.read(self.r, 1 << 16)
            if not piece:
                raise EOFError("chromium has ended")
            self.buf += piece
        one, self.buf = self.buf.split(b"\0", 1)
        m = json.loads(one)
        if "method" in m:
            self.log.append(m)
        return m

    def ask(self, method, **params):
        self.n += 1
        m = {"id": self.n, "method": method, "params": params}
        if self.session:
            m["sessionId"] = self.session
        os.write(self.w, json.dumps(m).encode() + b"\0")
        while True:
            a = self._read(120)
            if a.get("id") == self.n:
                if "error" in a:
                    raise RuntimeError(f"{method}: {a['error']}")
                return a["result"]

    def open(self, url):
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState", "complete")

    def js(self, code):
        """The value of an expression in the page, awaited. Evaluated past the page's CSP."""
        r = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True,
                     userGesture=True)
        if "exceptionDetails" in r:
            raise RuntimeError(f"{code}: {r['exceptionDetails']}")
        return r["result"].get("value")

    def wait(self, code, want=True, limit=120):
        """Until the expression has this value; what it had last otherwise."""
        end = time.time() + limit
        while (got := self.js(code)) != want and time.time() < end:
            time.sleep(0.02)
        return got

    def key(self, name, shift=False):
        code, text = KEYS[name]
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code,
                  "modifiers": 8 if shift else 0}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def click(self, selector):
        x, y = self.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
                       f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width, height, mobile=False):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": name}])

    def events(self, method):
        return [m["params"] for m in self.log if m["method"] == method]
