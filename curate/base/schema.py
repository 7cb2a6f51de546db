"""The only definition of every table: Arrow schemas, and the codes in the columns `status` and `reason`.

Row-aligned tables (`samples`, `scores`, `matches`, `members`, `decisions`) have one file per unit. Row i of each is the
i-th sample of the unit, including samples that could not be read. (unit, row) is the key. A uid identifies a pair of
image and caption. It may occur several times in a pool, but only once among kept rows. It is null if the row could not
be read.
"""

import tomllib
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import pyarrow as pa


def define(*fields: pa.Field, **types: pa.DataType) -> pa.Schema:
    """Return the schema with these fields, followed by the named fields."""
    return pa.schema([*fields, *map(pa.field, types, types.values())])


def named_fields(columns: Iterable[Any], name: str) -> tuple[pa.Field, ...]:
    """Return the fields for a section's columns (`Section.gives`), where `name` from the recipe replaces NAME."""
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

# Offsets of a tar sample's members, in the order of the tar, for emit. They are not measured, so not in `samples`.
MEMBERS = define(*ALIGNED, suffix=pa.list_(_TEXT), offset=pa.list_(_INT64), size=pa.list_(_INT64))

MATCHES = define(*ALIGNED, entry_ids=pa.list_(_INT32))

# In `matches`, if texts are matched by language: the language of the entries that a text may match.
LANGUAGE_KEY = pa.field("language_key", _TEXT)

DECISIONS = define(*ALIGNED, kept=_BOOL, rule=_TEXT, duplicate_of=_TEXT, probability=_DOUBLE, draw=_DOUBLE)

# How often the curated set has a row, 0 if it is not kept: in `decisions`, if the recipe repeats rows.
REPEATS = pa.field("repeats", _INT32)

# In `decisions`, if the recipe deduplicates by embedding: for a row that this dropped, the largest cosine to the rows
# that it was compared with, which joined it to its group (closest edges first); 1 from 0.9999 on. Otherwise null.
DUPLICATE_COSINE = pa.field("duplicate_cosine", _FLOAT)

_WRITTEN = define(uid=_TEXT, kind=_TEXT, style=_TEXT, ordinal=_INT32)  # the key of a synthetic caption

# The answers from engines, one row per request. `captions` is computed from them.
ANSWERS = define(*_WRITTEN, digest=_TEXT, answer=_TEXT, tokens_in=_INT32, tokens_out=_INT32, finish=_TEXT, error=_TEXT)

# Synthetic captions and results of gates: `gate` is `passed` or the first failed gate; `failed` lists all failed gates.
CAPTIONS = define(
    *_WRITTEN,
    *define(text=_TEXT, model=_TEXT, prompt=_TEXT, clip_score=_FLOAT, gate=_TEXT, tokens=_INT32),
    *define(status=_TEXT, error=_TEXT, failed=pa.list_(_TEXT)),
)

# The regions of phrases in a kept caption: boxes (x0, y0, x1, y1) in pixels of the image after EXIF rotation.
REGION = pa.struct(list(define(bbox=pa.list_(_FLOAT, 4), phrase=_TEXT, score=_FLOAT)))
REGIONS = define(uid=_TEXT, digest=_TEXT, regions=pa.list_(REGION), model=_TEXT, error=_TEXT)

# Attempts at a URL: their number over all rounds, the end of the last one, and whether another one may succeed.
ATTEMPTS = define(attempts=_INT32, attempted=_TIME, may_pass=_BOOL)

# Files, whole or in part (`row` is null), and samples that could not be read. ATTEMPTS are null without downloads.
FAILURES = define(*ALIGNED, *define(shard=_TEXT, key=_TEXT, reason=_TEXT, detail=_TEXT), *ATTEMPTS)

# retries.parquet: rows in lists of URLs that are tried again, by round. `list`: digest of the list and of all that
# determines its downloads; `row`: in the list; `key`: of the sample before the round; `attempts`: number so far.
RETRIES = define(source=_TEXT, list=_TEXT, round=_INT32, row=_INT64, key=_TEXT, attempts=_INT32)

METADATA = define(entry_id=_INT32, entry=_TEXT, source=_TEXT, language=_TEXT)

ENTRIES = define(*METADATA, pool=_INT64, survivors=_INT64, probability=_DOUBLE, expected=_DOUBLE, kept=_INT64)

MANIFEST = define(path=_TEXT, rows=_INT64, bytes=_INT64, sha256=_TEXT)

# forgotten.parquet: what was removed from the run, and is blocked in later runs: a row per item, in order of requests.
# `value`: hex digits of the uid, of the image's sha256, or of the sha256 of the URL's text. It names no URL or person.
# `origin`: `requested`; `linked`: it belongs to a requested row; `encountered`: a run with a blocklist found it.
# `rows`: how many rows of this pool the item matched. `shards`: how many shards the request changed.
FORGOTTEN_ITEMS = define(request=_INT32, kind=_TEXT, value=_TEXT, origin=_TEXT, time=_TIME, rows=_INT64, shards=_INT64)

# Decisions about kept rows, with their names in a run whose input is this run. `probability` in the shards is
# the row's own probability times INPUT_PROBABILITY, in every pool that has a column with this name.
INPUT_DECISIONS = {"probability": "input_probability", "draw": "input_draw", "repeats": "input_repeats"}
INPUT_PROBABILITY = INPUT_DECISIONS["probability"]

# Names that a column in `scores` must not have.
OWN_COLUMNS = frozenset({*SAMPLES.names, *DECISIONS.names, REPEATS.name, DUPLICATE_COSINE.name})

# Input columns with the license of a sample, the most general first
LICENCES = ("license_group", "license", "licence_url")

OK = "ok"


_REASONS = tomllib.loads(files("curate.base").joinpath("reasons.toml").read_text("ascii"))
_OF_HTTP = {f"http_{s.value}": f"the host answered {s.value} {s.phrase}" for s in HTTPStatus if s.value >= 300}

# `samples.status` and `failures.reason` of samples, `failures.reason` of files: codes and meanings from reasons.toml.
MISSING_REASONS: dict[str, str] = _REASONS["missing"] | _OF_HTTP
SAMPLE_REASONS: dict[str, str] = _REASONS["sample"] | MISSING_REASONS
FILE_REASONS: dict[str, str] = _REASONS["file"]
DAMAGE_REASONS: dict[str, str] = _REASONS["damage"]
ANSWER_REASONS: dict[str, str] = _REASONS["answer"]  # for `captions.status`
MISSING_SAMPLE, DAMAGED_EMBEDDINGS, DAMAGED_SIDECAR = "missing_sample", "damaged_embeddings", "damaged_sidecar"
