"""Run Jupyter Book without what it loads and never uses: ``python run_jupyter_book.py build …``.

To check the configuration it loads jsonschema, which would compile a grammar of addresses: seconds
for a format that the configuration does not have.
"""

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
sys.path.pop(0)  # this folder, whose modules have plain names

from jupyter_book.cli.main import main  # noqa: E402

main()
