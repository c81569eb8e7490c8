"""What is done to a page when its text is written, and what is read from it."""

import os
import re
import tarfile

import pytest

from bookbuild import archive, figures, pages

REPORT = {
    "label": "thm-a",
    "scope": "every pair on three points",
    "claims": [
        {"words": "E r = 1", "cases": 3, "kinds": ["exact"], "methods": ["exactly equal"]},
        {"words": "K ≥ 0", "cases": 1, "kinds": ["50-digit bound"], "methods": ["certified"]},
    ],
}
CHECK = """<div class="cell tag_check tag_hide-input docutils container">
<details class="admonition hide above-input"><summary>Show</summary>
<div class="cell_input docutils container"><pre>verify.check()</pre></div></details>
<div class="cell_output"><div class="output text_plain"><pre>✓ thm-a
  E r = 1</pre></div><div class="output stream"><pre>more</pre></div></div></div>"""


def finish(body, reports=(), size=lambda address: None):
    tree = pages.parse(body)
    pages.finish(tree, list(reports), size)
    return tree, pages.render(tree)


def test_a_check_is_one_line_that_opens_to_its_report_and_its_code():
    tree, text = finish(CHECK + "<p>After.</p>", [[REPORT]])
    (details,) = tree.xpath("//details")
    summary = "checked: exact, 50-digit bound; every pair on three points"
    assert pages.plain(details[0]) == summary
    assert [pages.plain(li) for li in details.xpath(".//li")] == [
        "E r = 1 · 3 cases, exactly equal",
        "K ≥ 0 · certified",
    ]
    assert "verify.check()" in text
    assert "✓ thm-a" not in text, "the report is not said twice"
    assert "more" in text, "what else a cell prints stays"
    assert details.get("open") is None
    assert text.endswith("<p>After.</p>")


def test_checks_and_reports_must_agree():
    with pytest.raises(ValueError, match="1 cells are checks on the page, 0"):
        finish(CHECK)


def test_a_solution_folds_with_the_cells_that_follow_it():
    body = (
        '<div class="solution dropdown admonition" id="s"><p class="admonition-title">Solution to'
        '<a href="#ex"> Exercise 1</a></p><section><p>Yes.</p></section></div>'
        '<div class="cell"><pre>answer</pre></div><p>Next.</p><div class="cell">later</div>'
    )
    tree, _ = finish(body)
    (details,) = tree.xpath("//details[@class='solution']")
    assert pages.plain(details) == "Solution to Exercise 1Yes.answer"
    assert not details.xpath("./summary/a"), "a title that opens is no link"


def test_a_proof_has_no_box_and_a_statement_has():
    tree, _ = finish(
        '<div class="proof theorem admonition"><p><span class="caption-number">Theorem 1</span></p>'
        '</div><div class="proof admonition"><p>Proof.</p></div>'
    )
    assert [div.get("class") for div in tree] == [
        "proof theorem admonition",
        "proof admonition bare",
    ]


def test_a_statement_has_a_link_to_itself():
    tree, _ = finish(
        '<div class="proof theorem admonition" id="thm-a"><p class="admonition-title">'
        '<span class="caption-number">Theorem 5.1 </span> (Name)</p></div>'
    )
    (link,) = tree.xpath("//a")
    assert (link.get("href"), link.get("aria-label")) == ("#thm-a", "Link to Theorem 5.1")
    assert pages.plain(tree) == "Theorem 5.1 (Name)", "the mark is no text"


def test_wide_tables_carry_their_headings_on_a_phone():
    head = "<tr><th></th><th>k<sub>1</sub></th><th>k<sub>2</sub></th></tr>"
    row = "<tr><td>mean</td><td>KL</td><td></td></tr>"
    body = f"<table><thead>{head}</thead><tbody>{row}</tbody></table>"
    tree, text = finish(body)
    assert tree.xpath("./div[@class='wide stacked']/table")
    assert '<td><span class="column">' in text
    assert text.count('class="column"') == 1, "an empty cell needs no heading"
    assert "stacked" not in finish(body.replace("<th>k<sub>2</sub></th>", ""))[1]


