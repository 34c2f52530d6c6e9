"""A page in headless Chromium reads the SSE with fetch and shows the tokens as they come."""
import http.server
import json
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import LIMIT, Stack, done, free_port, ok, same

PAGE = """<!doctype html><meta charset=utf-8><p id=out></p><script>
(async () => {
  const body = {model: 'demo', stream: true, seed: 1, max_tokens: 3500, ignore_eos: true,
                prompt: 'Hello!'};      // long enough that a browser cannot take it for one piece
  const r = await fetch('/v1/completions', {method: 'POST', body: JSON.stringify(body),
                        headers: {'content-type': 'application/json'}});
  const rd = r.body.pipeThrough(new TextDecoderStream()).getReader();
  const out = document.getElementById('out'), shown = [];
  let buf = '', last = '';
  for (;;) {
    const {done, value} = await rd.read();
    if (done) break;
    buf += value;
    let i;
    while ((i = buf.indexOf('\\n\\n')) >= 0) {
      last = buf.slice(0, i); buf = buf.slice(i + 2);
      if (!last.startsWith('data: {')) continue;
      const c = JSON.parse(last.slice(6)).choices[0];
      if (c) out.textContent += c.text;
    }
    shown.push([performance.now(), out.textContent.length]);
  }
  await fetch('/report', {method: 'POST', body: JSON.stringify(
    {type: r.headers.get('content-type'), text: out.textContent, shown, last})});
})();
</script>"""

report = {}
came = threading.Event()


class Report(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        report.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()
        came.set()

    def log_message(self, *args):
        pass


port = free_port()
srv = http.server.HTTPServer(("127.0.0.1", port), Report)
threading.Thread(target=srv.serve_forever, daemon=True).start()

with Stack(extra=f"location /report {{ proxy_pass http://127.0.0.1:{port}; }}") as s:
    with open(s.dir + "/static/page.html", "w") as f:
        f.write(PAGE)
    chrome = subprocess.Popen(["chromium", "--headless", "--no-sandbox", "--disable-gpu",
                               "--disable-dev-shm-usage", f"--user-data-dir={s.dir}/chrome",
                               "--remote-debugging-port=0", s.url + "/static/page.html"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ok(came.wait(3 * LIMIT), "the page finished its stream")
    chrome.terminate()
    chrome.wait(LIMIT)
    ok(report.get("type", "").startswith("text/event-stream"), "content type")
    ok(len(report.get("text", "")) > 20, "text was shown")
    print("#", report.get("text"))
    shown = [n for _, n in report.get("shown", [])]
    ok(len(set(shown)) >= 5, f"it grew step by step: {len(set(shown))} lengths")
    same(report.get("last"), "data: [DONE]", "the last event is [DONE]")
done()
