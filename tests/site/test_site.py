"""Every page of the built site in a browser: ``make test-site``.

A check is a function that takes what it needs and raises AssertionError. The last tests plant one
fault each in a small page and want the check to find it.
"""

import dataclasses
import functools
import gzip
import html.parser
import itertools
import json
import urllib.parse
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from sphinx.util.inventory import InventoryFile

WIDTHS = {1280: 800, 390: 844}  # width: height
NARROW = (360, 390, 768, 1280)  # every formula fits at these widths
SHEET = {"width": 717, "height": 1046}  # A4 with the margins that Chromium gives it, in pixels
COMBINATIONS = list(itertools.product(["http", "file"], WIDTHS, ["light", "dark"]))
# Pages that Sphinx makes without a source: nobody can give them a description.
GENERATED = {"404.html", "search.html"}
# Before a page may be used, in bytes as they are sent (gzip) and in requests: the budget.
BYTES, REQUESTS = 250_000, 12
# Displays that scroll at some width, each with its reason. None is needed for a conclusion.
MAY_SCROLL: dict[str, str] = {}

# --- Opening a page ------------------------------------------------------------------------------


@dataclasses.dataclass
class Visit:
    """A page, the addresses it asked for, and what went wrong on it."""

    page: object
    requests: list = dataclasses.field(default_factory=list)
    problems: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        on, problem = self.page.on, self.problems.append
        on("request", lambda request: self.requests.append(request.url))
        on("requestfailed", self._failed)
        on("response", lambda r: problem(f"{r.status}: {r.url}") if r.status >= 400 else None)
        on("pageerror", lambda error: problem(f"uncaught: {error}"))
        on("console", lambda m: problem(f"console: {m.text}") if m.type == "error" else None)

    def _failed(self, request):
        # A page that one leaves lets go what it was loading: that is no fault of the page.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def open(self, url):
        """Go to the page and wait for its fonts."""
        self.page.goto(url)
        self.page.evaluate("document.fonts.ready.then(() => null)")
        return self


@pytest.fixture(scope="module")
def contexts(browser):
    """Browser contexts by width and colour scheme, kept so that the pages share a cache."""

    @functools.cache
    def get(width, scheme):
        size = {"width": width, "height": WIDTHS[width]}
        return browser.new_context(viewport=size, color_scheme=scheme)

    return get


@pytest.fixture
def visit(contexts):
    """A function that opens an address in a page of its own."""
    pages = []

    def open_page(url, width=1280, scheme="light"):
        pages.append(contexts(width, scheme).new_page())
        return Visit(pages[-1]).open(url)

    yield open_page
    for page in pages:
        page.close()


# --- Checks in the browser -----------------------------------------------------------------------


def content(page):
    """The text of a page without its menus; a page that Sphinx makes may have no article."""
    return (
        page.query_selector("article") or page.query_selector("main") or page.query_selector("body")
    )


def check_requests(visit, base):
    """Nothing is asked for outside the site."""
    foreign = [url for url in visit.requests if not url.startswith((base, "data:", "blob:"))]
    assert not foreign, f"requests that leave the site: {foreign}"


def check_problems(visit):
    """No error in the console, no uncaught error, no failed request."""
    assert not visit.problems, visit.problems


def check_formulas(page):
    """No formula with an error, and no TeX that was not set."""
    errors = page.eval_on_selector_all("merror", "all => all.map(e => e.outerHTML)")
    assert not errors, f"errors in formulas: {errors}"
    raw = page.evaluate(
        r"""root => {
      const raw = [];
      const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const text = walker.currentNode.data, parent = walker.currentNode.parentElement;
        if (/\$\$|\\[()[\]]|\\[a-zA-Z]{2}/.test(text)
            && !parent.closest('pre, code, script, style, math')) raw.push(text.trim());
      }
      return raw;
    }""",
        content(page),
    )
    assert not raw, f"raw TeX: {raw}"


def check_page_width(page):
    """The page does not scroll sideways."""
    wide, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner, f"the page is {wide} px wide in a window of {inner} px"


