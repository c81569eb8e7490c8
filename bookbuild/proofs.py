"""The formal proofs in ``proofs/``: which statement they cover, whether they hold, where they are.

``python -m bookbuild.proofs check`` compiles all of them with Coq, ``mutants`` shows that changed
statements do not compile, ``accept LABEL`` notes that a statement that was changed in the book has
been compared with its formal twin again. The faults that need no Coq are in `faults`.
"""

import fnmatch
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword

from bookbuild import statements

ROOT = Path(__file__).resolve().parents[1]
# Seconds. A proof that fails does so soon; a mutant that sends a tactic searching is no good one.
PATIENCE = 120
PACKAGES = ("coq", "libcoq-coquelicot", "libcoq-flocq", "libcoq-interval")
# What a proof may not contain: each of these lets Coq accept what nobody has proved.
FORBIDDEN = re.compile(
    r"\b(Admitted|Abort|Axioms?|Parameters?|Conjecture|admit|give_up|Unset\s+\w+\s+Checking"
    r"|bypass_check|Declare\s+ML)\b"
)
# Coq takes a mean or a sum behind one of these signs for all that follows, to the next bracket.
MISREAD = re.compile(r"(?:[*^]|/(?!\\)|(?:[=(,<>\[\]]|->|/\\)\s*-)\s*(?:E\[|∑|Var\[|Cov\[)")
_NAMED = re.compile(
    r"^[ ]*(?:Theorem|Lemma|Corollary|Proposition|Example|Fact|Remark)\s+([\w']+)", re.MULTILINE
)
# Names that say which statement of the book they belong to.
OF_THE_BOOK = re.compile(r"(def|lem|prop|thm|cor|ex|rem)_")
_DIGEST = re.compile(r'^digest = "[^"]*"$', re.MULTILINE)


@dataclass(frozen=True)
class Theorem:
    """A named statement in a file of ``proofs/``: where it is, its text, and its proof."""

    name: str
    file: str
    line: int
    start: int
    statement: str
    proof: str


class ProofError(Exception):
    """Something does not hold; the message says what."""


# --- What can be said without Coq ---------------------------------------------------------------


def without_comments(source: str) -> str:
    """Return Coq source with blanks in place of its comments, which may be nested."""
    depth, kept = 0, []
    for part in re.split(r"(\(\*|\*\))", source):
        if part == "(*":
            depth += 1
        kept.append(re.sub(r"[^\n]", " ", part) if depth or part == "*)" else part)
        if part == "*)":
            depth -= 1
    return "".join(kept)


def theorems(folder: Path) -> dict[str, Theorem]:
    """Return the named statements of all files, by name."""
    found: dict[str, Theorem] = {}
    for path in sorted(folder.glob("*.v")):
        source = without_comments(path.read_text(encoding="utf-8"))
        for match in _NAMED.finditer(source):
            begin = source.index("Proof", match.start())
            end = re.compile(r"\b(?:Qed|Defined)\.").search(source, begin)
            if end is None:
                raise ProofError(f"{path.name}: the proof of {match[1]} has no end")
            if match[1] in found:
                raise ProofError(f"{match[1]} is in {found[match[1]].file} and in {path.name}")
            found[match[1]] = Theorem(
                match[1],
                path.name,
                source.count("\n", 0, match.start()) + 1,
                match.start(),
                source[match.start() : begin],
                source[begin : end.end()],
            )
    return found


