"""Small run folders for tests, written straight by the schemas: what a pipeline would leave, without one."""

import copy
import io
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curate.ask.query import answer, asking, open_run
from curate.base import schema
from curate.base.ids import uid_halves
from curate.emit.output_format import find_written
from curate.publish.stats_duckdb import write_stats
from curate.publish.uids import PAIR
from curate.publish.views import write_views
from curate.store.facts import CaptionWork, DriftFacts, RunFacts, write_facts
from curate.store.layout import MANIFEST_FILE, SUCCESS_FILE
from curate.store.manifest import Lines, digest_file, write_manifest
from curate.store.store import RunStore

SCORES = pa.schema([*schema.ALIGNED, pa.field("clip_score", pa.float32())])
SIDECAR = pa.schema([("key", pa.string()), ("caption", pa.string()), ("uid", pa.string())])

RULES = [
    {"name": "words", "sql": "words > 2", "top": None, "of": None, "threshold": None},
    {"name": "side", "sql": "least(width, height) >= 200", "top": None, "of": None, "threshold": None},
    {"name": "aligned", "sql": None, "top": 0.9, "of": "clip_score", "threshold": 0.25, "single": True},
]
BARE = {
    "curate": "0.1.0",
    "name": "bare",
    "seed": 0,
    "sources": ["text"],
    "recipe": {"input": []},
    "identity": "1" * 32,
    "keys": {"pool": "2" * 32},
    "unit_keys": ["3" * 32],
    "models": {},
    "engine_ids": {},
    "metadata": None,
    "python": "3.11.7",
    "packages": {"duckdb": "2"},
    "started": 1700000000.25,
    "emitted": [],
    "pool": {"images": False, "supplied": [], "scores": [], "embeddings": {}},
    "units": [["text", 1]],
    "rules": RULES[:1],
    "t": None,
    "steps": [],
    "drift": [],
    "caption_work": [],
    "near": [],
    "counts": {},
    "finished": 1700000008.25,
    "seconds": 8.0,
    "content": {"languages": {}, "files": {}, "shards": 0, "bytes": 0, "digest": "", "means": {}},
}
RUN = BARE | {
    "name": "small",
    "seed": 7,
    "sources": ["photos", "web", "empty"],
    "recipe": {
        "match": {"metadata": "m.json"},
        "balance": {"t": 2},
        "captions": {"output": {"mix": {}}},
        "output": {"rows_per_shard": 10},
    },
    "pool": {"images": True, "supplied": [], "scores": ["clip_score"], "embeddings": {}},
    "rules": RULES,
    "t": 2,
    "selection": {
        "key": "balance",
        "meaning": "not drawn: all its entries are frequent",
        "label": "t = 2",
        "kept": ": its draw u/p = {draw} is below 1 (probability {probability})",
        "dropped": "its draw u/p = {draw} is not below 1 (probability {probability})",
        "card": "entries with more than t = 2 samples are downsampled to t, in expectation (MetaCLIP); seed 0",
        "summary": ["balance: t = 2"],
        "by_entries": True,
    },
    "units": [["photos", 1], ["web", 1]],
    "steps": [
        {"step": "measure", "units": 2, "rows": 12, "seconds": 3.0},
        {"step": "caption", "units": 1, "rows": None, "seconds": 1.0},
    ],
    "used": [
        {"step": "start", "cpu": 1.8},
        {
            "step": "measure",
            "cpu": 3.6,
            "gpu": 7.2,
            "memory": 36.0,
            "reads": 4,
            "writes": 2,
            "shuffled": 8,
            "stored": 100,
            "spread": 0.1,
        },
        {"step": "duplicates", "cpu": 1.8, "shuffled": 16},
    ],
    "drift": [dict(zip(DriftFacts.model_fields, ("web", "clip", "image", 6, 2, 0.25, 0.01, 0.125), strict=True))],
    "caption_work": [
        dict(zip(CaptionWork.model_fields, work, strict=True))
        for work in (
            ("rewrite", "e", "m", 3, 2, 1, 1, 0, 30, 12, 28, 2.0, 0.06),
            ("recaption", "v", "n", 1, 1, 0, 1, 1, 10, 2, 12, 1.0, None),
        )
    ],
}
ENTRIES = [
    # id, entry, source, language, pool, survivors, probability, expected, kept
    (0, "cat", "words", "en", 7, 4, 0.5, 2.5, 3),
    (1, "red", "words", "en", 2, 1, 1.0, 1.0, 1),
    (2, "photo", "titles", "en", 1, 1, 1.0, 1.0, 1),
    (3, "zebra", "words", "en", 0, 0, 1.0, 0.0, 0),
    (4, "score", "words", "en", 1, 0, 1.0, 0.0, 0),
]
# What named queries must be given.
NEEDED = {
    "explain": {"uid": "a1".rjust(32, "0")},
    "cooccurrence": {"class": "source", "context": "language"},
    "entry_samples": {"entry": "cat"},
    "entry_funnel": {"entry": "cat"},
}
EVIL = "caption \x1b[31mred\x1b[0m <script>\u202eafter"


