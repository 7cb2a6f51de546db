"""Keys of measured tables: each changes if and only if one of its inputs does."""

from dataclasses import replace

import pyarrow as pa
import pytest

from curate.measure import settings as module
from curate.measure.settings import TABLES, MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import Pool, Unit
from curate.pool.score_groups import SUPPLIED, ScoreGroup
from curate.recipe.recipe import parse_recipe
from curate.signals.signal import EmbeddingSignal, ModelSignal, PrecomputedSignal, TextSignal

Inputs = tuple[MeasureSettings, Unit]
NEVER = None  # what no key calls
COSINE = pa.field("clip_score", pa.float32())
SIGNALS = (
    TextSignal("language", (), "language's key", compute=lambda captions: [], sample_columns=("language",)),
    ModelSignal("clip", (COSINE,), "clip's key", start=NEVER, dimension=8, encoder=NEVER),
    PrecomputedSignal("given", (), "given's key", supplied=("image", "text"), dimension=8),
    EmbeddingSignal("on_clip", (pa.field("a", pa.float32()),), "a's key", compute=lambda rows: [], of="clip"),
    EmbeddingSignal("on_given", (pa.field("b", pa.float32()),), "b's key", compute=lambda rows: [], of="given"),
)
RECIPE = {
    "input": [
        {
            "name": "pool",
            "format": "webdataset",
            "path": "x.tar",
            "join": {"path": "j.csv", "on": "key", "columns": {"mine": "m"}},
        }
    ],
    "measure": {
        "language": {},
        "clip": {"model": "ViT-B-32", "embeddings": True},
        "embeddings": {"name": "given", "image": "i", "text": "t"},
    },
}
SCORE = pa.schema([("score", pa.float32()), ("mine", pa.float64())])
JOIN = ScoreGroup("join of mine", ("mine",), 0, "the join's digest")
POOL = Pool(
    "pool's key", True, None, frozenset(), SCORE, None, groups={"pool": (ScoreGroup(SUPPLIED, ("score",)), JOIN)}
)
UNIT = Unit(0, "pool", (InputPart("a.tar", 1, "etag:1"), InputPart("b.tar", 2, "etag:2", sidecar_fingerprint="s")))


def inputs(change=lambda recipe: None):
    """Settings of the recipe as changed, and a unit."""
    data = {"input": [dict(RECIPE["input"][0])], "measure": {**RECIPE["measure"], "image": {}}}
    change(data)
    recipe = parse_recipe(data)
    return MeasureSettings(recipe.input, recipe.measure, POOL, {"language": "model 1"}, SIGNALS, TABLES), UNIT


def keys(found):
    settings, unit = found
    tables = {name: settings.key(name, unit) for name in ("samples", "members", "scores", "embeddings")}
    return tables | {f"column {name}": key for name, key in settings.signal_keys(unit).items()}


COLUMNS = {f"column {name}" for name in ("clip", "given", "on_clip", "on_given", "language", SUPPLIED, JOIN.name)}
ROWS = {"samples", "members"}
ALL = {*ROWS, "scores", "embeddings", *COLUMNS}


def part(**change):
    return lambda found: (found[0], replace(found[1], parts=(replace(UNIT.parts[0], **change), UNIT.parts[1])))


def unit(**change):
    return lambda found: (found[0], replace(found[1], **change))


def pool(**change):
    return lambda found: (replace(found[0], pool=replace(POOL, **change)), found[1])


def recipe(change):
    return lambda _: inputs(change)


def source(**change):
    return recipe(lambda data: data["input"][0].update(change))


def image(**change):
    return recipe(lambda data: data["measure"]["image"].update(change))


def signal(place):
    changed = [replace(one, key="other") if i == place else one for i, one in enumerate(SIGNALS)]
    return lambda found: (replace(found[0], signals=tuple(changed)), found[1])


CHANGES = [
    ("nothing", lambda found: found, set()),
    ("the unit's place", unit(index=7), set()),
    ("its place in the run to reuse", unit(reuse_index=3), set()),
    ("a file's path", part(path="c.tar"), ALL),
    ("its size", part(size=9), ALL),
    ("its fingerprint", part(fingerprint="etag:9"), ALL),
    ("its row groups", part(groups=(0, 1)), ALL),
    ("the rows that its footer states", part(rows=4), set()),
    ("the file of its embeddings", part(sidecar_fingerprint="t"), {"scores", "column given", "column on_given"}),
    ("the order of files", unit(parts=UNIT.parts[::-1]), ALL),
    ("one file fewer", unit(parts=UNIT.parts[:1]), ALL),
    ("where a source is", source(path="y.tar"), set()),
    ("how it is reached", source(storage={"anon": True}), set()),
    ("where captions are", source(caption_key="text"), ALL),
    ("which fields are columns", source(columns={"a": "int"}), set()),
    ("where a joined file is", source(join={"path": "k.csv", "on": "key", "columns": {"mine": "m"}}), set()),
    (
        "a joined file",
        pool(groups={"pool": (POOL.groups["pool"][0], replace(JOIN, digest="other"))}),
        {"scores", f"column {JOIN.name}"},
    ),
    ("the score columns of another source", pool(scores=pa.schema([*SCORE, ("other", pa.float32())])), {"scores"}),
    (
        "a source in front",
        recipe(lambda data: data["input"].insert(0, {"name": "front", "format": "parquet", "path": "z"})),
        set(),
    ),
    ("decoding", image(decode=False), ALL),
    ("the limit of pixels", image(max_pixels=1000), ALL),
    ("the side of JPEGs", image(jpeg_side=64), ALL),
    ("perceptual hashes", image(phash=True), ROWS),
    ("a signal that fills samples", signal(0), {*ROWS, "scores", "column language"}),
    ("has_images", pool(has_images=False), ALL),
    ("other units", pool(key="other"), set()),
    ("the pool's rows", pool(rows=5), set()),
    ("what columns supply", pool(supplied=frozenset({"url"})), set()),
    (
        "the score columns of the pool",
        pool(scores=pa.schema([("score", pa.float64()), SCORE.field("mine")])),
        {"scores", f"column {SUPPLIED}"},
    ),
    ("a model", signal(1), {"scores", "embeddings", "column clip"}),
    ("a signal", signal(3), {"scores", "column on_clip"}),
    (
        "embeddings that are kept",
        recipe(lambda data: data["measure"].update(embeddings={**RECIPE["measure"]["embeddings"], "keep": True})),
        {"embeddings"},
    ),
]


@pytest.mark.parametrize(("change", "expected"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_keys_change_with_their_inputs_alone(change, expected):
    before, after = keys(inputs()), keys(change(inputs()))
    assert before.keys() == after.keys() == ALL
    assert {name for name in ALL if before[name] != after[name]} == expected


def test_a_new_version_of_the_step_changes_all(monkeypatch):
    before = keys(inputs())
    monkeypatch.setitem(module.VERSIONS, "measure", 99)
    after = keys(inputs())
    assert all(before[name] != after[name] for name in ALL)


@pytest.mark.parametrize(("library", "expected"), [("pillow", ALL), ("scipy", ROWS)])
def test_versions_of_libraries(monkeypatch, library, expected):
    """Of those that decide values of this recipe."""
    hashed = lambda data: data["measure"]["image"].update(phash=True)  # noqa: E731
    before, real = keys(inputs(hashed)), module.version
    monkeypatch.setattr(module, "version", lambda name: "99" if name == library else real(name))
    after = keys(inputs(hashed))
    assert {name for name in ALL if before[name] != after[name]} == expected
