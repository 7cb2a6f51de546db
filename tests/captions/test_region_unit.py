"""Regions in whole runs: the table and the json have what the detector finds, and no image is searched twice."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.captions.phrases import noun_phrases
from curate.captions.regions import ZeroShotDetector, find_regions, sample_phrases
from curate.recipe.captions import Regions
from curate.recipe.recipe import Recipe
from curate.store import checkpoints
from pipelines.prepare import prepare
from tests import kit
from tests.captions.detectors import needs_textblob, save
from tests.kit import conserved
from tests.kit.captioned import kept_samples

pytestmark = [pytest.mark.thorough, needs_textblob]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save("owlvit", tmp_path_factory.mktemp("detectors") / "owl"))


def recipe(path, model, **options):
    return kit.recipe_of(path, captions={"regions": {"model": model, **options}})


def test_regions_are_those_of_the_detector(model, tmp_path):
    samples = kit.make_samples(24)
    path = kit.write_tars(tmp_path / "tars", samples, 3)
    done = kit.run_local(recipe(path, model), tmp_path / "a")
    conserved(done)
    detector = ZeroShotDetector(Regions(model=model))
    found = {row["uid"]: row for row in done.table("regions").to_pylist()}
    files = kept_samples(tmp_path / "a")
    assert set(found) == set(files)
    assert sum(len(row["regions"]) for row in found.values()) > 10
    for uid, members in list(files.items())[:8]:
        image = next(data for suffix, data in members.items() if suffix in ("jpg", "jpeg", "png"))
        fields = json.loads(members["json"])
        phrases = sample_phrases(noun_phrases(pa.array([fields["captions"]["original"]])), pa.array([uid]), 20)
        [table] = find_regions([image], phrases, detector, 0.1)
        [expected] = table["regions"].to_pylist()
        assert [region["phrase"] for region in fields["regions"]] == [region["phrase"] for region in expected]
        for one, other in zip(fields["regions"], expected, strict=True):
            assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_what_was_looked_at_is_not_looked_at_again(model, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    first = kit.run_local(recipe(path, model), tmp_path / "a")
    looked = []
    detect = ZeroShotDetector.detect

    def pluralize(self, pictures, queries, threshold):
        looked.append(len(pictures))
        return detect(self, pictures, queries, threshold)

    monkeypatch.setattr(ZeroShotDetector, "detect", pluralize)
    fewer = recipe(path, model).model_copy(update={"rules": {"red": "caption LIKE '%a%'"}})
    second = kit.run_local(fewer, tmp_path / "b", reuse=tmp_path / "a")
    before, after = (set(done.table("regions")["digest"].to_pylist()) for done in (first, second))
    assert sum(looked) == len(after - before) <= 2 < len(after) < len(before)
    looked.clear()
    third = kit.run_local(recipe(path, model, threshold=0.2), tmp_path / "c", reuse=tmp_path / "a")
    assert not set(third.table("regions")["digest"].to_pylist()) & before
    assert sum(looked) > 10


def test_what_is_not_english_is_looked_at_where_nobody_says_so(model, tmp_path):
    """A run that measures languages skips other languages; a run without languages must not reuse that decision."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    told = recipe(path, model).model_dump()
    told["measure"]["language"] = {}
    first = kit.run_local(Recipe.model_validate(told), tmp_path / "a")
    assert any(first.table("regions")["error"].to_pylist())
    fresh = kit.run_local(recipe(path, model), tmp_path / "b")
    reused = kit.run_local(recipe(path, model), tmp_path / "c", reuse=tmp_path / "a")
    for name in ("uid", "digest", "model", "error"):
        assert fresh.table("regions")[name].to_pylist() == reused.table("regions")[name].to_pylist(), name
    assert not any(fresh.table("regions")["error"].to_pylist())


def test_an_imageless_pool_has_none(model, tmp_path):
    pq.write_table(pa.table({"url": ["https://x"], "text": ["a red dog"]}), tmp_path / "x.parquet")
    asked = kit.recipe_of(str(tmp_path / "x.parquet"), "parquet", captions={"regions": {"model": model}})
    with pytest.raises(RecipeError, match=r"captions\.regions: needs images"):
        prepare(asked, str(tmp_path / "out"))


def test_what_was_found_before_a_kill_is_not_looked_for_again(model, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    asked = recipe(path, model, batch=4)
    undisturbed = kit.run_local(asked, tmp_path / "a")
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    looked = []
    detect = ZeroShotDetector.detect

    def counting(self, pictures, queries, threshold):
        looked.append(len(pictures))
        if len(looked) == 3:
            raise KeyboardInterrupt
        return detect(self, pictures, queries, threshold)

    monkeypatch.setattr(ZeroShotDetector, "detect", counting)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "b")
    kit.run_local(asked, tmp_path / "b")
    assert kit.lasting_files(tmp_path / "b") == kit.lasting_files(undisturbed.folder)
    done = sum(looked[:2]) + sum(looked[3:])
    looked[:] = [0] * 3
    kit.run_local(asked, tmp_path / "c")
    assert sum(looked) == done
