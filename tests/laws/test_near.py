"""Whole runs find injected near-duplicates, regardless of the sharding, with Beam as without."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.api import Run
from curate.base.errors import RecipeError
from curate.base.numeric.vectors import embedding_matrix
from curate.cli.summary import summary
from curate.decide.dedup import cells
from pipelines.steps import units
from tests import kit
from tests.kit import conserved
from tests.kit.clips import write_model

pytestmark = pytest.mark.thorough

PASSES = {
    "phash": [{"phash": {"distance": 8}}],
    "embedding": [{"embedding": {"cosine": 0.995}}],
    "both": ["sha256", {"phash": {"distance": 4}}, {"embedding": {"cosine": 0.995}}],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "m")


def varied(image, kind):
    """Return the picture resized, at another quality, or cropped by a pixel."""
    opened = Image.open(io.BytesIO(image))
    if kind == 0:
        return kit.encode(opened.resize((opened.width + 9, opened.height + 7), Image.Resampling.LANCZOS))
    if kind == 1:
        return kit.encode(opened, quality=40)
    return kit.encode(opened.crop((1, 0, opened.width, opened.height - 1)))


def make_pool(clean=60):
    """Clean pictures, then three variants of every third one, under other URLs."""
    samples = kit.make_samples(clean)[:clean]
    return [*samples, *(vary(sample, kind) for sample in samples[::3] for kind in range(3))]


def vary(sample, kind, **changed):
    changed = {"key": f"{sample.key}_{kind}", "url": f"https://x/{sample.key}/{kind}", "suffix": "jpg"} | changed
    return replace(sample, image=varied(sample.image, kind), **changed)


def recipe(path, model, by, **dedup):
    measure = {"image": {"phash": True}, "clip": {"model": model, "embeddings": True, "batch": 8}}
    return kit.recipe_of(path, measure=measure, dedup={"by": by, **dedup})


@pytest.mark.slow
def test_the_same_set_whatever_the_sharding(model, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "_PACKETS_OF_MANY", 3)  # so that packets have several units
    samples = make_pool()
    one = kit.write_tars(tmp_path / "one", samples, 1)
    seven = kit.write_tars(tmp_path / "seven", kit.shuffled(samples, 3), 7)
    runs = [
        kit.run_local(recipe(one, model, PASSES["both"]), tmp_path / "a"),
        kit.run_beam(recipe(seven, model, PASSES["both"]), tmp_path / "c", n_buckets=3),
        kit.run_beam(recipe(seven, model, PASSES["both"]), tmp_path / "d", n_buckets=3, here=False),
    ]
    for done in runs:
        conserved(done)
        assert done.kept == runs[0].kept
        assert done.verdicts == runs[0].verdicts
    assert 45 <= runs[0].counts["duplicate"] <= 70


def test_the_cosine_that_joined_a_row(model, tmp_path):
    """SQL and `explain` show the largest cosine to any row that reached deduplication."""
    path = kit.write_tars(tmp_path / "tars", make_pool(), 4)
    asked = recipe(path, model, PASSES["both"])
    done, beam = kit.run_local(asked, tmp_path / "local"), kit.run_beam(asked, tmp_path / "beam", n_buckets=3)
    assert kit.lasting_files(done.folder) == kit.lasting_files(beam.folder)
    vectors = embedding_matrix(done.table("embeddings")["image"]).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = vectors @ vectors.T / lengths / lengths[:, None]
    np.fill_diagonal(cosines, 0)
    samples, decisions = done.table("samples").to_pylist(), done.table("decisions").to_pylist()
    hashes = [row["phash"] for row in samples]
    pairs = ((i, one ^ two) for i, one in enumerate(hashes) for j, two in enumerate(hashes) if i != j)
    by_hash = {i for i, bits in pairs if bits.bit_count() <= 4}
    shown = 0
    for i, row in enumerate(decisions):
        assert row["duplicate_cosine"] is None or row["rule"] == "duplicate"
        if row["rule"] == "duplicate" and i not in by_hash:
            nearest = cosines[i].max()
            assert nearest >= 0.995
            assert row["duplicate_cosine"] == pytest.approx(1 if nearest >= 0.9999 else nearest, abs=1e-6)
            shown += 1
    assert shown > 5
    run = Run(str(done.folder))
    clusters = run.sql("near_duplicates", limit=100).to_pylist()
    known = {row["uid"]: row["duplicate_cosine"] for row in decisions}
    for cluster in clusters:
        assert cluster["cosines"] == [known[uid] for uid in cluster["members"]]
        assert cluster["cosine"] == min((one for one in cluster["cosines"] if one is not None), default=None)
    one = next(row for row in decisions if row["duplicate_cosine"] is not None)
    assert f"{one['duplicate_cosine']:.4f} is its largest cosine" in " ".join(str(run.explain(one["uid"])).split())


def test_a_large_group_is_warned_of(model, tmp_path):
    """A group of over 5% of the rows that reach deduplication is large: 4 of 60, but not 3 of 60."""
    samples = kit.make_samples(80)[:80]
    alike, others = ([vary(samples[first], 1, key=samples[n].key, caption=samples[n].caption, url=samples[n].url)
                      for n in range(first + 1, first + count)] for first, count in ((0, 4), (4, 3)))  # fmt: skip
    pool = [samples[0], *alike, samples[4], *others, *samples[7:]]
    path = kit.write_tars(tmp_path / "tars", pool, 3)
    asked = recipe(path, model, PASSES["phash"]).model_copy(update={"rules": {"few": "key < '00060'"}})
    done = kit.run_local(asked, tmp_path / "run")
    assert done.counts["few"] == 20
    decisions = done.table("decisions").to_pylist()
    uids = {row["duplicate_of"] for row in decisions if row["row"] < 4 and row["duplicate_of"] and row["unit"] == 0}
    [group] = done.run["large_groups"]
    assert {group["uid"]} == uids and (group["rows"], group["reached"]) == (4, 60)
    shown = summary(str(done.folder), 1.0)
    assert f"those that reached deduplication) are one group of duplicates, represented by {group['uid']}" in shown


@pytest.mark.slow
def test_many_cells_and_the_recall_of_their_candidates(model, tmp_path, monkeypatch):
    """Large pools are cut into cells; a sample shows how many close pairs were compared."""
    monkeypatch.setattr(cells, "WHOLE", 0)
    monkeypatch.setattr(cells, "VISITS", 2)
    path = kit.write_tars(tmp_path / "tars", make_pool(), 3)
    asked = recipe(path, model, PASSES["embedding"])
    runs = [kit.run_beam(asked, tmp_path / str(here), here=here) for here in (True, False)]
    assert runs[0].verdicts == runs[1].verdicts and runs[0].counts["duplicate"] > 30
    (near,), (other,) = (done.run["near"] for done in runs)
    assert near == other
    assert near["embedding"] == {"cosine": 0.995, "of": "clip"} and 30 < near["found"] <= near["sampled"]


def test_of_a_group_the_best_of_what_reaches_it_stays(model, tmp_path):
    """A row that a rule dropped is in no group."""
    path = kit.write_tars(tmp_path / "tars", make_pool(), 3)
    asked = recipe(path, model, PASSES["phash"], prefer="clip_score")
    done = kit.run_local(asked, tmp_path / "out")
    decisions, scores = done.table("decisions").to_pylist(), done.table("scores")["clip_score"].to_pylist()
    best = {row["uid"]: score for row, score in zip(decisions, scores, strict=True)}
    lost = [row for row in decisions if row["duplicate_of"]]
    assert lost and all(best[row["duplicate_of"]] >= best[row["uid"]] for row in lost)
    assert {row["duplicate_of"] for row in lost} <= {row["uid"] for row in decisions if row["kept"]}
    rules = {"first": "key NOT LIKE '%\\_%' ESCAPE '\\'"}
    done = kit.run_local(asked.model_copy(update={"rules": rules}), tmp_path / "ruled", reuse=done.folder)
    assert done.counts == {"first": 60, "kept": 60}


def test_planted_copies_of_photos(shared, model, tmp_path):
    """Real photos re-encoded, resized and cropped by a pixel: recall and precision by phash within 8 bits."""
    with tarfile.open(shared / "photos.tar") as tar:
        images = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
    photos = [kit.Sample(f"{i:03d}", image, f"caption {i}", f"https://x/{i}") for i, image in enumerate(images)]
    path = kit.write_tar(tmp_path / "x.tar", [*photos, *(vary(photo, kind) for photo in photos for kind in range(3))])
    asked = kit.recipe_of(str(path), measure={"image": {"phash": True}}, dedup={"by": [{"phash": {"distance": 8}}]})
    done = kit.run_local(asked, tmp_path / "out")
    photo = {row["uid"]: row["key"][:3] for row in done.table("samples", ["uid", "key"]).to_pylist()}
    decisions = done.table("decisions").to_pylist()
    lost = [(photo[row["uid"]], photo[row["duplicate_of"]]) for row in decisions if row["duplicate_of"]]
    right = sum(a == b for a, b in lost)
    assert right >= 0.97 * 3 * len(images) and right >= 0.97 * len(lost)


# ---------------------------------------------------------------- decontamination
@pytest.mark.parametrize("nearness", [{"phash": {"distance": 4}}, {"embedding": {"cosine": 0.999}}], ids=str)
def test_what_is_near_an_evaluation_image_is_dropped(nearness, model, tmp_path):
    """The evaluation images are files and tars; each dropped row names its image."""
    samples = kit.make_samples(30)[:30]
    path = kit.write_tars(tmp_path / "tars", samples, 3)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/a.jpg").write_bytes(samples[4].image or b"")
    (tmp_path / "evaluation/b.jpg").write_bytes(b"no image")
    (tmp_path / "evaluation/other.png").write_bytes(kit.encode(kit.picture(999), "PNG"))
    kit.write_tar(tmp_path / "evaluation/x.tar", [samples[17]])
    asked = recipe(path, model, ["sha256"], against={"images": f"{tmp_path}/evaluation/*", **nearness})
    local = kit.run_local(asked, tmp_path / "local")
    if "phash" in nearness:
        beam = kit.run_beam(asked, tmp_path / "beam")
        assert kit.lasting_files(local.folder) == kit.lasting_files(beam.folder)
    conserved(local)
    assert local.counts == {"contaminated": 2, "kept": 28}
    keys = local.table("samples", ["key"])["key"].to_pylist()
    named = dict(zip(keys, local.table("decisions").to_pylist(), strict=True))
    assert named["00004"]["duplicate_of"].endswith("evaluation/a.jpg")
    assert named["00017"]["duplicate_of"].endswith("x.tar 00017")
    (tmp_path / "evaluation/a.jpg").unlink()
    with pytest.raises(RecipeError, match="contains a run of the same recipe, but an input"):
        kit.run_local(asked, tmp_path / "local")


def test_an_evaluation_set_that_is_not_whole_is_told(model, tmp_path):
    """Unreadable images are counted, also in a truncated tar; too many of them end the run."""
    samples = kit.make_samples(24)[:24]
    path = kit.write_tars(tmp_path / "tars", samples, 2)
    whole = Path(kit.write_tar(tmp_path / "whole.tar", samples[:6]))
    data = whole.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: data.index(samples[4].image or b"") + 50])
    against = {"images": f"{tmp_path}/cut.tar", "phash": {"distance": 4}}
    asked = recipe(path, model, ["sha256"], against=against)
    done = kit.run_local(asked, tmp_path / "out")
    facts = done.run["evaluation"]
    assert 0 < facts["images"] < 6 and facts["unread"] >= 1 and "cut.tar" in facts["such_as"]
    assert done.counts["contaminated"] == facts["images"]
    with pytest.raises(RecipeError, match=r"images of the evaluation set cannot be read, but max_failed is 0\.1"):
        kit.run_local(asked.model_copy(update={"max_failed": 0.1}), tmp_path / "strict")
