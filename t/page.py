"""The chat page in headless Chromium: through a real nginx to a real engine, and, for answers that
the demo model does not give, to a server of canned ones."""
import http.server
import json
import os
import re
import sys
import tempfile
import threading
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
sys.path.insert(0, "tools")
from browser import Browser
from env import ENDLESS, LIMIT, Stack, done, endless, free_port, ok, same, until
from page_csp import policy

PAGE = "conf/html/index.html"
EVIL = ("<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
        "\n\n**<b>x</b>**\n\n```html\n<svg onload=\"document.title='gone'\">\n```\n\n- <i>1</i>")


def delta(**d):
    return {"choices": [{"index": 0, "delta": d, "finish_reason": None}]}


def end(reason, n, cached=0):
    return [{"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": n,
                                      "prompt_tokens_details": {"cached_tokens": cached}}}]


def call(i, **function):
    more = {"id": f"call_{i}", "type": "function"} if "name" in function else {}
    return delta(tool_calls=[{"index": i, **more, "function": function}])


CANNED = {
    "evil": [delta(content=EVIL), *end("stop", 30)],
    "think": [delta(reasoning="Two and "), delta(reasoning="two."), delta(content="Four."),
              *end("stop", 9, cached=7)],
    "call": [call(0, name="get_weather", arguments=""), call(0, arguments='{"city":'),
             call(0, arguments='"Paris"}'), call(1, name="get_time", arguments="{}"),
             *end("tool_calls", 12)],
    "results": [delta(content="Sunny, noon."), *end("stop", 4)],
    "long": [delta(content="One"), *end("length", 1)],
    "broken": [delta(content="Half an ans"), {"error": {"message": "The engine has died."}}],
    "cut": [delta(content="Half")],
}


class Canned(http.server.BaseHTTPRequestHandler):
    """The page, one model, and the answer that the last message names."""
    protocol_version = "HTTP/1.1"
    asked = []

    def reply(self, status, type, body, **headers):
        self.send_response(status)
        for k, v in {"Content-Type": type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            with open(PAGE, "rb") as f:
                self.reply(200, "text/html", f.read())
        elif self.path == "/v1/models":
            data = [{"id": "one"}, {"id": "<two>"}]
            self.reply(200, "application/json", json.dumps({"data": data}).encode())
        else:
            self.reply(404, "text/plain", b"")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Canned.asked.append((body, self.headers.get("authorization")))
        last = body["messages"][-1]
        word = "results" if last["role"] == "tool" else last["content"]
        if word == "full":
            words = {"error": {"message": "All places are taken.", "code": "server_is_overloaded"}}
            return self.reply(503, "application/json", json.dumps(words).encode(), Retry_After="3")
        text = "".join(f"data: {json.dumps(c)}\r\n\r\n" for c in CANNED[word])
        text += "" if word == "cut" else "data: [DONE]\n\n"
        self.reply(200, "text/event-stream", (": ping\n\n" + text).encode())

    def log_message(self, *args):
        pass


IDLE = "document.querySelectorAll('.busy').length"
LAST = "[...document.querySelectorAll('.assistant')].at(-1)"


def visit(b, url, models=2):
    """The page as one finds it: with its models, and the cursor in the box, which is there only
    when the page has been drawn."""
    b.open(url)
    same((b.wait("document.querySelector('#model').length", models),
          b.wait("document.activeElement.id", "box")), (models, "box"),
         f"models: {models}, and the cursor is in the box")


def say(b, text, idle=True):
    b.type(text)
    b.key("Enter")
    if idle:
        same(b.wait(IDLE, 0), 0, f"{text}: the answer has ended")


def more(b, fields):
    b.js(f"document.querySelector('#more').value = {json.dumps(json.dumps(fields))}")


def text_of(b, selector):
    return b.js(f"(e => e && e.innerText)(document.querySelector({json.dumps(selector)}))")


def file():
    with open(PAGE, encoding="utf-8") as f:
        html = f.read()
    ok(html == policy(html), "the hashes of the policy are right (else: tools/page_csp.py)")
    ok(len(html) < 30000, f"{len(html)} bytes")
    ok(not re.search(r"(?:src|href)=(?![\"']?data:)|https?://(?!www\.w3\.org/2000/svg)|@import"
                     r"|url\(", html), "nothing is fetched from anywhere")
    ok(not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function"
                     r"|unsafe-|\son\w+=", html), "no text becomes markup or code")


