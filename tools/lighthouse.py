"""Print what Lighthouse says of pages of the site on a simulated phone: ``make lighthouse``.

Needs Node and Lighthouse (``npm install --global lighthouse``), which only developers want, and the
browser of ``tools/chromium.sh``. The pages are served compressed, as any server would.
"""

import contextlib
import functools
import gzip
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index.html", "chapters/policy-gradients.html", "chapters/k3-control-variates.html")
AUDITS = {
    "largest paint": "largest-contentful-paint",
    "blocking": "total-blocking-time",
    "shift": "cumulative-layout-shift",
    "weight": "total-byte-weight",
}


class Compressed(http.server.SimpleHTTPRequestHandler):
    """Serves text compressed, and says nothing."""

    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        """Send a file, compressed if it is text."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, kind = path.read_bytes(), self.guess_type(path)
        self.send_response(200)
        if path.suffix in (".css", ".html", ".js", ".svg"):
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(content)


def main(site):
    """Print a line for each page; return 1 if something that is needed is missing."""
    lighthouse = shutil.which("lighthouse")
    if not lighthouse:
        print("Lighthouse is missing: npm install --global lighthouse", file=sys.stderr)
        return 1
    chromium = subprocess.run([ROOT / "tools/chromium.sh"], capture_output=True, text=True)
    if chromium.returncode:
        print(chromium.stderr, file=sys.stderr, end="")
        return 1
    handler = functools.partial(Compressed, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for page in PAGES:
            command = [lighthouse, f"http://127.0.0.1:{server.server_port}/{page}", "--quiet"]
            command += ["--output=json", "--chrome-flags=--headless=new --no-sandbox"]
            environment = os.environ | {"CHROME_PATH": chromium.stdout.strip()}
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            if result.returncode:
                print(result.stderr, file=sys.stderr)
                return 1
            print(told(page, json.loads(result.stdout)))
        server.shutdown()
    return 0


def told(page, report):
    """Return the line of a page."""
    scores = ", ".join(f"{k} {v['score'] * 100:.0f}" for k, v in report["categories"].items())
    audits = report["audits"]
    numbers = ", ".join(f"{k} {audits[name]['displayValue']}" for k, name in AUDITS.items())
    requests = len(audits["network-requests"]["details"]["items"])
    return f"{page}: {scores}; {numbers}; {requests} requests"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
