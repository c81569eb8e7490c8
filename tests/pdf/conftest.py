"""The PDF and the site of one tree, which `make test-pdf` has built."""

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--pdf", default="_build/pdf", help="the folder that the PDF was set in")
    parser.addoption("--site", default="_build/html", help="the folder of the built site")


def pytest_generate_tests(metafunc):
    if "statement_file" in metafunc.fixturenames:
        folder = Path(metafunc.config.getoption("--site")).resolve()
        files = sorted(folder.glob("s/*.tex"))
        metafunc.parametrize("statement_file", files, ids=[path.stem for path in files])


@pytest.fixture(scope="session")
def folder(pytestconfig):
    return Path(pytestconfig.getoption("--pdf")).resolve()


@pytest.fixture(scope="session")
def site(pytestconfig):
    return Path(pytestconfig.getoption("--site")).resolve()


@pytest.fixture(scope="session")
def source(folder):
    """The LaTeX that was set."""
    return (folder / "klapprox-book.tex").read_text(encoding="utf-8")
