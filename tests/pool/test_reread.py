"""Rows that were measured are read again in one place."""

import re
from pathlib import Path

import curate

_ROOT = Path(curate.__file__).parent
_ASKS_A_FORMAT = re.compile(r"\)\.reread\w*\(|kind\.reread\w*\(|\bopen_(?:source|copy)\(|\bindex_tar\(")


def test_nobody_but_the_pool_reads_inputs():
    """Formats, what reads rows of a unit again, and exemplars; `emit` reads the tars that it wrote."""
    asking = {
        str(path.relative_to(_ROOT)) for path in _ROOT.rglob("*.py") if _ASKS_A_FORMAT.search(path.read_text("utf-8"))
    }
    assert {path for path in asking if not path.startswith(("pool/", "tar/"))} == {"emit/webdataset.py"}
    assert {path for path in asking if ".reread" in (_ROOT / path).read_text("utf-8")} == {"pool/reread.py"}
