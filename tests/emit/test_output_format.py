"""What every output format shares; a new one is one file and one line: shards of JSON lines, from a run to SQL."""

import json

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
from curate.publish.forget.forget import forget
from curate.recipe.output import OUTPUTS
from curate.store.items import Items
from pipelines.prepare import prepare
from tests import kit
from tests.emit.layouts import lay_out
from tests.emit.written import pairs, recipe, tars, write_tar
from tests.kit import run_local
from tests.kit.written_runs import run_query


class JsonLines(OutputFormat):
    """A line of JSON for each sample."""

    key = "jsonl"
    suffix = "jsonl"
    media_type = "application/jsonl"
    file_set = ("lines", "a line a sample")

    def accepts(self, has_images):
        return True

    def write(self, settings, shard, repeated, stats):
        slices = ((part, settings.tables(part.unit)) for part in shard.slices)
        rows = pa.concat_tables(settings.kept_rows(part, tables, ["uid", "caption"]) for part, tables in slices)
        lines = "".join(json.dumps(row) + "\n" for row in rows.to_pylist())
        settings.store.write_bytes(f"{shard.stem}.jsonl", lines.encode())
        return rows

    def remove(self, store, stem, removed):
        uids, lines = (
            set(removed["uid"].to_pylist()),
            store.read_bytes(f"{stem}.jsonl").decode().splitlines(keepends=True),
        )
        kept = [line for line in lines if json.loads(line)["uid"] not in uids]
        store.write_bytes(f"{stem}.jsonl", "".join(kept).encode())
        return [f"{stem}.jsonl"]

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


def test_a_format_that_cannot_hold_the_pool_is_refused(tmp_path):
    """Before anything is written."""
    assert (
        [find_output(None, has_images).key for has_images in (True, False)]
        == list(OUTPUTS.kinds())
        == ["webdataset", "parquet"]
    )
    with pytest.raises(
        RecipeError, match=r"output.format: webdataset is not for pools without images; accepted: parquet$"
    ):
        find_output("webdataset", False)
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(30), 1)
    with pytest.raises(
        RecipeError, match=r"output\.format: parquet is not for pools with images; accepted: webdataset$"
    ):
        kit.run_beam(kit.recipe_of(path, output={"format": "parquet"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=r"no output format is named 'parquets'; did you mean 'parquet'"):
        kit.recipe_of(path, output={"format": "parquets"})


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("has_images", [True, False])
def test_shards_of_another_format(tmp_path, has_images):
    if has_images:
        pool = kit.write_tars(tmp_path / "pool", kit.make_samples(30), 2), "webdataset"
    else:
        pool = kit.write_parquets(tmp_path / "pool", kit.make_rows(60), 2), "parquet"
    output = {"rows_per_shard": 8, "format": "jsonl"}
    recipe = kit.recipe_of(*pool, rules={"words": "words > 3"}, output=output)
    done = kit.run_beam(recipe, tmp_path / "run") if has_images else kit.run_local(recipe, tmp_path / "run")
    sizes = json.loads((done.folder / "shards/sizes.json").read_text())
    assert list(sizes) == [f"{n:05d}.jsonl" for n in range(len(sizes))] and len(sizes) > 1
    lines = [json.loads(line) for name in sizes for line in (done.folder / "shards" / name).read_text().splitlines()]
    kept = done.table("decisions").filter(done.table("decisions")["kept"])["uid"].to_pylist()
    assert [line["uid"] for line in lines] == kept and verify_run(str(done.folder))[1] == []
    listed = {row["path"]: row["rows"] for row in done.table("manifest").to_pylist()}
    assert {f"shards/{name}": rows for name, rows in sizes.items()}.items() <= listed.items()
    shown = run_query(str(done.folder), "SELECT DISTINCT shard, key FROM published ORDER BY shard").rows
    assert shown == [(f"shards/{name}", None) for name in sizes]
    assert f"- {len(sizes)} files of lines." in (done.folder / "README.md").read_text()
    described = json.loads((done.folder / "croissant.json").read_text())["distribution"]
    assert [one["@id"] for one in described[: 1 + has_images]] == ["lines", "parquet"][: 1 + has_images]
    forget(str(done.folder), Items.of({"uid": [bytes.fromhex(kept[0])]}))
    assert kept[0] not in "".join(path.read_text() for path in done.folder.glob("shards/*.jsonl"))
    assert verify_run(str(done.folder))[1] == []


def test_a_whole_shard_is_left_alone_and_one_in_part_is_made_anew(tmp_path):
    """With the same bytes."""
    made = recipe(tars(write_tar(tmp_path / "p.tar", pairs("a", "b:", "c"))), 2)
    ran = run_local(made, tmp_path / "run")
    prepared = prepare(made, str(tmp_path / "run"))
    settings, none = EmitSettings.of(prepared.context), np.zeros(0, np.uint64)
    [shard, _] = lay_out(prepared.plan.units, Layout.of({0: 3}, 2))
    files = [ran.folder / f"shards/00000{suffix}" for suffix in (".tar", ".parquet", "_stats.json")]
    before = [(p.stat().st_ino, p.read_bytes()) for p in files]
    emit_shard(settings, shard, none)
    assert [(p.stat().st_ino, p.read_bytes()) for p in files] == before
    for file in files:
        file.unlink()
        emit_shard(EmitSettings.of(prepared.context), shard, none)
        assert [p.read_bytes() for p in files[:2]] == [data for _, data in before[:2]] and files[2].exists()