def labels(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what ``labels.toml`` says of each statement of the book that has a formal twin."""
    path = folder / "labels.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def digest(text: str) -> str:
    """Return a digest of the words of a statement; how its lines are broken does not count."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


def of_the_book(root: Path = ROOT) -> dict[str, statements.Statement]:
    """Return the statements of the book by label."""
    found: dict[str, statements.Statement] = {}
    for page in statements.pages(root / "_toc.yml"):
        path = root / f"{page}.ipynb"
        if path.exists():
            found |= {s.label: s for s in statements.statements(path) if s.label}
    return found


def faults(folder: Path, book: dict[str, statements.Statement]) -> list[str]:
    """Return where proofs, ``labels.toml`` and the book disagree, and what no proof may contain."""
    known, formal = theorems(folder), labels(folder)
    found = []
    listed: dict[str, str] = {}
    for label, entry in formal.items():
        if label not in book:
            found.append(f"labels.toml: there is no statement {label} in the book")
        elif entry["digest"] != digest(book[label].text):
            found.append(
                f"{label} has changed in the book: compare it with its formal twin, then run "
                f"python -m bookbuild.proofs accept {label}"
            )
        if not entry["theorems"]:
            found.append(f"labels.toml: {label} has no theorem")
        for name in entry["theorems"]:
            if name in listed:
                found.append(f"labels.toml: {name} is listed twice")
            listed[name] = label
            if name not in known:
                found.append(f"labels.toml: {name} of {label} is in no file of {folder.name}/")
            stem = label.replace("-", "_")
            if name != stem and not name.startswith(f"{stem}_"):
                found.append(f"labels.toml: {name} does not begin with {stem}")
        missing_words = [key for key in ("covers", "narrower") if not entry.get(key)]
        found += [f"labels.toml: {label} does not say {key}" for key in missing_words]
    found += [
        f"{theorem.file}, line {theorem.line}: {name} is not in labels.toml"
        for name, theorem in known.items()
        if OF_THE_BOOK.match(name) and name not in listed
    ]
    project = (folder / "_CoqProject").read_text(encoding="utf-8").split()
    for path in sorted(folder.glob("*.v")):
        if path.name not in project:
            found.append(f"{path.name} is not in _CoqProject, so nobody compiles it")
        source = without_comments(path.read_text(encoding="utf-8"))
        found += [
            f"{path.name}, line {source.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            for match in FORBIDDEN.finditer(source)
        ]
        found += [
            f"{path.name}, line {source.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: put "
            "the mean or sum in brackets"
            for match in MISREAD.finditer(source)
        ]
    return found


def statuses(root: Path) -> dict[str, dict[str, Any]]:
    """Return, for each label, its theorems with file and line, what they cover and what is missing.

    ``words`` is what a page says: "formally proved", or "formally proved in part".
    """
    known = theorems(root / "proofs")
    return {
        label: {
            "words": "formally proved" + (" in part" if entry.get("missing") else ""),
            "theorems": [
                {"name": name, "file": known[name].file, "line": known[name].line}
                for name in entry["theorems"]
            ],
            "covers": entry["covers"],
            "narrower": entry["narrower"],
            "missing": entry.get("missing", ""),
        }
        for label, entry in labels(root / "proofs").items()
    }


def address(theorem: Mapping[str, Any]) -> str:
    """Return where the site shows a theorem, as in `statuses`, seen from one folder deep."""
    return f"../proofs/{Path(theorem['file']).stem}.html#line-{theorem['line']}"


def pages_of_sources(
    root: Path, every: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield the page of each file for the site: its name, its title, its text, line by line.

    The title is the file's first comment. Before a theorem stands a link to what it proves.

    Parameters
    ----------
    root : Path
    every : dict
        The records of all results, by label; ``formal`` is what `statuses` says of one.
    """
    proved: dict[tuple[str, int], list[str]] = {}
    for record in every.values():
        for theorem in record["formal"]["theorems"] if record["formal"] else []:
            proved.setdefault((theorem["file"], theorem["line"]), []).append(_link(record))
    for path in sorted((root / "proofs").glob("*.v")):
        source = path.read_text(encoding="utf-8")
        title = re.match(r"\(\*+\s*(.*?)\s*(?:\*\)|\n\n)", source, re.DOTALL)
        words = " ".join(title[1].removeprefix("* ").split()) if title else path.name
        found = {line: links for (file, line), links in proved.items() if file == path.name}
        lines = "".join(
            f'{_for_what(found.get(number, []))}<span id="line-{number}">{line}\n</span>'
            for number, line in enumerate(_marked(source), 1)
        )
        links = ", ".join(dict.fromkeys(link for line in sorted(found) for link in found[line]))
        said = f"Proved here, wholly or in part: {links}." if links else "It serves other files."
        body = (
            f'<h1>{html.escape(words)}</h1><p class="place">Formal proofs in Coq, '
            f"<code>proofs/{path.name}</code></p>"
            f"<p>{said} What each proof covers, and what not, says the page on "
            '<a href="../back-matter/checks.html">checks</a>.</p>'
            f'<pre class="coq">{lines}</pre>'
        )
        yield f"proofs/{path.stem}", html.escape(words), body


def _link(record: Mapping[str, Any]) -> str:
    """Return a link from the page of a source to that of a result."""
    preview = record["place"].replace(".html", "", 1)
    return (
        f'<a class="reference internal" href="../{record["page"]}" data-preview="{preview}">'
        f"{record['name'].replace(' ', chr(0xA0))}</a>"
    )


def _for_what(links: list[str]) -> str:
    return f'<span class="of">{", ".join(links)}</span>' if links else ""


def _marked(source: str) -> list[str]:
    """Return the lines of a source as HTML, its comments and the words of its sentences marked."""
    made = ""
    for kind, text in get_lexer_by_name("coq", stripnl=False, ensurenl=False).get_tokens(source):
        name = "c1" if kind in Comment else "k" if kind in Keyword.Namespace else ""
        parts = [html.escape(part, quote=False) for part in text.split("\n")]
        if name:
            parts = [f'<span class="{name}">{part}</span>' if part else "" for part in parts]
        made += "\n".join(parts)
    return made.removesuffix("\n").split("\n")


def accept(folder: Path, label: str, book: dict[str, statements.Statement]) -> None:
    """Store the digest of a statement: its formal twin has been looked at again."""
    path = folder / "labels.toml"
    before, heading, rest = path.read_text(encoding="utf-8").partition(f"[{label}]\n")
    if not heading or label not in book:
        raise ProofError(f"{label} is not in labels.toml or not in the book")
    rest = _DIGEST.sub(f'digest = "{digest(book[label].text)}"', rest, count=1)
    path.write_text(before + heading + rest, encoding="utf-8")


# --- What Coq says ------------------------------------------------------------------------------


def coqc(folder: Path, file: str) -> subprocess.CompletedProcess[str]:
    """Compile one file in a folder where what it imports is compiled."""
    command = ["coqc", "-q", "-Q", ".", "KL", "-w", "-ambiguous-paths", file]
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise ProofError(f"{file}: Coq had not ended after {PATIENCE} s") from error


def require_coq() -> None:
    """Say which packages are missing; nothing is installed here."""
    if shutil.which("coqc") is None:
        raise ProofError(
            "Coq is not installed. On Debian or Ubuntu: "
            f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        )


def compile_all(folder: Path, build: Path) -> None:
    """Compile every file, from nothing, in a folder of its own."""
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    for path in [*folder.glob("*.v"), folder / "_CoqProject"]:
        shutil.copy(path, build)
    for command in (
        ["coq_makefile", "-f", "_CoqProject", "-o", "CoqMakefile"],
        ["make", "--silent", f"--jobs={os.cpu_count() or 1}", "-f", "CoqMakefile"],
    ):
        done = subprocess.run(command, cwd=build, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProofError(f"{done.stdout}{done.stderr}")


def is_compiled(folder: Path, build: Path) -> bool:
    """Say whether a folder holds these very files, compiled."""
    return all(
        (build / path.name).is_file()
        and (build / path.name).read_bytes() == path.read_bytes()
        and (build / path.name).with_suffix(".vo").is_file()
        for path in folder.glob("*.v")
    )


def assumptions(build: Path, names: list[str], modules: list[str], group: str) -> set[str]:
    """Return what theorems rest on, all of them together, as Coq prints it."""
    source = (
        f"From KL Require Import {' '.join(modules)}.\n"
        f"Definition all_theorems := ({', '.join(f'@{name}' for name in names)}).\n"
        "Print Assumptions all_theorems.\n"
    )
    (build / f"Assumptions_{group}.v").write_text(source, encoding="utf-8")
    done = coqc(build, f"Assumptions_{group}.v")
    if done.returncode:
        raise ProofError(done.stderr)
    return set(re.findall(r"^([\w.']+)(?= :|$)", done.stdout, re.MULTILINE)) - {"Axioms"}


def unexpected(found: set[str], allowed: list[str]) -> list[str]:
    """Return the assumptions that no pattern of the list allows."""
    return sorted(
        name for name in found if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
    )


def assumption_faults(folder: Path, build: Path) -> list[str]:
    """Return what theorems assume beyond ``assumptions.toml``.

    Only the files that load the tactic ``interval`` may use what is allowed for it.
    """
    allowed = tomllib.loads((folder / "assumptions.toml").read_text(encoding="utf-8"))
    known = theorems(folder)
    groups: dict[str, list[Theorem]] = {"everywhere": [], "interval": []}
    computing = files_with_interval(folder)
    for entry in labels(folder).values():
        for name in entry["theorems"]:
            theorem = known[name]
            groups["interval" if theorem.file in computing else "everywhere"].append(theorem)

    def of_group(group: str) -> list[str]:
        members = groups[group]
        names = [theorem.name for theorem in members]
        modules = sorted({Path(theorem.file).stem for theorem in members})
        patterns = [*allowed["everywhere"], *(allowed["interval"] if group == "interval" else ())]
        found = assumptions(build, names, modules, group)
        return [
            f"A theorem of {', '.join(modules)} assumes {name}"
            for name in unexpected(found, patterns)
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [fault for faults_of in pool.map(of_group, groups) for fault in faults_of]


def files_with_interval(folder: Path) -> set[str]:
    """Return the files that load the tactic ``interval``, themselves or by what they import."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.v")}
    found = {name for name, source in sources.items() if "From Interval" in source}
    while True:
        more = {
            name
            for name, source in sources.items()
            for line in re.findall(
                r"^From KL Require (?:Ex|Im)port ([^.]*)\.", source, re.MULTILINE
            )
            if found & set(line.split())
        } - found
        if not more:
            return {f"{name}.v" for name in found}
        found |= more