def test_images_keep_their_place():
    _, text = finish('<img src="a.svg">', size=lambda address: (96, 48))
    assert all(part in text for part in ('width="96"', 'height="48"', 'loading="lazy"'))


@pytest.mark.parametrize("tail", [".", ",", "), and", "-th, is", ".”"])
def test_no_punctuation_begins_a_line(tail):
    tree, text = finish(f'<p>(<span class="math"><math><mi>i</mi></math></span>{tail} Then.</p>')
    assert not re.match(r"[.,;:)\-]", tree.xpath("//span[@class='math']")[0].tail)
    assert f'<span class="nobreak"><math><mi>i</mi></math>{tail.split(" ")[0]}'[:60] in text


PAGE = """<section id="a">
<h1><span class="section-number">5. </span>Title<a class="headerlink">¶</a></h1>
<p>The first paragraph says what the chapter is about, at some length, for who searches it.</p>
<section id="b"><h2>Part<a class="headerlink">¶</a></h2><p>Text of it.</p>
<div class="proof theorem admonition" id="thm-a"><p class="admonition-title">
<span class="caption-number">Theorem 5.1 </span> (A name)</p><section id="x"><p>Let
<span class="math"><math><mi>q</mi></math></span>.</p></section></div>
<div class="math" id="eq"><div class="formula"><math><mi>x</mi></math></div></div>
</section></section>
<dl><dt class="sig" id="klapprox.k1">k1</dt><dd><p>Return k1.</p></dd></dl>"""


def test_what_is_read_from_a_page():
    tree = pages.parse(PAGE)
    assert pages.description(tree).startswith("The first paragraph")
    assert pages.description(tree, limit=20) == "The first paragraph …"
    assert pages.minutes(tree) == 1
    shown = pages.previews(tree)
    assert set(shown) == {"a", "b", "thm-a", "eq", "klapprox.k1"}
    assert "id=" not in shown["thm-a"], "an id occurs once in a page"
    assert "¶" not in shown["b"]
    found = {entry["p"]: entry for entry in pages.entries(tree, "c/k", "Chapter")}
    assert found["c/k.html"]["t"] == "Title"
    assert found["c/k.html#thm-a"] | {"x": ""} == {
        "g": "statement",
        "k": "Theorem",
        "n": "5.1",
        "t": "A name",
        "x": "",
        "p": "c/k.html#thm-a",
        "c": "Chapter",
        "l": "thm-a",
    }
    assert found["c/k.html#thm-a"]["x"] == "Let q."
    assert found["c/k.html#klapprox.k1"]["w"] == "k1"


def test_the_list_of_sections_leaves_the_page_itself_out():
    toc = '<ul><li><a href="#">T</a><ul><li><a href="#b">Part</a></li></ul></li></ul>'
    assert pages.sections(toc) == '<ul><li><a href="#b">Part</a></li></ul>'
    assert pages.sections("<ul><li><a>T</a></li></ul>") == ""


SVG = (
    '<svg width="72pt" height="36pt" xmlns="http://www.w3.org/2000/svg">'
    '<path style="fill: #ffffff"/><path style="stroke: #0072B2; fill: #ffffff"/></svg>'
)


def test_a_figure_follows_the_colours_of_its_page():
    themed = figures.themed(SVG)
    assert "stroke: var(--k1)" in themed
    assert themed.count("fill: none") == 1, "the sheet is the page; what is white on it stays"
    assert "prefers-color-scheme:dark" in themed
    assert figures.size(SVG) == (96, 48)
    assert figures.size("<svg>") is None
    with pytest.raises(ValueError, match="no SVG"):
        figures.themed("<p>")


def test_the_archive_holds_the_sources_and_is_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    root = tmp_path / "book"
    for name in ("src/a.py", "_build/html/index.html", ".venv/x", ".ci/run", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    target = tmp_path / "b-1.tar.gz"
    archive.write(root, target)
    with tarfile.open(target) as opened:
        assert opened.getnames() == ["b-1/.ci/run", "b-1/README.md", "b-1/src/a.py"]
    first = target.read_bytes()
    os.utime(root / "README.md", (1, 1))
    archive.write(root, target)
    assert target.read_bytes() == first
