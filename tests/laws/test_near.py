"""Near-duplicates in whole runs: injected ones are found, whatever the sharding, with Beam as without."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.api import Run
from curate.ask.report.page import write_report
from curate.base import schema
from curate.base.errors import RecipeError
from curate.base.numeric.vectors import embedding_matrix
from curate.cli.summary import summary
from curate.decide.dedup import cells
from curate.store.facts import LargeGroupFacts, read_facts, write_facts
from curate.store.store import RunStore
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
    """The picture again: resized, at another quality, or cropped by a pixel."""
    opened = Image.open(io.BytesIO(image))
    if kind == 0:
        return kit.encode(opened.resize((opened.width + 9, opened.height + 7), Image.Resampling.LANCZOS))
    if kind == 1:
        return kit.encode(opened, quality=40)
    return kit.encode(opened.crop((1, 0, opened.width, opened.height - 1)))


def make_pool(clean=60):
    """Clean pictures, and after them every third one again in three ways, under other URLs and captions."""
    samples = [replace(s, uid=None) for s in kit.make_samples(clean)[:clean]]
    again = [
        replace(
            s, key=f"{s.key}_{kind}", image=varied(s.image or b"", kind), url=f"https://x/{s.key}/{kind}", suffix="jpg"
        )
        for s in samples[::3]
        for kind in range(3)
    ]
    return [*samples, *again]


def recipe(path, model, by, **dedup):
    measure = {"image": {"phash": True}, "clip": {"model": model, "embeddings": True, "batch": 8}}
    return kit.recipe_of(path, measure=measure, dedup={"by": by, **dedup})


@pytest.mark.slow
@pytest.mark.parametrize("passes", PASSES)
def test_the_same_set_whatever_the_sharding(passes, model, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "_PACKETS_OF_MANY", 3)  # so that packets have several units
    samples = make_pool()
    one = kit.write_tars(tmp_path / "one", samples, 1)
    seven = kit.write_tars(tmp_path / "seven", kit.shuffled(samples, 3), 7)
    runs = [
        kit.run_local(recipe(one, model, PASSES[passes]), tmp_path / "a"),
        kit.run_beam(recipe(one, model, PASSES[passes]), tmp_path / "b"),
        kit.run_beam(recipe(seven, model, PASSES[passes]), tmp_path / "c", n_buckets=3),
        kit.run_beam(recipe(seven, model, PASSES[passes]), tmp_path / "d", n_buckets=3, here=False),
    ]
    for done in runs:
        conserved(done)
        assert done.kept == runs[0].kept
        assert done.verdicts == runs[0].verdicts
    assert 45 <= runs[0].counts["duplicate"] <= 70


def test_the_cosine_that_joined_a_row(model, tmp_path):
    """The largest over all rows that reached deduplication, by their embeddings; by SQL, and where the sample is explained."""
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
    by_hash = {
        i for i, one in enumerate(hashes) for j, two in enumerate(hashes) if i != j and (one ^ two).bit_count() <= 4
    }
    shown = 0
    for i, row in enumerate(decisions):
        assert row["duplicate_cosine"] is None or row["rule"] == "duplicate"
        if row["rule"] == "duplicate" and i not in by_hash:
            nearest = cosines[i].max()
            assert (
                row["duplicate_cosine"] == pytest.approx(1 if nearest >= 0.9999 else nearest, abs=1e-6)
                and nearest >= 0.995
            )
            shown += 1
    assert shown > 5
    run = Run(str(done.folder))
    clusters = run.sql("near_duplicates", limit=100).to_pylist()
    known = {row["uid"]: row["duplicate_cosine"] for row in decisions}
    for cluster in clusters:
        assert cluster["cosines"] == [known[uid] for uid in cluster["members"]]
        assert cluster["cosine"] == min((one for one in cluster["cosines"] if one is not None), default=None)
    one = next(row for row in decisions if row["duplicate_cosine"] is not None)
    text = " ".join(str(run.explain(one["uid"])).split())
    cosine = f"{one['duplicate_cosine']:.4f}"
    assert f"joined by {{embedding: {{cosine: 0.995, of: clip}}}}: {cosine} is the cosine" in text
    assert text.count(f"{cosine} is the cosine") == 1


def test_keys_hold_cosines_where_there_are_some(model, tmp_path):
    """Without a pass by embedding, decisions have no such column; queries read null."""
    path = kit.write_tars(tmp_path / "tars", make_pool(20), 1)
    done = kit.run_local(recipe(path, model, PASSES["phash"]), tmp_path / "run")
    assert schema.DUPLICATE_COSINE.name not in done.table("decisions").column_names
    clusters = Run(str(done.folder)).sql("near_duplicates").to_pylist()
    assert clusters and all(cluster["cosine"] is None and cluster["distance"] <= 8 for cluster in clusters)


def test_a_large_group_is_warned_of(model, tmp_path):
    """Over 5 % of the rows that reach deduplication: 4 of 60 are, 3 of 60 are not."""
    samples = [replace(s, uid=None) for s in kit.make_samples(80)[:80]]
    alike = [replace(s, image=varied(samples[0].image or b"", 1), suffix="jpg") for s in samples[1:4]]
    others = [replace(s, image=varied(samples[4].image or b"", 1), suffix="jpg") for s in samples[5:7]]
    pool = [samples[0], *alike, samples[4], *others, *samples[7:]]
    path = kit.write_tars(tmp_path / "tars", pool, 3)
    asked = recipe(path, model, PASSES["phash"]).model_copy(update={"rules": {"few": "key < '00060'"}})
    done = kit.run_local(asked, tmp_path / "run")
    assert done.counts["few"] == 20
    decisions = done.table("decisions").to_pylist()
    uids = {row["duplicate_of"] for row in decisions if row["row"] < 4 and row["duplicate_of"] and row["unit"] == 0}
    [group] = done.run["large_groups"]
    assert {group["uid"]} == uids and (group["rows"], group["reached"]) == (4, 60)
    words = f"4 rows (6.7% of those that reached deduplication) are one group, represented by {group['uid']}; if they differ, set a higher"
    shown = summary(str(done.folder), 1.0)
    facts = read_facts(store := RunStore(str(done.folder)))
    other = LargeGroupFacts(uid="x", rows=4, reached=60)
    write_facts(store, facts.changed(large_groups=[*(facts.large_groups or []), other]))
    more = [line for line in summary(str(done.folder), 1.0).splitlines() if line.startswith("duplicates:")]
    assert len(more) == 1 and more[0].startswith(f"duplicates: {words}") and more[0].endswith("; over 5%: 1 more group")
    write_facts(store, facts)
    assert f"duplicates: {words}" in shown and f"curate sql {done.folder} near_duplicates --images" in shown
    query = next(line.split('"')[1] for line in shown.splitlines() if "a page of the largest group" in line)
    assert len(Run(str(done.folder)).sql(query)) == 4
    write_report(str(done.folder))
    assert words in (done.folder / "report.html").read_text()


def test_many_cells_and_the_recall_of_their_candidates(model, tmp_path, monkeypatch):
    """Large pools are cut into cells, on one machine as on many; a sample tells how many close pairs were compared."""
    monkeypatch.setattr(cells, "WHOLE", 0)
    monkeypatch.setattr(cells, "VISITS", 2)
    path = kit.write_tars(tmp_path / "tars", make_pool(), 3)
    runs = [
        kit.run_beam(recipe(path, model, PASSES["embedding"]), tmp_path / str(here), here=here)
        for here in (True, False)
    ]
    assert runs[0].verdicts == runs[1].verdicts and runs[0].counts["duplicate"] > 30
    (near,), (other,) = (done.run["near"] for done in runs)
    assert near == other
    assert near["embedding"] == {"cosine": 0.995, "of": "clip"} and 30 < near["found"] <= near["sampled"]


def test_of_a_group_the_best_stays(model, tmp_path):
    path = kit.write_tars(tmp_path / "tars", make_pool(), 3)
    done = kit.run_local(recipe(path, model, PASSES["phash"], prefer="clip_score"), tmp_path / "out")
    decisions, scores = done.table("decisions").to_pylist(), done.table("scores")["clip_score"].to_pylist()
    best = {row["uid"]: score for row, score in zip(decisions, scores, strict=True)}
    lost = [row for row in decisions if row["duplicate_of"]]
    assert lost and all(best[row["duplicate_of"]] >= best[row["uid"]] for row in lost)
    kept = {row["uid"] for row in decisions if row["kept"]}
    assert all(row["duplicate_of"] in kept for row in lost)


def test_groups_are_of_what_reaches_them(model, tmp_path):
    """A row that a rule dropped takes none with it, and joins none."""
    path = kit.write_tars(tmp_path / "tars", make_pool(), 3)
    asked = recipe(path, model, PASSES["phash"]).model_copy(
        update={"rules": {"first": "key NOT LIKE '%\\_%' ESCAPE '\\'"}}
    )
    done = kit.run_local(asked, tmp_path / "out")
    assert done.counts == {"first": 60, "kept": 60}


def test_planted_copies_of_photos(shared, model, tmp_path):
    """Real photos re-encoded, resized and cropped by a pixel: recall and precision by phash within 8 bits."""
    import tarfile

    with tarfile.open(shared / "photos.tar") as tar:
        images = [tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    samples = [
        kit.Sample(f"{i:03d}{suffix}", data, f"caption {i}{suffix}", f"https://x/{i}{suffix}")
        for i, image in enumerate(images)
        for suffix, data in [("", image), *((f"_{kind}", varied(image, kind)) for kind in range(3))]
    ]
    path = kit.write_tar(tmp_path / "x.tar", samples)
    asked = kit.recipe_of(str(path), measure={"image": {"phash": True}}, dedup={"by": [{"phash": {"distance": 8}}]})
    done = kit.run_local(asked, tmp_path / "out")
    keys = done.table("samples", ["uid", "key"])
    photo = {uid: key[:3] for uid, key in zip(keys["uid"].to_pylist(), keys["key"].to_pylist(), strict=True)}
    lost = [
        (photo[r["uid"]], photo[r["duplicate_of"]]) for r in done.table("decisions").to_pylist() if r["duplicate_of"]
    ]
    right = sum(a == b for a, b in lost)
    assert right >= 0.97 * 3 * len(images) and right >= 0.97 * len(lost)


@pytest.mark.parametrize(
    ("dedup", "words"),
    [
        ([{"phash": {"distance": 0}}], ["dedup.by.0", "distance"]),
        ([{"phash": {"distance": 4}, "embedding": {"cosine": 0.9}}], ["give either phash"]),
        ([{"embedding": {"cosine": 1.5}}], ["cosine"]),
        ([{"embedding": {"cosine": 0.9, "of": "b"}}], ["needs the model 'b'", "embeddings: true"]),
        ([{"phahs": {"distance": 4}}], ["did you mean 'phash'"]),
        (["md5"], ["uid", "sha256", "phash"]),
    ],
)
def test_what_is_refused(dedup, words):
    measure = {"image": {"phash": True}, "clip": {"model": "x", "embeddings": True}}
    with pytest.raises(RecipeError) as caught:
        kit.recipe_of("x.tar", measure=measure, dedup={"by": dedup})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_nearness_of_hashes_needs_them():
    with pytest.raises(RecipeError, match="dedup by phash needs measure"):
        kit.recipe_of("x.tar", dedup={"by": [{"phash": {"distance": 4}}]})


# ---------------------------------------------------------------- decontamination
NEARNESS = [{"phash": {"distance": 4}}, {"embedding": {"cosine": 0.999}}]


@pytest.mark.parametrize("nearness", NEARNESS, ids=["phash", "embedding"])
def test_what_is_near_an_evaluation_image_is_dropped(nearness, model, tmp_path):
    """Image files and tars; each dropped row names the image; with Beam as without."""
    samples = [replace(s, uid=None) for s in kit.make_samples(30)[:30]]
    path = kit.write_tars(tmp_path / "tars", samples, 3)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/a.jpg").write_bytes(samples[4].image or b"")
    (tmp_path / "evaluation/b.jpg").write_bytes(b"no image")
    (tmp_path / "evaluation/other.png").write_bytes(kit.encode(kit.picture(999), "PNG"))
    kit.write_tar(tmp_path / "evaluation/x.tar", [samples[17]])
    asked = recipe(path, model, ["sha256"], against={"images": f"{tmp_path}/evaluation/*", **nearness})
    local = kit.run_local(asked, tmp_path / "local")
    if nearness is NEARNESS[0]:
        beam = kit.run_beam(asked, tmp_path / "beam")
        assert kit.lasting_files(local.folder) == kit.lasting_files(beam.folder)
    conserved(local)
    assert local.counts == {"contaminated": 2, "kept": 28}
    keys = local.table("samples", ["key"])["key"].to_pylist()
    named = dict(zip(keys, local.table("decisions").to_pylist(), strict=True))
    assert named["00004"]["duplicate_of"].endswith("evaluation/a.jpg")
    assert named["00017"]["duplicate_of"].endswith("x.tar 00017")
    (tmp_path / "evaluation/a.jpg").unlink()
    with pytest.raises(RecipeError, match="holds a run of another pool or setting"):
        kit.run_local(asked, tmp_path / "local")


def test_an_evaluation_set_that_is_none(model, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(5), 1)
    (tmp_path / "x.jpg").write_bytes(b"no image")
    for images, message in (
        ("nowhere/*.jpg", "no file matches"),
        ("x.jpg", "1 of 1 images of the evaluation set cannot be read"),
    ):
        asked = recipe(path, model, ["sha256"], against={"images": f"{tmp_path}/{images}", "phash": {"distance": 4}})
        with pytest.raises(RecipeError, match=rf"dedup\.against\.images: .*{message}"):
            kit.run_local(asked, tmp_path / "out")


def test_an_evaluation_set_that_is_not_whole_is_told(model, tmp_path):
    """Images that cannot be read are counted, those of a tar that is cut too; too many of them end the run."""
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
    with pytest.raises(RecipeError, match=r"images of the evaluation set cannot be read, and max_failed is 0\.1"):
        kit.run_local(asked.model_copy(update={"max_failed": 0.1}), tmp_path / "strict")


def test_a_pool_without_urls_has_near_duplicates_too(tmp_path):
    """No URL is not an equal one."""
    samples = [replace(sample, url=None) for sample in make_pool(20)]
    path = kit.write_tars(tmp_path / "tars", samples, 1)
    measure = {"image": {"phash": True}}
    done = kit.run_local(kit.recipe_of(path, measure=measure, dedup={"by": PASSES["phash"]}), tmp_path / "run")
    clusters = Run(str(done.folder)).sql("near_duplicates", limit=100).to_pylist()
    dropped = [row for row in done.table("decisions").to_pylist() if row["rule"] == "duplicate"]
    assert sum(cluster["dropped"] for cluster in clusters) == len(dropped) > 5
    assert {cluster["url"] for cluster in clusters} == {None}