def canned(b, url):
    visit(b, url)
    same(b.js("document.querySelector('#model').value"), "one", "the first is chosen")

    say(b, "evil")
    same((b.js("document.title"), b.js(f"{LAST}.querySelectorAll('img,script,svg,i,b').length")),
         ("inferd", 0), "markup of the model stays text")
    same(b.js(f"{LAST}.querySelector('pre').textContent"),
         "<svg onload=\"document.title='gone'\">", "also in a code block")
    b.click(".code button")
    same(b.wait("getSelection().toString() + /Copied|Selected/.test("
                "document.querySelector('.code button').textContent)",
                "<svg onload=\"document.title='gone'\">true"),
         "<svg onload=\"document.title='gone'\">true", "which can be copied")
    b.js("box.focus()")
    same(b.js(f"{LAST}.querySelector('strong').textContent"), "<b>x</b>", "and in bold")
    same(b.js("document.querySelector('.user').textContent"), "evil", "the question is shown")

    say(b, "think")
    same(b.js(f"{LAST}.querySelector('details').open"), False, "the thought is folded")
    ok(re.match(r"Thought for \d", b.js(f"{LAST}.querySelector('summary').textContent")),
       "and says how long it took")
    same(b.js(f"{LAST}.querySelector('details div').textContent"), "Two and two.", "it is there")
    same(b.js(f"{LAST}.querySelector('.text').textContent"), "Four.", "the answer is not in it")
    ok("prompt 9, 7 cached" in b.js(f"{LAST}.querySelector('.stats').textContent"),
       "cached tokens")
    b.js(f"{LAST}.querySelector('summary').focus()")
    b.key("Enter")
    same(b.js(f"{LAST}.querySelector('details').open"), True, "Enter opens the thought")
    b.js("box.focus()")
    say(b, "long")
    ok("token limit" in b.js(f"{LAST}.querySelector('.stats').textContent"), "finish_reason length")
    same(Canned.asked[-1][0]["messages"][-3:], [
        {"role": "user", "content": "think"},
        {"role": "assistant", "content": "Four.", "reasoning": "Two and two."},
        {"role": "user", "content": "long"}], "the conversation is sent")


