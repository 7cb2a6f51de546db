"""Helpers for tests of forgetting: pools with distinct captions, and a search for traces of a sample."""

import hashlib
import json
from dataclasses import replace

import duckdb
import pyarrow.parquet as pq

from curate.store.items import Items, hash_url
from tests import kit


def told_apart(clean=60, seed=0):
    """Samples with duplicates and damage (see kit.make_samples); a caption is no part of another one."""
    return [
        replace(
            s,
            caption=s.caption
            and s.caption.strip()
            and f"{s.caption} q{hashlib.sha256(s.caption.encode()).hexdigest()[:12]}",
        )
        for s in kit.make_samples(clean, seed)
    ]


def sha256(sample):
    assert sample.image is not None
    return hashlib.sha256(sample.image).hexdigest()


def rows_of(run):
    """Samples with their verdicts."""
    decisions = run.table("decisions").to_pylist()
    return [{**s, **d} for s, d in zip(run.table("samples").to_pylist(), decisions, strict=True)]


def uids(*values):
    return Items.of({"uid": map(bytes.fromhex, values)})


def urls(*values):
    return Items.of({"url": [hash_url(value.encode()) for value in values]})


def images(*values):
    return Items.of({"sha256": map(bytes.fromhex, values)})


def texts_of(folder):
    """Everything that a run says in text, by file: tables and footers, databases, json; of tars all bytes."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            text += repr(pq.read_table(path).to_pylist()) + repr(pq.read_schema(path).metadata)
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as connection:
                names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
                text += repr([connection.execute(f"FROM {name}").fetchall() for (name,) in names])
        elif path.suffix == ".json":
            text += repr(json.loads(path.read_text()))
        found[str(path.relative_to(folder))] = text
    return found


def left_of(folder, words):
    """Which files hold which of the words (text, or bytes of an image)."""
    needles = [word if isinstance(word, str) else word.decode("latin-1") for word in words]
    return [(file, needle[:40]) for file, text in texts_of(folder).items() for needle in needles if needle in text]
