"""Law 3 inside a unit: after a kill, measured rows are not measured again, and the tables have the same bytes."""

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.base.errors import RunError
from curate.measure import part, unit
from curate.models.open_clip_encoder import OpenClipEncoder
from curate.store import checkpoints
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit
from tests.kit.clips import write_model

pytestmark = pytest.mark.thorough

STEP = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(part, "STEP_ROWS", STEP)
    monkeypatch.setattr(unit, "STEP_ROWS", STEP)
    monkeypatch.setattr("curate.pool.plan.UNIT_BYTES", (1 << 30, 1 << 30))  # all tars are one unit


class Calls:
    """Counts calls, and stops at one of them as a kill would."""

    def __init__(self, monkeypatch, target, name, count):
        self.counted, self.stop_at = 0, 1 << 30
        function = getattr(target, name)

        def counting(*arguments):
            self.counted += count(*arguments)
            if self.counted >= self.stop_at:
                raise KeyboardInterrupt
            return function(*arguments)

        monkeypatch.setattr(target, name, counting)


@pytest.fixture
def images(monkeypatch):
    return Calls(monkeypatch, OpenClipEncoder, "start_images", lambda encoder, views: len(views))


@pytest.fixture
def words(monkeypatch):
    return Calls(monkeypatch, OpenClipEncoder, "score_words", lambda encoder, images, captions: len(captions))


@pytest.fixture
def pool(tmp_path):
    return kit.write_tars(tmp_path / "tars", kit.make_samples(48), 3)


def claim(pool, model, out):
    """A run whose unit nothing has measured."""
    clip = {"model": model, "embeddings": True, "words": True, "batch": 5}
    prepared = prepare(kit.recipe_of(pool, measure={"clip": clip, "image": {"phash": True}}), str(out))
    claim_folder(prepared)
    assert len(prepared.plan.units) == 1
    return prepared


def measure(prepared):
    assert kit.measure(prepared.context, prepared.plan.units[0]) == []


def parts(out):
    return sorted(out.rglob("parts/**/*.arrow"))


@pytest.fixture
def undisturbed(pool, model, tmp_path, images, words):
    measure(claim(pool, model, tmp_path / "undisturbed"))
    assert images.counted == words.counted > 60 and not parts(tmp_path / "undisturbed")
    images.counted = words.counted = 0
    return kit.files_of(tmp_path / "undisturbed/tables")


def check_same(out, undisturbed):
    assert kit.files_of(out / "tables") == undisturbed and not parts(out)


@pytest.fixture
def stopped(pool, model, tmp_path, undisturbed):
    """A run that was stopped at so many calls."""

    def stop(calls, count):
        prepared = claim(pool, model, tmp_path / "out")
        calls.stop_at = count
        with pytest.raises(KeyboardInterrupt):
            measure(prepared)
        calls.stop_at = 1 << 30
        return prepared

    return stop


@pytest.mark.parametrize("count", [1, 33, 60])
def test_images_are_not_measured_again(count, stopped, tmp_path, images, words, undisturbed):
    """Within a tar and across tars; at most one step of rows is measured twice."""
    prepared = stopped(images, count)
    before, images.counted = images.counted, 0
    measure(prepared)
    check_same(tmp_path / "out", undisturbed)
    total = words.counted
    assert total - before <= images.counted <= total - before + STEP


def test_words_are_not_scored_again(stopped, tmp_path, images, words, undisturbed):
    prepared = stopped(words, 30)
    before, total = words.counted, images.counted
    images.counted = words.counted = 0
    measure(prepared)
    check_same(tmp_path / "out", undisturbed)
    assert not images.counted and total - before <= words.counted <= total - before + STEP


def test_damaged_ones_are_measured_again(stopped, tmp_path, images, words, undisturbed):
    prepared = stopped(words, 1)  # all images are in place
    total, images.counted = images.counted, 0
    for path in parts(tmp_path / "out"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    measure(prepared)
    check_same(tmp_path / "out", undisturbed)
    assert images.counted == total


def test_those_of_another_input_are_not_used(stopped, tmp_path, images, words):
    """A tar that has changed is measured again, and the others are not."""
    samples = pq.read_table(tmp_path / "undisturbed/tables/samples/00000.parquet").to_pylist()
    readable = Counter(Path(row["shard"]).name for row in samples if row["status"] == "ok")
    prepared = stopped(words, 1)
    images.counted = 0
    os.utime(tmp_path / "tars/00001.tar", ns=(1, 1))
    measure(prepared)
    assert images.counted == readable["00001.tar"] < readable.total()


def test_an_input_that_changes_meanwhile_leaves_none(pool, model, tmp_path, monkeypatch):
    prepared = claim(pool, model, tmp_path / "out")
    encode = OpenClipEncoder.start_images

    def encoding(encoder, views):
        os.utime(tmp_path / "tars/00000.tar", ns=(1, 1))
        return encode(encoder, views)

    monkeypatch.setattr(OpenClipEncoder, "start_images", encoding)
    with pytest.raises(RunError, match="the file changed during the run"):
        measure(prepared)
    assert not parts(tmp_path / "out")