def check(folder: Path, build: Path) -> str:
    """Compile everything, compare assumptions, and return a line with what there is."""
    start = time.monotonic()
    formal = labels(folder)
    if wrong := faults(folder, of_the_book(folder.parent)):
        raise ProofError("\n".join(wrong))
    require_coq()
    compile_all(folder, build)
    if wrong := assumption_faults(folder, build):
        raise ProofError("\n".join(wrong))
    count = sum(len(entry["theorems"]) for entry in formal.values())
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.glob("*.v"))
    return (
        f"{len(formal)} labels, {count} theorems, {lines} lines in "
        f"{len(list(folder.glob('*.v')))} files: proved in {time.monotonic() - start:.0f} s."
    )


# --- Mutants ------------------------------------------------------------------------------------


def mutants(folder: Path) -> list[dict[str, str]]:
    """Return the mutants of ``mutants.toml``: theorem, text, other text, what is wrong then."""
    found: list[dict[str, str]] = tomllib.loads(
        (folder / "mutants.toml").read_text(encoding="utf-8")
    )["mutant"]
    return found


def mutated(
    folder: Path, known: dict[str, Theorem], mutant: dict[str, str]
) -> tuple[Theorem, str, range]:
    """Return the theorem, its file up to the end of the proof, and the lines of the proof."""
    theorem = known[mutant["theorem"]]
    if theorem.statement.count(mutant["text"]) != 1:
        raise ProofError(f"{theorem.name} does not contain {mutant['text']!r} exactly once")
    statement = theorem.statement.replace(mutant["text"], mutant["mutant"])
    source = without_comments((folder / theorem.file).read_text(encoding="utf-8"))
    before = source[: theorem.start] + statement
    first = before.count("\n") + 1
    return (
        theorem,
        before + theorem.proof + "\n",
        range(first, first + theorem.proof.count("\n") + 1),
    )


