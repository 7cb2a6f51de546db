"""A unit's tables from one read: rows and columns, signals of each class, and columns that are current."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from curate.base import schema
from curate.base.numeric.vectors import embedding_column, embedding_matrix
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.signals.signal import EmbeddingSignal, ImageSignal, ModelSignal, SignalOutput, TextSignal
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit

ROWS = 6  # row 2 is not an image


class Widths:
    """An image signal: the width of each image; of a model, embeddings of (row, 1) and (row, 2) too."""

    def __init__(self, captions, has_embeddings=False):
        self.values = [None] * len(captions)
        self.has_embeddings = has_embeddings

    def observe(self, image):
        return image.width

    def add(self, row, observation):
        self.values[row] = observation

    def finish(self):
        columns = (pa.array(self.values, pa.int32()),)
        if not self.has_embeddings:
            return SignalOutput(columns)
        rows = np.array([row for row, value in enumerate(self.values) if value is not None])
        sides = [np.stack([rows + 1, np.full(len(rows), side)], axis=1).astype(np.float32) for side in (1, 2)]
        image, text = (embedding_column(side, rows, len(self.values)) for side in sides)
        return SignalOutput(columns, (image, text))


def lengths(captions):
    texts = captions.to_pylist()
    return [pa.array([text and "xx" for text in texts]), pa.array([text and len(text) for text in texts], pa.int32())]


def first_parts(given):
    return [pa.array(given.images[:, 0] + 10 * given.texts[:, 1], pa.float32())]


WIDTH = ImageSignal("width_of", (pa.field("wide", pa.int32()),), "1", start=Widths)
MODEL = ModelSignal(
    "model", (pa.field("size", pa.int32()),), "2", start=lambda captions: Widths(captions, True), dimension=2, encoder=None
)  # fmt: skip
LENGTH = TextSignal("length", (pa.field("long", pa.int32()),), "3", compute=lengths, sample_columns=("language",))
FIRST = EmbeddingSignal("first", (pa.field("first", pa.float32()),), "4", compute=first_parts, of="model")


@pytest.fixture
def run(tmp_path):
    """A run with one unit, and signals of its own."""
    samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), "a caption " * (i + 1)) for i in range(ROWS)]
    samples[2] = replace(samples[2], image=b"no image")
    asked = kit.recipe_of(kit.write_tars(tmp_path / "tars", samples, 2))
    prepared = prepare(asked, str(tmp_path / "out"), unit_size=1 << 30)
    claim_folder(prepared)
    [unit] = prepared.plan.units
    return with_signals(MeasureSettings.of(prepared.context), WIDTH, MODEL, LENGTH, FIRST), prepared.context, unit


def with_signals(settings, *signals):
    settings = replace(settings, signals=signals, tables=("samples", "scores", "members"))
    settings.__dict__.pop("score_schema", None)
    return settings


def test_signals_of_each_class_fill_columns_by_name(run):
    settings, context, unit = run
    assert measure_unit(settings, unit, context.unit_tables(unit)) == []
    tables = context.unit_tables(unit)
    samples, scores = tables.read("samples"), tables.read("scores")
    assert samples.schema.names == schema.SAMPLES.names
    assert scores.schema.names == ["unit", "row", "uid", "wide", "size", "long", "first"]
    assert samples["uid"].equals(scores["uid"]) and samples["row"].to_pylist() == list(range(ROWS))
    ok = [row for row in range(ROWS) if row != 2]
    assert samples["status"].to_pylist() == ["ok" if row in ok else "not_an_image" for row in range(ROWS)]
    widths = samples["width"].to_pylist()
    expected = [widths[r] if r in ok else None for r in range(ROWS)]
    assert scores["wide"].to_pylist() == scores["size"].to_pylist() == expected
    captions = samples["caption"].to_pylist()
    assert scores["long"].to_pylist() == [len(captions[r]) if r in ok else None for r in range(ROWS)]
    assert samples["language"].to_pylist() == ["xx" if r in ok else None for r in range(ROWS)]
    # The rows of the two tars are numbered anew in each: 1 + row in the tar, and 2 of the text.
    assert [value is None for value in scores["first"].to_pylist()] == [r not in ok for r in range(ROWS)]
    assert {value % 10 for value in scores["first"].drop_null().to_pylist()} == {1.0, 2.0, 3.0}
    assert min(scores["first"].drop_null().to_pylist()) > 20
    note = tables.note("samples")
    assert note["failures"] == [] and sum(note["rows"]) == ROWS


class Overflowing(Widths):
    """Embeddings that are not finite in the first two rows of each tar."""

    def finish(self):
        output = super().finish()
        assert output.embeddings
        image, text = (embedding_matrix(side).copy() for side in output.embeddings)
        image[0, 0], text[1, 1] = np.nan, -np.inf
        rows = np.arange(len(image))
        image_side, text_side = (embedding_column(side, rows, len(rows)) for side in (image, text))
        return SignalOutput(output.columns, (image_side, text_side))


def test_what_is_not_finite_is_null_and_counted(run):
    """DuckDB orders NaN above all numbers, so that it would pass each rule that a high score passes."""
    settings, context, unit = run
    odd = np.array([np.nan, np.inf, 0.5, -np.inf, 1.0, 2.0], np.float32)
    text = TextSignal("odd", (pa.field("odd", pa.float32()),), "6", compute=lambda captions: [pa.array(odd)])
    model = replace(MODEL, start=lambda captions: Overflowing(captions, True))
    odd_settings = with_signals(settings, model, text, FIRST)
    measure_unit(odd_settings, unit, context.unit_tables(unit))
    scores = context.unit_tables(unit).read("scores")
    assert scores["odd"].to_pylist() == [None, None, 0.5, None, 1.0, 2.0]
    first = scores["first"].to_pylist()  # without the image's embeddings it is 10 times the text's
    assert first[0] == 20 and first[1] == 2 and not any(map(np.isinf, scores["first"].drop_null().to_pylist()))
    note = context.unit_tables(unit).note("scores")
    assert note["nonfinite"] == {"odd": {"odd": 3}}
    # Where its columns are reused they are not counted again
    measure_unit(with_signals(settings, model, text, FIRST, LENGTH), unit, context.unit_tables(unit))
    assert context.unit_tables(unit).note("scores")["nonfinite"] == {"odd": {"odd": 3}}


def test_only_columns_that_are_not_current_are_computed(run, tmp_path):
    settings, context, unit = run
    measure_unit(settings, unit, context.unit_tables(unit))
    before = context.unit_tables(unit).read("scores")

    def fails(captions):
        raise AssertionError("it is current")

    same = replace(WIDTH, start=fails), replace(MODEL, start=fails), replace(LENGTH, compute=fails)
    again = (pa.field("again", pa.int32()),)
    more = replace(LENGTH, name="again", columns=again, key="5", sample_columns=(), compute=lambda c: lengths(c)[1:])
    changed = with_signals(settings, *same, more)
    measure_unit(changed, unit, context.unit_tables(unit))
    after = context.unit_tables(unit).read("scores")
    assert after.select(["wide", "size", "long"]).equals(before.select(["wide", "size", "long"]))
    assert after.schema.names[-1] == "again" and after["again"].equals(after["long"])
