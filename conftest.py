"""How pytest runs the notebooks (``--nbval``): with a sentence where nbval waits or stumbles."""

import time
from queue import Empty

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from bookbuild import notebooks

WAIT_FOR_OUTPUT = 60  # seconds; nbval's own 5 are short for a busy machine


class KernelDiedError(Exception):
    """The kernel is gone while a cell runs."""


class Notebook(IPyNbFile):
    """nbval's notebook, which names a file that is none and notices that its kernel has died."""

    def collect(self):
        """Yield the code cells."""
        try:
            notebooks.read(self.path)
        except notebooks.NotebookError as error:
            raise self.CollectError(str(error)) from None
        for cell in super().collect():
            cell.output_timeout = WAIT_FOR_OUTPUT
            yield cell

    def setup(self):
        """Start the kernel."""
        super().setup()
        self.kernel.await_reply = self.await_reply

    def await_reply(self, msg_id, timeout):
        """Wait for the end of a cell, as nbval does, and look every second for its kernel."""
        end = time.monotonic() + timeout
        while True:
            try:
                message = self.kernel.get_message("shell", timeout=1)
            except Empty:
                if not self.kernel.is_alive():
                    raise KernelDiedError from None
                if time.monotonic() > end:
                    raise
            else:
                if message["parent_header"].get("msg_id") == msg_id:
                    return


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    """Put our notebooks in the place of nbval's."""
    found = yield
    return [
        Notebook.from_parent(parent, path=one.path) if isinstance(one, IPyNbFile) else one
        for one in found
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip the cells behind one that never ended: they would only fail for its sake."""
    if isinstance(item, IPyNbCell) and item.parent.timed_out:
        pytest.skip("a cell before this one did not end, or its kernel died")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Say in which cell the kernel died."""
    try:
        return (yield)
    except KernelDiedError:
        item.parent.timed_out = True
        item.raise_cell_error(
            "The kernel died while it ran this cell (memory? os._exit? a crash in a library?)."
        )