def survivors(folder: Path, build: Path, wanted: list[dict[str, str]]) -> Iterator[str]:
    """Yield the mutants that Coq accepts, or rejects for another reason than their proof."""
    known = theorems(folder)

    def tried(numbered: tuple[int, dict[str, str]]) -> str | None:
        number, mutant = numbered
        theorem, source, proof = mutated(folder, known, mutant)
        file = f"Mutant{number}.v"
        (build / file).write_text(source, encoding="utf-8")
        done = coqc(build, file)
        at = re.search(r'^File "[^"]*", line (\d+)', done.stderr, re.MULTILINE)
        if at and int(at[1]) in proof and "pending sections" not in done.stderr:
            return None
        return f"{theorem.name} with {mutant['mutant']!r}: {done.stderr or 'accepted'}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(tried, enumerate(wanted)))


def main(arguments: list[str]) -> int:
    """Do what the first argument says and return the exit code."""
    folder, build = ROOT / "proofs", ROOT / "_build" / "proofs"
    try:
        match arguments:
            case ["check"]:
                print(check(folder, build))
            case ["mutants", *names]:
                require_coq()
                if not is_compiled(folder, build):
                    compile_all(folder, build)
                wanted = [m for m in mutants(folder) if not names or m["theorem"] in names]
                if alive := list(survivors(folder, build, wanted)):
                    raise ProofError("\n".join(alive))
                print(f"{len(wanted)} mutants: none has a proof that compiles.")
            case ["accept", label]:
                accept(folder, label, of_the_book())
            case _:
                raise ProofError("check, mutants [THEOREM …], or accept LABEL")
    except ProofError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
