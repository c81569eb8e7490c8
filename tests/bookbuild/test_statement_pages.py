"""The page of a result: what is taken from its chapter, what is said beside it, and the graph."""

import re

import pytest
from lxml import etree

from bookbuild import citation, graph, pages, rules, statement_pages
from bookbuild.results import Result

PAGE = """<section id="c"><h1>C</h1>
<div class="proof lemma admonition" id="lem-b"><p class="admonition-title">
<span class="caption-number">Lemma 1.1 </span> (B)</p><p>First.</p></div>
<div class="proof theorem admonition" id="thm-a"><p class="admonition-title">
<span class="caption-number">Theorem 1.2 </span> (The <em>A</em>
<span class="math"><span class="nobreak"><math><mi>q</mi></math>)</span></span>
<a class="headerlink" href="#thm-a">¶</a></p>
<p id="inner">See <a class="reference internal" href="#lem-b">Lemma 1.1</a>,
<a href="two.html#x">there</a>, <a href="https://x.example/y">far</a>,
<img src="../_images/a.svg"></p></div>
<div class="proof admonition bare"><p><em>Proof.</em> By <a href="#lem-b">Lemma 1.1</a>.</p></div>
<details class="check" data-labels="thm-a"><summary>checked</summary></details>
<div class="exercise admonition" id="ex-e"><p class="admonition-title">
<span class="caption-number">Exercise 1.1 </span> (Why)</p></div>
<dl><dt class="sig" id="klapprox.k1">k1</dt></dl></section>"""


def result(label, kind, number, uses=()):
    return Result(label, kind, number, "c/one", label.upper(), "Text.", "Proof.", tuple(uses), ())


KNOWN = {
    "lem-b": result("lem-b", "lemma", "1.1"),
    "thm-a": result("thm-a", "theorem", "1.2", ["lem-b"]),
}


def record(known, **more):
    place = f"{known.page}.html#{known.label}"
    return {
        "label": known.label,
        "kind": known.kind,
        "number": known.number,
        "name": known.name,
        "title": known.title,
        "version": "1.0",
        "page": f"s/{known.label}.html",
        "place": place,
        "proof": known.proof,
        "checks": [],
        "status": [statement_pages.UNCHECKED],
        "formal": None,
        "twins": [],
        "uses": list(known.uses),
        "used_by": [],
        "names": [],
        "named_by": [],
        "exercises": [],
        "functions": [],
        "history": {"since": "0.1.0", "changes": []},
        "cite": {"address": "", "sentence": "S <1>", "bibtex": "@misc{}", "latex": "\\cite{}"},
    } | more


FORMAL = {
    "words": "formally proved in part",
    "theorems": [
        {"name": "thm_a", "file": "A.v", "line": 7},
        {"name": "thm_a_more", "file": "B.v", "line": 9},
    ],
    "covers": "the sum",
    "narrower": "finite",
    "missing": "x < y",
}


@pytest.fixture
def collected():
    tree, fragments = pages.parse(PAGE), statement_pages.Fragments()
    statement_pages.collect(tree, "c/one", KNOWN, fragments)
    return tree, fragments


def test_what_is_taken_from_a_chapter_leads_to_the_same_places(collected):
    tree, fragments = collected
    found = fragments.results["thm-a"]
    text = found.statement + found.proof
    assert re.findall(r'(?:href|src)="([^"]*)"', text) == [
        "../c/one.html#lem-b",
        "../c/two.html#x",
        "https://x.example/y",
        "../_images/a.svg",
        "../c/one.html#lem-b",
    ]
    assert "id=" not in text
    assert "¶" not in text
    assert pages.plain(pages.parse(found.title)) == "The A q", "without its brackets"
    assert fragments.results["lem-b"].proof == "", "a proof belongs to what stands before it"
    assert "checked" in found.checks
    assert fragments.exercises["ex-e"].endswith("Exercise 1.1</a> Why")
    assert fragments.functions == {"klapprox.k1": "../c/one.html#klapprox.k1"}
    assert not tree.xpath("//*[@data-labels]")


def test_the_chapter_gets_a_link_to_cite(collected):
    tree, _ = collected
    found = [(a.get("href"), a.get("aria-label")) for a in tree.xpath("//a[text()='cite']")]
    assert found == [
        ("../s/lem-b.html#cite", "Cite Lemma 1.1"),
        ("../s/thm-a.html#cite", "Cite Theorem 1.2"),
    ]
    assert "cite" not in pages.plain(tree.xpath("//*[@id='thm-a']")[0])


