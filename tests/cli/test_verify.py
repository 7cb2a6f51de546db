"""`curate verify` finds any change: it exits with status 1, and names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.store.manifest import Lines, digest_file, read_manifest, write_manifest
from curate.store.store import RunStore
from tests.cli.shared import refusal


def copy(finished, name, folder):
    return Path(shutil.copytree(finished[name][0], folder / "copy"))


def named(cli, run):
    """The files that `verify` names."""
    error = refusal(cli("verify", str(run)), 1)
    return [line.strip().partition(": ")[0] for line in error.splitlines()[1:]]


def flip(path, place=0.5):
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def edit_table(path, column, change):
    """Change a column of a Parquet file; the file stays valid."""
    table = pq.read_table(path)
    place = table.column_names.index(column)
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, change(table[column]).cast(field.type)), path)


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_uids(path):
    uids = np.load(path)
    uids["f1"][len(uids) // 2] ^= 1
    np.save(path, uids)


def swap(one, other):
    one_bytes = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(one_bytes)


TABLES = "tables/decisions/00000.parquet"
TAMPER = {
    "a byte of an image": ("shards/00001.tar", lambda run: flip(run / "shards/00001.tar", 0.1)),
    "a cut tar": ("shards/00000.tar", lambda run: (run / "shards/00000.tar").write_bytes((run / "shards/00000.tar").read_bytes()[:-512])),
    "two shards swapped": ("shards/00000.tar", lambda run: swap(run / "shards/00000.tar", run / "shards/00001.tar")),
    "a table edited": (TABLES, lambda run: edit_table(run / TABLES, "kept", pc.invert)),
    "entries edited": ("entries.parquet", lambda run: edit_table(run / "entries.parquet", "kept", lambda kept: pc.add(kept, 1))),
    "uids changed": ("uids.npy", lambda run: edit_uids(run / "uids.npy")),
    "counts changed": ("run.json", lambda run: edit_json(run / "run.json", lambda content: content["counts"].update(kept=1))),
    "run.json no JSON": ("run.json", lambda run: (run / "run.json").write_text("{")),
    "the card edited": ("README.md", lambda run: (run / "README.md").open("a").write("\nand more")),
    "failures emptied": ("failures.parquet", lambda run: edit_table(run / "failures.parquet", "reason", lambda reason: pa.nulls(len(reason)))),
    "a stray file": ("notes.txt", lambda run: (run / "notes.txt").write_text("mine")),
    "a stray hidden file": ("shards/.hidden", lambda run: (run / "shards/.hidden").write_text("mine")),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPER)
def test_what_was_changed_is_found(cli, finished, tmp_path, what):
    path, change = TAMPER[what]
    run = copy(finished, "tars", tmp_path)
    change(run)
    expected = {path, "shards/00001.tar"} if "swapped" in what else {path}
    assert set(named(cli, run)) == expected


def drop_last_row(path):
    table = pq.read_table(path)
    pq.write_table(table[:-1], path)


def keep_other(run):
    """Exchange a kept row and one that balancing dropped, so that the counts stay the same."""
    table = pq.read_table(run / TABLES)
    kept, rule = table["kept"].to_pylist(), table["rule"].to_pylist()
    gone, come = kept.index(True), rule.index("balance")
    kept[gone], rule[gone], kept[come], rule[come] = False, "balance", True, None
    edit_table(run / TABLES, "kept", lambda _: pa.array(kept))
    edit_table(run / TABLES, "rule", lambda _: pa.array(rule, pa.string()))


FORGED = {
    "uids changed": ("uids.npy", lambda run: edit_uids(run / "uids.npy")),
    "uids not sorted": ("uids.npy", lambda run: np.save(run / "uids.npy", np.load(run / "uids.npy")[::-1])),
    "verdicts changed": ("uids.npy", keep_other),
    "a rule of a kept row": (TABLES, lambda run: edit_table(run / TABLES, "rule", lambda rule: pc.fill_null(rule, "words"))),
    "counts changed": ("run.json", lambda run: edit_json(run / "run.json", lambda content: content["counts"].update(kept=1))),
    "failed hidden": ("run.json", lambda run: edit_json(run / "run.json", lambda c: c["counts"].update(failed=2, words=4))),
    "counts of two rules": ("run.json", lambda run: edit_json(run / "run.json", lambda c: c["counts"].update(words=c["counts"]["words"] + 1, balance=c["counts"]["balance"] - 1))),
    "more kept": ("run.json", lambda run: edit_json(run / "run.json", lambda c: c["counts"].update(kept=c["counts"]["kept"] + 1, balance=c["counts"]["balance"] - 1))),
    "sizes changed": ("shards/sizes.json", lambda run: edit_json(run / "shards/sizes.json", lambda sizes: sizes.update({"00000.tar": 3}))),
    "a shard left out": ("shards", lambda run: edit_json(run / "shards/sizes.json", lambda sizes: sizes.pop("00001.tar"))),
    "two tars swapped": ("shards/00000.tar", lambda run: swap(run / "shards/00000.tar", run / "shards/00001.tar")),
    "a row of a sidecar gone": ("shards/sizes.json", lambda run: drop_last_row(run / "shards/00000.parquet")),
    "a sidecar of other uids": ("shards", lambda run: edit_table(run / "shards/00000.parquet", "uid", pc.utf8_reverse)),
    "samples of other uids": (TABLES, lambda run: edit_table(run / "tables/samples/00000.parquet", "uid", pc.utf8_reverse)),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_change_with_a_forged_manifest_is_found_by_the_sums(cli, finished, tmp_path, what):
    path, change = FORGED[what]
    run = copy(finished, "tars", tmp_path)
    change(run)
    folder = RunStore(str(run))
    write_manifest(folder, Lines(digest_file(folder, line.path, line.rows) for line in read_manifest(folder)))
    assert path in named(cli, run)


@pytest.mark.parametrize(
    "path",
    [
        *("uids.npy", "entries.parquet", "failures.parquet", "stats.duckdb", "shards/sizes.json"),
        *(f"tables/{name}/00000.parquet" for name in ("samples", "members", "decisions")),
        *(f"shards/00000{suffix}" for suffix in (".tar", ".parquet", "_stats.json")),
    ],
)
def test_a_file_that_is_gone_from_the_manifest_too_is_missed(cli, finished, tmp_path, path):
    run = copy(finished, "tars", tmp_path)
    folder = RunStore(str(run))
    (run / path).unlink()
    write_manifest(folder, Lines(line for line in read_manifest(folder) if line.path != path))
    assert named(cli, run) == [path]


@pytest.mark.parametrize("missing", ["_SUCCESS", "manifest.parquet"])
def test_without_its_marks_a_run_is_not_finished(cli, finished, tmp_path, missing):
    run = copy(finished, "texts", tmp_path)
    (run / missing).unlink()
    assert "not finished" in refusal(cli("verify", str(run)), 1)


def test_a_whole_run_may_be_moved(cli, run, tmp_path):
    done = cli("verify", str(shutil.copytree(run, tmp_path / "copy")))
    assert (done.status, done.err) == (0, "")
    counts = json.loads((run / "run.json").read_text())["counts"]
    pool, kept, failed = sum(counts.values()), counts["kept"], counts.get("failed", 0)
    assert f"{len(pq.read_table(run / 'manifest.parquet'))} files by sha256" in done.out
    assert f"{pool} samples = {kept} kept + {pool - kept - failed} dropped + {failed} failed" in done.out


def test_many_differences_are_counted_and_the_first_are_shown(cli, finished, tmp_path):
    run = copy(finished, "texts", tmp_path)
    for i in range(50):
        (run / f"stray{i:02d}").write_text("x")
    error = refusal(cli("verify", str(run)), 1)
    assert "50 differences" in error and "and 30 more" in error and "stray00" in error and "stray49" not in error
