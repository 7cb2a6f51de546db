"""The demo's score: what was injected against what was decided, on a few samples made up here."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.stages import DUPLICATE, FAILED
from curate.demo.pool import TRUTH
from curate.demo.score import CLEAN, NEAR, Caught, Rate, rate_rules, score
from curate.store.layout import table_file

ORDER = ["failed", "english", "words", "side", "aligned", DUPLICATE, "balance", "kept"]


def scored(folder, *rows):
    """The score and rates of rows (defect, original's key, rule, key of what stays for it), whose key is their number.

    A sample's uid is made of its key, a repeated one's of its original's.
    """
    truth, samples, decisions = [], [], []
    for key, (defect, original, rule, stays) in enumerate(rows):
        truth.append({"shard": "00000.tar", "key": str(key), "defect": defect, "original_key": original})
        samples.append({"shard": "somewhere/00000.tar", "key": str(key)})
        uid = None if rule == FAILED else f"u{original if defect == 'repeated' else key}"
        decisions.append({"uid": uid, "rule": rule or None, "duplicate_of": f"u{stays}" if stays else None})
    pq.write_table(pa.Table.from_pylist(truth, schema=TRUTH), folder / "truth.parquet")
    for name, table in (("samples", samples), ("decisions", decisions)):
        path = folder / table_file(name, 0)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table), path)
    caught = score(str(folder / "truth.parquet"), str(folder))
    return {line.defect: line for line in caught}, {line.rule: line for line in rate_rules(caught, ORDER)}


def test_a_copy_that_stays_changes_places_with_its_original(tmp_path):
    caught, rates = scored(
        tmp_path, ("", "", DUPLICATE, "2"), ("compressed", "0", DUPLICATE, "2"), ("cropped", "0", "balance", ""),
        ("", "", "", ""), ("copied", "3", DUPLICATE, "3"),
    )  # fmt: skip
    assert caught[CLEAN] == Caught(CLEAN, 2, {"balance": 1, "kept": 1})
    assert caught["cropped"].rules == caught["compressed"].rules == caught["copied"].rules == {DUPLICATE: 1}
    assert rates[DUPLICATE] == Rate(DUPLICATE, 3, 1.0, 3, 1.0) and rates[NEAR] == Rate(NEAR, 2, 1.0, 2, 1.0)


def test_missed_copies_lower_recall_and_those_of_another_scene_precision(tmp_path):
    caught, rates = scored(
        tmp_path,
        ("", "", "", ""),
        ("resized", "0", "", ""),  # missed
        ("resized", "0", "english", ""),  # dropped by an earlier rule
        ("cropped", "0", DUPLICATE, "0"),  # found
        ("cropped", "0", DUPLICATE, "6"),  # dropped, but for another scene
        ("", "", DUPLICATE, "0"),  # a clean one, likewise
        ("", "", "", ""),
        ("copied", "6", DUPLICATE, "6"),
    )
    assert (caught[CLEAN].mistaken, caught["cropped"].mistaken, caught["copied"].mistaken) == (1, 1, 0)
    assert rates[DUPLICATE] == Rate(DUPLICATE, 4, pytest.approx(2 / 4), 5, pytest.approx(4 / 5))
    assert rates[NEAR] == Rate(NEAR, 3, pytest.approx(1 / 3), 4, pytest.approx(3 / 4))
    assert rates["english"].precision == 1.0  # of any kind injected


def test_a_scene_that_is_wholly_taken_for_another_counts_as_lost(tmp_path):
    caught, rates = scored(tmp_path, ("", "", "", ""), ("", "", DUPLICATE, "0"), ("compressed", "1", DUPLICATE, "0"))
    assert caught[CLEAN].rules == {"kept": 1, DUPLICATE: 1} and rates[NEAR] == Rate(NEAR, 2, 0.0, 1, 1.0)


def test_rows_of_one_uid_and_rows_without_one(tmp_path):
    """A repeated sample has its original's uid; a failed one has none."""
    caught, rates = scored(
        tmp_path, ("", "", DUPLICATE, "0"), ("repeated", "0", "", ""), ("not_an_image", "", FAILED, "")
    )
    assert caught[CLEAN].rules == {"kept": 1} and caught["repeated"].rules == {DUPLICATE: 1}
    assert caught["not_an_image"].rules == {FAILED: 1} and rates["failed"] == Rate("failed", 1, 1.0, 1, 1.0)


def test_rates_that_there_are_not():
    caught = [
        Caught(CLEAN, 3, {"kept": 2, "words": 1}),
        Caught("language", 2, {"english": 1, "words": 1}),
        Caught("cropped", 2, {"kept": 2}),
    ]
    rates = {line.rule: line for line in rate_rules(caught, ORDER)}
    assert (rates[NEAR].precision, rates[NEAR].recall) == (None, 0.0), "nothing was dropped"
    assert rates["words"] == Rate("words", 2, 0.5, 0, None), "no planted defect is for this rule"