OPENED = {}  # connections to runs that no test changes


@contextmanager
def kept_open(url):
    """Have `run_query` ask a run on one connection: opening one takes 80 ms."""
    with open_run(url) as OPENED[url]:
        yield url
    del OPENED[url]


def run_query(url, text, params=None):
    """The answer of a query, with all rows in memory."""
    if url in OPENED:
        result = answer(OPENED[url], text, params)
        return replace(result, rows=list(result.rows))
    with asking(url, text, params) as result:
        return replace(result, rows=list(result.rows))


def uid(name):
    """A uid that ends in `name`."""
    return name.rjust(32, "0")


def sample(name, caption, source="photos", **values):
    """A row of `samples`, with plausible values where none are given."""
    plain = {
        "uid": uid(name), "source": source, "shard": f"{source}.tar", "key": name, "url": f"http://x/{name}",
        "caption": caption, "language": "en", "words": len(caption.split()), "characters": len(caption),
        "width": 640, "height": 480, "bytes": 1000, "format": "jpeg", "sha256": name.rjust(64, "0"),
        "phash": 2**64 - 1, "offset": 512, "status": "ok", "error": None,
    }  # fmt: skip
    return plain | values


def verdict(rule=None, pi=0.0, draw=None, of=None):
    """A row of `decisions`."""
    return {"kept": rule is None, "rule": rule, "duplicate_of": of and uid(of), "probability": pi, "draw": draw}


# Per unit: (sample, verdict, entry ids, clip_score).
SMALL = [
    [
        (sample("a1", "a red cat"), verdict(None, 1.0, 0.0), [0, 1], 0.5),
        (sample("a2", "dog"), verdict("words"), [], 0.9),
        (
            sample("a3", "a red cat broken", uid=None, width=None, height=None, format=None, sha256=None, phash=None,
                   status="truncated_image", error="ends at byte 100"),
            verdict("failed"), [0, 1], None,
        ),
        (sample("a4", "a small cat here", width=100, height=80, bytes=100, format="png"), verdict("side"), [0], 0.4),
        (sample("a5", "a cat again and now"), verdict("duplicate", of="a1"), [0], 0.5),
        (sample("a6", EVIL, bytes=3000), verdict(None, 0.5, 0.3), [0], 0.6),
    ],
    [
        (sample("b1", "nothing to see", "web", url="https://Y.example:8080/b1"), verdict("unmatched"), [], 0.7),
        (sample("b2", "a cat too far", "web"), verdict("balance", 0.5, 1.7), [0], 0.5),
        (sample("b3", "une photo de chien", "web", language="fr", width=256), verdict(None, 1.0, 0.0), [2], 0.8),
        (sample("b4", "low score image", "web"), verdict("aligned"), [4], 0.125),
        (sample("a1", "a red cat", "web", key="b5"), verdict("duplicate", of="a1"), [], 0.3),
        (sample("b6", "a cat and a 日本 cat", "web", sha256="a6".rjust(64, "0")), verdict(None, 0.5, 0.9), [0], 0.5),
    ],
]  # fmt: skip


