"""What every output format shares; a new one is one file and one line: shards of JSON lines, from a run to SQL."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.verify import verify_run
from curate.base import registry
from curate.base.errors import RecipeError
from curate.emit import registry as outputs
from curate.emit.layout import Layout
from curate.emit.output_format import OutputFormat, emit_shard, find_output
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.recipe.output import OUTPUTS
from pipelines.prepare import prepare
from tests import kit
from tests.emit.layouts import lay_out
from tests.emit.written import emitted, pairs, recipe, tars, write_tar
from tests.kit import run_local
from tests.kit.written_runs import run_query


class JsonLines(OutputFormat):
    """A line of JSON for each sample."""

    key = "jsonl"
    suffix = "jsonl"
    media_type = "application/jsonl"
    file_set = ("lines", "a line a sample")

    def accepts(self, has_images):
        return has_images

    def write(self, settings, shard, repeated, stats):
        slices = ((part, settings.tables(part.unit)) for part in shard.slices)
        rows = pa.concat_tables(settings.kept_rows(part, tables, ["uid", "caption"]) for part, tables in slices)
        lines = "".join(json.dumps(row) + "\n" for row in rows.to_pylist())
        settings.store.write_bytes(f"{shard.stem}.jsonl", lines.encode())
        return rows

    def card_lines(self, shards):
        return [f"- {shards} files of lines."]


@pytest.fixture
def added(monkeypatch):
    """The line in the registry."""
    monkeypatch.setattr(outputs, "KINDS", (*outputs.KINDS, JsonLines()))
    registry._load.cache_clear()
    yield
    monkeypatch.undo()
    registry._load.cache_clear()


def test_the_first_format_that_accepts_a_pool_is_taken():
    assert [find_output(None, has_images).key for has_images in (True, False)] == ["webdataset", "parquet"]
    assert list(OUTPUTS.kinds()) == ["webdataset", "parquet"]


@pytest.mark.parametrize(("key", "has_images"), [("webdataset", False), ("parquet", True)])
def test_a_format_that_cannot_hold_the_pool_is_refused(key, has_images):
    other = "webdataset" if has_images else "parquet"
    with pytest.raises(RecipeError, match=f"output.format: {key} is not for pools with.* images; accepted: {other}$"):
        find_output(key, has_images)
    assert find_output(other, has_images).key == other


def test_it_is_refused_before_anything_is_written(tmp_path):
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(30), 1)
    with pytest.raises(RecipeError, match=r"output\.format: parquet is not for pools with images"):
        kit.run_beam(kit.recipe_of(path, output={"format": "parquet"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        RecipeError, match=r"output.format: .*no output format is named 'parquets'; did you mean 'parquet'"
    ):
        kit.recipe_of(path, output={"format": "parquets"})


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("run", [kit.run_local, kit.run_beam])
def test_shards_of_another_format(tmp_path, run):
    assert callable(run)
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(30), 2)
    done = run(
        kit.recipe_of(path, rules={"words": "words > 3"}, output={"rows_per_shard": 8, "format": "jsonl"}),
        tmp_path / "run",
    )
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


def test_a_unit_is_read_once_for_all_its_shards(tmp_path, monkeypatch):
    """Of the inputs and of `samples`: shards hold some rows of a unit each."""
    reads = Counter()
    read = UnitRereader.rows

    def counting(self, rows, output):
        reads[self.unit.index] += 1
        return read(self, rows, output)

    monkeypatch.setattr(UnitRereader, "rows", counting)
    path = kit.write_parquets(tmp_path / "pool", kit.make_rows(600), 2)
    recipe = kit.recipe_of(path, "parquet", rules={"words": "words > 2"}, output={"rows_per_shard": 20})
    done = kit.run_beam(recipe, tmp_path / "run")
    shards = json.loads((done.folder / "shards/sizes.json").read_text())
    assert len(shards) > 2 * len(reads) and set(reads.values()) == {1}
    assert verify_run(str(done.folder))[1] == []


# ---------------------------------------------------------------- what stands is not made again
def test_a_shard_that_stands_is_left_alone_and_one_in_part_is_made_anew(tmp_path):
    path = write_tar(tmp_path / "p.tar", pairs("a", "b", "c"))
    made = recipe(tars(path), 2)
    ran = run_local(made, tmp_path / "run")
    context, unit = prepare(made, str(tmp_path / "run")).context, Unit(0, "s0", ())
    unit = prepare(made, str(tmp_path / "run")).plan.units[0]
    shards, none = lay_out([unit], Layout.of({0: 3}, 2)), np.zeros(0, np.uint64)
    files = [ran.folder / f"shards/00000{suffix}" for suffix in (".tar", ".parquet", "_stats.json")]
    before = [(p.stat().st_ino, p.read_bytes()) for p in files]
    emit_shard(EmitSettings.of(context), shards[0], none)
    assert [(p.stat().st_ino, p.read_bytes()) for p in files] == before
    for file in files:
        file.unlink()
        emit_shard(EmitSettings.of(context), shards[0], none)
        assert [p.read_bytes() for p in files[:2]] == [data for _, data in before[:2]]
        assert files[2].exists()


def test_two_runs_give_equal_bytes(tmp_path):
    path = write_tar(tmp_path / "p.tar", pairs("a", "b:", "c"))
    one, two = (emitted(tmp_path / name, tars(path), 2) for name in ("one", "two"))
    for name in ("shards/00000.tar", "shards/00001.tar", "shards/00000.parquet", "shards/sizes.json", "uids.npy"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
