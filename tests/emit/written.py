"""Pools made by hand, and what a run of them wrote to its shards."""

import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.ask.verify import verify_run
from curate.recipe.recipe import parse_recipe
from tests.kit import add_member, encode, run_local

DOWNLOADED = "d" * 64  # the digest of an image as it was downloaded
STATS = {
    "count", "successes", "failed_to_download", "failed_to_resize", "duration", "start_time", "end_time", "status_dict",
}  # fmt: skip


def picture(number, form="JPEG", size=(40, 30)):
    image = encode(Image.new("RGB", size, (number % 256, 100, 200)), form)
    return image + (f"{number}".encode() if form == "JPEG" else b"")


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add_member(tar, name, data)
    return str(path)


def tars(*paths):
    return [{"name": f"s{i}", "format": "webdataset", "path": path} for i, path in enumerate(paths)]


def parquets(folder, *tables, group=1000):
    folder.mkdir(exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=group)
    return [{"name": f"s{i}", "format": "parquet", "path": f"{folder}/{i}.parquet"} for i in range(len(tables))]


def recipe(sources, rows_per_shard=10_000, **sections):
    limits = {"max_failed": 1.0, "max_failed_files": 1.0}
    return parse_recipe({"input": sources, "output": {"rows_per_shard": rows_per_shard}, **limits, **sections})


def emitted(out, sources, rows_per_shard=10_000, **sections):
    """A finished run that `curate verify` finds whole."""
    ran = run_local(recipe(sources, rows_per_shard, **sections), out)
    assert verify_run(str(out))[1] == []
    return ran


def samples_of(ran):
    """Suffix → content, by name, over all shards; no name occurs twice."""
    samples = {}
    for name, data in ran.members:
        key, _, suffix = name.partition(".")
        assert suffix not in samples.setdefault(key, {})
        samples[key][suffix] = data
    return samples


def sidecars(ran):
    return pa.concat_tables([pq.read_table(path) for path in sorted(ran.folder.glob("shards/*.parquet"))])


def names_of(ran):
    return list(dict.fromkeys(name.partition(".")[0] for name, _ in ran.members))


def pairs(*keys, first=0):
    return [
        (f"{key}.{suffix}", data)
        for i, key in enumerate(keys, first)
        for suffix, data in (("jpg", picture(i)), ("txt", f"caption {i}".encode()))
    ]


def read_run(ran):
    """The bytes of a run's shards, without the files that contain times."""
    return {path.name: path.read_bytes() for path in ran.folder.glob("shards/*") if path.suffix in (".tar", ".parquet")}
