"""Re-execute notebooks and store them in one normal form: ``python bookbuild/notebooks.py FILES``.

The normal form leaves in a diff only what a reader would see changed: cell ids derived from the
source, no timings, no versions of the machine, joined output streams. ``--prose`` prints the text
cells instead, for the spelling check; ``--check`` only says which files cannot be read.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_IN_CELLS = {"mystnb", "tags"}
LIMIT = 300  # seconds a cell; the slowest of the book takes some 10


class NotebookError(Exception):
    """A notebook that cannot be read or run; the message names it and says what to do."""


def read(path: Path) -> Any:
    """Return the notebook, or say which file is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if not isinstance(json.loads(text)["cells"], list):
            raise TypeError
        return nbformat.reads(text, as_version=4)
    except (OSError, ValueError, TypeError, KeyError, nbformat.ValidationError) as error:
        raise NotebookError(
            f"{path} is not a whole notebook ({type(error).__name__}: {error}). "
            f"Get the stored one back: git checkout -- {path}"
        ) from error


def normalised(notebook: Any) -> Any:
    """Return the notebook with only what a reader would miss."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        cell.source = cell.source.rstrip()
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in sorted(cell.metadata.items()) if key in KEPT_IN_CELLS}
        )
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Join neighbouring pieces of one stream, which arrive split as chance has it."""
    joined: list[Any] = []
    for output in outputs:
        if (
            joined
            and output.output_type == joined[-1].output_type == "stream"
            and output.name == joined[-1].name
        ):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def execute(path: Path, limit: float = LIMIT) -> str:
    """Re-execute one notebook in place and return its path."""
    notebook = read(path)
    # As in the tests, a notebook runs in its own folder, in a kernel of its own.
    client = NotebookClient(
        notebook,
        timeout=limit,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    )
    try:
        client.execute()
    except CellTimeoutError as error:
        sentence = f"{path}: a cell did not end within {limit:g} s. {error}"
        raise NotebookError(sentence) from error
    except DeadKernelError as error:
        sentence = (
            f"{path}: its kernel died (memory? os._exit? a crash in a library?). Run the cells "
            "one by one: make lab"
        )
        raise NotebookError(sentence) from error
    except CellExecutionError as error:
        raise NotebookError(f"{path}: a cell failed.\n{error}") from error
    # Whole or not at all, should this be interrupted.
    written = path.with_name(f".{path.name}.new")
    try:
        with open(written, "w", encoding="utf-8") as file:
            nbformat.write(normalised(notebook), file)
            file.flush()
            os.fsync(file.fileno())  # a full disk may tell only now
        os.replace(written, path)
    except OSError as error:
        raise NotebookError(f"{path} could not be stored ({error}); it is as it was.") from error
    finally:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)
    return str(path)


def prose(path: Path) -> str:
    """Return the text cells of one notebook."""
    notebook = read(path)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--prose", action="store_true", help="print the text cells and do nothing")
    parser.add_argument("--check", action="store_true", help="only say which cannot be read")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a cell (%(default)s)")
    arguments = parser.parse_args()
    try:
        if arguments.prose:
            print("\n\n".join(prose(path) for path in arguments.files))
            return 0
        if arguments.check:
            for path in arguments.files:
                read(path)
            return 0
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    failed = False
    with ProcessPoolExecutor(max_workers=2) as pool:
        for task in [pool.submit(execute, path, arguments.limit) for path in arguments.files]:
            try:
                print(f"executed {task.result()}", flush=True)
            except NotebookError as error:
                print(error, file=sys.stderr, flush=True)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