def check_scheme(page, scheme):
    """The colour scheme is applied: the background itself."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    # rgb(...) or rgba(...); a transparent body shows the browser's canvas, which counts as a fault.
    red, green, blue, *alpha = (float(x) for x in colour[colour.index("(") + 1 : -1].split(","))
    assert alpha in ([], [1.0]), f"the background is transparent: {colour}"
    luminance = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    assert luminance < 0.2 if scheme == "dark" else luminance > 0.8, f"{scheme}: {colour}"


def check_images(page):
    """Every image of the article has a text, has loaded and fits its column."""
    faults = page.evaluate(
        """async root => {
      const faults = [];
      for (const image of root.querySelectorAll('img')) {
        image.loading = 'eager';
        await image.decode().catch(() => null);
        const say = fault => faults.push(`${image.getAttribute('src').slice(0, 80)} ${fault}`);
        if (!image.alt.trim()) say('has no alt');
        if (!image.naturalWidth) say('has not loaded');
        // The column is the nearest ancestor laid out as a block.
        let column = image.parentElement;
        while (getComputedStyle(column).display.startsWith('inline')) column = column.parentElement;
        const width = image.getBoundingClientRect().width;
        if (width > column.clientWidth + 1) say(`is ${width} px in ${column.clientWidth} px`);
      }
      return faults;
    }""",
        content(page),
    )
    assert not faults, faults


def check_column(page):
    """Nothing sticks out of the text column, unless a box that itself fits lets one scroll to it.

    A box that cuts off what does not fit (``overflow: hidden``) does not count as scrolling.
    """
    faults = page.evaluate(
        """root => {
      const faults = [];
      const style = getComputedStyle(root), box = root.getBoundingClientRect();
      const left = box.left + parseFloat(style.paddingLeft) - 1;
      const right = box.right - parseFloat(style.paddingRight) + 1;
      const fits = e => {
        const r = e.getBoundingClientRect();
        return !r.width || !r.height || (r.left >= left && r.right <= right);
      };
      const scrolls = e => /auto|scroll/.test(getComputedStyle(e).overflowX);
      const reachable = e => {
        for (let p = e.parentElement; p && p !== root; p = p.parentElement)
          if (scrolls(p) && fits(p)) return true;
        return false;
      };
      const wanted = 'pre, table, .formula, math, img, svg, p, li, h1, h2, h3, div, code';
      for (const e of root.querySelectorAll(wanted)) {
        if (e.parentElement.closest('math, svg') || !e.checkVisibility()) continue;
        const r = e.getBoundingClientRect(), name = e.outerHTML.slice(0, 120);
        const where = `from ${Math.round(r.left)} to ${Math.round(r.right)} px`;
        if (!fits(e) && !reachable(e))
          faults.push(`${name} ${where}, the column from ${left + 1} to ${right - 1} px`);
        else if (e.matches('pre, table, .formula') && e.scrollWidth > e.clientWidth + 1
                 && getComputedStyle(e).overflowX === 'hidden')
          faults.push(`${name} cuts off what does not fit`);
      }
      return faults;
    }""",
        content(page),
    )
    assert not faults, "\n".join(faults)


def check_paper(page):
    """On paper, where nothing scrolls, formulas, tables and code fit the width of a sheet."""
    page.set_viewport_size(SHEET)
    page.emulate_media(media="print")
    cut = page.evaluate(
        """root => {
      const right = root.getBoundingClientRect().right + 1;
      return [...root.querySelectorAll('pre, table, img, .formula, math, .output')]
        .filter(e => e.checkVisibility() && (e.getBoundingClientRect().right > right
                     || e.clientWidth && e.scrollWidth > e.clientWidth + 1))
        .map(e => `${e.outerHTML.slice(0, 120)} is ${e.scrollWidth} px in ${e.clientWidth} px`);
    }""",
        content(page),
    )
    assert not cut, "\n".join(cut)


def check_widths(page):
    """Each formula fits its box, and no full stop begins a line."""
    faults = page.evaluate(
        """([root, may]) => {
      const faults = [], near = e => e.closest('[id]')?.id;
      for (const e of root.querySelectorAll('.formula'))
        if (e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && !(near(e) in may))
          faults.push(`${near(e)}: ${e.textContent.slice(0, 90)}, ${e.scrollWidth} px wide`);
      const right = root.getBoundingClientRect().right + 1;
      for (const e of root.querySelectorAll('span.math math')) {
        const box = e.getBoundingClientRect();
        if (box.right > right && !e.closest('.wide'))
          faults.push(`${near(e)}: ${e.textContent.slice(0, 90)} ends at ${box.right} px`);
      }
      for (const span of root.querySelectorAll('span.math')) {
        const next = span.nextSibling;
        if (next?.nodeType !== Node.TEXT_NODE || !/^[.,;:)]/.test(next.data)) continue;
        faults.push(`${near(span)}: "${next.data.slice(0, 20)}" may begin a line`);
      }
      return faults;
    }""",
        [content(page), MAY_SCROLL],
    )
    assert not faults, "\n".join(faults)


def check_lines(page):
    """Lines broken for a phone are joined where they fit with a fifth of the box to spare."""
    faults = page.evaluate(
        """root => {
      const wide = cell => [...cell?.querySelectorAll('math') ?? []]
        .reduce((sum, e) => sum + e.getBoundingClientRect().width, 0);
      return [...root.querySelectorAll('.lines .turn[class*=at]')]
        .filter(e => e.checkVisibility() && !e.closest('td, .preview'))
        .filter(e => {
          const cell = e.parentElement, cells = [...cell.parentElement.children];
          const whole = wide(cell) + wide(cells[cells.indexOf(cell) ^ 1]);
          return whole < 0.8 * e.closest('.formula').clientWidth;
        })
        .map(e => `${e.closest('[id]')?.id}: ${e.closest('.formula').textContent.slice(0, 90)}`);
    }""",
        content(page),
    )
    assert not faults, "\n".join(faults)


def check_printed(page):
    """What cells print and the sources of proofs fit: the end of no line is behind a scroll."""
    faults = page.evaluate(
        """root => [...root.querySelectorAll('.cell_output pre, .printed .wide, pre.coq')]
          .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
          .map(e => `${e.textContent.slice(0, 90)}: ${e.scrollWidth} px in ${e.clientWidth} px`)""",
        content(page),
    )
    assert not faults, "\n".join(faults)


def check_outline(page, described=True):
    """One visible h1, no skipped heading level, a language, a title and a description."""
    levels = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
           .filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]))"""
    )
    assert levels.count(1) == 1, f"{levels.count(1)} visible h1"
    skips = [(a, b) for a, b in itertools.pairwise([0, *levels]) if b > a + 1]
    assert not skips, f"headings skip levels: {skips}"
    assert page.evaluate("document.documentElement.lang"), "html has no lang"
    assert page.title().strip(), "no title"
    assert "not set" not in page.title(), page.title()
    description = page.evaluate("document.querySelector('meta[name=description]')?.content")
    assert not described or (description or "").strip(), "no meta description"


