"""Keys of measured tables: each changes if and only if one of its inputs does."""

from dataclasses import replace

import pyarrow as pa
import pytest

from curate.measure import settings as module
from curate.measure.settings import TABLES, MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import Pool, Unit
from curate.pool.score_groups import SUPPLIED, ScoreGroup
from curate.recipe.recipe import change_recipe, parse_recipe
from curate.signals.signal import EmbeddingSignal, ModelSignal, PrecomputedSignal, TextSignal

COSINE, A, B = (pa.field(name, pa.float32()) for name in ("clip_score", "a", "b"))
SIGNALS = (
    TextSignal("language", (), "language's key", compute=None, sample_columns=("language",)),
    ModelSignal("clip", (COSINE,), "clip's key", start=None, dimension=8, encoder=None),
    PrecomputedSignal("given", (), "given's key", supplied=("image", "text"), dimension=8),
    EmbeddingSignal("on_clip", (A,), "a's key", compute=None, of="clip"),
    EmbeddingSignal("on_given", (B,), "b's key", compute=None, of="given"),
)
RECIPE = {
    "input": {"name": "pool", "format": "webdataset", "path": "x.tar",
              "join": {"path": "j.csv", "on": "key", "columns": {"mine": "m"}}},
    "measure": {"language": {}, "clip": {"model": "ViT-B-32", "embeddings": True},
                "embeddings": {"name": "given", "image": "i", "text": "t"}},
}  # fmt: skip
SCORES = pa.schema([("score", pa.float32()), ("mine", pa.float64())])
GIVEN, JOIN = ScoreGroup(SUPPLIED, ("score",)), ScoreGroup("join of mine", ("mine",), 0, "the join's digest")
POOL = Pool("pool's key", True, None, frozenset(), SCORES, None, groups={"pool": (GIVEN, JOIN)})
FIRST, SECOND = InputPart("a.tar", 1, "etag:1"), InputPart("b.tar", 2, "etag:2", sidecar_fingerprint="s")
COLUMNS = {f"column {name}" for name in ("clip", "given", "on_clip", "on_given", "language", SUPPLIED, JOIN.name)}
ROWS = {"samples", "members"}
ALL = {*ROWS, "scores", "embeddings", *COLUMNS}


def keys(*overrides, pool=POOL, parts=(FIRST, SECOND), other_signal=None, **unit):
    """The keys of all tables and columns of a unit, by name."""
    recipe = change_recipe(parse_recipe(RECIPE), overrides)
    signals = tuple(replace(one, key="other") if one.name == other_signal else one for one in SIGNALS)
    settings = MeasureSettings(recipe.input, recipe.measure, pool, {"language": "model 1"}, signals, TABLES)
    unit = replace(Unit(0, "pool", parts), **unit)
    tables = {name: settings.key(name, unit) for name in (*ROWS, "scores", "embeddings")}
    return tables | {f"column {name}": key for name, key in settings.signal_keys(unit).items()}


def first(**change):
    return {"parts": (replace(FIRST, **change), SECOND)}


def pool(**change):
    return {"pool": replace(POOL, **change)}


BEFORE = "[{name: front, format: parquet, path: z}, {name: pool, format: webdataset, path: x.tar, join: {path: j.csv, on: key, columns: {mine: m}}}]"
# An override or other inputs, and the keys that they change
CHANGES = [
    ({"index": 7}, ()), ({"reuse_index": 3}, ()), (first(rows=4), ()), (pool(key="other"), ()), (pool(rows=5), ()),
    (pool(supplied=frozenset({"url"})), ()), ("input.path=y.tar", ()), ("input.storage={anon: true}", ()),
    ("input.columns={a: int}", ()), ("input.join.path=k.csv", ()), (f"input={BEFORE}", ()),
    (first(path="c.tar"), ALL), (first(size=9), ALL), (first(fingerprint="etag:9"), ALL), (first(groups=(0, 1)), ALL),
    ({"parts": (SECOND, FIRST)}, ALL), ({"parts": (FIRST,)}, ALL), ("input.caption_key=text", ALL),
    ("measure.image.decode=false", ALL), ("measure.image.max_pixels=1000", ALL), ("measure.image.jpeg_side=64", ALL),
    (pool(has_images=False), ALL), ("measure.image.phash=true", ROWS),
    (first(sidecar_fingerprint="t"), {"scores", "column given", "column on_given"}),
    (pool(groups={"pool": (GIVEN, replace(JOIN, digest="other"))}), {"scores", f"column {JOIN.name}"}),
    (pool(scores=pa.schema([*SCORES, ("other", pa.float32())])), {"scores"}),
    (pool(scores=pa.schema([("score", pa.float64()), SCORES.field("mine")])), {"scores", f"column {SUPPLIED}"}),
    ({"other_signal": "language"}, {*ROWS, "scores", "column language"}),
    ({"other_signal": "clip"}, {"scores", "embeddings", "column clip"}),
    ({"other_signal": "on_clip"}, {"scores", "column on_clip"}), ("measure.embeddings.0.keep=true", {"embeddings"}),
]  # fmt: skip


def test_keys_change_with_their_inputs_alone():
    before = keys()
    assert before.keys() == ALL and keys() == before
    for change, expected in CHANGES:
        after = keys(change) if isinstance(change, str) else keys(**change)
        assert {name for name in ALL if before[name] != after[name]} == {*expected}, change


@pytest.mark.parametrize(("library", "expected"), [("pillow", ALL), ("scipy", ROWS), ("the step", ALL)])
def test_versions_of_libraries_that_decide_values_and_of_the_step_are_in_keys(monkeypatch, library, expected):
    before, real = keys("measure.image.phash=true"), module.version
    monkeypatch.setattr(module, "version", lambda name: "99" if name == library else real(name))
    if library == "the step":
        monkeypatch.setitem(module.VERSIONS, "measure", 99)
    after = keys("measure.image.phash=true")
    assert {name for name in ALL if before[name] != after[name]} == expected
