"""Figures come out the same on every run, and do not pile up."""

import json
import re

import altair as alt
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from bookbuild import figures as page
from klapprox.book import figures


@pytest.fixture(autouse=True)
def settings_are_restored():
    mpl.use("agg")
    with mpl.rc_context():
        yield
    plt.close("all")


def drawing():
    figure, axes = figures.new()
    for name, style in figures.STYLES.items():
        axes.plot([0, 1], [0, len(name)], label=name, **style)
    axes.set_title("$k_3$")
    axes.legend()
    return figure


def test_identical_figures_have_identical_svg():
    assert figures.show(drawing()).data == figures.show(drawing()).data


def test_the_look_does_not_depend_on_the_readers_settings():
    usual = figures.show(drawing()).data
    mpl.rcParams.update({"font.size": 30, "axes.facecolor": "black", "svg.hashsalt": None})
    assert figures.show(drawing()).data == usual


def test_the_svg_holds_neither_date_nor_version():
    svg = figures.show(drawing()).data
    assert svg.startswith("<svg")
    assert "<dc:date>" not in svg
    assert "Matplotlib v" not in svg
    assert not re.search(r"\d{4}-\d{2}-\d{2}T", svg)


def test_letters_are_paths():
    assert "<text" not in figures.show(drawing()).data


def test_show_closes_the_figure():
    figure = drawing()
    assert plt.fignum_exists(figure.number)
    figures.show(figure)
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize(
    ("columns", "rows", "shape"), [(1, 1, ()), (2, 1, (2,)), (1, 3, (3,)), (3, 2, (2, 3))]
)
def test_new_returns_so_many_axes_in_a_figure_of_the_text_width(columns, rows, shape):
    figure, axes = figures.new(columns, rows=rows, height=2.5)
    assert np.shape(axes) == shape
    assert len(figure.axes) == rows * columns
    assert figure.get_size_inches().tolist() == [6.2, 2.5]


def test_options_reach_subplots():
    _, (left, right) = figures.new(2, sharey=True)
    left.set_ylim(-3, 5)
    assert right.get_ylim() == (-3, 5)


def test_no_two_series_look_alike():
    assert figures.STYLES.keys() == figures.COLOURS.keys() == figures.LINES.keys()
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    assert len({figures.LINES[name] for name in ("k1", "k2", "k3", "other")}) == 4
    assert len({figures.LINES[name] for name in ("first", "second", "third", "other")}) == 4


def contrast(first, second):
    """Return the contrast of two colours as WCAG 2 defines it."""
    luminances = []
    for colour in (first, second):
        rgb = np.array(mpl.colors.to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminances.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.parametrize("name", ["first", "second", "third", "other", "grey"])
def test_neutral_series_are_readable_on_light_and_dark_pages(name):
    colour = figures.COLOURS[name]
    named, dark = page.NAMES[colour.lower()]
    assert named == name
    assert contrast(colour, "#ffffff") >= 4.5
    assert contrast(dark, page.NAMES["#ffffff"][1]) >= 4.5


def test_every_colour_has_a_value_on_dark_pages():
    names = {name: colour for colour, (name, _) in page.NAMES.items()}
    for name, colour in figures.COLOURS.items():
        assert names[name] == colour.lower()


def living(value=1.0):
    t = figures.slider("t", "time t", 0, 2, step=0.5, value=1)
    data = alt.Data(values=[{"x": 1, "y": value}, {"x": 2, "y": 1 / 3}])
    points = alt.Chart(data).transform_calculate(z="datum.y * t")
    points = points.mark_point(color=figures.COLOURS["k1"]).encode(x="x:Q", y="z:Q")
    return figures.live(alt.layer(points, *figures.lines("'t = ' + t")).add_params(t), height=90)


def test_a_living_figure_is_the_same_on_every_run():
    first, second = living(), living()
    assert first.spec == second.spec
    assert first.svg == second.svg
    assert repr(first) == "A living figure: time t 1"


def test_a_living_figure_is_shown_by_its_specification_and_by_a_still_picture():
    bundle = living()._repr_mimebundle_()
    assert set(bundle) == {figures.LIVE_MIME, "image/svg+xml", "text/plain"}
    spec = bundle[figures.LIVE_MIME]
    assert spec["$schema"] == "https://vega.github.io/schema/vega-lite/v5.json"
    assert spec["width"] == 560
    assert spec["height"] == 90
    assert ">t = 1<" in bundle["image/svg+xml"]
    assert "0.333333," not in json.dumps(spec, separators=(",", ":"))
    assert "0.333333" in json.dumps(spec), "six digits"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="cannot stand in a specification"):
        living(value)


def test_estimators_have_their_colours_in_charts():
    scale = dict(zip(figures.ESTIMATORS["domain"], figures.ESTIMATORS["range"], strict=True))
    assert scale == {name: figures.COLOURS[name] for name in ("k1", "k2", "k3")}


def test_lines_of_text_stand_above_the_view_in_their_order():
    heights = [one.to_dict()["encoding"]["y"]["value"] for one in figures.lines("'a'", "'b'")]
    assert heights == sorted(heights)
    assert max(heights) < 0


def test_estimators_are_written_as_in_formulas_wherever_a_figure_names_them():
    figure, axes = figures.new()
    axes.plot([0, 1], [0, 1], label="k1")
    axes.set(xlabel="Var(kλ) / $k_3$", title="k2, k10, kl.k1")
    legend = axes.legend()
    figures.show(figure)
    texts = [text.get_text() for text in (*legend.get_texts(), axes.xaxis.label, axes.title)]
    assert texts == ["$k_1$", r"Var($k_\lambda$) / $k_3$", "$k_2$, k10, kl.k1"]
