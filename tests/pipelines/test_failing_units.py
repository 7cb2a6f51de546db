"""If units fail, curate measures all others, and names each failed unit with its file and its error."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.kit.commands import run_command
from tests.kit.packages import installed, lay_out

UNITS = 8
# A signal of a package that fails at some captions.
MODULE = """
import pyarrow as pa
from curate.plugins import Section, SignalKind, TextSignal


class Fragile(Section):
    pass


def compute(captions):
    for text in captions.to_pylist():
        if text.startswith("bad"):
            raise ZeroDivisionError(text)
    return [pa.repeat(pa.scalar(1, pa.float32()), len(captions))]


KIND = SignalKind(
    "fragile", Fragile, lambda name, section, known: 1,
    lambda name, section, built: [TextSignal(name, (pa.field("fragile", pa.float32()),), "key", compute=compute)],
)
"""


def write_recipe(folder):
    """A recipe of UNITS units, of which two fail; and the package."""
    kinds = {"fragile": "curate_fragile:KIND"}
    lay_out(folder / "site", "fragile", "signals", kinds, curate_fragile=MODULE)
    (folder / "pool").mkdir()
    for i in range(UNITS):
        captions = [f"{'bad' if number in (23, 47) else 'good'} {number}" for number in range(10 * i, 10 * i + 10)]
        urls = [f"http://host/{caption}" for caption in captions]
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / f"pool/{i:05d}.parquet")
    sources = ", ".join(f"{{name: p{i}, format: parquet, path: pool/{i:05d}.parquet}}" for i in range(UNITS))
    (folder / "recipe.yaml").write_text(f"input: [{sources}]\nmeasure: {{fragile: {{}}}}\nmax_failed: 1.0\n")


@pytest.mark.thorough
def test_others_are_measured(tmp_path):
    write_recipe(tmp_path)
    with installed(tmp_path / "site"):
        done = run_command("run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"))
    assert done.status == 1
    lines = done.err.splitlines()[-2:]
    for line, (unit, row) in zip(lines, {"00002": 23, "00004": 47}.items(), strict=True):
        named = rf"(curate: )?unit {unit} \({tmp_path}/pool/{unit}\.parquet\): signal 'fragile' of package fragile 1\.0"
        assert re.match(f"{named}: ZeroDivisionError: bad {row} at ", line), done.err
    measured = sorted(path.stem for path in (tmp_path / "run/tables/samples").iterdir())
    assert measured == [f"{i:05d}" for i in range(UNITS) if i not in (2, 4)]
