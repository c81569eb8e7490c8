"""The project's files agree with each other, and its first steps fail with a helpful sentence."""

import ast
import re
import subprocess
import sys
import tomllib

import bootstrap
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import klapprox
from bookbuild import rules

PROJECT = tomllib.loads((rules.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(lock):
    """Return the pinned versions of a lock, and the names that lack a hash."""
    entries = re.split(r"\n(?=[a-z0-9])", lock)
    found, unhashed = {}, []
    for entry in entries:
        name, version = re.match(r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==([^\s;\\]+)", entry).groups()
        found.setdefault(name, []).append(Version(version))
        if "--hash=sha256:" not in entry:
            unhashed.append(name)
    return found, unhashed


def disagreements(project, lock, environment):
    """Return in words where pyproject.toml, the lock and environment.yml disagree."""
    found, unhashed = pins(lock)
    faults = [f"{name} has no hash" for name in unhashed]
    if re.search(r"https?://", re.sub(r"#.*", "", lock)):
        faults.append("the lock names a host")
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(text)
        versions = found.get(requirement.name.lower(), [])
        if not versions:
            faults.append(f"{requirement.name} is not in the lock")
        faults += [
            f"{text} does not admit {version}"
            for version in versions
            if version not in requirement.specifier
        ]
    if len(found.get("numpy", [])) != 1:
        faults.append("stored outputs need one NumPy for every Python")
    wanted = [
        f"python{project['requires-python']}",
        "pip",
        {"pip": ["--require-hashes", "--requirement requirements.lock"]},
    ]
    if environment["dependencies"] != wanted:
        faults.append("environment.yml brings more or less than Python, pip and the lock")
    return faults


@pytest.fixture
def files():
    lock = (rules.ROOT / "requirements.lock").read_text(encoding="utf-8")
    environment = yaml.safe_load((rules.ROOT / "environment.yml").read_text(encoding="utf-8"))
    return PROJECT, lock, environment


def test_pyproject_lock_and_environment_agree(files):
    assert disagreements(*files) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda p, lock, e: (p | {"dependencies": ["left-pad"]}, lock, e), "left-pad is not in"),
        (lambda p, lock, e: (p | {"dependencies": ["numpy<2"]}, lock, e), "does not admit"),
        (lambda p, lock, e: (p, lock + "\nnumpy==2.5.1 \\\n    --hash=sha256:0", e), "one NumPy"),
        (lambda p, lock, e: (p, lock + "\nzzz==1.0", e), "zzz has no hash"),
        (lambda p, lock, e: (p, lock + "\n--index-url https://x.example", e), "names a host"),
        (lambda p, lock, e: (p, lock, {"dependencies": ["python=3.9"]}), "environment.yml"),
        (lambda p, lock, e: (p | {"requires-python": ">=3.12"}, lock, e), "environment.yml"),
    ],
)
def test_a_disagreement_is_found(files, change, found):
    faults = disagreements(*change(*files))
    assert any(found in fault for fault in faults), faults


def test_versions_agree():
    citation = yaml.safe_load((rules.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (rules.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == klapprox.__version__
    assert f"## {klapprox.__version__}" in changelog


def test_an_old_python_is_told_what_to_do():
    assert "needs 3.11 or newer" in bootstrap.too_old((3, 9, 2))
    assert bootstrap.too_old((3, 11, 0)) is None
    assert bootstrap.too_old((4, 0, 0)) is None


def test_the_sentence_for_an_old_python_can_be_read_by_one():
    text = (rules.ROOT / "tools/bootstrap.py").read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 4))


OLD = """#!/bin/sh
exec {python} -c 'import runpy, sys
sys.version_info, sys.argv = (3, 9, 2, "final", 0), sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""


def test_make_with_an_old_python_says_what_to_do_and_makes_nothing(tmp_path):
    (tmp_path / "old").write_text(OLD.format(python=sys.executable))
    (tmp_path / "old").chmod(0o755)
    command = ["make", f"PYTHON={tmp_path}/old", f"VENV={tmp_path}/v", "book"]
    result = subprocess.run(command, cwd=rules.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "This is Python 3.9; the book needs 3.11 or newer." in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "v").exists()


def test_a_python_without_venv_is_told_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert bootstrap.main([str(tmp_path / "new")]) == 1
    assert "apt-get install python3-venv" in capsys.readouterr().err


def test_bootstrap_without_a_folder_explains_its_use(capsys):
    assert bootstrap.main([]) == 2
    assert bootstrap.main([".venv", "torch"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_missing_python_is_told_what_to_do(tmp_path):
    command = [
        "make",
        "--no-print-directory",
        "PYTHON=no-such-python",
        f"VENV={tmp_path}/v",
        "install",
    ]
    result = subprocess.run(command, cwd=rules.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Install Python 3.11 or newer" in result.stderr


def test_help_lists_the_targets():
    result = subprocess.run(
        ["make", "help"], cwd=rules.ROOT, capture_output=True, text=True, check=True
    )
    for target in ("book", "test", "notebooks", "lab", "serve", "lint", "clean", "lock", "chapter"):
        assert f"make {target} " in result.stdout


def test_the_example_of_the_readme_prints_what_it_says(capsys):
    readme = (rules.ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    exec(block, {})
    assert capsys.readouterr().out.strip() == block.rsplit("# ", 1)[1].strip()


def test_without_a_browser_nothing_is_installed_but_the_command_is_named(tmp_path):
    asked = tmp_path / "asked"
    (tmp_path / "apt-get").write_text(f"#!/bin/bash\necho $@ >> {asked}\n")
    (tmp_path / "apt-get").chmod(0o755)

    def look(*options):
        command = ["/bin/bash", "tools/chromium.sh", *options]
        environment = {"PATH": str(tmp_path)}
        return subprocess.run(
            command, cwd=rules.ROOT, env=environment, capture_output=True, text=True, check=False
        )

    result = look()
    assert (result.returncode, result.stdout) == (1, "")
    assert "bash tools/chromium.sh --install" in result.stderr
    assert not asked.exists()
    assert look("--install").returncode == 1
    assert "chromium" in asked.read_text()
    (tmp_path / "chromium").symlink_to("/bin/true")
    assert look().stdout == f"{tmp_path}/chromium\n"
