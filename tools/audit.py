"""Say what is known of all packages that the locks name: ``python tools/audit.py [licences]``.

Licences come from the metadata of the packages and are held to the reviewed list in
``tools/licences.toml``; what is not on it fails. Known vulnerabilities come from pip-audit, which
asks an advisory service. It takes a service that does not know a package for a good sign, so it is
asked for an old release with known vulnerabilities as well: who says nothing of that one says
nothing.

Exit status: 0 nothing found, 1 something found, 3 nothing found but the service did not answer.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import bootstrap
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-arrays.lock", "requirements-torch.txt")
LOCK_OF_AUDITOR = "requirements-audit.lock"
AUDITOR = ROOT / "_build" / "audit"
FOUND, NO_ANSWER = 1, 3
# A release with vulnerabilities that every advisory service knows (CVE-2018-18074 among them).
CANARY = ("requests", "2.19.0")
SILENT = (
    "The advisory service cannot be reached, or knows nothing of a release that it must know, as a "
    "mirror or proxy before it may not. So nothing is known of vulnerabilities: run make audit "
    "again on an open network. Exit status 3."
)


def pins(lock: str) -> list[tuple[str, str]]:
    """Return name and version of all that a lock pins, for every platform."""
    found = []
    for line in lock.splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.split(" --hash")[0].removesuffix("\\"))
            (specifier,) = requirement.specifier
            found.append((canonicalize_name(requirement.name), specifier.version))
    return found


# --- Licences -------------------------------------------------------------------------------------


def stated(metadata: Mapping[str, str]) -> list[str]:
    """Return what the metadata of a package says of its licence, the most definite part of it."""
    if expression := metadata.get("License-Expression"):
        return [expression]
    lines = metadata.get_all("Classifier") or []
    classified = [line.rpartition(" :: ")[2] for line in lines if line.startswith("License ::")]
    if classified:
        return classified
    return [line for line in (metadata.get("License") or "").strip().splitlines()[:1] if line]


def admits(expression: str, admitted: Iterable[str]) -> bool:
    """Say whether a licence expression without brackets is met by admitted licences."""
    return any(
        all(part.strip() in admitted for part in re.split(r"\bAND\b", alternative))
        for alternative in re.split(r"\bOR\b", expression)
    )


def licence_faults(
    names: Iterable[str], says: Mapping[str, list[str]], reviewed: Mapping[str, object]
) -> tuple[dict[str, list[str]], list[str]]:
    """Hold licences to the reviewed list.

    Parameters
    ----------
    names : iterable of str
        The packages that the locks name.
    says : mapping
        What their metadata says, for those that are installed here.
    reviewed : mapping
        The content of ``licences.toml``.

    Returns
    -------
    packages : dict
        The packages under each licence.
    faults : list of str
    """
    names = set(names)
    packages, faults = defaultdict(list), []
    for name in sorted(names):
        found = sorted(reviewed["spelled"].get(one, one) for one in says.get(name, []))
        known = reviewed["packages"].get(name)
        if known and found and found != known["says"]:
            faults.append(f"{name} says {found} now, not {known['says']}: review it again")
        elif known:
            packages[known["licence"]].append(name)
        elif not found:
            faults.append(f"{name}: no licence is known")
        elif not all(admits(one, reviewed["admitted"]) for one in found):
            faults.append(f"{name}: {', '.join(found)} is not on the reviewed list")
        else:
            packages[", ".join(found)].append(name)
    faults += [
        f"{name} is reviewed, but in no lock"
        for name in sorted(reviewed["packages"].keys() - names)
    ]
    return dict(packages), faults


def metadata_of(folders: list[str]) -> dict[str, list[str]]:
    """Return what the packages installed in some folders say of their licences."""
    return {
        canonicalize_name(one.metadata["Name"]): stated(one.metadata)
        for one in importlib.metadata.distributions(path=folders)
    }


def pinned(locks: Iterable[str]) -> list[list[tuple[str, str]]]:
    """Return what each of some locks pins."""
    return [pins((ROOT / lock).read_text(encoding="utf-8")) for lock in locks]


def licences(locks: Iterable[str]) -> int:
    """Print the licences of all that some locks pin and return how many faults there are."""
    names = {name for lock in pinned(locks) for name, _ in lock}
    reviewed = tomllib.loads((ROOT / "tools/licences.toml").read_text(encoding="utf-8"))
    folders = [*sys.path, *map(str, AUDITOR.glob("lib/python*/site-packages"))]
    packages, faults = licence_faults(names, metadata_of(folders), reviewed)
    for licence, found in sorted(packages.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"{licence} ({len(found)}): {', '.join(found)}")
    for fault in faults:
        print(f"FAULT: {fault}")
    count = len(names) - len(faults)
    print(f"{count} of {len(names)} packages have a licence on the reviewed list.", flush=True)
    return len(faults)


# --- Vulnerabilities ------------------------------------------------------------------------------


def make_auditor() -> str | None:
    """Make the environment of pip-audit, by hash; return the sentence for a failure, or None."""
    target, lock = str(AUDITOR), ROOT / LOCK_OF_AUDITOR
    stamp = bootstrap.Stamp(target, ".locked", str(lock))
    if stamp.holds():
        return None
    AUDITOR.parent.mkdir(exist_ok=True)
    pip = [f"{target}/bin/python", "-m", "pip", "--disable-pip-version-check", "install"]
    options = ["--quiet", "--progress-bar", "off", "--no-deps", "--require-hashes"]
    sentence = bootstrap.run(
        [sys.executable, "-m", "venv", "--clear", target], "Making an environment", target
    ) or bootstrap.run([*pip, *options, "--requirement", str(lock)], f"Installing {lock}", target)
    if not sentence:
        stamp.set()
    return sentence


def ask(releases: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the vulnerabilities of each package of which the service knows."""
    with tempfile.TemporaryDirectory() as folder:
        asked, said = Path(folder, "asked.txt"), Path(folder, "said.json")
        asked.write_text("".join(f"{name}=={version}\n" for name, version in releases))
        command = [f"{AUDITOR}/bin/python", "-m", "pip_audit", "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--desc", "off", "--progress-spinner", "off"]
        command += ["--output", said, "--requirement", asked]
        subprocess.run(command, capture_output=True, check=False)
        text = said.read_text(encoding="utf-8") if said.exists() else '{"dependencies": []}'
    return {
        canonicalize_name(one["name"]): [
            f"{one['name']} {one['version']}: {', '.join([v['id'], *v.get('aliases', [])])}"
            f" (mended in {', '.join(v['fix_versions']) or 'no release'})"
            for v in one["vulns"]
        ]
        for one in json.loads(text)["dependencies"]
        if "vulns" in one
    }


