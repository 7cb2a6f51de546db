"""Lists of URLs and their recipes."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.kit import recipe_of

NETWORK = {
    "contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "pause": 0.01, "max_seconds": 20, "attempts": 3,
}  # fmt: skip
HOSTS = 8


def write_list(path, urls, **columns):
    """Write a list in the format that its name says."""
    table = pa.table({"URL": urls, "TEXT": [f"a picture of number {i}" for i in range(len(urls))], **columns})
    name = path.name.removesuffix(".gz")
    sink = io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(table, sink, row_group_size=7)
    elif name.endswith(".jsonl"):
        sink.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    else:
        options = pyarrow.csv.WriteOptions(delimiter="\t" if name.endswith(".tsv") else ",")
        pyarrow.csv.write_csv(table, sink, options)
    path.write_bytes(gzip.compress(sink.getvalue()) if path.name.endswith(".gz") else sink.getvalue())
    return path


def recipe(path, source=None, **sections):
    """A recipe that downloads a list."""
    own = {"network": NETWORK, "number_sample_per_shard": 50, "thread_count": 16, **(source or {})}
    return recipe_of(str(path), "urls", source=own, **sections)
