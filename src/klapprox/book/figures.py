"""One look for every figure of the book, as SVG that comes out the same on every run.

`show` ends a drawing of Matplotlib, `live` a chart of Altair, which the reader can change: the
site and JupyterLab draw it from its specification, print and readers without a script have its
still picture.
"""

import copy
import functools
import io
import math
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import SVG

__all__ = [
    "COLOURS",
    "ESTIMATORS",
    "LINES",
    "LIVE_MIME",
    "STYLES",
    "VEGA_LITE",
    "Live",
    "choice",
    "lines",
    "live",
    "new",
    "show",
    "slider",
    "words",
]

# Okabe and Ito's palette, which survives the common forms of colour blindness; each estimator
# also has a line style of its own, so that no figure depends on colour alone. The colours of the
# estimators mean nothing else; series of other things are the first, second, third and other.
COLOURS = {
    "k1": "#0072B2",
    "k2": "#D55E00",
    "k3": "#007F5F",
    "first": "#26324A",
    "second": "#8C6D1F",
    "third": "#6E2B1E",
    "other": "#8A3B76",
    "grey": "#5F6368",
}
LINES = {
    "k1": "-",
    "k2": "--",
    "k3": "-.",
    "first": "-",
    "second": "--",
    "third": "-.",
    "other": ":",
    "grey": "-",
}
STYLES = {name: {"color": COLOURS[name], "linestyle": LINES[name]} for name in COLOURS}

_ESTIMATOR = re.compile(r"(?<![\w.])k([123λ])\b")  # not klapprox.k3
_INDEX = {"1": "1", "2": "2", "3": "3", "λ": r"\lambda"}

_RC: dict[Any, Any] = {
    "axes.edgecolor": "#5F6368",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.color": "#E3E5E8",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "path",  # the letters are in the file: the same picture on every machine
    "svg.hashsalt": "klapprox",  # the element ids are the same on every run
}


