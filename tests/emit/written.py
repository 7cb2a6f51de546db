"""Pools made by hand, and what a run of them wrote to its shards."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.ask.verify import verify_run
from curate.recipe.recipe import Recipe, parse_recipe
from tests.laws.pools import Ran, run_local

DOWNLOADED = "d" * 64  # the digest of an image as it was downloaded
STATS = {
    "count", "successes", "failed_to_download", "failed_to_resize", "duration", "start_time", "end_time", "status_dict",
}  # fmt: skip


def picture(number: int, form: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, 100, 200)).save(file, form)
    return file.getvalue() + (f"{number}".encode() if form == "JPEG" else b"")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def tars(*paths: str | tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": f"s{i}", "format": "webdataset", "path": path} for i, path in enumerate(paths)]


def parquets(folder: Path, *tables: pa.Table, group: int = 1000) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=group)
    return [{"name": f"s{i}", "format": "parquet", "path": f"{folder}/{i}.parquet"} for i in range(len(tables))]


def recipe(sources: list[dict[str, Any]], rows_per_shard: int = 10_000, **sections: Any) -> Recipe:
    limits = {"max_failed": 1.0, "max_failed_files": 1.0}
    return parse_recipe({"input": sources, "output": {"rows_per_shard": rows_per_shard}, **limits, **sections})


def emitted(out: Path, sources: list[dict[str, Any]], rows_per_shard: int = 10_000, **sections: Any) -> Ran:
    """A finished run that `curate verify` finds whole."""
    ran = run_local(recipe(sources, rows_per_shard, **sections), out)
    assert verify_run(str(out))[1] == []
    return ran


def samples_of(ran: Ran) -> dict[str, dict[str, bytes]]:
    """Suffix → content, by name, over all shards; no name occurs twice."""
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in ran.members:
        key, _, suffix = name.partition(".")
        assert suffix not in samples.setdefault(key, {})
        samples[key][suffix] = data
    return samples


def sidecars(ran: Ran) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(ran.folder.glob("shards/*.parquet"))])


def names_of(ran: Ran) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name, _ in ran.members))


def pairs(*keys: str, first: int = 0) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.{suffix}", data)
        for i, key in enumerate(keys, first)
        for suffix, data in (("jpg", picture(i)), ("txt", f"caption {i}".encode()))
    ]


def read_run(ran: Ran) -> dict[str, bytes]:
    """The bytes of a run's shards, but for what tells times."""
    return {path.name: path.read_bytes() for path in ran.folder.glob("shards/*") if path.suffix in (".tar", ".parquet")}
