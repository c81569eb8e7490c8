"""Run package and notebooks with the oldest and newest releases that pyproject.toml admits.

``python tools/matrix.py [--notebooks NAME …] [--pythons 3.11 …]`` looks for Pythons, makes two
environments for each in ``_build/matrix``, with the oldest and the newest releases of what klapprox
and the chapters import, and runs the tests of the package and the notebooks in both. Outputs of
notebooks are not compared, since last digits may differ; their assertions and checks hold. What
only runs tests or builds the site is the lock's.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "_build" / "matrix"
UV = Path(sys.executable).with_name("uv")
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
EXTRAS = ("diagnostics", "files", "plot", "progress")
# Of the extra `book`, what the chapters and klapprox.book import.
OF_BOOK = ("altair", "ml-dtypes", "mpmath", "sympy", "vl-convert-python")
TOOLS = ("hypothesis", "ipykernel", "nbclient", "nbformat", "nbval", "pytest", "pytest-xdist")
SHOWN = ("numpy", "scipy", "sympy", "matplotlib", "array-api-compat")
# These are about the environment of the lock, or read the whole book.
LEFT_OUT = ("test_audit", "test_locks", "test_package", "test_project", "test_released")

# The command is installed with the package, which is not done here.
DESELECTED = ("tests/test_command.py::test_it_is_installed_under_its_name",)


def project() -> dict:
    """Return what pyproject.toml says of the project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def wanted(stated: dict, lock: str) -> list[str]:
    """Return the requirements of an environment: as pyproject.toml admits, tools as locked."""
    optional = stated["optional-dependencies"]
    lines = [*stated["dependencies"], *(line for extra in EXTRAS for line in optional[extra])]
    lines += [line for line in optional["book"] if Requirement(line).name in OF_BOOK]
    if unbounded := [line for line in lines if ">=" not in line]:
        raise ValueError(f"no oldest release is stated for {', '.join(unbounded)}")
    pins = dict(re.findall(r"^([\w.-]+)(?:\[[^]]*\])?(==[^\s;]+)", lock, re.MULTILINE))
    return sorted({*lines, *(tool + pins[tool] for tool in TOOLS)})


def pythons(admitted: str) -> dict[str, str]:
    """Return the Pythons on this machine that a version specifier admits, oldest first."""
    found: dict[tuple[int, ...], str] = {}
    places = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep)]
    places += Path.home().glob(".pyenv/versions/*/bin")
    for path in (path for place in places for path in place.glob("python3.[0-9]*")):
        if not re.fullmatch(r"python3\.\d+", path.name):
            continue
        code = "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.executable)"
        said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if said.returncode == 0:  # a shim may lead nowhere
            version, executable = said.stdout.strip().split(" ", 1)
            if version in SpecifierSet(admitted):
                found.setdefault(tuple(map(int, version.split(".")[:2])), executable)
    return {".".join(map(str, version)): path for version, path in sorted(found.items())}


def make(folder: Path, python: str, end: str, requirements: list[str]) -> dict[str, str]:
    """Make an environment and return the versions in it."""
    shutil.rmtree(folder, ignore_errors=True)
    run = {"check": True, "text": True, "input": "\n".join(requirements)}
    subprocess.run([UV, "venv", "--quiet", "--python", python, folder], check=True)
    # Wheels only: an old release without one for this Python was never meant for it.
    options = ["--quiet", "--python", folder, "--only-binary", ":all:", "--exclude-newer", "7 days"]
    command = [UV, "pip", "install", *options, "--resolution", ENDS[end], "--requirement", "-"]
    subprocess.run(command, **run)
    command = [UV, "pip", "freeze", "--python", folder]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in said.splitlines() if "==" in line)


def try_out(folder: Path, notebooks: list[Path]) -> tuple[int, str]:
    """Run tests and notebooks in an environment; return the exit status and what pytest said."""
    tests = [path for path in ROOT.glob("tests/test_*.py") if path.stem not in LEFT_OUT]
    tests += [ROOT / "tests/exact", ROOT / "src", *ROOT.glob("tests/book/test_*.py"), *notebooks]
    command = [folder / "bin/python", "-m", "pytest", "--quiet", "-n", "2", "--dist", "loadscope"]
    # What an old release says of a new one beside it is no fault of ours.
    command += ["-W", "default::DeprecationWarning", "-W", "default::PendingDeprecationWarning"]
    command += [f"--deselect={name}" for name in DESELECTED]
    command += ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def main() -> int:
    """Run all that is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebooks", nargs="*", help="chapters by name (default: all)")
    parser.add_argument("--pythons", nargs="*", help="such as 3.11 (default: all that are here)")
    parser.add_argument("--ends", nargs="*", choices=ENDS, default=[*ENDS])
    arguments = parser.parse_args()
    notebooks = sorted(ROOT.glob("chapters/*.ipynb"))
    if arguments.notebooks is not None:
        notebooks = [path for path in notebooks if path.stem in arguments.notebooks]
    stated = project()
    requirements = wanted(stated, (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    here = pythons(stated["requires-python"])
    asked = arguments.pythons or [*here]
    if missing := set(asked) - here.keys():
        print(f"There is no Python {', '.join(sorted(missing))} here.", file=sys.stderr)
        return 1
    failed, runs = [], 0
    for version in asked:
        for end in arguments.ends:
            runs += 1
            folder = FOLDER / f"{version}-{end}"
            found = make(folder, here[version], end, requirements)
            status, said = try_out(folder, notebooks)
            (FOLDER / f"{version}-{end}.log").write_text(said, encoding="utf-8")
            shown = ", ".join(f"{name} {found[name]}" for name in SHOWN)
            print(
                f"Python {version}, {end}: {shown}: {said.splitlines()[-1].strip('= ')}", flush=True
            )
            if status:
                failed.append(f"{version}-{end}")
                lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
                print("\n".join(lines[:20]), flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}; what was said is in {FOLDER}.", file=sys.stderr)
        return 1
    print(
        f"{runs} environments passed: Python {', '.join(asked)}, {' and '.join(arguments.ends)} "
        f"releases, {len(notebooks)} notebooks."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