def test_a_formal_proof_is_noted_below_the_check():
    tree = pages.parse(PAGE)
    statement_pages.note_formal(tree, {"thm-a": FORMAL, "lem-b": None})
    (note,) = tree.xpath("//p[@class='formal']")
    assert note.getprevious().get("data-labels") == "thm-a"
    assert pages.plain(note) == "formally proved in part: the sum · thm_a · status"
    assert note.xpath(".//a/@href") == ["../proofs/A.html#line-7", "../s/thm-a.html#status"]


def test_another_number_on_the_page_is_a_fault():
    with pytest.raises(ValueError, match=r"thm-a is Theorem 1\.2 on its page and Theorem 1\.3"):
        statement_pages.collect(
            pages.parse(PAGE),
            "c/one",
            KNOWN | {"thm-a": result("thm-a", "theorem", "1.3")},
            statement_pages.Fragments(),
        )


def body_of(fragments, **more):
    every = {
        "lem-b": record(KNOWN["lem-b"], used_by=["thm-a"]),
        "thm-a": record(KNOWN["thm-a"], **more),
    }
    return {name: statement_pages.body(every[name], every, fragments) for name in every}


def test_a_page_says_what_there_is(collected):
    _, fragments = collected
    report = {"label": "thm-a", "scope": "n < 5", "claims": []}
    text = body_of(
        fragments,
        checks=[report],
        status=[statement_pages.FORMAL, "exact"],
        formal=FORMAL,
        twins=[{"library": "L", "name": "twin_name", "file": "f.lean", "says": "all of it"}],
        exercises=["ex-e"],
        functions=["klapprox.k1", "klapprox.unknown"],
        history={
            "since": "0.1.0",
            "changes": [
                {"version": "0.2.0", "what": "statement", "words": "It says more."},
                {"version": "next", "what": "number", "words": "1.1 before"},
            ],
        },
    )
    page = pages.parse(text["thm-a"])
    sections = {part.get("id"): pages.plain(part) for part in page.xpath("./section")}
    assert [pages.plain(h1) for h1 in page.xpath("./h1")] == ["Theorem 1.2: The A q"]
    assert page.xpath("./div[@id='thm-a']"), "the label is the anchor"
    assert not page.xpath("./div[@id='thm-a']/p[@class='admonition-title']")
    assert page.xpath("./details[@class='check' and @open]")
    assert sections["uses"] == "What it rests onIts proof usesLemma 1.1 B"
    assert "S <1>" in sections["cite"]
    assert "@misc{}" in sections["cite"]
    assert "Checked: formally proved, exact. The check covers: n < 5." in sections["status"]
    assert (
        "Formally proved in part: the sum. Narrower than here: finite. Not proved: x < y. "
        "In Coq: thm_a, thm_a_more."
    ) in sections["status"]
    assert page.xpath("//section[@id='status']//a/@href") == [
        "../proofs/A.html#line-7",
        "../proofs/B.html#line-9",
    ]
    assert "twin_name of L (f.lean): all of it" in sections["status"]
    assert sections["exercises"] == "Exercises on itExercise 1.1 Why"
    assert page.xpath("//section[@id='functions']//a/@href") == ["../c/one.html#klapprox.k1"]
    assert sections["history"] == (
        "HistorySince version 0.1.0.version 0.2.0: statement, It says more."
        "not yet released: number, 1.1 before"
    )
    (link,) = page.xpath("//section[@id='uses']//a")
    assert (link.get("href"), link.get("data-preview")) == ("../s/lem-b.html", "c/one#lem-b")
    other = pages.parse(text["lem-b"])
    assert pages.plain(other.xpath("./section[@id='used-by']")[0]).endswith("Theorem 1.2 The A q")


def test_a_page_says_what_there_is_not(collected):
    _, fragments = collected
    text = body_of(fragments, proof="", uses=[], history={"since": "", "changes": []})["thm-a"]
    assert "Nothing else in the book." in text
    assert "No other proof of the book." in text
    assert "Not checked by machine" in text
    assert "New in what follows version 1.0." in text
    assert 'id="exercises"' not in text
    assert 'id="functions"' not in text


