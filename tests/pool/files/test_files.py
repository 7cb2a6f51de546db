"""Runs over folders of images: as the same pool in tars has them, wherever captions come from; a verdict for each file."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.recipe.recipe import Recipe
from tests.laws.pools import Ran, Sample, conserved, make_samples, recipe_of, run_local, write_tar

RULES = {"short": "words < 9", "odd": "number % 7 <> 0"}
DEDUP = {"by": ["uid", "sha256"]}


def recipe(path: Path | Sequence[str], form: str = "files", **more: Any) -> Recipe:
    return recipe_of(path if isinstance(path, list) else str(path), form, **{"output": {"rows_per_shard": 20}, **more})


def in_folders(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with an image and a caption, in two folders, without fields that only a json has, sorted."""
    whole = [s for s in samples if s.image is not None and s.caption is not None]
    moved = [replace(s, key=f"{'ab'[i % 2]}/{s.key}", url=None, uid=None) for i, s in enumerate(whole)]
    return sorted(moved, key=lambda s: f"{s.key}.{s.suffix}")  # of equal rows the first one stays


def write_images(folder: Path, samples: Sequence[Sample]) -> Path:
    for s in samples:
        path = folder / f"{s.key}.{s.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s.image or b"")
    return folder


def rows_of(samples: Sequence[Sample], start: str = "", file: str = "file_name") -> list[dict[str, Any]]:
    return [{file: f"{start}{s.key}.{s.suffix}", "text": s.caption, **s.fields} for s in samples]


def write_csv(path: Path, rows: Sequence[dict[str, Any]], mark: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=50)
    return path


def outcomes(run: Ran) -> dict[str | None, str]:
    return {key: outcome for (_, key), outcome in run.outcomes.items()}


def samples_of(run: Ran) -> dict[str, dict[str, Any]]:
    """The members of each published sample by its uid, without the names that a table or a tar has for it."""
    found: dict[str, dict[str, Any]] = {}
    for name, data in run.members:
        key, _, suffix = name.partition(".")
        found.setdefault(key, {})[suffix] = data
    samples = {}
    for members in found.values():
        fields = json.loads(members.pop("json"))
        fields = {name: value for name, value in fields.items() if name not in ("key", "file_name", "text")}
        samples[fields["uid"]] = {**members, "fields": fields}
    return samples


def as_tar(folder: Path, samples: Sequence[Sample], fields: bool) -> Ran:
    """The same pool in a tar."""
    stripped = samples if fields else [replace(s, fields={}) for s in samples]
    folder.mkdir()
    path = write_tar(folder / "pool.tar", stripped)
    source = {"columns": {"number": "int"}} if fields else {}
    rules = RULES if fields else {"short": RULES["short"]}
    return run_local(recipe(path, "webdataset", source=source, rules=rules, dedup=DEDUP), folder / "run")


def same(run: Ran, tars: Ran) -> None:
    conserved(run)
    assert run.kept == tars.kept
    assert outcomes(run) == outcomes(tars)
    assert samples_of(run) == samples_of(tars)
    assert run.verdicts == tars.verdicts


@pytest.mark.parametrize(
    "write", [(write_csv, "csv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")], ids=["csv", "jsonl", "parquet"]
)
@pytest.mark.parametrize("place", ["beside", "metadata"])
def test_captions_of_a_table(tmp_path: Path, write: tuple[Callable[..., Path], str], place: str) -> None:
    samples = in_folders(make_samples(60))
    pool, (put, suffix) = write_images(tmp_path / "pool", samples), write
    if place == "beside":
        source = {"table": str(put(tmp_path / f"captions.{suffix}", rows_of(samples, "pool/")))}
    else:
        source = {}
        for folder in "ab":
            of_folder = [replace(s, key=s.key[2:]) for s in samples if s.key.startswith(folder)]
            put(pool / folder / f"metadata.{suffix}", rows_of(of_folder))
    run = run_local(recipe(pool, source=source, rules=RULES, dedup=DEDUP), tmp_path / "run")
    same(run, as_tar(tmp_path / "tars", samples, fields=True))


def test_captions_beside_images(tmp_path: Path) -> None:
    samples = in_folders(make_samples(60))
    pool = write_images(tmp_path / "pool", samples)
    for s in samples:
        (pool / f"{s.key}.txt").write_text(s.caption or "")
    run = run_local(recipe(pool, rules={"short": RULES["short"]}, dedup=DEDUP), tmp_path / "run")
    same(run, as_tar(tmp_path / "tars", samples, fields=False))
