"""An output format is one file and one line: shards of JSON lines, from a run to SQL."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from curate.ask.verify import verify_run
from curate.base import registry
from curate.base.numeric.arrays import U64
from curate.emit import registry as outputs
from curate.emit.layout import Shard
from curate.emit.output_format import OUTPUTS, OutputFormat, find_output, find_written
from curate.emit.settings import EmitSettings
from curate.pool.formats.input_format import Places
from curate.pool.reread import UnitRereader
from tests.laws import pools
from tests.publish.runs import run_query


class JsonLines(OutputFormat):
    """A line of JSON for each sample."""

    key = "jsonl"
    suffix = "jsonl"
    media_type = "application/jsonl"
    file_set = ("lines", "a line a sample")

    def accepts(self, has_images: bool) -> bool:
        return has_images

    def write(self, settings: EmitSettings, shard: Shard, repeated: U64) -> pa.Table:
        slices = ((part, settings.tables(part.unit)) for part in shard.slices)
        rows = pa.concat_tables(settings.kept_rows(part, tables, ["uid", "caption"]) for part, tables in slices)
        lines = "".join(json.dumps(row) + "\n" for row in rows.to_pylist())
        settings.store.write_bytes(f"{shard.stem}.jsonl", lines.encode())
        return rows

    def card_lines(self, shards: int) -> list[str]:
        return [f"- {shards} files of lines."]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The line in the registry."""
    monkeypatch.setattr(outputs, "KINDS", (JsonLines(), *outputs.KINDS))
    registry._load.cache_clear()
    yield
    monkeypatch.undo()
    registry._load.cache_clear()


def test_the_first_format_that_accepts_a_pool_is_taken() -> None:
    assert [find_output(has_images).key for has_images in (True, False)] == ["webdataset", "parquet"]
    assert list(OUTPUTS.kinds()) == ["webdataset", "parquet"]


def test_the_format_of_shards_is_seen_by_their_files() -> None:
    tars = ["shards/00000.parquet", "shards/00000.tar", "shards/00000_stats.json", "tables/samples/00000.parquet"]
    assert find_written(tars).key == "webdataset"
    assert find_written(path for path in tars if not path.endswith(".tar")).key == "parquet"
    assert find_written([]).key == "parquet"


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("run", [pools.run_local, pools.run_beam])
def test_shards_of_another_format(tmp_path: Path, run: object) -> None:
    assert callable(run)
    path = pools.write_tars(tmp_path / "pool", pools.make_samples(30), 2)
    done = run(pools.recipe_of(path, rules={"words": "words > 3"}, output={"rows_per_shard": 8}), tmp_path / "run")
    sizes = json.loads((done.folder / "shards/sizes.json").read_text())
    assert list(sizes) == [f"{n:05d}.jsonl" for n in range(len(sizes))] and len(sizes) > 1
    lines = [json.loads(line) for name in sizes for line in (done.folder / "shards" / name).read_text().splitlines()]
    kept = done.table("decisions").filter(done.table("decisions")["kept"])["uid"].to_pylist()
    assert [line["uid"] for line in lines] == kept
    assert verify_run(str(done.folder))[1] == []
    listed = {row["path"]: row["rows"] for row in done.table("manifest").to_pylist()}
    assert {f"shards/{name}": rows for name, rows in sizes.items()}.items() <= listed.items()
    shown = run_query(str(done.folder), "SELECT DISTINCT shard, key FROM published ORDER BY shard").rows
    assert shown == [(f"shards/{name}", None) for name in sizes]
    assert f"- {len(sizes)} files of lines." in (done.folder / "README.md").read_text()
    described = json.loads((done.folder / "croissant.json").read_text())["distribution"]
    assert [one["@id"] for one in described[:2]] == ["lines", "parquet"]


def test_a_unit_is_read_once_for_all_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the inputs and of `samples`: shards hold some rows of a unit each."""
    reads: Counter[int] = Counter()
    read = UnitRereader.rows

    def counting(self: UnitRereader, rows: Places, output: pa.Schema) -> Iterator[pa.Table]:
        reads[self.unit.index] += 1
        return read(self, rows, output)

    monkeypatch.setattr(UnitRereader, "rows", counting)
    path = pools.write_parquets(tmp_path / "pool", pools.make_rows(600), 2)
    recipe = pools.recipe_of(path, "parquet", rules={"words": "words > 2"}, output={"rows_per_shard": 20})
    done = pools.run_beam(recipe, tmp_path / "run")
    shards = json.loads((done.folder / "shards/sizes.json").read_text())
    assert len(shards) > 2 * len(reads) and set(reads.values()) == {1}
    assert verify_run(str(done.folder))[1] == []