def test_the_list_shows_statements_and_what_the_filter_asks_for(collected):
    _, fragments = collected
    every = {"thm-a": record(KNOWN["thm-a"], status=["exact", "50-digit bound"])}
    (item,) = pages.parse(statement_pages.listed("c/one", every, fragments)).xpath(".//li")
    assert dict(item.attrib) == {"data-kind": "theorem", "data-status": "exact, 50-digit bound"}
    assert item.xpath(".//math")
    assert item.xpath("./p//a/@href") == ["../s/thm-a.html"]
    assert not pages.parse(statement_pages.listed("c/two", every, fragments)).xpath(".//li")
    form = pages.parse(statement_pages.filters(every, {"c/one": "One & all"}))
    assert form.xpath(".//form/@hidden"), "without a script there is no filter"
    options = form.xpath(".//option/text()")
    assert {"One & all", "theorem", "exact", "50-digit bound"} <= set(options)


def test_programs_read_the_same():
    every = {label: record(known, checks=["report"]) for label, known in KNOWN.items()}
    book = citation.Book("B", ("A",), "1.0", "2026")
    found = dict(statement_pages.entries(every, book))
    assert list(found) == ["s/lem-b.json", "s/thm-a.json", "results.json"]
    assert found["s/thm-a.json"] == every["thm-a"]
    assert found["results.json"]["book"]["version"] == "1.0"
    short = found["results.json"]["results"]
    assert [one["label"] for one in short] == list(every)
    assert "proof" not in short[0], "what is long stands in the file of the result"


def test_what_the_sources_say_of_a_result_of_the_book():
    every = statement_pages.records(rules.ROOT, "https://x.example/")
    gibbs = every["thm-gibbs"]
    assert "lem-log-ratio-tail" in gibbs["uses"]
    assert "thm-gibbs" in every["lem-log-ratio-tail"]["used_by"]
    assert gibbs["exercises"] == ["ex-definition-conditioning"]
    assert {twin["library"] for twin in gibbs["twins"]} == {"Mathlib", "infotheo"}
    assert gibbs["cite"]["address"] == "https://x.example/s/thm-gibbs.html"
    assert "url          = {https://x.example/s/thm-gibbs.html}" in gibbs["cite"]["bibtex"]
    assert gibbs["history"]["since"] == "0.1.0"
    assert "klapprox.estimators.k3" in every["def-k3"]["functions"]
    twins = statement_pages.tomllib.loads(statement_pages._TWINS.read_text(encoding="utf-8"))
    assert set(twins) <= set(every)


def test_the_graph_has_a_box_for_each_result_and_a_line_for_each_use():
    every = {label: record(known) for label, known in KNOWN.items()}
    every["thm-c"] = record(
        Result("thm-c", "theorem", "2.1", "c/two", "C & D", "", "P", ("thm-a",), ()),
        status=[statement_pages.FORMAL],
    )
    picture = etree.fromstring(graph.svg(every, {"c/one": "One", "c/none": "-", "c/two": "Two"}))
    boxes = picture.xpath("//a[@id]")
    assert [box.get("id") for box in boxes] == ["graph-lem-b", "graph-thm-a", "graph-thm-c"]
    assert [box.find("text").text for box in boxes] == ["1.1", "1.2", "2.1"]
    assert boxes[2].get("aria-label") == "Theorem 2.1: C & D"
    assert boxes[2].get("class") == "reference internal theorem formal"
    lines = [(line.get("data-from"), line.get("data-to")) for line in picture.xpath("//path")]
    assert lines == [("lem-b", "thm-a"), ("thm-a", "thm-c")]
    places = {(r.get("x"), r.get("y")) for r in picture.xpath("//rect")}
    assert len(places) == 3
    _, _, width, height = (float(number) for number in picture.get("viewBox").split())
    assert all(float(x) + graph.WIDTH <= width for x, _ in places)
    assert all(float(y) + graph.HEIGHT <= height for _, y in places)
    assert len(picture.xpath("//text[@class='head']")) == 2, "a chapter without results has none"
    users = {label: [one for one in every if label in every[one]["uses"]] for label in every}
    both = {label: known | {"used_by": users[label]} for label, known in every.items()}
    lists = etree.fromstring(graph.lists(both, {"c/one": "One", "c/none": "-", "c/two": "Two"}))
    assert [pages.plain(one) for one in lists.iter("summary")] == ["1. One (2)", "2. Two (1)"]
    assert pages.plain(lists.findall(".//li")[1]).endswith("uses Lemma 1.1; used by Theorem 2.1")
    assert pages.plain(lists.findall(".//li")[2]) == "Theorem 2.1, C & D: uses Theorem 1.2"
    words = graph.words({k: v | {"used_by": []} for k, v in every.items()})
    assert "3 results, 3 proofs, 2 times" in words