def vulnerabilities(locks: Iterable[str]) -> int:
    """Print what is known of vulnerabilities of what some locks pin; return the exit status."""
    if not ask([CANARY]).get(CANARY[0]):
        print(SILENT, file=sys.stderr)
        return NO_ANSWER
    lists = pinned(locks)  # one by one: a package may have another version in another lock
    answers = [ask(lock) for lock in lists]
    found = {line for answer in answers for lines in answer.values() for line in lines}
    unknown = {name for lock in lists for name, _ in lock} - set().union(*answers)
    for line in sorted(found):
        print(f"VULNERABLE: {line}")
    if unknown:
        print(f"Nothing is known of {', '.join(sorted(unknown))}.")
    asked = len({pin for lock in lists for pin in lock})
    print(
        f"{len(found)} known vulnerabilities; {asked} releases asked for, {len(unknown)} unknown."
    )
    return FOUND if found else NO_ANSWER if unknown else 0


def main(arguments: list[str]) -> int:
    """Print what was asked for and return the exit status."""
    if arguments not in ([], ["licences"]):
        print("usage: python tools/audit.py [licences]", file=sys.stderr)
        return 2
    if arguments:
        return FOUND if licences(LOCKS) else 0
    if sentence := make_auditor():
        print(sentence, file=sys.stderr)
        return FOUND if licences(LOCKS) else NO_ANSWER
    locks = (*LOCKS, LOCK_OF_AUDITOR)
    faults, status = licences(locks), vulnerabilities(locks)
    return FOUND if faults else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