def new(columns: int = 1, *, height: float = 3.4, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a figure as wide as the text column and its axes, side by side if several.

    Parameters
    ----------
    columns, rows : int
        How many axes stand side by side and below each other.
    height : float
        Height in inches; the width is 6.2, so that the letters can be read on a phone.
    **options
        Passed to `matplotlib.pyplot.subplots`, for example ``sharey=True``.
    """
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.rcParams.update(_RC)
    return plt.subplots(rows, columns, figsize=(6.2, height), **options)


def indexed(text: str) -> str:
    r"""Return a text of a figure with the estimators written as in formulas, for Matplotlib.

    Examples
    --------
    >>> print(indexed("Var(k1) and $k_2$"), indexed("λ of kλ"))
    Var($k_1$) and $k_2$ λ of $k_\lambda$
    """
    outside = text.split("$")
    outside[::2] = [
        _ESTIMATOR.sub(lambda found: f"$k_{_INDEX[found[1]]}$", part) for part in outside[::2]
    ]
    return "$".join(outside)


def show(figure: Any) -> SVG:
    """Return the figure as SVG for display as the last expression of a cell, and close it."""
    for text in figure.findobj(mpl.text.Text):
        text.set_text(indexed(text.get_text()))
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return SVG(stream.getvalue().decode())


# --- Living figures ------------------------------------------------------------------------------
# Altair and vl-convert are imported where they are used: most notebooks have no living figure.

VEGA_LITE = (
    "5.20"  # the version that Altair 5.5 writes, JupyterLab 4 draws and the site's script is
)
LIVE_MIME = "application/vnd.vegalite.v5+json"
# The colours of the three estimators, as a scale of a chart.
ESTIMATORS = {"domain": ["k1", "k2", "k3"], "range": [COLOURS[k] for k in ("k1", "k2", "k3")]}
_WIDTH = 440  # pixels of a still picture; on the site a living one is as wide as the text
_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_INK, _GREY, _GRID = "#000000", COLOURS["grey"], "#E3E5E8"
_LOOK: dict[str, Any] = {
    "background": None,
    "font": "system-ui, DejaVu Sans, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "tickColor": _GREY,
        "domainColor": _GREY,
        "gridColor": _GRID,
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
    },
    "text": {"color": _INK, "fontSize": 13, "align": "left", "baseline": "alphabetic"},
    "legend": {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12, "orient": "top"},
}


class Live:
    """A living figure: its specification, and a still picture of how it starts.

    Attributes
    ----------
    spec : dict
        The specification in Vega-Lite, with the colours of `COLOURS`.
    svg : str
        The still picture, the same on every run and machine.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.svg = _still(spec)

    def __repr__(self) -> str:
        controls = [one for one in self.spec["params"] if "bind" in one]
        words = ", ".join(f"{one['bind']['name']} {one['value']}" for one in controls)
        return f"A living figure: {words}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {LIVE_MIME: self.spec, "image/svg+xml": self.svg, "text/plain": repr(self)}


def live(chart: Any, *, height: int = 280) -> Live:
    """Return a chart of Altair as a living figure, for display as the last expression of a cell.

    Parameters
    ----------
    chart : altair.Chart or altair.LayerChart
        A single view or a stack of layers, with the controls that `slider` and `choice` make.
    height : int
        Height of the view in pixels, without controls and axes.

    Examples
    --------
    >>> import altair as alt
    >>> t = slider("t", "time t", 0, 2, step=0.5, value=1)
    >>> chart = alt.Chart(alt.Data(values=[{}])).mark_text().encode(text=words("'t = ' + t"))
    >>> live(chart.add_params(t))
    A living figure: time t 1
    """
    # Not "container", which the site puts there: JupyterLab 4.6 would draw it over and over again.
    spec = _short(chart.properties(width=560, height=height).to_dict())
    spec["$schema"] = _SCHEMA  # JupyterLab's is 5.6
    spec.pop("name", None)  # Altair counts charts: another number in another session
    spec["config"] = _LOOK
    spec["usermeta"] = {"embedOptions": {"renderer": "svg", "actions": False}}
    return Live(spec)


def slider(name: str, label: str, low: float, high: float, *, step: float, value: float) -> Any:
    """Return a parameter of a living figure that the reader slides, with a label."""
    import altair as alt

    bind = alt.binding_range(min=low, max=high, step=step, name=label)
    return alt.param(name=name, value=value, bind=bind)


def choice(name: str, label: str, options: list[Any], *, value: Any, labels: Any = None) -> Any:
    """Return a parameter of a living figure that is one of a few, with a label."""
    import altair as alt

    named = {"labels": labels} if labels else {}
    bind = alt.binding_radio(options=options, name=label, **named)
    return alt.param(name=name, value=value, bind=bind)


def words(expression: str) -> Any:
    """Return the text of a mark as an expression of the parameters and of what is in ``datum``."""
    import altair as alt

    return alt.value(alt.expr(expression))


def lines(*expressions: str) -> list[Any]:
    """Return layers with lines of text above the view, as expressions of the parameters.

    A line of more than 50 letters does not fit a phone.
    """
    import altair as alt

    nothing = alt.Data(values=[{}])  # type: ignore[no-untyped-call]
    one = alt.Chart(nothing).mark_text()
    return [
        one.encode(x=alt.value(0), y=alt.value(-18 * number - 8), text=words(expression))
        for number, expression in enumerate(reversed(expressions))
    ][::-1]


def _short(value: Any) -> Any:
    """Return a specification with numbers of at most six digits: the same on every machine."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot stand in a specification; give None.")
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() else short
    return value


def _still(spec: dict[str, Any]) -> str:
    import vl_convert

    _register_fonts()
    spec = copy.deepcopy(spec) | {"width": _WIDTH, "background": "#ffffff"}
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}  # as Vega-Lite does in a container
    # A font whose letters have the same width everywhere: it comes with Matplotlib.
    spec["config"]["font"] = "DejaVu Sans"
    return str(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))


@functools.cache
def _register_fonts() -> None:
    import vl_convert

    vl_convert.register_font_directory(str(Path(mpl.get_data_path(), "fonts", "ttf")))
