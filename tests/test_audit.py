"""What is known of the packages: licences that nobody reviewed, a service that is silent."""

import email
import json
import sys
import tomllib

import audit
import pytest
from packaging.utils import canonicalize_name

REVIEWED = tomllib.loads((audit.ROOT / "tools/licences.toml").read_text(encoding="utf-8"))


def test_pins_are_read_from_locks_of_all_platforms():
    lock = """# a comment
a-b==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:00
c[x]==2.0 \\
    --hash=sha256:00
d==3 --hash=sha256:00
"""
    assert audit.pins(lock) == [("a-b", "1.0"), ("c", "2.0"), ("d", "3")]
    assert all(len(pins) > 0 for pins in audit.pinned([*audit.LOCKS, audit.LOCK_OF_AUDITOR]))


def test_licences_of_all_that_is_installed_here_are_on_the_reviewed_list():
    says = audit.metadata_of(sys.path)
    names = {name for lock in audit.pinned(audit.LOCKS) for name, _ in lock}
    everywhere = {name for name, _ in audit.pinned(audit.LOCKS[:1])[0]}
    installed = names & says.keys()
    assert len(installed) > len(everywhere) - 10, "all but what other systems need"
    wanted = installed | REVIEWED["packages"].keys() | everywhere
    packages, faults = audit.licence_faults(wanted, says, REVIEWED)
    assert faults == []
    assert sum(map(len, packages.values())) == len(wanted)


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT WITH LLVM-exception", False),
        ("(MIT OR GPL-3.0-only)", False),  # brackets are for a reviewer
    ],
)
def test_an_expression_is_met_or_not(expression, met):
    assert audit.admits(expression, REVIEWED["admitted"]) == met


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("License-Expression: MIT\nLicense: other\n", ["MIT"]),
        ("Classifier: License :: OSI Approved :: A\nClassifier: License :: B\n", ["A", "B"]),
        ("License: BSD\nClassifier: Topic :: C\n", ["BSD"]),
        ("Name: a\n", []),
    ],
)
def test_the_most_definite_part_of_the_metadata_counts(text, said):
    assert audit.stated(email.message_from_string(text)) == said


@pytest.mark.parametrize(
    ("says", "packages", "fault"),
    [
        ({"a": ["AGPL-3.0-only"]}, {}, "AGPL-3.0-only is not on the reviewed list"),
        ({"a": ["MIT", "Proprietary"]}, {}, "Proprietary is not on"),
        ({"a": []}, {}, "a: no licence is known"),
        ({}, {}, "a: no licence is known"),
        ({"a": ["MIT"]}, {"a": {"says": [], "licence": "X"}}, "review it again"),
        ({"a": ["MIT"]}, {"b": {"says": [], "licence": "X"}}, "b is reviewed, but in no lock"),
    ],
)
def test_a_licence_that_nobody_reviewed_fails(says, packages, fault):
    found = audit.licence_faults(["a"], says, REVIEWED | {"packages": packages})[1]
    assert len(found) == 1
    assert fault in found[0]


# --- A stand-in for pip-audit ---------------------------------------------------------------------

STAND_IN = """#!{python}
import json, sys
asked, said = (sys.argv[sys.argv.index(name) + 1] for name in ("--requirement", "--output"))
known = json.loads({known!r})
found = []
for line in open(asked):
    name, version = line.strip().split("==")
    one = {{"name": name}}
    if name in known:
        one |= {{"version": version, "vulns": [
            {{"id": i, "fix_versions": ["9"], "aliases": ["CVE-1"]}} for i in known[name]]}}
    else:
        one |= {{"skip_reason": "not found"}}
    found.append(one)
if known:
    json.dump({{"dependencies": found}}, open(said, "w"))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that sets up a project with a lock of two packages and what a service knows."""
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "AUDITOR", tmp_path / "auditor")
    (tmp_path / "lock").write_text("aa==1.0 \\\n  --hash=sha256:00\nbb==2.0 \\\n")
    (tmp_path / "auditor/bin").mkdir(parents=True)

    def set_up(known):
        path = tmp_path / "auditor/bin/python"
        path.write_text(STAND_IN.format(python=sys.executable, known=json.dumps(known)))
        path.chmod(0o755)

    return set_up


@pytest.mark.parametrize(
    ("known", "status", "said"),
    [
        ({}, 3, "nothing is known of vulnerabilities"),
        # pip-audit itself calls these two a success.
        ({"aa": [], "bb": []}, 3, "nothing is known of vulnerabilities"),
        ({"requests": [], "aa": [], "bb": []}, 3, "Exit status 3."),
        ({"requests": ["P-1"], "aa": [], "bb": []}, 0, "0 known vulnerabilities; 2 releases"),
        ({"requests": ["P-1"], "aa": []}, 3, "Nothing is known of bb."),
        (
            {"requests": ["P-1"], "aa": [], "bb": ["P-2"]},
            1,
            "VULNERABLE: bb 2.0: P-2, CVE-1 (mended in 9)",
        ),
        ({"requests": ["P-1"], "aa": ["P-3"]}, 1, "1 known vulnerabilities"),
    ],
)
def test_a_silent_service_is_no_good_sign(project, capfd, known, status, said):
    project(known)
    assert audit.vulnerabilities(["lock"]) == status
    assert said in " ".join(capfd.readouterr())


def test_without_the_auditor_the_licences_are_told_all_the_same(monkeypatch, capsys):
    monkeypatch.setattr(audit, "make_auditor", lambda: "No network.")
    monkeypatch.setattr(audit, "licences", lambda locks: print("licences") or len(locks) - 3)
    assert audit.main([]) == 3
    assert tuple(capsys.readouterr()) == ("licences\n", "No network.\n")
    assert audit.main(["licences"]) == 0
    assert audit.main(["vulnerabilities"]) == 2


@pytest.mark.parametrize(
    ("faults", "status", "whole"), [(0, 0, 0), (0, 3, 3), (2, 0, 1), (2, 3, 1)]
)
def test_the_exit_status_says_what_was_found(monkeypatch, faults, status, whole):
    monkeypatch.setattr(audit, "make_auditor", lambda: None)
    monkeypatch.setattr(audit, "licences", lambda locks: faults)
    monkeypatch.setattr(audit, "vulnerabilities", lambda locks: status)
    assert audit.main([]) == whole


def test_the_release_that_must_be_known_is_none_of_ours():
    assert audit.CANARY not in [pin for lock in audit.pinned(audit.LOCKS) for pin in lock]
    assert canonicalize_name(audit.CANARY[0]) == audit.CANARY[0]
