"""Build one page alone, to look at it: ``python bookbuild/make_page.py chapters/k1``.

It takes a few seconds, since no other page is read. So what the page says of other pages is
missing: numbers of other chapters, and statements there, whose labels stand in their place.
`make book` builds all, and is what counts.
"""

import sys
from pathlib import Path

from bookbuild.make_site import HERE, JUPYTER_BOOK, BuildError, alone, run, said_by_system


def main(name: str, root: Path = HERE.parents[1]) -> int:
    """Build a page and print where it is; return the exit code."""
    build = root / "_build" / "page"
    toc = build / "_toc.yml"
    where = ["--all", "--toc", str(toc), "--path-output", str(build)]
    try:
        build.mkdir(parents=True, exist_ok=True)
        with alone(build):
            toc.write_text(f"format: jb-book\nroot: {name}\n", encoding="utf-8")
            run([JUPYTER_BOOK, "build", ".", "-q", *where], root, build)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(said_by_system(str(error), build) or f"The build failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(f"The page alone, without other pages' numbers: {build / '_build/html' / name}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
