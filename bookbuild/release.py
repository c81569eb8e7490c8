"""Make a release, or say why there is none: ``python bookbuild/release.py [ROOT]``.

In ``dist/``: wheel and source distribution of the package, the book as PDF, its notebooks, its
site, the lock, and checksums of all of them. The same commit gives the same bytes.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml

from bookbuild import downloads, labels, make_pdf, make_site
from bookbuild.make_site import BuildError
from bookbuild.results import chapters, results

STAMP = Path("_build", "tested")  # the commit that .ci/run was content with
HATCHLING = Path(sys.executable).with_name("hatchling")
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Make a release and return the exit code."""
    root = Path(arguments[0]).resolve() if arguments else make_site.HERE.parents[1]
    found = faults(root)
    if found:
        print("There is no release:", *found, sep="\n* ", file=sys.stderr)
        return 1
    try:
        make(root, root / "dist")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    version = version_of(root)
    print(f"Version {version} lies in {root / 'dist'}. To mark its commit: git tag v{version}")
    return 0


# --- May there be a release? ---------------------------------------------------------------------


def faults(root: Path) -> list[str]:
    """Return, in sentences, why there can be no release of what lies there."""
    if not (root / ".git").exists():
        return ["A release is made from a clone, so that its commit is known."]
    return [
        fault
        for look in (tree_faults, test_faults, version_faults, label_faults)
        for fault in look(root)
    ]


def git(root: Path, *arguments: str) -> str:
    """Return what git says."""
    command = ["git", *arguments]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return said.strip()


def tree_faults(root: Path) -> list[str]:
    """Return files that differ from the commit, and a tag of the version elsewhere."""
    found = []
    if changed := git(root, "status", "--porcelain"):
        found.append(f"The tree is not clean:\n{changed}")
    tag = f"v{version_of(root)}"
    tagged = git(root, "tag", "--list", tag) and git(root, "rev-list", "-n", "1", tag)
    if tagged and tagged != git(root, "rev-parse", "HEAD"):
        found.append(f"The tag {tag} is at another commit: raise the version.")
    return found


def test_faults(root: Path) -> list[str]:
    """Say whether all tests passed at this very commit."""
    stamp = root / STAMP
    tested = stamp.read_text(encoding="ascii").strip() if stamp.exists() else ""
    if tested == git(root, "rev-parse", "HEAD"):
        return []
    return ["The tests have not passed at this commit: bash .ci/run"]


def version_of(root: Path) -> str:
    """Return the version that the package says."""
    text = (root / "src/klapprox/__init__.py").read_text(encoding="utf-8")
    match = _VERSION.search(text)
    return match[1] if match else ""


def version_faults(root: Path) -> list[str]:
    """Return where package, citation file, changelog and README disagree."""
    version = version_of(root)
    found = []
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    for where, said in (
        ("CITATION.cff", cited.get("version")),
        ("The preferred citation of CITATION.cff", cited["preferred-citation"].get("version")),
    ):
        if str(said) != version:
            found.append(f"{where} says version {said}, klapprox {version}.")
    if not cited.get("date-released"):
        found.append("CITATION.cff has no date of the release.")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## (.+?)\s*$(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    told = [(head.split()[0], text.strip()) for head, text in parts]
    if any(head == "Unreleased" and text for head, text in told):
        found.append(f'CHANGELOG.md has lines under "Unreleased": they belong to {version}.')
    released = [(head, text) for head, text in told if head != "Unreleased"]
    if not released or released[0][0] != version or not released[0][1]:
        found.append(f"CHANGELOG.md does not begin with what {version} brings.")
    named = re.findall(r"version\s*= \{([^}]*)\}", (root / "README.md").read_text(encoding="utf-8"))
    found += [f"README.md cites version {name}." for name in named if name != version]
    return found


def label_faults(root: Path) -> list[str]:
    """Return labels that are not frozen, vanished, or say something else without a word."""
    version, register, book = version_of(root), labels.read(root), results(root)
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = labels.faults(register, book, labels.section(changelog, version))
    if version not in register["frozen"]:
        found.append(f"The labels of version {version} are not frozen: make labels")
    elif new := [label for label in book if label not in register["labels"]]:
        found.append(f"Labels are new since they were frozen: {', '.join(new)}")
    return found


# --- What a release is made of -------------------------------------------------------------------


def make(root: Path, target: Path) -> None:
    """Make all files of a release in a folder, whole or not at all."""
    version = version_of(root)
    book = f"klapprox-book-{version}"
    target.parent.mkdir(exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".release-", dir=root / "_build"))
    try:
        packages(root, new)
        shutil.copyfile(root / "requirements.lock", new / "requirements.lock")
        if make_pdf.main([str(root)]):
            raise BuildError("There is no release without the PDF.")
        shutil.copyfile(root / f"_build/pdf/{make_pdf.NAME}.pdf", new / f"{book}.pdf")
        notebooks(root, new, f"{book}-notebooks")
        site(root, new)
        packed(root / "_build/html", new / f"{book}-site.zip", f"{book}-site")
        checksums(new)
        shutil.rmtree(target, ignore_errors=True)
        new.chmod(0o755)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def packages(root: Path, target: Path) -> None:
    """Build wheel and source distribution, twice: here, and from the commit in another folder.

    Raises
    ------
    BuildError
        If the bytes differ, or a build fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder, "checkout")
        commit = subprocess.run(
            ["git", "archive", "HEAD"], cwd=root, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(commit)) as archive:
            archive.extractall(elsewhere, filter="data")
        again = Path(folder, "again")
        for source, into in ((root, target), (elsewhere, again)):
            _build_package(source, into)
        for path in sorted(again.iterdir()):
            if path.read_bytes() != (target / path.name).read_bytes():
                raise BuildError(f"{path.name} is not the same twice.")


def _build_package(source: Path, into: Path) -> None:
    command = [str(HATCHLING), "build", "--directory", str(into)]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"The package was not built:\n{result.stdout}{result.stderr}")


def notebooks(root: Path, target: Path, name: str) -> None:
    """Pack the executed notebooks with the wheel and the lock that they are installed from."""
    (wheel,) = target.glob("*.whl")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in chapters(root).values():
            notebook = json.loads(path.read_text(encoding="utf-8"))
            downloads.with_install_cell(notebook, wheel.name)
            (folder / path.name).write_text(downloads.dumped(notebook), encoding="utf-8")
        for path in (wheel, target / "requirements.lock"):
            shutil.copyfile(path, folder / path.name)
        packed(folder, target / f"{name}.zip", name)


def site(root: Path, offered: Path) -> None:
    """Build the site with links to what lies in a folder."""
    os.environ["BOOK_DOWNLOADS"] = str(offered)
    try:
        if make_site.main([str(root)]):
            raise BuildError("There is no release without the site.")
    finally:
        del os.environ["BOOK_DOWNLOADS"]


def packed(folder: Path, target: Path, name: str) -> None:
    """Pack a folder as ZIP, the same bytes whenever and wherever it is packed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            # No time: the same for all, the earliest that the format knows.
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}")
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def checksums(folder: Path) -> None:
    """Write what `sha256sum --check SHA256SUMS` reads."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