def check_keyboard(page):
    """The first Tab reaches a link (the skip link) that is in view and marked as focused."""
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)  # the skip link slides in
    assert page.evaluate("document.activeElement.matches('a[href]')"), "Tab reaches no link"
    assert page.evaluate("""() => {
      const e = document.activeElement, r = e.getBoundingClientRect(), style = getComputedStyle(e);
      const marked = (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0)
        || style.boxShadow !== 'none';
      return marked && e.checkVisibility({opacityProperty: true, visibilityProperty: true})
        && r.width > 1 && r.top >= 0 && r.left >= 0 && r.bottom <= innerHeight;
    }"""), "the focused link is not visibly focused"


def search(page, words):
    """Ask the search for some words, from the box on every page; return what it found, in order."""
    page.keyboard.press("Control+k")
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.wait_for_selector("#found:has-text('“')")
    return page.eval_on_selector_all("#results li", "all => all.map(e => e.innerText)")


def check_search(page, words):
    """Ctrl+K opens the search box, and words of the book have results."""
    assert search(page, words), f"no result for {words}"


def unfold(page):
    """Open what the reader may open: folded code and dropdown boxes; formulas have their font.

    A page whose formulas are all out of view has not asked for it yet.
    """
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    page.evaluate("document.fonts.load('16px \"STIX Two Math\"').then(() => null)")


# --- Checks of the files -------------------------------------------------------------------------


