"""Measure the built site in a browser, in a small window and on a phone: `python tools/check_site.py build/site`.

Chromium renders each page in a frame and reports what a reader would stumble over:

- an element wider than the page, other than code and tables, which scroll;
- a command (a block of sh) that is hidden at the right edge;
- a name in code that breaks inside a word;
- a table row taller than `MOST_LINES`, as narrow columns make it.

The check is skipped, with one line on standard error, where there is no Chromium.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

WIDTHS = (1000, 390)
MOST_LINES = {1000: 12, 390: 24}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 300  # seconds for all pages
SCRIPT = """
const found = [];
const name = (element) => element.tagName.toLowerCase() + " " + JSON.stringify(element.textContent.trim().slice(0, 60));
const scrolls = (element, article, page) => {
  for (; element !== article; element = element.parentElement)
    if (["auto", "scroll", "hidden", "clip"].includes(page.getComputedStyle(element).overflowX)) return true;
  return false;
};
function measure(page, width, path) {
  const note = (kind, what) => found.push([width, path, kind, what]);
  const document = page.document, article = document.querySelector("article");
  if (!article) return;
  for (const element of article.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    const beyond = box.width && box.right > width + 1;
    if (beyond && !scrolls(element, article, page)) note("wider than the page", name(element));
  }
  for (const block of article.querySelectorAll(".language-sh pre > code"))
    if (block.scrollWidth > block.clientWidth + 1) note("command hidden at the right edge", name(block));
  for (const code of article.querySelectorAll("code")) {
    if (code.closest("pre")) continue;
    const walker = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); )
      for (const word of node.data.matchAll(/[A-Za-z0-9_]+/g)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) note("broken inside a word", word[0]);
      }
  }
  for (const row of article.querySelectorAll("tr")) {
    const style = page.getComputedStyle(row.cells[0]);
    const lines = (row.clientHeight - 2 * parseFloat(style.paddingTop)) / parseFloat(style.lineHeight);
    if (lines > MOST_LINES[width] + 0.5) note("row of " + Math.round(lines) + " lines", name(row));
  }
}
async function all() {
  for (const width of WIDTHS)
    for (const path of PAGES) {
      const frame = document.createElement("iframe");
      frame.style.width = width + "px";
      frame.style.height = "900px";
      frame.style.border = "0";
      const loaded = new Promise((resolve) => (frame.onload = resolve));
      frame.src = path;
      document.body.append(frame);
      await loaded;
      await new Promise((resolve) => setTimeout(resolve, 100));
      measure(frame.contentWindow, width, path);
      frame.remove();
    }
  await fetch("report", { method: "POST", body: JSON.stringify(found) });
}
all().catch((error) => fetch("report", { method: "POST", body: JSON.stringify([[0, "", "failed", String(error)]]) }));
"""


class _Site(http.server.SimpleHTTPRequestHandler):
    """The site, with one page more that measures the others and posts what it finds."""

    measuring: str
    found: list[list[object]]
    done: threading.Event

    def do_GET(self) -> None:
        if self.path == "/measure":
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(self.measuring.encode())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.found.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def measure(site: Path, browser: str) -> list[list[object]]:
    """Return [width, page, kind, element] of everything found. Raises `TimeoutError` if the browser does not answer."""
    pages = sorted(str(page.relative_to(site)) for page in site.rglob("*.html") if "assets" not in page.parts)
    constants = {"WIDTHS": WIDTHS, "MOST_LINES": MOST_LINES, "PAGES": pages}
    script = "".join(f"const {name} = {json.dumps(value)};" for name, value in constants.items()) + SCRIPT
    done, found = threading.Event(), list[list[object]]()
    measuring = f"<!DOCTYPE html><body><script>{script}</script></body>"
    handler = type("Handler", (_Site,), {"measuring": measuring, "found": found, "done": done})
    with (
        tempfile.TemporaryDirectory() as profile,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: handler(*args, directory=str(site))) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--window-size=1200,1000",
        ]
        address = f"http://127.0.0.1:{server.server_port}/measure"
        # With a port for a debugger it does not leave as soon as the page is loaded.
        command = [browser, *options, "--remote-debugging-port=0", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not done.wait(TIMEOUT):
                raise TimeoutError(f"{browser} has not measured the site in {TIMEOUT} seconds")
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
    return found


def main() -> int:
    site = Path(sys.argv[1])
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"{site} is not measured: there is none of {', '.join(BROWSERS)}", file=sys.stderr)
        return 0
    found = measure(site, browser)
    for width, page, kind, element in found:
        print(f"{site}/{page} at {width} pixels: {kind}: {element}", file=sys.stderr)
    print(f"{site}: {len(found)} elements do not fit", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
