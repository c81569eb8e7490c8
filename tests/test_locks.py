"""The locks are closed, pip takes what they say, and a failed installation says what failed."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile

import bootstrap
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bookbuild import rules

LOCKS = ["requirements.lock", "requirements-arrays.lock"]
LOCK_OF_AUDITOR = "requirements-audit.lock"


def pins(*names):
    """Return what the locks pin for this machine: name, version, extras."""
    found = {}
    for name in names:
        for line in (rules.ROOT / name).read_text(encoding="utf-8").splitlines():
            if line[:1].isalnum():
                pin = Requirement(line.removesuffix("\\"))
                if pin.marker is None or pin.marker.evaluate():
                    (specifier,) = pin.specifier
                    found[pin.name] = (specifier.version, pin.extras)
    return found


def installed(pinned):
    """Return what each pinned distribution that is installed here requires."""
    found = {}
    for name in pinned:
        try:
            found[name] = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def openings(pinned, required):
    """Return in words what a distribution requires and the lock does not have."""
    faults = []
    for name, lines in required.items():
        extras = pinned[name][1] or {""}
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
                continue
            version, having = pinned.get(canonicalize_name(requirement.name), (None, set()))
            if version is None:
                faults.append(f"{name} requires {requirement}, which is not in the lock")
            elif not requirement.specifier.contains(version, prereleases=True):
                faults.append(f"{name} requires {requirement}, but the lock has {version}")
            elif not requirement.extras <= having:
                faults.append(f"{name} requires {requirement}, but the lock has no such extra")
    return faults


def test_the_lock_is_closed():
    pinned = pins("requirements.lock")
    required = installed(pinned)
    assert required.keys() == pinned.keys(), "what the lock pins for this machine is installed"
    assert openings(pinned, required) == []


def test_the_lock_for_array_libraries_is_closed_where_it_is_installed():
    pinned = pins(*LOCKS)
    assert openings(pinned, installed(pinned)) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda p: p | {"coverage": (p["coverage"][0], set())}, "coverage[toml]"),
        (lambda p: {name: pin for name, pin in p.items() if name != "click"}, "not in the lock"),
        (lambda p: p | {"numpy": ("1.0", set())}, "but the lock has 1.0"),
        # An extra that is asked for brings requirements of its own.
        (lambda p: p | {"requests": (p["requests"][0], {"socks"})}, "pysocks"),
    ],
)
def test_an_open_lock_is_found(spoil, fault):
    required = installed(pins("requirements.lock"))
    pinned = spoil(pins("requirements.lock"))
    required = {name: lines for name, lines in required.items() if name in pinned}
    assert any(fault in found.lower() for found in openings(pinned, required))


def test_the_locks_agree():
    base, arrays = (pins(name) for name in LOCKS)
    assert {"dask", "distributed", "jax", "numpy", "filelock"} <= arrays.keys()
    for name in base.keys() & arrays.keys():
        assert base[name][0] == arrays[name][0], name
        assert arrays[name][1] <= base[name][1], name


@pytest.mark.parametrize("name", [*LOCKS, LOCK_OF_AUDITOR])
def test_every_pin_has_a_hash_and_no_lock_names_a_host(name):
    lock = (rules.ROOT / name).read_text(encoding="utf-8")
    assert "://" not in lock
    for entry in re.split(r"\n(?=[a-z0-9])", lock):
        assert "--hash=sha256:" in entry, entry


def test_pytorch_is_pinned_and_what_it_needs_everywhere_is_locked():
    lines = (rules.ROOT / "requirements-torch.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = (line for line in lines if not line.startswith("#"))
    assert re.fullmatch(r"torch==[0-9.]+", pin)


# --- pip against a small index on the disk --------------------------------------------------------


def wheel(folder, name, version, requires="", extra=""):
    """Write a wheel and return its line for a lock."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    metadata += f"Provides-Extra: {extra}\n" if extra else ""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n" * 100)
        archive.writestr(f"{info}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}{f'[{extra}]' if extra else ''}=={version} --hash=sha256:{digest}\n"


BACKEND = """\
import pathlib, zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(pathlib.Path(folder) / "tiny-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\n"
                         "Version: 1.0\\nRequires-Dist: aa\\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\n"
                         "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return "tiny-1.0-py3-none-any.whl"
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1.0"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a closed lock, and an index with a newer release of one of its packages."""
    index, root = tmp_path / "index", tmp_path / "project"
    for folder in (index, root / "tools"):
        folder.mkdir(parents=True)
    lock = wheel(index, "aa", "1.0", requires="bb[x]>=1.0") + wheel(index, "bb", "1.0", extra="x")
    wheel(index, "bb", "2.0", extra="x")
    (root / "requirements.lock").write_text(lock)
    (root / "requirements-arrays.lock").write_text(wheel(index, "cc", "1.0"))
    (root / "requirements-torch.txt").write_text("dd==1.0\n")
    wheel(index, "dd", "1.0", requires="cc")
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(PROJECT)
    shutil.copy(rules.ROOT / "tools/bootstrap.py", root / "tools")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return root


def install(root, *more):
    """Run bootstrap.py; return the exit code and all that was printed."""
    result = subprocess.run(
        [sys.executable, root / "tools/bootstrap.py", root / ".venv", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def versions(root):
    """Return the versions that are installed."""
    (library,) = (root / ".venv/lib").glob("python*")
    found = importlib.metadata.distributions(path=[str(library / "site-packages")])
    return {one.name: one.version for one in found if one.name not in ("pip", "setuptools")}


def pip_install(root, *options):
    """Install the lock with pip as it runs here; return the exit code and what it said."""
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", *options]
    command += ["--target", root / "target", "--requirement", root / "requirements.lock"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_a_newer_release_changes_nothing(project):
    lock = {"aa": "1.0", "bb": "1.0", "tiny": "1.0"}
    assert install(project)[0] == 0
    assert versions(project) == lock

    # Only pyproject.toml has changed: the environment stays.
    (project / ".venv/mine").touch()
    (project / "pyproject.toml").write_text(PROJECT + "# changed\n")
    code, said = install(project)
    assert (code, said) == (0, "")
    assert (project / ".venv/mine").exists()

    # The same with the array libraries, twice.
    for said_then in ("Adding PyTorch, JAX and Dask (once; a few minutes).\n", ""):
        assert install(project, "arrays") == (0, said_then)
        assert versions(project) == lock | {"cc": "1.0", "dd": "1.0"}
        assert (project / ".venv/mine").exists()

    # A lock that has changed makes the environment anew, and so does a try that did not finish.
    sound = (project / "requirements.lock").read_text()
    (project / "requirements.lock").write_text(sound.replace("sha256:", "sha256:0"))
    code, said = install(project)
    assert code == 1
    assert not (project / ".venv/mine").exists()
    assert not (project / ".venv/.ready").exists()
    (project / ".venv/half").touch()
    (project / "requirements.lock").write_text(sound)
    assert install(project)[0] == 0
    assert versions(project) == lock
    assert not (project / ".venv/half").exists()


def test_a_lock_without_extras_is_refused_by_old_versions_of_pip(project):
    lock = project / "requirements.lock"
    assert pip_install(project)[0] == 0, "conda's way: pip resolves, and the extras hold the lock"
    shutil.rmtree(project / "target")
    lock.write_text(lock.read_text().replace("bb[x]", "bb"))
    code, said = pip_install(project)
    if int(importlib.metadata.version("pip").split(".")[0]) >= 24:  # brought by Python 3.13
        assert code == 0, said
    else:
        assert code != 0
        assert "all requirements must have their versions pinned with ==" in said


def test_what_does_not_fit_is_found(project):
    lock = project / "requirements.lock"
    lock.write_text(lock.read_text().splitlines()[0])
    code, said = install(project)
    assert code == 1
    assert "bb" in said
    assert said.endswith(bootstrap.UNFIT + "\n")


# --- Each failure has its sentence, by what pip really says ---------------------------------------

NO_SPACE = """
import errno, os, shutil
def copyfileobj(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
shutil.copyfileobj = copyfileobj
"""


def spoil_hash(project, monkeypatch):
    lock = project / "requirements.lock"
    lock.write_text(re.sub(r"sha256:\w", "sha256:0", lock.read_text()))


def take_hash(project, monkeypatch):
    lock = project / "requirements.lock"
    first, *rest = lock.read_text().splitlines()
    lock.write_text("\n".join([first.split(" --hash")[0], *rest]))


def weaken_hash(project, monkeypatch):
    lock = project / "requirements.lock"
    lock.write_text(re.sub(r"sha256:\w+", f"md5:{'0' * 32}", lock.read_text()))


def take_away(project, monkeypatch):
    (project.parent / "index/bb-1.0-py3-none-any.whl").unlink()


def disconnect(project, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "2")


def disconnect_and_retry(project, monkeypatch):
    disconnect(project, monkeypatch)
    monkeypatch.setenv("PIP_RETRIES", "1")


def resolve_no_name(project, monkeypatch):
    disconnect(project, monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple/")


def fill_disk(project, monkeypatch):
    (project / "hook").mkdir()
    (project / "hook/sitecustomize.py").write_text(NO_SPACE)
    monkeypatch.setenv("PYTHONPATH", str(project / "hook"))


def lock_folder(project, monkeypatch):
    fill_disk(project, monkeypatch)
    (project / "hook/sitecustomize.py").write_text(NO_SPACE.replace("ENOSPC", "EROFS"))


def misspell(project, monkeypatch):
    (project / "requirements.lock").write_text("no requirement\n")


FAILURES = {
    spoil_hash: bootstrap.HASH,
    take_hash: "a line has no hash, see above, and without one nothing is installed.",
    weaken_hash: "This failed; the lines above say why.",
    take_away: "does not have bb==1.0, or not for Python",
    disconnect: bootstrap.NO_NETWORK,
    disconnect_and_retry: bootstrap.NO_NETWORK,
    resolve_no_name: bootstrap.NO_NETWORK,
    fill_disk: "No space is left on the disk of here",
    lock_folder: "here cannot be written",
    misspell: "This failed; the lines above say why.",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_a_failed_step_says_what_failed(project, monkeypatch, capfd, failure):
    failure(project, monkeypatch)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--target", str(project / "target"), "-r", str(project / "requirements.lock")]
    sentence = bootstrap.run(command, "This", "here")
    assert FAILURES[failure] in sentence
    assert not (project / "target").exists()
    assert capfd.readouterr().err.strip(), "what pip says is shown as well"


@pytest.mark.parametrize("spoil", [spoil_hash, take_hash])
def test_an_installation_without_the_right_hash_is_refused(project, monkeypatch, spoil):
    spoil(project, monkeypatch)
    code, said = install(project)
    assert code == 1
    assert "hash" in said.splitlines()[-1]
    assert versions(project) == {}
    assert not (project / ".venv/.ready").exists()


def test_the_sentence_of_a_failed_step_is_the_last_line(project, monkeypatch):
    take_away(project, monkeypatch)
    code, said = install(project)
    assert code == 1
    assert "does not have bb==1.0" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_second_run_waits_for_the_first(project):
    command = [sys.executable, str(project / "tools/bootstrap.py"), str(project / ".venv")]
    with bootstrap.wait_for_others(str(project / ".venv")):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "waiting for its end" in second.stdout.readline()
        assert not (project / ".venv").exists()
    assert "Creating the environment" in second.communicate()[0]
    assert second.returncode == 0


def test_a_folder_that_may_not_be_made_has_its_sentence(project, monkeypatch, capsys):
    def refused(path):
        raise PermissionError(13, os.strerror(13), path)

    (project / ".venv").mkdir()
    monkeypatch.setattr(bootstrap.shutil, "rmtree", refused)
    assert bootstrap.main([str(project / ".venv")]) == 1
    assert f"{project}/.venv cannot be written" in capsys.readouterr().err