def calls(b):
    say(b, "call")
    cards = f"[...{LAST}.querySelectorAll('.call')]"
    same(b.js(f"{cards}.map(c => [c.children[0].textContent, c.children[1].textContent])"),
         [["get_weather", '{\n  "city": "Paris"\n}'], ["get_time", "{}"]], "calls are shown")
    same(b.js("document.activeElement.tagName"), "TEXTAREA", "their results are asked for")
    ok(b.js(f"{cards}.every(c => c.scrollWidth <= c.clientWidth)"), "nothing sticks out of them")
    b.type("sunny")
    b.key("Tab")
    b.type("noon")
    b.key("Tab")
    b.key("Enter")
    same(b.wait(f"{LAST}.querySelector('.text').textContent", "Sunny, noon."), "Sunny, noon.",
         "Tab, Tab, Enter: the results are sent")
    same(Canned.asked[-1][0]["messages"][-3:], [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_0", "type": "function",
             "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}},
            {"id": "call_1", "type": "function",
             "function": {"name": "get_time", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"}], "as the API has them")


def errors(b):
    b.js("box.focus()")
    say(b, "full")
    same(text_of(b, ".error").split("\n")[0],
         "All places are taken. (503) Try again in 3 seconds.", "503 in words")
    say(b, "broken")
    same((text_of(b, ".error").split("\n")[0], b.js(f"{LAST}.querySelector('.text').textContent")),
         ("The engine has died.", "Half an ans"), "an error in mid-stream; what came stays")
    say(b, "cut")
    same(text_of(b, ".error").split("\n")[0], "The connection ended before the answer did.",
         "a stream without its end")
    n = len(Canned.asked)
    b.click(".error button")
    same(b.wait(f"{IDLE} + document.querySelectorAll('.error').length * 10", 10), 10, "Try again")
    same((len(Canned.asked), [m["role"] for m in Canned.asked[-1][0]["messages"]][-3:]),
         (n + 1, ["user"] * 3), "asks again, without the halves")


def settings(b):
    b.js("document.querySelector('#open').focus()")
    b.key("Enter")
    same(b.wait("document.querySelector('#settings').open"), True, "Enter opens the settings")
    for name, value in (("system", "Be brief."), ("temperature", "0.5"), ("top_k", "7"),
                        ("seed", "1"), ("more", '{"stop": ["x"]}'), ("key", "sk-1")):
        b.js(f"document.querySelector('#{name}').focus()")
        b.type(value)
    b.key("Escape")
    same((b.wait("document.querySelector('#settings').open", False),
          b.wait("sessionStorage.getItem('key')", "sk-1")), (False, "sk-1"),
         "Escape closes them, and what they say holds")
    b.click("#think")
    b.click("#new")
    same(b.js("[document.querySelectorAll('article').length, document.activeElement.id]"),
         [0, "box"], "a new chat")
    say(b, "long")
    body, key = Canned.asked[-1]
    same(body, {"model": "one", "temperature": 0.5, "top_k": 7, "seed": 1, "stop": ["x"],
                "chat_template_kwargs": {"enable_thinking": True}, "stream": True,
                "messages": [{"role": "system", "content": "Be brief."},
                             {"role": "user", "content": "long"}],
                "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
         "the settings are in the request, and what is not set is not")
    same(key, "Bearer sk-1", "the key too")
    b.js("document.querySelector('#more').value = '{'")
    say(b, "long")
    ok("not JSON" in text_of(b, ".error"), "fields that are no JSON are refused in words")
    b.js("localStorage.clear(); sessionStorage.clear()")


def keyboard(b, url):
    """Everything has its place in the order of Tab."""
    visit(b, url)
    order = []
    for shift in (False, False, True, True, True, True, True):
        b.key("Tab", shift)
        order.append(b.js("document.activeElement.id"))
    same(order, ["think", "go", "think", "box", "open", "new", "model"], "Tab and Shift+Tab")
    b.js("box.focus()")
    b.key("Tab")
    b.key(" ")
    same(b.js("document.activeElement.checked"), True, "Space switches thinking on")
    b.key(" ")
    b.js("box.focus()")
    b.type("think")
    b.key("Enter", shift=True)
    b.type("more")
    same(b.js("box.value"), "think\nmore", "Shift+Enter breaks the line")
    b.js("box.value = ''")
    b.key("Enter")
    same(b.js("document.querySelectorAll('article').length"), 0, "nothing is not sent")


def looks(b, url):
    """No page wider than the screen, nothing under the edge, and two colour schemes."""
    seen = set()
    for scheme in ("light", "dark"):
        b.scheme(scheme)
        for width, height in ((320, 568), (390, 844), (1280, 800)):
            b.size(width, height, mobile=width < 600)
            visit(b, url)
            say(b, "evil")
            w, bottom = b.js("[document.documentElement.scrollWidth, "
                             "go.getBoundingClientRect().bottom]")
            ok(w <= width and bottom <= height, f"{scheme}, {width} x {height}: all is in sight")
            seen.add(b.js("getComputedStyle(document.body).backgroundColor"))
    same(len(seen), 2, "light and dark differ")


def quiet(b, urls):
    bad = [e["entry"]["text"] for e in b.events("Log.entryAdded")
           if e["entry"]["source"] in ("security", "violation")]
    same(bad, [], "nothing against the policy")
    ran = [e["exceptionDetails"] for e in b.events("Runtime.exceptionThrown")]
    same(ran, [], "no script failed")
    asked = {e["request"]["url"] for e in b.events("Network.requestWillBeSent")}
    same({u for u in asked if not u.startswith((*urls, "data:", "about:"))}, set(),
         "no foreign request")


def real(b, s):
    b.size(1000, 800)
    visit(b, s.url + "/", 1)
    same(b.js("document.querySelector('#model').value"), "demo", "the engine's model")
    more(b, {"temperature": 0})
    say(b, "Hello! " + "What is 12 + 30? " * 12)
    ok(len(b.js(f"{LAST}.querySelector('.text').textContent")) > 5, "an answer of the model")
    ok(re.search(r"\d+ tokens.*first after \d+ ms.*prompt \d+, \d+ cached",
                 b.js(f"{LAST}.querySelector('.stats').textContent")), "its numbers")
    say(b, "And now?")
    say(b, "And then?")
    ok(re.search(r"prompt \d+, [1-9]\d* cached",
                 b.js(f"{LAST}.querySelector('.stats').textContent")), "the third is cached in part")

    # left alone it may come to a call after a while, of which nothing is shown
    r = urllib.request.Request(s.url + "/tokenize", b'{"prompt": "1, 2", "add_special_tokens": false}',
                               {"Content-Type": "application/json"})
    with urllib.request.urlopen(r, timeout=LIMIT) as answer:
        seen = json.load(answer)["tokens"]
    for stop in (lambda: b.key("Escape"), lambda: b.click("#go")):
        before = s.metric("vllm:generation_tokens_total")
        more(b, {"max_tokens": ENDLESS, "allowed_token_ids": seen})
        b.js("window.sizes = []; new MutationObserver(() => sizes.push(log.innerText.length))"
             ".observe(log, {subtree: true, childList: true})")
        say(b, "Count.", idle=False)
        same((b.wait("new Set(sizes).size > 5"), b.js("go.ariaLabel"),
              s.metric("vllm:num_requests_running")), (True, "Stop", 1),
             "it runs, and grows step by step")
        stop()
        ok(until(lambda: s.metric("vllm:num_requests_running") == 0), "its place is free after stop")
        n = s.metric("vllm:generation_tokens_total") - before
        ok(0 < n < ENDLESS, f"after {n} tokens")
        same(b.wait(IDLE, 0), 0, "the page waits for nothing")
        ok("stopped" in b.js(f"{LAST}.querySelector('.stats').textContent"), "and says so")
        same(b.js("go.ariaLabel"), "Send", "the button sends again")
    more(b, {})
    say(b, "Hello again!")
    same(b.js("document.querySelectorAll('.error').length"), 0, "the conversation goes on")

    real_tools(b)
    b.click("#new")
    s.engine.terminate()
    s.engine.wait(LIMIT)
    say(b, "Anybody?")
    ok("(503)" in (text_of(b, ".error") or ""), f"no engine: {text_of(b, '.error')!r}")
    s.start_engine()
    s.wait_ready()
    b.click(".error button")
    same(b.wait(f"{IDLE} + document.querySelectorAll('.error').length", 0), 0, "Try again")
    ok(len(b.js(f"{LAST}.querySelector('.text').textContent")) > 5, "works when there is one again")


def real_tools(b):
    """A call of the model, a result typed in, and an answer that knows it; then one with thought."""
    weather = {"name": "get_weather", "description": "Get the current weather for a city.",
               "parameters": {"type": "object", "required": ["city"], "properties": {
                   "city": {"type": "string", "description": "City name"}}}}
    b.click("#new")
    more(b, {"temperature": 0, "tools": [{"type": "function", "function": weather}]})
    say(b, "What is the weather in Paris?")
    same(b.js(f"[...{LAST}.querySelectorAll('.call > *')].map(e => e.textContent).slice(0, 2)"),
         ["get_weather", '{\n  "city": "Paris"\n}'], "the model's own call is shown")
    b.type("cloudy, 17 degrees")
    b.key("Tab")
    b.key("Enter")
    b.wait(f"{IDLE} + document.querySelectorAll('.call ~ form').length", 0)
    ok("17" in b.js(f"{LAST}.querySelector('.text').textContent"),
       "and its answer: " + b.js(f"{LAST}.querySelector('.text').textContent"))
    b.click("#new")
    b.click("#think")
    more(b, {"temperature": 0})
    b.js("box.focus()")
    say(b, "What is 12 + 30?")
    ok(b.js(f"{LAST}.querySelector('.thought div').textContent.length") > 5
       and b.js(f"{LAST}.querySelector('.text').textContent.length") > 0, "a thought and an answer")
    b.click("#think")


def shipped_location():
    """The page's location in conf/nginx.conf, with the checkout's conf/html as its root."""
    with open("conf/nginx.conf") as f:
        where = re.search(r"location = / \{.*?\n        \}", f.read(), re.S).group(0)
    return re.sub(r"root +html;", f"root {os.path.abspath('conf/html')};", where)


file()
fake = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Canned)
threading.Thread(target=fake.serve_forever, daemon=True).start()
fake_url = f"http://127.0.0.1:{fake.server_port}/"
# chromium's helpers may write to its profile for a moment after it
with (tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as d,
      Browser(d + "/chrome") as b):
    canned(b, fake_url)
    calls(b)
    errors(b)
    settings(b)
    keyboard(b, fake_url)
    looks(b, fake_url)
    with Stack(extra=shipped_location(), model=endless(d + "/demo", ends=True), wait="2s",
               serve_args=["--kv-cache-memory-bytes", "160m"]) as s:
        real(b, s)
        quiet(b, (fake_url, s.url))
done()
