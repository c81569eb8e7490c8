"""A release needs that everything agrees: each planted fault is found. Wheels are reproducible."""

import hashlib
import json
import os
import subprocess
import zipfile

import nbformat
import pytest
import yaml

from bookbuild import labels, make_pdf, make_site, release, results
from bookbuild.make_site import BuildError

STATEMENT = """\
# One

```{prf:definition} A
:label: def-a

It is $a$.
```
"""
CITATION = """\
version: 9.8.7
date-released: 2031-02-03
preferred-citation: {version: 9.8.7, title: T, year: 2031, authors: [{name: A}]}
"""
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "klapprox"
dynamic = ["version"]
requires-python = ">=3.11"

[tool.hatch.version]
path = "src/klapprox/__init__.py"

[tool.hatch.build.targets.wheel]
packages = ["src/klapprox"]
"""
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository that may be released: committed, tested, frozen, of one version."""
    for name, value in GIT.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "book"
    (root / "src/klapprox").mkdir(parents=True)
    (root / "chapters").mkdir()
    files = {
        "src/klapprox/__init__.py": '"""A package."""\n\n__version__ = "9.8.7"\n',
        "CITATION.cff": CITATION,
        "CHANGELOG.md": "# Log\n\n## Unreleased\n\n## 9.8.7\n\n* All of it.\n\n## 9.8.6\n\n* x\n",
        "README.md": "@book{klapprox,\n  version = {9.8.7}\n}\n",
        "pyproject.toml": PROJECT,
        ".gitignore": "_build/\ndist/\n",
        "_toc.yml": "format: jb-book\nroot: index\nchapters: [{file: chapters/one}]\n",
        "index.md": "# Index\n",
        "requirements.lock": "numpy==2\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(STATEMENT)])
    nbformat.write(notebook, root / "chapters/one.ipynb")
    freeze(root)
    git(root, "init", "-q")
    commit(root)
    return root


def freeze(root):
    results.results.cache_clear()
    book = results.results(root)
    labels.write(root, labels.freeze({"frozen": [], "labels": {}}, book, "", "9.8.7"))


def git(root, *arguments):
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def commit(root, tested=True):
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "x")
    if tested:
        (root / "_build").mkdir(exist_ok=True)
        (root / "_build/tested").write_text(release.git(root, "rev-parse", "HEAD") + "\n")


def faults(root):
    results.results.cache_clear()
    return release.faults(root)


def change(root, name, old, new):
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def test_a_repository_in_which_everything_agrees_may_be_released(root):
    assert faults(root) == []


def test_a_changed_file_and_an_unknown_one_are_found(root):
    (root / "index.md").write_text("# Other\n")
    (root / "new.md").write_text("new\n")
    (fault,) = faults(root)
    assert "The tree is not clean" in fault
    assert "index.md" in fault
    assert "new.md" in fault


def test_tests_of_another_commit_do_not_count(root):
    commit(root, tested=False)
    assert faults(root) == ["The tests have not passed at this commit: bash .ci/run"]
    (root / "_build/tested").unlink()
    assert faults(root) == ["The tests have not passed at this commit: bash .ci/run"]


def test_a_tag_elsewhere_is_found(root):
    git(root, "tag", "v9.8.7")
    assert faults(root) == []
    commit(root)
    assert faults(root) == ["The tag v9.8.7 is at another commit: raise the version."]


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("CITATION.cff", "version: 9.8.7\nd", "version: 9.8.6\nd", "CITATION.cff says version"),
        ("CITATION.cff", "{version: 9.8.7", "{version: 9.8.6", "The preferred citation of"),
        ("CITATION.cff", "date-released: 2031-02-03\n", "", "no date of the release"),
        ("CHANGELOG.md", "## Unreleased\n", "## Unreleased\n* More.\n", 'under "Unreleased"'),
        ("CHANGELOG.md", "## 9.8.7", "## 9.8.8", "does not begin with what 9.8.7 brings"),
        ("CHANGELOG.md", "* All of it.", "", "does not begin with what 9.8.7 brings"),
        ("README.md", "9.8.7", "9.8.5", "README.md cites version 9.8.5"),
        ("src/klapprox/__init__.py", "9.8.7", "9.9.0", "labels of version 9.9.0 are not frozen"),
        ("labels.yml", "- 9.8.7", "- 9.8.6", "The labels of version 9.8.7 are not frozen"),
        ("chapters/one.ipynb", "It is $a$.", "It is $b$.", "def-a says something else now"),
        ("chapters/one.ipynb", ":label: def-a", ":label: def-b", "def-a was published in 9.8.7"),
        ("chapters/one.ipynb", ":label: def-a", ":label: def-b", "Labels are new since"),
    ],
)  # fmt: skip
def test_a_disagreement_is_found(root, name, old, new, found):
    change(root, name, old, new)
    commit(root)
    said = faults(root)
    assert any(found in fault for fault in said), said


def test_what_is_no_clone_is_refused(tmp_path):
    assert "from a clone" in release.faults(tmp_path)[0]


