"""Re-execute notebooks and store them in one normal form: ``python tools/notebooks.py FILES``.

The normal form leaves in a diff only what a reader would see changed: cell ids derived from the
source, no timings, no versions of the machine, joined output streams. ``--prose`` prints the text
cells instead, for the spelling check.
"""

import argparse
import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_IN_CELLS = {"mystnb", "tags"}


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


def execute(path: Path) -> str:
    """Re-execute one notebook in place and return its path."""
    notebook = nbformat.read(path, as_version=4)
    # As in the tests, a notebook runs in its own folder, in a kernel of its own.
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    nbformat.write(normalised(notebook), path)
    return str(path)


def prose(path: Path) -> str:
    """Return the text cells of one notebook."""
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--prose", action="store_true", help="print the text cells and do nothing")
    arguments = parser.parse_args()
    if arguments.prose:
        print("\n\n".join(prose(path) for path in arguments.files))
        return 0
    with ProcessPoolExecutor(max_workers=2) as pool:
        for done in pool.map(execute, arguments.files):
            print(f"executed {done}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
