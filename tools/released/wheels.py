"""Fetch released wheels by name, version and hash, for one fixed platform; nothing is installed."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

# One platform and one Python for everybody, so that everybody reads the same files.
PLATFORM = ["--only-binary", ":all:", "--python-version", "3.12"]
for _tag in ("manylinux_2_28_x86_64", "manylinux1_x86_64", "any"):
    PLATFORM += ["--platform", _tag]
NO_DATE = {(1980, 1, 1), (2020, 2, 2)}  # what build tools write who want the same bytes every time


class ReleaseError(Exception):
    """A release that cannot be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class Release:
    """One pinned wheel; ``path`` is where it lies once fetched."""

    package: str
    version: str
    sha256: str
    date: str  # of the files in it, or of its upload where the files carry none
    path: Path | None = None

    def text(self, name: str) -> str:
        """Return one file of the wheel, wherever the wheel puts its modules."""
        with zipfile.ZipFile(self.path) as wheel:
            found = [n for n in wheel.namelist() if n == name or n.endswith(f"/purelib/{name}")]
            if len(found) != 1:
                raise ReleaseError(f"{self.path.name} has {len(found)} files {name}, not one")
            return wheel.read(found[0]).decode("utf-8")


def pins(path: Path) -> dict[str, Release]:
    """Return the pinned releases of a TOML file by package, older ones by ``package==version``."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    found = {name: Release(name, **entry) for name, entry in table["current"].items()}
    for entry in table.get("older", []):
        release = Release(**entry)
        found[f"{release.package}=={release.version}"] = release
    return found


def fetched(release: Release, folder: Path) -> Release:
    """Return the release with its wheel in the folder, fetched if it is not there."""
    for path in sorted(folder.glob("*.whl")):
        if _name(path) == _normal(release.package) and _hash(path) == release.sha256:
            return replace(release, path=path)
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / f"{release.package}.txt"
    requirements.write_text(
        f"{release.package}=={release.version} --hash=sha256:{release.sha256}\n", encoding="utf-8"
    )
    path = _download(["--require-hashes", "--requirement", str(requirements)], release, folder)
    if _hash(path) != release.sha256:
        raise ReleaseError(f"{path.name} has another hash than the pinned {release.sha256}")
    return replace(release, path=path)


def newest(release: Release, folder: Path) -> Release:
    """Return today's release of the same package, fetched; hash and date are read off its wheel."""
    path = _download([release.package], release, folder / release.package)
    version = path.name.split("-")[1]
    return replace(release, version=version, sha256=_hash(path), date=_date(path), path=path)


def _download(what: list[str], release: Release, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PLATFORM]
    command += ["--disable-pip-version-check", "--dest", str(folder), *what]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ReleaseError(f"{release.package} {release.version}: {result.stderr.strip()}")
    came = [path for path in folder.glob("*.whl") if _name(path) == _normal(release.package)]
    # Of several, the one that just came; of one that was there before, that one.
    (path,) = [path for path in came if path not in before] or [max(came, key=_time)]
    return path


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _name(path: Path) -> str:
    return _normal(path.name.split("-")[0])


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _date(path: Path) -> str:
    """Return the date of the newest source file of a wheel, or "" where it carries none."""
    with zipfile.ZipFile(path) as wheel:
        dates = {i.date_time[:3] for i in wheel.infolist() if i.filename.endswith(".py")} - NO_DATE
    return "-".join(f"{part:02}" for part in max(dates)) if dates else ""
