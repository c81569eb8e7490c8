"""What the site offers to download beside its pages: what a release has made, and its notebooks.

``BOOK_DOWNLOADS=FOLDER make book`` takes the files of a release along, as ``downloads/``; without
it there are none, and no links to them. Each notebook begins with a cell that installs what it
imports, from the site that it comes from.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import klapprox
from bookbuild import archive, pdf

FOLDER = "downloads"
# What a link says, and which file it leads to.
OFFERED = (
    ("The book as PDF", "klapprox-book-*.pdf"),
    ("All notebooks", "klapprox-book-*-notebooks.zip"),
    ("The package", "klapprox-[0-9]*.whl"),
    ("Its sources", "klapprox-[0-9]*.tar.gz"),
    ("Exact versions", "requirements.lock"),
)
INSTALL = """\
# The package of the book, klapprox {version}, and what else this notebook imports. Its outputs were
# made with the exact versions of requirements.lock.
import importlib.util

if importlib.util.find_spec("klapprox") is None:
    {hint}%pip install --quiet "{what}"
"""
BESIDE = "# {name} lies with the site of the book: put it beside this notebook.\n    "


def setup(app: Any) -> dict[str, Any]:
    """Put links on the pages, and the files where they lead to."""
    app.connect("html-page-context", _link)
    app.connect("build-finished", _copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def folder() -> Path | None:
    """Return the folder of what a release has made, if the site is to offer it."""
    named = os.environ.get("BOOK_DOWNLOADS", "")
    return Path(named) if named else None


def offered(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield words and file of each download that is there."""
    for words, pattern in OFFERED:
        for path in sorted(folder.glob(pattern)) if folder else []:
            yield words, path


def _link(_app: Any, _page: str, _template: str, context: Any, _doctree: Any) -> None:
    context["book_downloads"] = [
        (words, f"{FOLDER}/{path.name}") for words, path in offered(folder())
    ]


def _copy(app: Any, failure: Any) -> None:
    if failure or app.builder.format != "html":
        return
    site = Path(app.outdir)
    files = [path for _, path in offered(folder())]
    if files:
        (site / FOLDER).mkdir()
        for path in files:
            shutil.copyfile(path, site / FOLDER / path.name)
    wheels = [path.name for path in files if path.suffix == ".whl"]
    name = f"{FOLDER}/{wheels[0]}" if wheels else archive.NAME
    for path in sorted(site.glob("_sources/**/*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with_install_cell(notebook, name, pdf.site_address())
        path.write_text(dumped(notebook), encoding="utf-8")


def with_install_cell(notebook: dict[str, Any], name: str, address: str = "") -> None:
    """Put a cell before all others of a notebook that installs klapprox where it is missing.

    Parameters
    ----------
    notebook : dict
        The notebook as JSON has it.
    name : str
        The file that is installed, as the site has it.
    address : str
        Where the site is, ending in a slash; without one, the file is taken from the folder of the
        notebook.
    """
    if address:
        hint, what = "", f"klapprox[book] @ {address}{name}"
    else:
        file = Path(name).name
        hint = BESIDE.format(name=file)
        what = f"./{file}[book]"
    source = INSTALL.format(version=klapprox.__version__, hint=hint, what=what)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    notebook["cells"].insert(0, cell)


def dumped(notebook: dict[str, Any]) -> str:
    """Return a notebook as the text of its file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
