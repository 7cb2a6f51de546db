"""Decisions over whole pools follow their definitions."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from curate.base import ids
from tests.base.uids import content_uid
from tests.decide.units import curate, cut, decisions, rules_of
from tests.kit import metaclip

BASIC = {  # DataComp's basic filter
    "english": "language = 'en'", "words": "words > 2", "characters": "characters > 5",
    "side": "least(width, height) >= 200", "aspect": "greatest(width, height) / least(width, height) <= 3.0",
}  # fmt: skip


def datacomp(rows, seed):
    """A pool shaped as DataComp's, with values at every limit of the basic filter, and nulls."""
    rng = np.random.default_rng(seed)
    pick = rng.choice
    texts = [" ".join(pick(["a", "be", "sea", "dogs"], n)) for n in pick([1, 2, 3, 4, 9], rows)]
    sides = [1, 199, 200, 201, 599, 600, 601, 1000]
    unknown = rng.random(rows) < 0.02
    scores = np.where(rng.random(rows) < 0.5, rng.random(rows), np.round(rng.random(rows), 1))
    return pa.table({
        "uid": [f"{i:032x}" for i in rng.permutation(rows)], "url": [f"http://x/{i}" for i in range(rows)],
        "text": [None if drop else text for text, drop in zip(texts, rng.random(rows) < 0.02, strict=True)],
        "language": pick(["en", "de", None], rows, p=[0.8, 0.15, 0.05]).tolist(),
        "original_width": pa.array(pick(sides, rows), mask=unknown),
        "original_height": pa.array(pick(sides, rows), mask=unknown),
        "clip_b32_similarity_score": pa.array(scores, pa.float32(), mask=rng.random(rows) < 0.1),
        "clip_l14_similarity_score": rng.random(rows),
    })  # fmt: skip


def basic_filter(row):
    """DataComp's basic filter of a row: the name of the first condition that fails."""
    text, width, height = row["text"], row["original_width"], row["original_height"]
    if text is None:
        return "failed"
    if row["language"] != "en":
        return "english"
    if len(text.split()) <= 2:
        return "words"
    if len(text) <= 5:
        return "characters"
    if width is None or height is None or min(width, height) < 200:
        return "side"
    return "aspect" if max(width, height) / min(width, height) > 3.0 else None


@pytest.mark.parametrize(
    ("files", "rules"), [(5, BASIC), (2, BASIC | {"side": "min_side >= 200", "aspect": "aspect <= 3.0"})]
)
def test_the_basic_filter(tmp_path, files, rules):
    table = datacomp(3000, 1)
    expected = [basic_filter(row) for row in table.to_pylist()]
    assert {"failed", *BASIC, None} == set(expected)  # every condition decides somewhere
    assert rules_of(*curate(tmp_path, table, files=files, rules=rules)) == expected


def test_a_column_of_the_pool_comes_before_one_that_is_computed(tmp_path):
    table = datacomp(50, 1).append_column("aspect", pa.array(np.arange(50.0), pa.float64()))
    found = rules_of(*curate(tmp_path, table, rules={"first": "aspect < 20", "side": "min_side >= 200"}))
    assert found[20:] == [name if name == "failed" else "first" for name in found[20:]]
    assert {"side", None} <= set(found[:20]) and "first" not in found[:20]


def test_the_order_of_rules_counts(tmp_path):
    table = datacomp(2000, 3)
    scores = table["clip_b32_similarity_score"].to_pylist()
    others = table["clip_l14_similarity_score"].to_pylist()
    english, first = {"english": BASIC["english"]}, {"clip": {"top": 0.3, "of": "clip_b32_similarity_score"}}
    failed = [None if text is not None else "failed" for text in table["text"].to_pylist()]

    def only_english(rules):
        pairs = zip(rules, table["language"].to_pylist(), strict=True)
        return [rule or (None if language == "en" else "english") for rule, language in pairs]

    second = cut(cut(failed, others, 0.5, "other"), scores, 0.3, "clip")
    cases = [
        (first | english, only_english(cut(failed, scores, 0.3, "clip"))),
        (english | first, cut(only_english(failed), scores, 0.3, "clip")),
        ({"other": {"top": 0.5, "of": "clip_l14_similarity_score"}} | first | english, only_english(second)),
    ]
    for rules, expected in cases:
        assert rules_of(*curate(tmp_path, table, files=3, rules=rules)) == expected
    assert len({tuple(expected) for _, expected in cases}) == 3


