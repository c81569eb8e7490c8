"""Build the book as PDF, whole or not at all: ``python bookbuild/make_pdf.py [ROOT]``.

Sphinx writes LaTeX into a new folder, latexmk runs XeLaTeX there, and the folder becomes
``_build/pdf`` when its log says that no reference is undefined, no glyph missing and no line
sticks out. The same sources give the same bytes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bookbuild import make_site
from bookbuild.make_site import BuildError

NAME = "klapprox-book"
PROGRAMS = ("xelatex", "latexmk", "rsvg-convert", "kpsewhich", "fc-list")
STYLES = ("tcolorbox.sty", "newunicodechar.sty", "titlesec.sty", "lmroman10-regular.otf")
FONT = "DejaVuSansMono.ttf"
PACKAGES = (
    "texlive-xetex texlive-latex-extra texlive-latex-recommended texlive-fonts-recommended latexmk "
    "lmodern librsvg2-bin fonts-dejavu-core fontconfig"
)
BUILD = [*make_site.BUILD[:-1], "--builder", "custom", "--custom-builder", "latex"]
STICKS_OUT = 10  # pt that a line may be too wide
# The same bytes: XeTeX takes its dates from SOURCE_DATE_EPOCH only if told so. Long lines of the
# log in one piece, since it is read below.
FIXED = {"FORCE_SOURCE_DATE": "1", "TZ": "UTC", "max_print_line": "10000"}


def main(arguments: list[str]) -> int:
    """Build the PDF and return the exit code."""
    root = Path(arguments[0]).resolve() if arguments else make_site.HERE.parents[1]
    build = root / "_build"
    try:
        if missing := missing_parts():
            raise BuildError(
                f"The PDF needs {', '.join(missing)}. On Debian: "
                f"apt-get install --no-install-recommends {PACKAGES}"
            )
        build.mkdir(exist_ok=True)
        with make_site.alone(build):
            made = make(root, build)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        said = make_site.said_by_system(str(error), build)
        print(said or f"The PDF was not made: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(f"The book as PDF is ready: {made}")
    return 0


def missing_parts(look: Callable[[str], str | None] = shutil.which) -> list[str]:
    """Return what is not installed of what the PDF needs."""
    missing = [program for program in PROGRAMS if look(program) is None]
    if missing:
        return missing
    missing = [name for name in STYLES if not _said(["kpsewhich", name])]
    return missing + [FONT] * (FONT not in _said(["fc-list", ":", "file"]))


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def make(root: Path, build: Path) -> Path:
    """Make the PDF anew and return its path."""
    for leftover in build.glob(".pdf-*"):  # of a build that was killed
        shutil.rmtree(leftover)
    new = Path(tempfile.mkdtemp(prefix=".pdf-", dir=build))
    try:
        print("Writing LaTeX.", flush=True)
        make_site.run([*BUILD, "--path-output", str(new)], root, new)
        folder = new / "_build" / "latex"
        print("Setting it.", flush=True)
        failed, made = build / "pdf-failed", build / "pdf"
        shutil.rmtree(failed, ignore_errors=True)
        try:
            typeset(folder, NAME)
        except BuildError as error:
            folder.rename(failed)
            raise BuildError(f"{error} The LaTeX is in {failed}.") from error
        shutil.rmtree(made, ignore_errors=True)
        folder.rename(made)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return made / f"{NAME}.pdf"


def typeset(folder: Path, name: str) -> None:
    """Run XeLaTeX as often as it takes, and raise if the log says that something is wrong."""
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | FIXED,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    path = folder / f"{name}.log"
    log = path.read_text(encoding="utf-8", errors="replace") if path.exists() else result.stdout
    faults = log_faults(log)
    if result.returncode or faults:
        print("\n".join(faults) or result.stdout[-3000:], file=sys.stderr)
        raise BuildError("The PDF was not made; the lines above say why.")


def log_faults(log: str) -> list[str]:
    """Return what a log of XeLaTeX says that a reader would see."""
    faults = re.findall(r"^!.*(?:\n(?!l\.).*)?\nl\.\d+.*", log, re.MULTILINE)
    faults += re.findall(r"^! .*", log, re.MULTILINE) if not faults else []
    faults += re.findall(r"^Missing character: .*", log, re.MULTILINE)
    faults += re.findall(r"^.*Warning: .*(?:undefined|multiply defined).*", log, re.MULTILINE)
    for match in re.finditer(r"^Overfull \\hbox \(([\d.]+)pt too wide\).*", log, re.MULTILINE):
        if float(match[1]) > STICKS_OUT:
            faults.append(match[0])
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
