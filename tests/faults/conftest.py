"""Options and fixtures of the tests of faults: small projects, and a clone of the real one."""

import subprocess
import sys
import sysconfig

import pytest
from test_locks import project, wheel

from bookbuild import rules

__all__ = ["project", "wheel"]
# No network but the machine itself, which kernels of notebooks talk through.
ALONE = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.fixture(scope="session")
def without_network():
    """The beginning of a command that has no network."""
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare, ip and root, to take the network away")
    return ALONE


@pytest.fixture(scope="session")
def mounted():
    """A function: the beginning of a command that sees a folder mounted with some options."""

    def begin(folder, *mounts):
        script = " && ".join([f'mount {one} "$0"' for one in mounts] + ['exec "$@"'])
        command = ["unshare", "--mount", "--", "sh", "-c", script, str(folder)]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs unshare and root, to mount a folder")
        return command

    return begin


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """The files of this project in a folder with spaces and signs in its name, environment made."""
    folder = tmp_path_factory.mktemp("faults") / "Über KL(π‖ρ) & mehr, 50 %"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=rules.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (rules.ROOT / name).is_file():
            target.write_bytes((rules.ROOT / name).read_bytes())
            target.chmod((rules.ROOT / name).stat().st_mode)
    # An environment of its own, with what is installed here: that it can be installed is shown by
    # a small project in such a folder.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (library,) = (folder / ".venv/lib").glob("python*/site-packages")
    (library / "here.pth").write_text(
        f"{folder}/src\nimport site; site.addsitedir({sysconfig.get_path('purelib')!r})\n",
        encoding="utf-8",
    )
    (folder / ".venv/.ready").touch()
    return folder