def test_main_says_why_there_is_no_release_and_makes_nothing(root, capsys):
    change(root, "README.md", "9.8.7", "9.8.5")
    assert release.main([str(root)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("There is no release:\n* The tree is not clean")
    assert "README.md cites version 9.8.5" in said
    assert not (root / "dist").exists()


def test_wheel_and_source_distribution_are_the_same_twice(root, tmp_path):
    release.packages(root, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "klapprox-9.8.7-py3-none-any.whl",
        "klapprox-9.8.7.tar.gz",
    ]


def test_a_wheel_that_depends_on_where_it_is_built_is_no_release(root, tmp_path):
    (root / "pyproject.toml").write_text(PROJECT + "\n[tool.hatch.build.hooks.custom]\n")
    (root / "hatch_build.py").write_text(
        "import pathlib\n"
        "from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n\n"
        "class Hook(BuildHookInterface):\n"
        "    def initialize(self, version, data):\n"
        "        pathlib.Path(self.root, 'src/klapprox/where.py').write_text(repr(self.root))\n"
    )
    (root / ".gitignore").write_text("_build/\ndist/\n")
    commit(root)
    with pytest.raises(BuildError, match="is not the same twice"):
        release.packages(root, tmp_path / "out")


def test_a_package_that_cannot_be_built_says_why(root, tmp_path):
    (root / "pyproject.toml").write_text(PROJECT.replace("name =", "title ="))
    commit(root)
    with pytest.raises(BuildError, match="The package was not built"):
        release.packages(root, tmp_path / "out")


@pytest.fixture
def made(root, monkeypatch):
    """What a release makes, with stand-ins for TeX and Sphinx."""
    offered = []

    def pdf(arguments):
        folder = root / "_build/pdf"
        folder.mkdir(exist_ok=True)
        (folder / f"{make_pdf.NAME}.pdf").write_text("%PDF")
        return 0

    def site(arguments):
        offered.extend(sorted(path.name for path in release.downloads.folder().iterdir()))
        (root / "_build/html").mkdir(exist_ok=True)
        (root / "_build/html/index.html").write_text("<p>Hello")
        return 0

    monkeypatch.setattr(make_pdf, "main", pdf)
    monkeypatch.setattr(make_site, "main", site)
    assert release.main([str(root)]) == 0
    return root / "dist", offered


def test_a_release_is_complete_and_its_checksums_hold(made):
    dist, offered = made
    names = {path.name for path in dist.iterdir()}
    made_before_the_site = {
        "klapprox-9.8.7-py3-none-any.whl",
        "klapprox-9.8.7.tar.gz",
        "klapprox-book-9.8.7.pdf",
        "klapprox-book-9.8.7-notebooks.zip",
        "requirements.lock",
    }
    assert set(offered) == made_before_the_site
    assert names == made_before_the_site | {"klapprox-book-9.8.7-site.zip", "SHA256SUMS"}
    sums = dict(
        reversed(line.split("  ")) for line in (dist / "SHA256SUMS").read_text().splitlines()
    )
    assert set(sums) == names - {"SHA256SUMS"}
    for name, found in sums.items():
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == found
    assert "BOOK_DOWNLOADS" not in os.environ
    assert not list((dist.parent / "_build").glob(".release-*"))


def test_notebooks_lie_with_what_they_are_installed_from(made):
    dist, _ = made
    with zipfile.ZipFile(dist / "klapprox-book-9.8.7-notebooks.zip") as archive:
        folder = "klapprox-book-9.8.7-notebooks"
        wheel = "klapprox-9.8.7-py3-none-any.whl"
        assert set(archive.namelist()) == {
            f"{folder}/{name}" for name in ("one.ipynb", wheel, "requirements.lock")
        }
        notebook = json.loads(archive.read(f"{folder}/one.ipynb"))
    assert f'"./{wheel}[book]"' in "".join(notebook["cells"][0]["source"])


def test_an_archive_is_the_same_whenever_it_is_packed(tmp_path):
    (tmp_path / "site").mkdir()
    path = tmp_path / "site/index.html"
    path.write_text("<p>Hello")
    release.packed(tmp_path / "site", tmp_path / "one.zip", "x")
    os.utime(path, (0, 10**9))
    path.chmod(0o600)
    release.packed(tmp_path / "site", tmp_path / "two.zip", "x")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_release_whose_pdf_fails_leaves_nothing(root, monkeypatch):
    monkeypatch.setattr(make_pdf, "main", lambda arguments: 1)
    assert release.main([str(root)]) == 1
    assert not (root / "dist").exists()
    assert {path.name for path in (root / "_build").iterdir()} == {"tested"}


def test_the_citation_file_of_the_book_has_what_a_release_asks_for():
    cited = yaml.safe_load((make_site.HERE.parents[1] / "CITATION.cff").read_text("utf-8"))
    assert cited["version"]
    assert cited["date-released"]
    assert cited["preferred-citation"]["version"]