def caption(name, kind, style, text, **values):
    """A row of `captions`, of a text that passed."""
    plain = {
        "uid": uid(name), "kind": kind, "style": style, "ordinal": 0, "text": text, "model": "m", "clip_score": None,
        "gate": "passed", "tokens": None, "status": "ok", "error": None, "failed": [],
    }  # fmt: skip
    return plain | values


CAPTIONS = [
    caption("a6", "rewrite", "plain", "a cat that is red", clip_score=0.75, tokens=6),
    caption("b3", "recaption", "short", "a dog", clip_score=0.5, tokens=2),
    caption("b3", "rewrite", "plain", None, gate=None, status="no_answer", error="timed out", failed=None),
    caption("b6", "rewrite", "plain", "a cat that is red", gate="names", tokens=8, failed=["names", "numbers"]),
]
FAILURES = [
    {"unit": 0, "shard": "bad.tar", "key": None, "reason": "not_a_tar", "detail": "begins with <html>"},
    {
        "unit": 0,
        "row": 3,
        "shard": "photos.tar",
        "key": "a3",
        "reason": "truncated_image",
        "detail": "ends at byte 100",
    },
]


def write_small(url):
    """The run that most tests ask: 12 rows in 2 units, 4 kept, everything present."""
    return write_units(url, SMALL, captions=CAPTIONS)


def write_uids(url, rows):
    """Write uids.npy for the kept rows, each (sample, verdict)."""
    high, low = uid_halves(pa.array([row["uid"] for row, decided in rows if decided["kept"]], pa.string()))
    file = io.BytesIO()
    np.save(file, np.sort(np.array(list(zip(high, low, strict=True)), PAIR), order=("f0", "f1")))
    RunStore(url).write_bytes("uids.npy", file.getvalue())


def write_a(url):
    """The run of `write_small`, with uids.npy: the first of a pair to compare."""
    write_small(url)
    write_uids(url, [row[:2] for unit in SMALL for row in unit])
    return url


def write_b(url):
    """A run on the same pool, except for one row less and one more, in another order, with other decisions."""
    first, second = copy.deepcopy(SMALL)
    first[0] = (first[0][0], verdict("balance", 0.5, 1.5), *first[0][2:])  # a1; its double stays a duplicate
    first[5] = (first[5][0], verdict("duplicate", of="b6"), *first[5][2:])
    second[1] = (second[1][0], verdict(None, 0.9, 0.8), *second[1][2:])
    del second[2]  # b3
    second.append((sample("c9", "a zebra, new", language=None), verdict(None, 1.0, 0.0), [3], 0.5))
    entries = [(*entry[:8], {"cat": 2, "zebra": 1}.get(entry[1], 0)) for entry in ENTRIES]
    run = RUN | {"name": "other", "recipe": RUN["recipe"] | {"balance": {"t": 3}}, "t": 3}
    write_units(url, [second, first], run, entries)
    write_uids(url, [row[:2] for row in (*first, *second)])
    return url


def write_units(url, units, run=RUN, entries=ENTRIES, failures=FAILURES, captions=()):
    """A run of these rows by unit, as SMALL gives them."""
    folder = RunStore(url)
    for unit, rows in enumerate(units):
        aligned = [{"unit": unit, "row": i, "uid": row[0]["uid"]} for i, row in enumerate(rows)]
        _table(folder, "samples", unit, schema.SAMPLES, [a | row[0] for a, row in zip(aligned, rows, strict=True)])
        _table(folder, "decisions", unit, schema.DECISIONS, [a | row[1] for a, row in zip(aligned, rows, strict=True)])
        matches = [a | {"entry_ids": row[2]} for a, row in zip(aligned, rows, strict=True)]
        _table(folder, "matches", unit, schema.MATCHES, matches)
        _table(folder, "scores", unit, SCORES, [a | {"clip_score": r[3]} for a, r in zip(aligned, rows, strict=True)])
        members = [a | {"suffix": ["jpg"], "offset": [512], "size": [1000]} for a in aligned]
        _table(folder, "members", unit, schema.MEMBERS, members)
    if captions:
        folder.write_parquet("tables/captions/00000.parquet", pa.Table.from_pylist(list(captions), schema.CAPTIONS))
    kept = [row[0] for rows in units for row in rows if row[1]["kept"]]
    for index, part in enumerate((kept[:3], kept[3:])):
        sidecar = [{"key": s["key"], "caption": s["caption"], "uid": s["uid"]} for s in part]
        folder.write_parquet(f"shards/{index:05d}.parquet", pa.Table.from_pylist(sidecar, schema=SIDECAR))
        folder.write_bytes(f"shards/{index:05d}.tar", b"tar")
    folder.write_parquet("failures.parquet", pa.Table.from_pylist(list(failures), schema=schema.FAILURES))
    rows_of_entries = [dict(zip(schema.ENTRIES.names, entry, strict=True)) for entry in entries]
    folder.write_parquet("entries.parquet", pa.Table.from_pylist(rows_of_entries, schema=schema.ENTRIES))
    return finish(folder, run)


def write_bare(url, rows=("one", "two words here", "three words here")):
    """A run of an imageless pool by rules alone: no scores, matches, members, entries; rule `words > 2`."""
    folder = RunStore(url)
    nothing = dict.fromkeys(
        ("key", "shard", "language", "width", "height", "bytes", "format", "sha256", "phash", "offset")
    )
    samples = [sample(f"c{i}", text, "text", **nothing) for i, text in enumerate(rows)]
    verdicts = [verdict(None, 1.0) if s["words"] > 2 else verdict("words") for s in samples]
    aligned = [{"unit": 0, "row": i} for i in range(len(rows))]
    _table(folder, "samples", 0, schema.SAMPLES, [a | s for a, s in zip(aligned, samples, strict=True)])
    decisions = [a | {"uid": s["uid"]} | v for a, s, v in zip(aligned, samples, verdicts, strict=True)]
    _table(folder, "decisions", 0, schema.DECISIONS, decisions)
    kept = [{"uid": s["uid"], "text": s["caption"]} for s, v in zip(samples, verdicts, strict=True) if v["kept"]]
    if kept:
        folder.write_parquet("shards/00000.parquet", pa.Table.from_pylist(kept))
    folder.write_parquet("failures.parquet", schema.FAILURES.empty_table())
    folder.write_parquet("entries.parquet", schema.ENTRIES.empty_table())
    return finish(folder, BARE)


def finish(folder, run):
    """Builds the statistics and the manifest, and puts `_SUCCESS`."""
    facts = RunFacts.model_validate(run)
    write_facts(folder, facts)
    folder.delete("tmp")
    write_stats(folder, facts, count_drops(folder))
    write_views(folder, folder.files(), find_written(facts))
    folder.delete("tmp")
    folder.delete("parts")
    known = (MANIFEST_FILE, SUCCESS_FILE)
    write_manifest(folder, Lines(digest_file(folder, path) for path in folder.files() if path not in known))
    folder.write_bytes(SUCCESS_FILE, b"")
    return folder


def count_drops(folder):
    """Rows by source and rule, from the tables."""
    drops = Counter()
    for path in folder.files("tables/decisions"):
        sources = folder.read_parquet(path.replace("decisions", "samples"), ["source"])["source"].to_pylist()
        rows = folder.read_parquet(path, ["kept", "rule"]).to_pylist()
        drops.update((source, None if row["kept"] else row["rule"]) for source, row in zip(sources, rows, strict=True))
    return drops


def _table(folder, name, unit, columns, rows):
    folder.write_parquet(f"tables/{name}/{unit:05d}.parquet", pa.Table.from_pylist(rows, schema=columns))
