"""Living figures on a page: their controls, their specifications, and the script that draws them.

A cell with the tag ``living`` ends with `klapprox.book.figures.live`. The page shows the still
picture that is stored with it. When the reader has begun to do something on the page and the figure
is in view, ``living.js`` loads Vega and the specification, and draws in its place. So a page costs
nothing more until then, and print and readers without a script have the still picture.
"""

import copy
import hashlib
import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from lxml.html import builder as E  # noqa: N812
from lxml.html import tostring

from bookbuild import figures, statements
from klapprox.book.figures import LIVE_MIME, VEGA_LITE

TAG = "living"
FOLDER = "living"  # of _static
_SNIPPET = "window.drawLiving = vegaEmbed;"


def specifications(source: Path) -> dict[str, dict[str, Any]]:
    """Return the specifications of a notebook's living figures, by the names of the figures.

    Raises
    ------
    ValueError
        If a cell with the tag has no specification or no name.
    """
    found = {}
    for cell in statements.cells(source) if source.suffix == ".ipynb" else []:
        if TAG not in cell["metadata"].get("tags", []):
            continue
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name", "")
        data = [output.get("data", {}) for output in cell["outputs"]]
        specs = [one[LIVE_MIME] for one in data if LIVE_MIME in one]
        if not name or len(specs) != 1:
            raise ValueError(
                f"{source.name}: a cell with the tag {TAG} needs a figure with a name, and ends "
                "with figures.live(…)"
            )
        found[name] = specs[0]
    return found


def attach(tree: Any, specs: dict[str, dict[str, Any]]) -> None:
    """Give the figures of a page what makes them live: a name, a place of its height, controls."""
    cells = tree.xpath(f"//div[contains(@class, 'tag_{TAG}')]")
    if len(cells) != len(specs):
        raise ValueError(f"{len(cells)} living figures on the page, {len(specs)} in the source")
    for cell, (name, spec) in zip(cells, specs.items(), strict=True):
        (figure,) = cell.xpath(".//figure")
        (image,) = figure.xpath(".//img")
        caption = figure.findall("figcaption")
        # As tall as the picture at its full width; the page's policy forbids to say it in a style.
        strut = E.E("svg", E.CLASS("strut"), width="0", height=image.get("height"))
        strut.set("aria-hidden", "true")
        place = E.DIV(image, strut, E.CLASS("drawing"))
        said = E.P(E.CLASS("said"), role="status")
        figure[:] = [place, controls(spec), said, *caption]
        figure.set("class", "living")
        figure.set("data-living", name)


def controls(spec: dict[str, Any]) -> Any:
    """Return the controls of a figure as a form; a script shows it."""
    form = E.FORM(E.CLASS("controls"), hidden="hidden")
    for one in spec["params"]:
        bind = one.get("bind")
        if not bind:
            continue
        name, value, label = one["name"], one["value"], bind["name"]
        if bind["input"] == "range":
            limits = {key: str(bind[key]) for key in ("min", "max", "step")}
            control = E.INPUT(type="range", name=name, value=str(value), **limits)
            # Browsers keep what was set before a page is loaded anew.
            control.set("autocomplete", "off")
            form.append(E.LABEL(E.SPAN(label), control, E.OUTPUT(str(value))))
        else:
            choices = E.FIELDSET(E.LEGEND(label))
            labels = bind.get("labels", bind["options"])
            for option, words in zip(bind["options"], labels, strict=True):
                control = E.INPUT(type="radio", name=name, value=json.dumps(option))
                control.set("autocomplete", "off")
                if option == value:
                    control.set("checked", "checked")
                choices.append(E.LABEL(control, str(words)))
            form.append(choices)
    return form


def script(name: str, spec: dict[str, Any]) -> str:
    """Return the script that brings a specification to its page.

    It is compiled to one of Vega, which draws it. The page has the controls, so the parameters have
    none; the colours have names, as in the style sheet.
    """
    params = [{k: v for k, v in one.items() if k != "bind"} for one in spec["params"]]
    wide = spec | {"params": params, "width": "container"}
    made = vl_convert.vegalite_to_vega(wide, vl_version=VEGA_LITE)
    del made["$schema"]  # an older version of Vega, of which nothing is used that has changed
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    for colour, (named, _) in figures.NAMES.items():
        text = re.sub(f'(?i)"{colour}"', f'"var(--{named})"', text)
    return f"addLiving({json.dumps(name)},{text});\n"


def write_renderer(folder: Path, cache: Path) -> None:
    """Write Vega as one classic script, which pages from a file may load too.

    Making it takes some seconds, so it is kept where a build leaves it, under its version.
    """
    wanted = hashlib.sha256(f"{version('vl-convert-python')} {VEGA_LITE} {_SNIPPET}".encode())
    kept = cache / f".vega-{wanted.hexdigest()[:12]}.js"
    if not kept.is_file():
        made = vl_convert.javascript_bundle(_SNIPPET, vl_version=VEGA_LITE)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # It is a module, with names like E at its top: a function of its own keeps them in.
        # Whole or not at all: a build that is killed here must not leave half a script to the next.
        written = kept.with_name(f"{kept.name}.{os.getpid()}")
        written.write_text(f'(function () {{"use strict";\n{made}\n}})();\n', encoding="utf-8")
        os.replace(written, kept)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vega.js").write_bytes(kept.read_bytes())


def copied(tree: Any) -> dict[str, str]:
    """Return the living figures of a finished page as the front page shows them, by their names."""
    found = {}
    for figure in tree.xpath("//figure[@data-living]"):
        shown = copy.deepcopy(figure)
        shown.tail = None
        for image in shown.iter("img"):
            image.set("src", "_images/" + image.get("src").rpartition("/")[2])
        for number in shown.xpath(
            ".//span[@class='caption-number'] | .//a[contains(@class, 'headerlink')]"
        ):
            number.drop_tree()
        found[shown.get("data-living")] = tostring(shown, encoding="unicode")
    return found
