"""`python -m tests.golden`: rewrites the stored runs. Read the difference before you commit it."""

import shutil
import tempfile
from pathlib import Path

from tests.golden.cases import CASES
from tests.golden.record import record_case

if __name__ == "__main__":
    stored = Path(__file__).parent / "runs"
    shutil.rmtree(stored, ignore_errors=True)
    for make in CASES:
        (stored / make.__name__).mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            for name, text in record_case(make, Path(folder)).items():
                (stored / make.__name__ / name).write_text(text)
