"""Living figures on a page: the still picture, controls, and what is loaded later."""

import json
import re
from pathlib import Path

import altair as alt
import nbformat
import pytest

from bookbuild import figures as page
from bookbuild import live_figures, pages
from klapprox.book import figures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def live():
    t = figures.slider("t", "time t", 0, 2, step=0.5, value=1)
    kind = figures.choice("kind", "kind:", ["a", "b"], value="b", labels=["first", "second"])
    many = figures.choice("n", "N:", [1, 10], value=10)
    chart = alt.layer(
        alt.Chart(alt.sequence(0, 3, 1, as_="x"))
        .transform_calculate(y="datum.x * t")
        .mark_line(color=figures.COLOURS["k3"])
        .encode(x="x:Q", y="y:Q"),
        *figures.lines("'t is ' + format(t, '.2f')"),
    )
    return figures.live(chart.add_params(t, kind, many), height=100)


def cell(live, name="fig-living-x", tags=("living",)):
    made = nbformat.v4.new_code_cell("figures.live(chart)")
    made.metadata = {"tags": list(tags), "mystnb": {"figure": {"name": name} if name else {}}}
    made.outputs = [nbformat.v4.new_output("execute_result", live._repr_mimebundle_())]
    return made


@pytest.fixture
def notebook(tmp_path):
    def write(*cells):
        path = tmp_path / "a.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
        return path

    return write


HTML = """<div class="cell tag_living"><details class="above-input"><summary>x</summary></details>
<figure class="align-default" id="fig-living-x"><img alt="A line." src="../_images/a.svg"
height="140" width="440"><figcaption><p><span class="caption-number">Fig. 1 </span><span
class="caption-text">Words.</span><a class="headerlink" href="#fig-living-x">¶</a></p></figcaption>
</figure></div>"""


def test_a_specification_is_found_by_the_name_of_its_figure(live, notebook):
    found = live_figures.specifications(notebook(cell(live), cell(live, "other", tags=())))
    assert found == {"fig-living-x": live.spec}
    assert live_figures.specifications(Path("index.md")) == {}


@pytest.mark.parametrize("fault", ["name", "output"])
def test_a_cell_that_is_tagged_must_have_a_name_and_a_figure(live, notebook, fault):
    bad = cell(live, name="" if fault == "name" else "fig-living-x")
    if fault == "output":
        bad.outputs = []
    with pytest.raises(ValueError, match="needs a figure with a name"):
        live_figures.specifications(notebook(bad))


def test_the_page_gets_native_controls_with_labels_and_values(live):
    tree = pages.parse(HTML)
    live_figures.attach(tree, {"fig-living-x": live.spec})
    (figure,) = tree.xpath("//figure[@data-living='fig-living-x']")
    assert figure.get("id") == "fig-living-x"
    assert [child.tag for child in figure] == ["div", "form", "p", "figcaption"]
    form = figure.find("form")
    assert form.get("hidden") is not None, "without a script nothing is shown that does nothing"
    (slider,) = form.xpath("./label/input[@type='range']")
    assert {k: slider.get(k) for k in ("name", "min", "max", "step", "value")} == {
        "name": "t",
        "min": "0",
        "max": "2",
        "step": "0.5",
        "value": "1",
    }
    assert pages.plain(slider.getparent()) == "time t1"
    assert form.xpath("./label/output/text()") == ["1"]
    assert form.xpath("./fieldset/legend/text()") == ["kind:", "N:"]
    assert form.xpath(".//input[@checked]/@value") == ['"b"', "10"]
    assert form.xpath("./fieldset[1]/label/text()") == ["first", "second"]
    assert figure.xpath(".//p/@role") == ["status"]


def test_figures_and_specifications_must_agree():
    with pytest.raises(ValueError, match="1 living figures on the page, 0 in the source"):
        live_figures.attach(pages.parse(HTML), {})


def test_the_front_page_gets_the_figure_without_its_number(live):
    tree = pages.parse(HTML)
    live_figures.attach(tree, {"fig-living-x": live.spec})
    before = pages.render(tree)
    (shown,) = live_figures.copied(tree).values()
    assert 'src="_images/a.svg"' in shown
    assert "Words." in shown
    assert "Fig. 1" not in shown
    assert "¶" not in shown
    assert pages.render(tree) == before


def test_the_script_has_colours_of_the_page_and_no_controls_of_its_own(live):
    text = live_figures.script("fig-living-x", live.spec)
    spec = json.loads(re.fullmatch(r'addLiving\("fig-living-x",(.*)\);\n', text, re.DOTALL)[1])
    assert {one["name"] for one in spec["signals"]} >= {"t", "kind", "n"}
    assert not [one for one in spec["signals"] if "bind" in one]
    assert "var(--k3)" in text
    assert not [colour for colour in page.NAMES if colour in text.lower()]
    assert "$schema" not in spec
    assert "containerSize()[0]" in text, "as wide as the page lets it"


def test_vega_is_made_once_and_keeps_its_names_to_itself(tmp_path, monkeypatch):
    made = []

    def bundle(snippet, vl_version):
        made.append((snippet, vl_version))
        return "const E = 1; window.drawLiving = E;"

    monkeypatch.setattr(live_figures.vl_convert, "javascript_bundle", bundle)
    for folder in ("one", "two"):
        live_figures.write_renderer(tmp_path / folder, tmp_path / "kept")
    assert made == [("window.drawLiving = vegaEmbed;", figures.VEGA_LITE)]
    text = (tmp_path / "two" / "vega.js").read_text(encoding="utf-8")
    assert text.startswith("(function () {")
    assert text == (tmp_path / "one" / "vega.js").read_text(encoding="utf-8")


def test_vega_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(live_figures.vl_convert, "javascript_bundle", lambda *_, **__: "made()")
    write_text = Path.write_text

    def killed(path, text, **options):
        write_text(path, text[: len(text) // 2], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        live_figures.write_renderer(tmp_path / "one", tmp_path / "kept")
    monkeypatch.setattr(Path, "write_text", write_text)
    live_figures.write_renderer(tmp_path / "two", tmp_path / "kept")
    text = (tmp_path / "two" / "vega.js").read_text(encoding="utf-8")
    assert text.endswith("made()\n})();\n")


def test_the_style_sheet_has_the_colours_of_figures():
    sheet = (ROOT / "bookbuild/theme/static/book.css").read_text(encoding="utf-8")
    (block,) = re.findall(r"^\.living \{(.*?)\}", sheet, re.MULTILINE | re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (light-dark\(.*?\));", block))
    assert found == {name: f"light-dark({on}, {dark})" for on, (name, dark) in page.NAMES.items()}


def test_the_size_of_a_still_picture_is_in_pixels(live):
    width, height = page.size(live.svg)
    assert width == 440
    assert height > 100


def test_a_still_picture_stands_on_the_page_itself(live):
    themed = page.themed(live.svg)
    assert "var(--paper)" not in themed
    assert "var(--k3)" in themed
