"""What the site offers beside its pages, and the cell that downloaded notebooks begin with."""

import json
from types import SimpleNamespace

import nbformat
import pytest

import klapprox
from bookbuild import archive, downloads, make_site

WHEEL = "klapprox-9.8-py3-none-any.whl"


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A folder of a release with a wheel and a PDF, which the site is to offer."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in (WHEEL, "klapprox-book-9.8.pdf", "something-else.txt"):
        (folder / name).write_text(name)
    monkeypatch.setenv("BOOK_DOWNLOADS", str(folder))
    return folder


@pytest.fixture
def app(tmp_path):
    """What stands for Sphinx: a site with one notebook among its sources."""
    sources = tmp_path / "html/_sources/chapters"
    sources.mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Jeffreys ‖")])
    nbformat.write(notebook, sources / "k1.ipynb")
    return SimpleNamespace(outdir=tmp_path / "html", builder=SimpleNamespace(format="html"))


def first_cell(app):
    notebook = nbformat.read(app.outdir / "_sources/chapters/k1.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[1].source == "# Jeffreys ‖"
    return notebook.cells[0]


def links():
    context = {}
    downloads._link(None, "index", "", context, None)
    return context["book_downloads"]


def test_without_a_release_nothing_is_offered(app, monkeypatch):
    monkeypatch.delenv("BOOK_DOWNLOADS", raising=False)
    monkeypatch.delenv("BOOK_URL", raising=False)
    assert links() == []
    downloads._copy(app, None)
    assert not (app.outdir / "downloads").exists()
    # A notebook can be run nevertheless: the sources of the book lie with every site.
    assert f'%pip install --quiet "./{archive.NAME}[book]"' in first_cell(app).source


def test_what_a_release_has_made_is_linked_and_there(app, release):
    assert links() == [
        ("The book as PDF", "downloads/klapprox-book-9.8.pdf"),
        ("The package", f"downloads/{WHEEL}"),
    ]
    downloads._copy(app, None)
    for _, place in links():
        assert (app.outdir / place).read_text() == place.partition("/")[2]
    assert len(list((app.outdir / "downloads").iterdir())) == 2


def test_a_notebook_installs_the_wheel_from_the_address_of_the_site(app, release, monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://kl.example/book")
    downloads._copy(app, None)
    cell = first_cell(app)
    what = f"klapprox[book] @ https://kl.example/book/downloads/{WHEEL}"
    assert cell.cell_type == "code"
    assert f'%pip install --quiet "{what}"' in cell.source
    assert f"klapprox {klapprox.__version__}" in cell.source


def test_where_klapprox_is_installed_the_cell_does_nothing():
    notebook = {"cells": []}
    downloads.with_install_cell(notebook, WHEEL, "https://kl.example/")
    source = "".join(notebook["cells"][0]["source"])
    called = []
    # What IPython makes of the magic.
    program = source.replace('%pip install --quiet "', 'called.append("')
    program = program.replace('.whl"', '.whl")')
    assert program != source
    exec(program, {"called": called})
    assert called == []
    exec(program.replace('"klapprox")', '"no_such_package")'), {"called": called})
    assert called == [f"klapprox[book] @ https://kl.example/{WHEEL}"]


def test_a_build_that_failed_or_is_no_site_is_left_alone(app, release):
    before = json.loads((app.outdir / "_sources/chapters/k1.ipynb").read_text())
    downloads._copy(app, ValueError())
    app.builder.format = "latex"
    downloads._copy(app, None)
    assert json.loads((app.outdir / "_sources/chapters/k1.ipynb").read_text()) == before


def test_the_site_is_built_anew_when_a_download_changes(release, tmp_path, monkeypatch):
    root = tmp_path / "book"
    root.mkdir()
    offered = make_site.digest(root)
    assert make_site.digest(root) == offered
    (release / WHEEL).write_text("another")
    assert make_site.digest(root) != offered
    monkeypatch.delenv("BOOK_DOWNLOADS")
    assert make_site.digest(root) != offered