class Anchors(html.parser.HTMLParser):
    """The ids, link targets and ids within the article of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.article_ids, self._in_article = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._in_article |= tag == "article"
        if attributes.get("id"):
            self.ids.append(attributes["id"])
            if self._in_article:
                self.article_ids.append(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        self._in_article &= tag != "article"


@functools.cache
def anchors(path):
    return Anchors(path.read_text(encoding="utf-8"))


def check_links(path, site):
    """Links within the site, and their fragments, lead somewhere."""
    broken = []
    for link in anchors(path).links:
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
        fragment = urllib.parse.unquote(url.fragment)
        inside = target.is_file() and target.is_relative_to(site)
        if not inside or (fragment and fragment not in anchors(target).ids):
            broken.append(link)
    assert not broken, f"{path}: broken links: {broken}"


def check_ids(path):
    """No id occurs twice in a page."""
    ids = anchors(path).ids
    twice = {name for name in ids if ids.count(name) > 1}
    assert not twice, f"{path}: ids that occur twice: {twice}"


# --- The site ------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", ["http", "file"])
def test_page(visit, bases, page_path, served):
    """A page as it is at each width and in both colours.

    It is loaded once, which takes most of the time, and then turned into the others; from a server
    that begins with a wide light window, from a file with a narrow dark one.
    """
    base = bases[served]
    shapes = list(itertools.product(WIDTHS, ["light", "dark"]))
    if served == "file":
        shapes.reverse()
    opened = visit(base + page_path, *shapes[0])
    page = opened.page
    unfold(page)
    faults = []

    def run(where, check, *arguments):  # all of them, so that one run shows every fault
        try:
            check(*arguments)
        except AssertionError as fault:
            faults.append(f"{where}, {check.__name__}: {fault}")

    for width, scheme in shapes:
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        page.emulate_media(color_scheme=scheme)
        where = f"{width} px, {scheme}"
        run(where, check_formulas, page)
        run(where, check_page_width, page)
        run(where, check_scheme, page, scheme)
        run(where, check_images, page)
        run(where, check_column, page)
        run(where, check_outline, page, page_path not in GENERATED)
    run("at last", check_requests, opened, base)
    run("at last", check_problems, opened)
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def test_formulas_fit(browser, bases, page_path):
    page = browser.new_page(viewport={"width": NARROW[0], "height": 800})
    Visit(page).open(bases["file"] + page_path)
    unfold(page)
    try:
        for width in NARROW:
            page.set_viewport_size({"width": width, "height": 800})
            check_widths(page)
            check_lines(page)
            check_printed(page)
    finally:
        page.close()


# Statements with formulas that are broken by hand for a phone: in a wide window none of these is.
JOINED = (
    *("thm-structure", "thm-stein-exponent", "prop-closed-forms"),
    *("prop-engine-token-weights", "prop-engine-temperature", "thm-truncated-weights"),
    *("prop-mismatch-size", "thm-gradients-near-reference", "prop-frozen-penalty"),
    *("cor-prefix-weights", "prop-jensen-shannon", "prop-division-by-length"),
)


def test_what_is_broken_for_a_phone_is_joined_in_a_wide_window(visit, bases, every):
    chapters = {every[label]["place"].partition("#")[0] for label in JOINED}
    broken = {}
    for width, chapter in itertools.product(WIDTHS, chapters):
        page = visit(bases["file"] + chapter, width).page
        unfold(page)
        for label in JOINED:
            turns = page.locator(f"#{label} .turn")
            if turns.count():
                shown = turns.evaluate_all("all => all.filter(e => e.checkVisibility()).length")
                broken[label, width] = shown
    assert {label for label, _ in broken} == set(JOINED)
    assert not any(broken[label, 1280] for label in JOINED)
    assert sum(broken[label, 390] > 0 for label in JOINED) > len(JOINED) / 2


def test_weight(visit, bases, site, page_path):
    opened = visit(bases["file"] + page_path)
    files = [
        site / unquote(url.removeprefix(bases["file"])).split("?")[0] for url in opened.requests
    ]
    sent = sum(len(gzip.compress(path.read_bytes())) for path in files)
    assert len(files) <= REQUESTS, files
    assert sent <= BYTES, f"{sent} bytes"


def test_readable_without_scripts(browser, bases, page_path):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(bases["file"] + page_path)
    wide = page.locator("html").evaluate("e => e.scrollWidth")
    context.close()
    assert wide <= 390


def test_tables_have_their_headings(visit, bases, page_path):
    script = """all => all.filter(table => {
      const seen = e => e.checkVisibility() && e.textContent.trim();
      const above = [...table.querySelectorAll('th')].some(seen);
      const beside = [...table.querySelectorAll('.column')].some(seen);
      return innerWidth > 600 ? !above || beside : above || !beside;
    }).map(table => table.textContent.slice(0, 80))"""
    page = visit(bases["file"] + page_path).page
    unfold(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        assert page.eval_on_selector_all(".stacked table:has(th)", script) == [], width


def test_paper(visit, bases, page_path):
    check_paper(visit(bases["file"] + page_path).page)


def test_paper_is_light_in_a_dark_browser(visit, bases):
    page = visit(f"{bases['file']}index.html", scheme="dark").page
    page.emulate_media(media="print")
    check_scheme(page, "light")
    page.emulate_media(media="screen")
    check_scheme(page, "dark")


def test_files(site):
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert any(path.parent.name == "s" for path in pages)
    for path in pages:
        check_links(path, site)
        check_ids(path)


@pytest.mark.parametrize(("served", "width", "scheme"), COMBINATIONS)
def test_keyboard(visit, bases, served, width, scheme):
    check_keyboard(visit(f"{bases[served]}index.html", width, scheme).page)


UNFIT_RULES = ("scrollable-region-focusable", "empty-table-header")
# The rules of axe that look at colours: all that a dark page may break which a light one does not.
COLOUR_RULES = ("color-contrast", "link-in-text-block")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(visit, bases, page_path, scheme):
    page = visit(bases["file"] + page_path, scheme=scheme).page
    unfold(page)
    # Boxes that scroll become reachable when they come into view: see the next test. And axe sees
    # no words in a formula, so a heading that is one counts as empty: here is that rule, with them.
    rules = {name: {"enabled": False} for name in UNFIT_RULES}
    assert page.eval_on_selector_all("th", "all => all.every(e => e.textContent.trim())")
    # Without the lists of what passed, which take most of the time.
    options = {"resultTypes": ["violations"], "rules": rules}
    if scheme == "dark":
        options["runOnly"] = COLOUR_RULES
    found = Axe().run(page, options=options).response["violations"]
    told = [
        (one["id"], one["help"], [node["html"][:120] for node in one["nodes"]]) for one in found
    ]
    assert not told, told


def test_what_scrolls_can_be_reached_and_shows_that_it_goes_on(visit, bases):
    page = visit(f"{bases['file']}chapters/practice.html", 390).page
    wide = """[...document.querySelectorAll('article pre')]
      .findIndex(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)"""
    box = page.locator("article pre").nth(page.evaluate(wide))
    box.scroll_into_view_if_needed()
    page.wait_for_selector("article pre[tabindex='0']")
    assert "gradient" in box.evaluate("e => getComputedStyle(e).backgroundImage")
    stops = "all => all.filter(e => e.tabIndex >= 0 && e.scrollWidth <= e.clientWidth + 1).length"
    assert page.eval_on_selector_all(".formula", stops) == 0, "what fits is no stop of the Tab key"


REFERENCE = "article a.reference.internal[href$='#thm-optimal-lambda']"


@pytest.mark.parametrize("name", ["index.html", "chapters/k3-control-variates.html"])
def test_a_reference_shows_what_it_means(visit, bases, name):
    page = visit(bases["file"] + name).page
    unfold(page)
    link, card = page.locator(REFERENCE).first, page.locator(".preview")
    link.scroll_into_view_if_needed()
    link.hover()
    card.wait_for(state="visible")
    assert card.inner_text().startswith("Theorem 5.7")
    assert card.locator("math").count() > 3
    page.keyboard.press("Escape")
    card.wait_for(state="hidden")
    page.mouse.move(0, 0)
    link.focus()
    card.wait_for(state="visible")
    assert link.get_attribute("aria-describedby") == "preview"
    box = card.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280


def test_a_touch_shows_and_a_second_one_follows(browser, bases):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(f"{bases['file']}index.html")
    link = page.locator(REFERENCE).first
    link.scroll_into_view_if_needed()
    link.tap()
    page.locator(".preview").wait_for(state="visible")
    assert page.url.endswith("index.html")
    link.tap()
    page.wait_for_url("**/k3-control-variates.html#thm-optimal-lambda")
    context.close()


def test_colours_are_the_readers_choice_and_figures_follow(visit, bases):
    page = visit(f"{bases['http']}chapters/k3-control-variates.html").page
    image = page.locator("article img").first
    image.scroll_into_view_if_needed()
    image.evaluate("e => e.decode()")
    light = image.screenshot()
    page.click(".theme-button")
    check_scheme(page, "dark")
    assert image.screenshot() != light
    page.reload()
    check_scheme(page, "dark")
    page.click(".theme-button")
    check_scheme(page, "light")


def test_the_contents_open_on_a_phone_without_a_script(browser, bases):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{bases['file']}chapters/k1.html")
    assert not page.locator("#menu").is_visible()
    page.click(".menu-button")
    assert page.locator("#menu a[href='why.html']").is_visible()
    context.close()


# What readers ask, and the beginning of the result that should come first.
ASKED = {
    "Theorem 5.7": "Theorem 5.7",
    "5.7": "Theorem 5.7",
    "negative KL": "Why is my KL negative?",
    "Why is my KL negative?": "Why is my KL negative?",
    "which estimator": "Which of the three",
    "GRPO loss": "What do I write into my GRPO",
    "optimal lambda": "Theorem 5.7",
    "estimate_kl": "klapprox.estimate.estimate_kl",
    "kl_loss": "klapprox.losses.kl_loss",
    "nan gradient": "finite loss, nan gradient",
    "jeffreys covariance": "Theorem 5.6",
    "Pinsker": "Theorem 1",
    "distillation": "Distillation",
    "memory vocabulary": "The exact step",
    "truncated sum": "Proposition 7",
    "Jensen-Shannon": "Proposition 7",
    "engine mismatch": "Engine mismatch: which ratio",
    "rollouts": "How do I run it on my rollouts?",
    "bibtex": "How do I cite a statement",
    "GRPO inner steps": "What do I write into my GRPO",
    "I have whole logits": "Distillation, top-k, exact steps: I have whole logits",
    "thm-optimal-lambda": "Theorem 5.7",
}


@pytest.mark.parametrize(("words", "first"), ASKED.items())
def test_what_the_search_finds_first(visit, bases, words, first):
    found = search(visit(f"{bases['file']}index.html").page, words)
    assert found[0].startswith(first), found[:4]
    assert "\\" not in "".join(found), "results are plain text"


def test_the_search_leads_to_the_place_and_marks_it(visit, bases):
    page = visit(f"{bases['http']}index.html").page
    search(page, "jeffreys covariance")
    page.click("#results a")
    page.wait_for_url("**/k3-control-variates.html*")
    assert page.evaluate("location.hash") == "#thm-covariance-is-minus-jeffreys"
    assert page.locator("article mark").count()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("served", ["http", "file"])
def test_search(visit, bases, served, width):
    opened = visit(f"{bases[served]}index.html", width)
    check_search(opened.page, "jeffreys")
    check_requests(opened, bases[served])
    check_problems(opened)


# --- Results: their pages, citations, the list, the graph, the data -------------------------------


@pytest.fixture(scope="module")
def every(site):
    """What the site says of its results to programs, by label."""
    found = json.loads((site / "results.json").read_text(encoding="utf-8"))["results"]
    return {record["label"]: record for record in found}


def test_a_result_is_cited_from_its_chapter_by_keyboard_alone(visit, bases, every):
    page = visit(f"{bases['file']}chapters/k3-control-variates.html#thm-optimal-lambda").page
    page.keyboard.press("Tab")  # from where the address leads: the mark of the statement
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "cite"
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    dialog.wait_for(state="visible")
    shown = {
        name: dialog.locator(f".{name}").inner_text() for name in ("sentence", "bibtex", "latex")
    }
    cite = every["thm-optimal-lambda"]["cite"]
    assert shown == {name: cite[name] for name in shown}
    selected = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        selected.add(page.evaluate("String(getSelection())"))
    assert cite["bibtex"] in selected, "who tabs to a text has it selected"
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.textContent") == "cite"


def test_without_a_script_cite_leads_to_the_page_of_the_result(browser, bases):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{bases['file']}chapters/k1.html")
    page.locator("#thm-k1-unbiased .cite").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/s/thm-k1-unbiased.html#cite")
    assert "@misc{klapprox-thm-k1-unbiased" in page.locator("#cite").inner_text()
    context.close()


def test_a_link_between_results_shows_what_it_leads_to(visit, bases, every):
    page = visit(f"{bases['file']}s/thm-optimal-lambda.html").page
    page.locator("#uses a").first.focus()
    card = page.locator(".preview")
    card.wait_for(state="visible")
    assert card.inner_text().startswith(every[every["thm-optimal-lambda"]["uses"][0]]["name"])


def test_all_results_can_be_chosen_from(visit, bases, every):
    page = visit(f"{bases['file']}back-matter/results.html").page

    def shown():
        return page.eval_on_selector_all(
            ".results > li:not([hidden]) .about > a:first-child",
            "all => all.map(e => e.textContent)",
        )

    def labels(**wanted):
        return [k for k, r in every.items() if all(r[name] == v for name, v in wanted.items())]

    assert shown() == list(every)
    page.select_option("[name=kind]", "lemma")
    assert shown() == labels(kind="lemma")
    page.select_option("[name=chapter]", "chapters/definition")
    assert set(shown()) == {k for k in labels(kind="lemma") if every[k]["number"].startswith("1.")}
    assert page.locator("#all-results > section:visible").count() == 1
    page.select_option("[name=kind]", "")
    page.select_option("[name=chapter]", "")
    page.select_option("[name=status]", "exact counterexample")
    assert shown() == [k for k, r in every.items() if "exact counterexample" in r["status"]]
    page.select_option("[name=status]", "")
    page.fill("[name=words]", "Bretagnolle Huber")
    assert shown()[0] == "thm-bretagnolle-huber"
    assert page.locator("output[name=count]").inner_text() == f"{len(shown())} of {len(every)}"


def test_all_results_are_a_list_without_scripts(browser, bases, every):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{bases['file']}back-matter/results.html")
    assert page.locator(".results > li").count() == len(every)
    assert not page.locator(".filters").is_visible()
    context.close()


def test_the_graph_says_what_rests_on_what(visit, bases, every):
    page = visit(f"{bases['file']}back-matter/graph.html").page
    assert page.locator(".graph a[id]").count() == len(every)
    for label in ("thm-gibbs", "thm-missing-term"):
        page.locator(f"#graph-{label}").focus()
        lit = page.eval_on_selector_all(
            ".graph path.lit", "all => all.map(e => [e.dataset.from, e.dataset.to])"
        )
        record = every[label]
        assert {used for used, user in lit if user == label} == set(record["uses"])
        assert {user for used, user in lit if used == label} == set(record["used_by"])
        words = page.locator(".graph-words").inner_text()
        assert words.startswith(record["name"])
        assert all(every[used]["number"] in words for used in record["uses"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/s/thm-missing-term.html")


def test_on_a_phone_the_graph_is_lists(visit, bases, every):
    page = visit(f"{bases['file']}back-matter/graph.html", 390).page
    assert not page.locator(".graph").is_visible()
    lists = page.locator(".graph-lists li")
    assert lists.count() == len(every)
    assert not lists.first.is_visible()
    page.locator(".graph-lists summary").first.click()
    assert lists.first.is_visible()
    record = every["thm-gibbs"]
    links = page.locator(f".graph-lists li:has(> a:first-child[href$='/{record['page']}'])")
    found = links.locator("a").evaluate_all("all => all.map(e => e.getAttribute('href'))")
    labels = ["thm-gibbs", *record["uses"], *record["used_by"]]
    assert found == [f"../{every[label]['page']}" for label in labels]


def test_a_proof_leads_back_to_what_it_proves(visit, bases, every):
    theorem = every["thm-gibbs"]["formal"]["theorems"][0]
    place = f"proofs/{theorem['file'].removesuffix('.v')}.html#line-{theorem['line']}"
    page = visit(bases["file"] + place, 390).page
    page.click(f".of:has(+ #line-{theorem['line']}) a")
    page.wait_for_url("**/s/thm-gibbs.html")


def test_the_reference_shows_no_raw_values(site):
    text = (site / "back-matter/reference.html").read_text(encoding="utf-8")
    assert "klapprox.estimators.ESTIMATORS" in text
    assert "Alias for field number" not in text
    assert "&lt;function" not in text


def test_pages_and_data_of_results_belong_together(site, every):
    assert {path.stem for path in (site / "s").glob("*.html")} == set(every)
    assert {path.stem for path in (site / "s").glob("*.json")} == set(every)
    for label, record in every.items():
        own = json.loads((site / f"s/{label}.json").read_text(encoding="utf-8"))
        assert own | record == own, label
        assert (site / record["page"]).is_file()
        page, _, anchor = record["place"].partition("#")
        assert anchor in anchors(site / page).ids
        assert label in anchors(site / record["page"]).article_ids
    with open(site / "objects.inv", "rb") as file:
        known = InventoryFile.load(file, "", lambda base, place: place)["std:label"]
    assert all(known[label][2] == f"s/{label}.html#{label}" for label in every)


# --- The checks find a planted fault -------------------------------------------------------------

SOUND = """<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>Sound</title><meta name="description" content="A page without a fault.">
<style>body {background: white} article {width: 300px}
@media print {pre {width: auto !important}}</style><link rel="icon" href="data:,"></head>
<body><a href="#end">Skip</a><article><h1>One</h1><h2>Two</h2>
<p>Text, <code>\\mathrm</code>.</p>
<div style="overflow-x: auto"><pre style="width: 600px">-</pre></div>
<img alt="A dot" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==">
<p id="end">End.</p></article></body></html>"""

# What is replaced in the sound page, by what, and the check that must notice.
PLANTED = [
    ("End.", '<script src="https://example.invalid/x.js"></script>', "requests"),
    ("End.", '<script src="https://example.invalid/x.js"></script>', "problems"),
    ("End.", '<script>console.error("no")</script>', "problems"),
    ("End.", '<script>throw Error("no")</script>', "problems"),
    ("End.", '<img alt="x" src="missing.png">', "problems"),
    ("End.", "<math><merror>no</merror></math>", "formulas"),
    ("End.", "$$x$$", "formulas"),
    ("End.", r"\(x\)", "formulas"),
    ("End.", r"\mathrm x", "formulas"),
    ("End.", '<div style="width: 2000px">-</div>', "page_width"),
    ("background: white", "background: black", "scheme"),
    ('alt="A dot"', "", "images"),
    ('alt="A dot"', 'alt=" "', "images"),
    ("data:image/gif", "missing.png?", "images"),
    ('alt="A dot"', 'alt="A dot" style="width: 400px"', "images"),
    ("overflow-x: auto", "", "column"),
    ("overflow-x: auto", "overflow-x: hidden", "column"),
    ("overflow-x: auto", "overflow-x: auto; width: 400px", "column"),
    ("End.", '<table style="width: 400px"><td>-</table>', "column"),
    ("@media print", "@media speech", "paper"),
    ("End.", '<div class="formula" style="width: 9px"><math><mi>wide</mi></math></div>', "widths"),
    ("End.", '<span class="math"><math><mspace width="900px"/></math></span>', "widths"),
    ("End.", '<span class="math"><math><mi>x</mi></math></span>.', "widths"),
    (
        "End.",
        '<div class="formula"><span class="lines"><span><math><mi>x</mi></math></span><span>'
        '<span class="turn at16"><br></span><math><mi>y</mi></math></span></span></div>',
        "lines",
    ),
    ("End.", '<pre class="coq" style="width: 9px">wide</pre>', "printed"),
    ("<h2>Two</h2>", "<h1>Two</h1>", "outline"),
    ("<h1>One</h1>", "", "outline"),
    ("<h2>Two</h2>", "<h3>Two</h3>", "outline"),
    ('lang="en"', "", "outline"),
    ("<title>Sound</title>", "", "outline"),
    ("A page without a fault.", "", "outline"),
    ('<a href="#end">', "<a>", "keyboard"),
    ("</style>", "a:focus {outline: none}</style>", "keyboard"),
    ("</style>", "a {position: absolute; top: -99px}</style>", "keyboard"),
    ("#end", "#no", "links"),
    ("#end", "no.html", "links"),
    ("#end", "../outside.html", "links"),
    ("<h2>", '<h2 id="end">', "ids"),
]


def run_check(name, visit, folder):
    """Run one check on folder/page.html."""
    path, base = folder / "page.html", f"{folder.as_uri()}/"
    if name == "links":
        return check_links(path, folder)
    if name == "ids":
        return check_ids(path)
    opened = visit(base + path.name)
    if name == "requests":
        return check_requests(opened, base)
    if name == "problems":
        return check_problems(opened)
    arguments = ["light"] if name == "scheme" else []
    return globals()[f"check_{name}"](opened.page, *arguments)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, next to which there is a page outside it."""
    (tmp_path / "outside.html").write_text(SOUND)
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


@pytest.mark.parametrize("name", sorted({name for _, _, name in PLANTED}))
def test_sound_page_passes(visit, folder, name):
    (folder / "page.html").write_text(SOUND)
    run_check(name, visit, folder)


@pytest.mark.parametrize(("sound", "fault", "name"), PLANTED)
def test_planted_fault_is_found(visit, folder, sound, fault, name):
    assert sound in SOUND
    (folder / "page.html").write_text(SOUND.replace(sound, fault))
    with pytest.raises(AssertionError):
        run_check(name, visit, folder)


def test_search_without_results_is_found(visit, bases):
    opened = visit(f"{bases['http']}index.html")
    with pytest.raises(AssertionError):
        check_search(opened.page, "zzxqy")
