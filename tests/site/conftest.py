"""Options and fixtures of the browser test: the site's folder, a browser, two ways to serve."""

import functools
import http.server
import subprocess
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # Whatever a page asks for elsewhere fails, and is recorded, without touching a network.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def pytest_addoption(parser):
    parser.addoption("--site", default="_build/html", help="folder of the built site")


# Of the pages of results, which are made alike: one with much, one with little, one with wide code;
# and one of the sources of formal proofs.
OF_MANY = (
    "s/thm-gibbs.html",
    "s/def-k2.html",
    "s/prop-library-losses.html",
    "proofs/Means.html",
)


def pytest_generate_tests(metafunc):
    """Run every test that takes ``page_path`` for each page, and for some pages of the many."""
    if "page_path" in metafunc.fixturenames:
        found = all_pages(_site(metafunc.config))
        metafunc.parametrize(
            "page_path", [p for p in found if not p.startswith(("s/", "proofs/")) or p in OF_MANY]
        )


def all_pages(site):
    """Return the paths of all pages."""
    # _static holds the theme's templates, which end in .html too.
    found = (path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return sorted(path for path in found if not path.startswith("_static/"))


def _site(config):
    site = Path(config.getoption("site")).resolve()
    if not (site / "index.html").is_file():
        raise pytest.UsageError(f"There is no built site in {site}. Remedy: make book")
    return site


@pytest.fixture(scope="session")
def site(pytestconfig):
    """The folder of the built site."""
    return _site(pytestconfig)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def bases(site):
    """The address of the site, ending in a slash, for each way to serve it."""
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"http": f"http://127.0.0.1:{server.server_port}/", "file": f"{site.as_uri()}/"}
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests."""
    found = subprocess.run([ROOT / "tools/chromium.sh"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found.stdout.strip(), args=ARGUMENTS)
        yield chromium
        chromium.close()
