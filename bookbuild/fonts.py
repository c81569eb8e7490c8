"""The font of the formulas: STIX Two Math, as far as the pages use it."""

import importlib.metadata
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

# Only the font is wanted of that package, so it is not imported.
_FILES = importlib.metadata.files("ziamath") or []
SOURCE = next(Path(str(f.locate())) for f in _FILES if f.name == "STIXTwoMath-Regular.ttf")
NAME = "STIXTwoMath.woff2"
ITALICS = "ℎ" + "".join(map(chr, [*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C)]))
_ITALIC = {unicodedata.normalize("NFKC", one): one for one in ITALICS}
LICENCE = """\
STIX Two Math, copyright 2001-2021 The STIX Fonts Project Authors (https://github.com/stipub/stixfonts),
with the reserved font name TM Math. SIL Open Font License 1.1: https://openfontlicense.org
This file holds the glyphs that the pages of this book use.
"""


def italic(letter: str) -> str:
    """Return the character that a browser sets for a variable of one letter: 𝑚 for m."""
    return _ITALIC.get(letter, letter)


def write_subset(folder: Path, pages: Iterable[str]) -> None:
    """Write the glyphs of the characters that stand within formulas of these pages."""
    characters = set("′‖|()[]{}√∑∫∏−+=<>ˆ˜¯˙→⏞⏟")
    for page in pages:
        for piece in page.split("<math")[1:]:
            characters.update(piece.partition("</math>")[0])
    characters |= {_ITALIC[one] for one in characters & _ITALIC.keys()}
    font = TTFont(SOURCE)
    options = subset.Options()
    options.flavor = "woff2"
    options.layout_features = ["*"]
    options.hinting = False
    options.notdef_outline = True
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=sorted(map(ord, characters)))
    cutter.subset(font)
    font["head"].modified = font["head"].created  # the same file at every build
    font.recalcTimestamp = False
    font.flavor = "woff2"
    folder.mkdir(parents=True, exist_ok=True)
    font.save(folder / NAME)
    (folder / "LICENCE.txt").write_text(LICENCE, encoding="utf-8")
