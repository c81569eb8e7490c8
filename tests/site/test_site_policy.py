"""The content security policy of every page: what it is, that it stops, that nothing runs into it.

Nothing comes from elsewhere, no code is made of text, nothing is written into a page but elements.
"""

import http.server
import threading

import pytest
from lxml import html
from playwright.sync_api import expect

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
}
TELL = """addEventListener("securitypolicyviolation", event => console.error(
    `violated: ${event.effectiveDirective} by ${event.blockedURI} ${event.sample}`))"""
# Elements by which something else than text, pictures and our scripts would come into a page.
FOREIGN = [
    "style",
    "iframe",
    "frame",
    "object",
    "embed",
    "applet",
    "base",
    "portal",
    "video",
    "audio",
    "source",
    "track",
]


def pages(site):
    return sorted(p for p in site.rglob("*.html") if "_static" not in p.relative_to(site).parts)


def policy_faults(path):
    """Return what in a page the policy forbids, or what is wrong with the policy itself."""
    tree = html.parse(path).getroot()
    head = [element for element in tree.find("head") if isinstance(element.tag, str)]
    stated = [e for e in head if e.get("http-equiv", "").lower() == "content-security-policy"]
    if len(stated) != 1 or any(e.tag in ("script", "link") for e in head[: head.index(stated[0])]):
        return ["no policy, or not before what it is for"]
    found = dict(rule.split(maxsplit=1) for rule in stated[0].get("content").split(";"))
    faults = [] if found == POLICY else [f"another policy: {found}"]
    for element in tree.iter():
        if not isinstance(element.tag, str):
            continue
        where = f"<{element.tag}> in line {element.sourceline}"
        if element.tag == "script" and (not element.get("src") or (element.text or "").strip()):
            faults.append(f"{where}: a script in the page")
        if element.tag in FOREIGN:
            faults.append(where)
        for name, value in element.attrib.items():
            if name == "style" or name.startswith("on"):
                faults.append(f"{where}: {name}")
            loads = name in (
                "src",
                "srcset",
                "poster",
                "data",
                "action",
                "background",
                "xlink:href",
            )
            loads |= name == "href" and element.tag not in ("a", "area")
            loads &= element.get("rel") not in ("canonical", "license")  # they only name
            if loads and ("//" in value or ":" in value.partition("/")[0]):
                faults.append(f"{where}: {name} leads elsewhere: {value}")
            if value.strip().lower().startswith("javascript:"):
                faults.append(f"{where}: {name} is code")
    return faults


def test_every_page_has_the_policy_and_nothing_that_it_forbids(site):
    found = pages(site)
    assert len(found) > 10
    assert {str(path): faults for path in found if (faults := policy_faults(path))} == {}


def test_no_file_of_the_theme_asks_for_anything_elsewhere(site):
    for path in [*site.glob("_static/*.js"), *site.glob("_static/*.css")]:
        text = path.read_text(encoding="utf-8")
        assert "@import" not in text
        if path.name != "search-index.js":  # texts of the book
            assert "://" not in text, path


@pytest.mark.parametrize(
    ("piece", "fault"),
    [
        ("<script>1</script>", "a script in the page"),
        ('<script src="//x.example/a.js"></script>', "leads elsewhere"),
        ('<img src="https://x.example/a.png">', "leads elsewhere"),
        ('<img src="data:image/png;base64,AA">', "leads elsewhere"),
        ('<link rel="stylesheet" href="https://x.example/a.css">', "leads elsewhere"),
        ('<form action="https://x.example/"></form>', "leads elsewhere"),
        ('<p onclick="f()">', "onclick"),
        ('<p style="color: red">', "style"),
        ("<style>p { color: red }</style>", "<style>"),
        ('<iframe src="a.html"></iframe>', "<iframe>"),
        ('<a href=" JavaScript:f()">a</a>', "is code"),
    ],
)
def test_a_planted_fault_is_found(site, tmp_path, piece, fault):
    text = (site / "index.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{piece}</body>"))
    (found,) = policy_faults(tmp_path / "page.html")
    assert fault in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("script-src 'self'", "script-src 'self' 'unsafe-eval'"),
        ("default-src 'none'; ", ""),
        ('<meta http-equiv="Content-Security-Policy"', '<meta name="policy"'),
    ],
)
def test_a_weaker_policy_is_found(site, tmp_path, old, new):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "page.html").write_text(text.replace(old, new))
    assert policy_faults(tmp_path / "page.html")


