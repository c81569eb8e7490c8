"""The archive of the book's sources that lies with the site: whoever has the site has the book."""

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import klapprox

NAME = f"klapprox-book-{klapprox.__version__}.tar.gz"
LEFT_OUT = {"_build", "dist", "__pycache__", "node_modules"}


def sources(root: Path) -> list[Path]:
    """Return the files of the project: what git tracks, or all of an archive that was unpacked."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
        )
        found = [root / name for name in listed.stdout.split("\0") if name]
    else:
        found = [
            path
            for path in root.rglob("*")
            if not any(part in LEFT_OUT or part.startswith(".") for part in _inside(path, root))
        ]
        found += [path for path in (root / ".ci/run", root / ".gitignore") if path.exists()]
    return sorted(path for path in found if path.is_file())


def write(root: Path, target: Path) -> None:
    """Write the sources as a ``.tar.gz``, the same bytes whenever and wherever it is written."""
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    folder = target.name.removesuffix(".tar.gz")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sources(root):
            entry = tarfile.TarInfo(f"{folder}/{path.relative_to(root).as_posix()}")
            entry.size, entry.mtime = path.stat().st_size, time
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            with open(path, "rb") as file:
                archive.addfile(entry, file)
    target.write_bytes(gzip.compress(stream.getvalue(), mtime=0))


def _inside(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts
