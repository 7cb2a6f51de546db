"""The one definition of every table: Arrow schemas, and the codes that `status` and `reason` may hold.

Row-aligned tables (`samples`, `scores`, `matches`, `members`, `decisions`) have one file per unit; row i of each is the
i-th sample of the unit, the unreadable ones included. (unit, row) is the key. A uid names a pair: it may repeat in a
pool, never among the kept, and is null where the row could not be read.
"""

import tomllib
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import pyarrow as pa


def define(*fields: pa.Field, **types: pa.DataType) -> pa.Schema:
    """Return the schema of these fields, followed by the named ones."""
    return pa.schema([*fields, *map(pa.field, types, types.values())])


def named_fields(columns: Iterable[Any], name: str) -> tuple[pa.Field, ...]:
    """Return the fields of a section's columns (`Section.gives`), with NAME replaced by the name in the recipe."""
    return tuple(pa.field(column.name.replace("NAME", name), pa.type_for_alias(column.type)) for column in columns)


_TEXT, _BOOL, _TIME = pa.string(), pa.bool_(), pa.timestamp("ms", "UTC")
_INT32, _INT64, _FLOAT, _DOUBLE = pa.int32(), pa.int64(), pa.float32(), pa.float64()

ALIGNED = list(define(unit=_INT32, row=_INT32, uid=_TEXT))

SAMPLES = define(
    *ALIGNED,
    *define(source=_TEXT, shard=_TEXT, key=_TEXT, url=_TEXT, caption=_TEXT, language=_TEXT),
    *define(words=_INT32, characters=_INT32, width=_INT32, height=_INT32),
    *define(bytes=_INT64, format=_TEXT, sha256=_TEXT, original_sha256=_TEXT),
    *define(phash=pa.uint64(), offset=_INT64, status=_TEXT, error=_TEXT),
)

# Columns that rules and SQL compute from the sides of an image: see `curate.base.numeric.sides`.
SIDES = define(min_side=_INT32, aspect=_DOUBLE)

# The offsets of a tar sample's members, in the order of the tar, for emit. They are not measured, so not in `samples`.
MEMBERS = define(*ALIGNED, suffix=pa.list_(_TEXT), offset=pa.list_(_INT64), size=pa.list_(_INT64))

MATCHES = define(*ALIGNED, entry_ids=pa.list_(_INT32))

# In `matches`, if texts are matched by language: the language code of the entries that a text may match.
LANGUAGE_KEY = pa.field("language_key", _TEXT)

DECISIONS = define(*ALIGNED, kept=_BOOL, rule=_TEXT, duplicate_of=_TEXT, probability=_DOUBLE, draw=_DOUBLE)

# How often a row is in the curated set, 0 if it is not kept: in `decisions`, if the recipe repeats rows.
REPEATS = pa.field("repeats", _INT32)

# In `decisions`, if the recipe deduplicates by embedding: for a row that was dropped by it, the largest cosine to the
# rows it was compared with, which joined it to its group (closest edges first); 1 from 0.9999 on. Otherwise null.
DUPLICATE_COSINE = pa.field("duplicate_cosine", _FLOAT)

_WRITTEN = define(uid=_TEXT, kind=_TEXT, style=_TEXT, ordinal=_INT32)  # the key of a text

# The answers of engines, one row per request; `captions` is computed from it.
ANSWERS = define(*_WRITTEN, digest=_TEXT, answer=_TEXT, tokens_in=_INT32, tokens_out=_INT32, finish=_TEXT, error=_TEXT)

# Texts and the results of gates: `gate` is `passed` or the first gate that failed, `failed` lists all that failed.
CAPTIONS = define(
    *_WRITTEN,
    *define(text=_TEXT, model=_TEXT, prompt=_TEXT, clip_score=_FLOAT, gate=_TEXT, tokens=_INT32),
    *define(status=_TEXT, error=_TEXT, failed=pa.list_(_TEXT)),
)

# The regions of a kept caption's phrases: boxes (x0, y0, x1, y1) in pixels of the image after EXIF rotation.
REGION = pa.struct(list(define(bbox=pa.list_(_FLOAT, 4), phrase=_TEXT, score=_FLOAT)))
REGIONS = define(uid=_TEXT, digest=_TEXT, regions=pa.list_(REGION), model=_TEXT, error=_TEXT)

# The attempts at a URL: their number in all rounds, the end of the last one, and whether another may succeed.
ATTEMPTS = define(attempts=_INT32, attempted=_TIME, may_pass=_BOOL)

# Files, whole or in part (`row` is null), and samples that could not be read; ATTEMPTS are null without downloads.
FAILURES = define(*ALIGNED, *define(shard=_TEXT, key=_TEXT, reason=_TEXT, detail=_TEXT), *ATTEMPTS)

# retries.parquet: rows of lists of URLs that are tried again, by round. `list`: digest of the list and of all that
# determines what becomes of its URLs; `row`: in the list; `key`: of the sample before the round; `attempts`: so far.
RETRIES = define(source=_TEXT, list=_TEXT, round=_INT32, row=_INT64, key=_TEXT, attempts=_INT32)

METADATA = define(entry_id=_INT32, entry=_TEXT, source=_TEXT, language=_TEXT)

ENTRIES = define(*METADATA, pool=_INT64, survivors=_INT64, probability=_DOUBLE, expected=_DOUBLE, kept=_INT64)

MANIFEST = define(path=_TEXT, rows=_INT64, bytes=_INT64, sha256=_TEXT)

# forgotten.parquet: what was taken out of the run, and what later ones block, one row an item, in requests in order.
# `value`: hex digits of the uid, of the image's sha256, or of the sha256 of the URL's text; no URL, and nobody's name.
# `origin`: `requested`; `linked`, a name of a requested row; `encountered`, one that a run with a blocklist met.
# `rows`: of this pool that the item named. `shards`: that the request changed.
FORGOTTEN_ITEMS = define(request=_INT32, kind=_TEXT, value=_TEXT, origin=_TEXT, time=_TIME, rows=_INT64, shards=_INT64)

# Decisions about kept rows, under the names that a run sees if this run is its input. `probability` in the shards is
# the row's own probability times INPUT_PROBABILITY, in every pool that has a column with this name.
INPUT_DECISIONS = {"probability": "input_probability", "draw": "input_draw", "repeats": "input_repeats"}
INPUT_PROBABILITY = INPUT_DECISIONS["probability"]

# Names that no column of `scores` may have.
OWN_COLUMNS = frozenset({*SAMPLES.names, *DECISIONS.names, REPEATS.name, DUPLICATE_COSINE.name})

# Input columns with a sample's license, the coarsest first
LICENCES = ("license_group", "license", "licence_url")

OK = "ok"


_REASONS = tomllib.loads(files("curate.base").joinpath("reasons.toml").read_text("ascii"))
_OF_HTTP = {f"http_{s.value}": f"the host answered {s.value} {s.phrase}" for s in HTTPStatus if s.value >= 300}

# `samples.status` and `failures.reason` of samples, `failures.reason` of files: codes and meanings, see reasons.toml.
MISSING_REASONS: dict[str, str] = _REASONS["missing"] | _OF_HTTP
SAMPLE_REASONS: dict[str, str] = _REASONS["sample"] | MISSING_REASONS
FILE_REASONS: dict[str, str] = _REASONS["file"]
DAMAGE_REASONS: dict[str, str] = _REASONS["damage"]
ANSWER_REASONS: dict[str, str] = _REASONS["answer"]  # of `captions.status`
MISSING_SAMPLE, DAMAGED_EMBEDDINGS, DAMAGED_SIDECAR = "missing_sample", "damaged_embeddings", "damaged_sidecar"