@pytest.fixture
def opened(browser, bases):
    """A function that opens a page, served or as a file, and returns it and what went wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(TELL)

    def visit(served, path):
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.goto(bases[served] + path)
        return page, problems

    yield visit
    context.close()


@pytest.mark.parametrize("served", ["http", "file"])
def test_what_a_reader_does_violates_nothing(opened, served):
    page, problems = opened(served, "index.html")
    page.click(".theme-button")
    page.mouse.move(600, 400)
    figure = page.locator("figure.living.live").first
    expect(figure).to_be_visible()
    figure.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    expect(figure.locator(".said")).not_to_be_empty()
    figure.locator(".drawn svg").hover()  # Vega's tooltips would bring a style sheet of their own
    page.locator(".choose label, form.choices label").first.click()
    page.fill(".bar input[type=search]", "optimal lambda")
    page.keyboard.press("Enter")
    page.locator("#results a").first.click()
    expect(page.locator("mark").first).to_be_visible()
    page.goto(page.url.partition("chapters/")[0] + "chapters/k3-control-variates.html")
    # By the keyboard: a page that is still being laid out moves a link away from a mouse.
    page.locator("article a.reference.internal[href*='#']").first.focus()
    expect(page.locator("#preview")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("a.cite").first.click()
    expect(page.locator("dialog.cite-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.goto(page.url.partition("chapters/")[0] + "back-matter/results.html")
    page.locator(".filters input").first.fill("variance")
    page.goto(page.url.partition("back-matter/")[0] + "back-matter/graph.html")
    page.locator(".graph a[id]").first.focus()
    expect(page.locator(".graph .lit").first).to_be_visible()
    assert problems == []


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another origin, which answers everything with a script and notes what it was asked for."""

    asked: list = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(b"window.came = true")

    do_POST = do_GET  # noqa: N815 (as the server wants it)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


ADD = """([tag, values]) => {
  const element = Object.assign(document.createElement(tag), values);
  document.body.append(element);
  if (tag === "button") element.setAttribute("onclick", "window.came = true");
  if (tag === "a" || tag === "button") element.click();
  if (tag === "form") element.submit();
}"""
ATTACKS = {
    "a script from elsewhere": ("script", {"src": "{}a.js"}, "script-src"),
    "a script in the page": ("script", {"textContent": "window.came = true"}, "script-src"),
    "a handler": ("button", {}, "script-src"),
    "code as an address": ("a", {"href": "javascript:window.came = true"}, "script-src"),
    "a picture from elsewhere": ("img", {"src": "{}a.png"}, "img-src"),
    "a frame": ("iframe", {"src": "{}a.html"}, "frame-src"),
    "a style sheet from elsewhere": ("link", {"rel": "stylesheet", "href": "{}a.css"}, "style-src"),
    "a style in the page": ("style", {"textContent": "p { color: red }"}, "style-src"),
    "a form to elsewhere": ("form", {"action": "{}a", "method": "post"}, "form-action"),
    "an object": ("object", {"data": "{}a.swf"}, "object-src"),
}


def assert_violated(directive, page, problems):
    """The browser tells of it, sooner or later."""
    for _ in range(500):
        if any(f"violated: {directive}" in problem for problem in problems):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"no violation of {directive} in 10 s, but {problems}")


@pytest.mark.parametrize("served", ["http", "file"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_policy_stops(opened, elsewhere, served, attack):
    tag, values, directive = ATTACKS[attack]
    Elsewhere.asked.clear()
    page, problems = opened(served, "index.html")
    page.evaluate(ADD, [tag, {k: v.replace("{}", elsewhere) for k, v in values.items()}])
    assert_violated(directive, page, problems)
    assert page.evaluate("window.came") is None
    assert Elsewhere.asked == []


@pytest.mark.parametrize("served", ["http", "file"])
def test_no_code_is_made_of_text_and_nothing_is_sent(opened, elsewhere, served):
    Elsewhere.asked.clear()
    page, problems = opened(served, "index.html")
    # Later: what the test itself evaluates is exempt.
    later = """new Promise(resolve => setTimeout(() => {
        try { resolve(Function("return 1")()); } catch (error) { resolve(error.name); } }))"""
    assert page.evaluate(later) == "EvalError"
    assert page.evaluate(f"fetch('{elsewhere}x').then(() => 'sent', () => 'refused')") == "refused"
    assert_violated("connect-src", page, problems)
    assert Elsewhere.asked == []


def test_a_script_that_lies_elsewhere_on_the_disk_may_come_into_a_page_from_a_file(
    opened, tmp_path
):
    """What 'self' means for a file: every file. A site that is served allows its own alone."""
    (tmp_path / "other.js").write_text("window.came = true")
    page, problems = opened("file", "index.html")
    page.evaluate(ADD, ["script", {"src": (tmp_path / "other.js").as_uri()}])
    page.wait_for_function("window.came")
    assert problems == []
