"""One page alone, quickly: it is built, other pages may be missing, and a fault is said."""

import errno
import os

import pytest

from bookbuild import make_page

CONFIG = 'title: Tiny\nonly_build_toc_files: true\nexecute: {execute_notebooks: "off"}\n'


def test_a_page_is_built_without_the_pages_it_refers_to(tmp_path, capsys):
    (tmp_path / "_config.yml").write_text(CONFIG)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/one.md").write_text("# One\n\nSee {doc}`two`, and $x$.\n")
    assert make_page.main("chapters/one", tmp_path) == 0
    page = tmp_path / "_build/page/_build/html/chapters/one.html"
    assert "See" in page.read_text()
    assert str(page) in capsys.readouterr().out


def test_a_page_that_is_not_there_is_said(tmp_path, capsys):
    (tmp_path / "_config.yml").write_text(CONFIG)
    assert make_page.main("chapters/none", tmp_path) == 1
    assert "chapters/none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space is left on the disk"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), 1, "cannot be written"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), 1, "The build failed"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_what_stops_a_page_is_said(tmp_path, monkeypatch, capsys, fault, code, sentence):
    def run(command, root, new):
        raise fault

    monkeypatch.setattr(make_page, "run", run)
    assert make_page.main("chapters/one", tmp_path) == code
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
