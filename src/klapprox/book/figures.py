"""One look for every figure of the book, as SVG that comes out the same on every run."""

import io
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import SVG

__all__ = ["COLOURS", "LINES", "STYLES", "new", "show"]

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
        Height in inches; the width is 7.2.
    **options
        Passed to `matplotlib.pyplot.subplots`, for example ``sharey=True``.
    """
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.rcParams.update(_RC)
    return plt.subplots(rows, columns, figsize=(7.2, height), **options)


def show(figure: Any) -> SVG:
    """Return the figure as SVG for display as the last expression of a cell, and close it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return SVG(stream.getvalue().decode())
