"""A new output format, JSON lines, in runs, queries, the card, and forget."""

import json

import pyarrow as pa
import pytest

from curate.ask.verify import verify_run
from curate.base import registry
from curate.base.errors import RecipeError
from curate.emit import registry as outputs
from curate.emit.output_format import OutputFormat, find_output
from curate.publish.forget.forget import forget
from curate.recipe.output import OUTPUTS
from curate.store.items import Items
from tests import kit
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
        uids = set(removed["uid"].to_pylist())
        lines = store.read_bytes(f"{stem}.jsonl").decode().splitlines(keepends=True)
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
    defaults = [find_output(None, has_images).key for has_images in (True, False)]
    assert defaults == list(OUTPUTS.kinds()) == ["webdataset", "parquet"]
    with pytest.raises(
        RecipeError, match=r"output.format: webdataset does not work for .* without images; accepted: parquet$"
    ):
        find_output("webdataset", False)
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(30), 1)
    with pytest.raises(RecipeError, match=r"output\.format: parquet does not work for .*; accepted: webdataset$"):
        kit.run_local(kit.recipe_of(path, output={"format": "parquet"}), tmp_path / "run")
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
