"""The figures of the notebooks as part of a page: its background, its colours, light and dark.

A figure is drawn for white paper. On the site its fixed colours become names, which have another
value where the page is dark: an image follows the colours of the page that it stands on.
"""

import re

# Colour on paper: its name, and its value on a dark page.
NAMES = {
    "#0072b2": ("k1", "#56b4e9"),
    "#d55e00": ("k2", "#f0965a"),
    "#007f5f": ("k3", "#3fc9a0"),
    "#26324a": ("first", "#e4e9f5"),
    "#8c6d1f": ("second", "#e8e06a"),
    "#6e2b1e": ("third", "#b9766a"),
    "#8a3b76": ("other", "#d896c6"),
    "#5f6368": ("grey", "#a2a8b3"),
    "#e3e5e8": ("grid", "#333842"),
    "#ffffff": ("paper", "#16181d"),
    "#000000": ("ink", "#e2e4e8"),
}
_COLOUR = re.compile(r"(?i)(?<=[:\s\"])(" + "|".join(NAMES) + r")\b")


def size(svg: str) -> tuple[int, int] | None:
    """Return width and height of a figure in pixels, or None if it does not say."""
    start = re.search(r"<svg\b[^>]*>", svg)
    found = [
        re.search(rf'\b{side}="([\d.]+)(pt)?"', start[0] if start else "")
        for side in ("width", "height")
    ]
    width, height = (
        round(float(match[1]) * (4 / 3 if match[2] else 1)) if match else 0 for match in found
    )
    return (width, height) if width and height else None


def themed(svg: str) -> str:
    """Return a figure whose colours follow the page."""
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in NAMES.items())
    dark = "".join(f"--{name}:{value};" for name, value in NAMES.values())
    style = (
        f"<style>:root{{{light}fill:var(--ink)}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    )
    svg = _COLOUR.sub(lambda match: f"var(--{NAMES[match[1].lower()][0]})", svg)
    start = re.search(r"<svg\b[^>]*>", svg)
    if start is None:
        raise ValueError("this is no SVG")
    # The sheet of the figure is the page itself.
    svg = svg[: start.end()] + style + svg[start.end() :]
    return re.sub(r'(fill(?:: |="))var\(--paper\)', r"\1none", svg, count=1)
