#!/usr/bin/env python3
"""Put the hashes of the chat page's own style and script into its Content-Security-Policy.

usage: tools/page_csp.py [conf/html/index.html]     after each change of the page
"""
import base64
import hashlib
import re
import sys

PAGE = sys.argv[1] if len(sys.argv) > 1 else "conf/html/index.html"


def policy(html):
    """The page with the right hashes."""
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        html = re.sub(rf"{tag}-src '[^']*'", f"{tag}-src 'sha256-{digest}'", html, count=1)
    return html


if __name__ == "__main__":
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(policy(page))
