"""An output format of another package, built and installed: chosen by its key, in SQL, card and verify; and its faults."""

import json
import re

import pytest
import yaml

from tests import kit
from tests.kit.packages import curate, install, needs_hatchling

pytestmark = [pytest.mark.slow, needs_hatchling]

CODE = '''
import json

import pyarrow as pa

from curate.plugins import OutputFormat


class JsonLines(OutputFormat):
    """A line of JSON for each sample, of pools with images and without."""

    key = "jsonl"
    suffix = "jsonl"
    media_type = "application/jsonl"
    file_set = ("lines", "a line a sample")

    def accepts(self, has_images):
        return True

    def write(self, settings, shard, repeated, stats):
        slices = ((part, settings.tables(part.unit)) for part in shard.slices)
        rows = pa.concat_tables(settings.kept_rows(part, tables, ["uid", "caption"]) for part, tables in slices)
        lines = "".join(json.dumps(row) + "\\n" for row in rows.to_pylist())
        settings.store.write_bytes(f"{shard.stem}.jsonl", lines.encode())
        return rows

    def remove(self, store, stem, removed):
        gone = set(removed["uid"].to_pylist())
        lines = store.read_bytes(f"{stem}.jsonl").decode().splitlines(keepends=True)
        store.write_bytes(f"{stem}.jsonl", "".join(x for x in lines if json.loads(x)["uid"] not in gone).encode())
        return [f"{stem}.jsonl"]

    def card_lines(self, shards):
        return [f"- {shards} files of lines."]


KIND = JsonLines()
'''
GROUP = '[project.entry-points."curate.outputs"]\njsonl = "curate_jsonl:KIND"'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("jsonl"), "curate-jsonl", CODE, GROUP)


def run(site, folder, output, has_images=True):
    if has_images:
        source = {"format": "webdataset", "path": kit.write_tars(folder / "pool", kit.make_samples(30), 2)}
    else:
        source = {"format": "parquet", "path": kit.write_parquets(folder / "pool", kit.make_rows(60), 2)}
    recipe = {"input": {"name": "pool", **source}, "output": {"rows_per_shard": 8, **output}, "max_failed": 1.0}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return curate(site, "run", str(folder / "recipe.yaml"), "--out", str(folder / "run"))


@pytest.mark.parametrize("has_images", [True, False])
def test_it_writes_the_shards_that_chose_it(site, tmp_path, has_images):
    done = run(site, tmp_path, {"format": "jsonl"}, has_images)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "run"
    sizes = json.loads((out / "shards/sizes.json").read_text())
    assert list(sizes) == [f"{n:05d}.jsonl" for n in range(len(sizes))] and len(sizes) > 1
    lines = [json.loads(line) for name in sizes for line in (out / "shards" / name).read_text().splitlines()]
    sql = "SELECT uid, shard FROM published"
    shown = json.loads(curate(site, "sql", str(out), sql, "--format", "json").stdout)
    assert {row["uid"] for row in shown} == {line["uid"] for line in lines} and len(shown) == len(lines)
    assert {row["shard"] for row in shown} == {f"shards/{name}" for name in sizes}
    assert f"- {len(sizes)} files of lines." in (out / "README.md").read_text()
    (tmp_path / "items.txt").write_text(lines[0]["uid"] + "\n")
    done = curate(site, "forget", str(out), "--uids", str(tmp_path / "items.txt"))
    assert done.returncode == 0, done.stderr
    assert lines[0]["uid"] not in "".join(path.read_text() for path in out.glob("shards/*.jsonl"))
    done = curate(site, "verify", str(out))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pool_gets_the_packages_own_format_unless_the_recipe_says(site, tmp_path):
    done = run(site, tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert all(name.endswith(".tar") for name in json.loads((tmp_path / "run/shards/sizes.json").read_text()))


def test_without_the_package_the_run_says_what_is_missing(site, tmp_path):
    assert run(site, tmp_path, {"format": "jsonl"}).returncode == 0
    done = curate(tmp_path, "sql", str(tmp_path / "run"), "SELECT 1")
    assert done.returncode == 2
    assert "no output format is named 'jsonl'; accepted: webdataset, parquet" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows.to_pylist()", "rows.to_lists()", r"AttributeError: .*to_lists.* at curate_jsonl.py:\d+ in write"),
        ("{shards} files", "{shard} files", r"NameError: .* at curate_jsonl.py:\d+ in card_lines"),
        ("        return True\n", "        return image\n", r"NameError: .* at curate_jsonl.py:\d+ in accepts"),
    ],
)
def test_a_fault_names_the_package(tmp_path, old, new, message):
    assert old in CODE
    site = install(tmp_path / "faulty", "curate-jsonl", CODE.replace(old, new), GROUP)
    done = run(site, tmp_path, {"format": "jsonl"})
    assert done.returncode in (1, 2)
    assert re.search(rf"output format 'jsonl' of package curate-jsonl 0\.1: .*{message}", done.stderr), done.stderr