def test_a_top_rule_that_no_row_reaches(tmp_path):
    table, clip = datacomp(50, 4), {"top": 0.3, "of": "clip_b32_similarity_score"}
    assert set(rules_of(*curate(tmp_path, table, rules={"none": "false", "clip": clip}))) <= {"failed", "none"}
    nulls = table.set_column(6, "clip_b32_similarity_score", pa.nulls(50, pa.float32()))
    assert set(rules_of(*curate(tmp_path, nulls, rules={"clip": clip}))) <= {"failed", "clip"}


ENTRIES = ["cat", "dog", "a", "photo", "big dog", "never there"]


def pets(rows=400):
    rng = np.random.default_rng(5)
    nouns = rng.choice(["cat", "dog", "big dog", "bird"], rows, p=[0.5, 0.25, 0.1, 0.15])
    texts = [f"a photo of {noun} {i}" if i % 3 else f"{noun} {i}" for i, noun in enumerate(nouns)]
    return pa.table({"caption": texts, "s": rng.random(rows)})


@pytest.mark.parametrize("t", [1, 30, 10_000])
def test_balance(tmp_path, t):
    """A row without a match is dropped after all rules; counts are those of the remaining rows."""
    table = pets()
    captions, numbers = table["caption"].to_pylist(), metaclip.number_entries(ENTRIES)
    rules = {"best": {"top": 0.8, "of": "s"}, "not7": "caption not like '%7'"}
    context, plan, sums = curate(tmp_path, table, ENTRIES, files=3, rules=rules, balance={"t": t}, seed=3)
    found = decisions(context, plan).to_pylist()

    matched = [metaclip.match_substrings(numbers, caption) for caption in captions]
    expected = cut([None] * len(table), table["s"].to_pylist(), 0.8, "best")
    expected = [rule or ("not7" if text.endswith("7") else None) for rule, text in zip(expected, captions, strict=True)]
    expected = [rule or (None if row else "unmatched") for rule, row in zip(expected, matched, strict=True)]
    left = [i for i, rule in enumerate(expected) if rule is None]
    counts = Counter(entry for i in left for entry in matched[i])
    keys = [ids.hash64(entry) for entry in ENTRIES]
    pi = [metaclip.inclusion(row, counts, t) if i in left else 0 for i, row in enumerate(matched)]
    for i in left:
        expected[i] = None if metaclip.is_kept(found[i]["uid"], matched[i], counts, t, keys, 3) else "balance"
    assert [row["rule"] for row in found] == expected and {"unmatched", "best", "not7"} <= {*expected}
    assert [row["probability"] for row in found] == pi and (t > 30) == ("balance" not in expected)
    for entry in range(len(ENTRIES)):
        rows = [i for i in left if entry in matched[i]]
        fixed, kept = sum(metaclip.fixed(pi[i]) for i in rows), sum(expected[i] is None for i in rows)
        assert np.sum(sums, axis=0)[:, entry].tolist() == [fixed, kept]


def test_unmatched_without_rules_and_no_unmatched_without_match(tmp_path):
    table = pa.table({"caption": ["a cat", "nothing", None]})
    assert rules_of(*curate(tmp_path, table, ENTRIES)) == [None, "unmatched", "failed"]
    context, plan, sums = curate(tmp_path, table)
    assert rules_of(context, plan) == [None, None, "failed"]
    assert sums == [] and decisions(context, plan)["draw"].null_count == 3
    assert decisions(context, plan)["probability"].to_pylist() == [1, 1, 0]


def test_an_empty_pool(tmp_path):
    table = pa.table({"caption": pa.array([], pa.string()), "s": pa.array([], pa.float32())})
    assert rules_of(*curate(tmp_path, table, ENTRIES, rules={"best": {"top": 0.5, "of": "s"}}, balance={"t": 2})) == []


def test_duplicates_name_the_row_that_stands_for_them(tmp_path):
    big, small = "f" * 32, "0" * 31 + "1"
    uids = [big, small, None, big, None, small, "a" * 32]
    captions = ["one", "two", "three", "one", "three", "dropped before", "four"]
    table = pa.table({"uid": uids, "caption": captions})
    context, plan, _ = curate(tmp_path, table, rules={"no": "caption <> 'dropped before'"})
    found, made = decisions(context, plan).to_pylist(), content_uid(None, None, "three")
    assert sorted(row["uid"] for row in found if row["kept"]) == sorted([big, small, made, "a" * 32])
    assert [row["rule"] for row in found if row["uid"] == small] == [None, "no"]
    for row in found:
        assert row["duplicate_of"] == (row["uid"] if row["rule"] == "duplicate" else None)
