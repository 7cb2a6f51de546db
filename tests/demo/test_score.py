"""The demo's score: what was injected against what was decided, on a few samples made up here."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.stages import DUPLICATE, FAILED
from curate.demo.pool import TRUTH
from curate.demo.score import CLEAN, NEAR, Caught, Rate, rate_rules, score
from curate.store.layout import table_file

ORDER = ["failed", "english", "words", "side", "aligned", DUPLICATE, "balance", "kept"]
Row = tuple[str, str, str, str, str]  # key, defect, original's key, rule ('': kept), the key of what stays for it


def scored(folder, rows):
    """The score of rows in one tar; a sample's uid is made of its key, a repeated one's of its original's."""
    truth = [
        {"shard": "00000.tar", "key": key, "defect": d, "original_key": original} for key, d, original, _, _ in rows
    ]
    samples = [{"shard": "somewhere/00000.tar", "key": key} for key, *_ in rows]
    decisions = [
        {
            "uid": None if rule == FAILED else f"u{original if defect == 'repeated' else key}",
            "rule": rule or None,
            "duplicate_of": f"u{stays}" if stays else None,
        }
        for key, defect, original, rule, stays in rows
    ]
    pq.write_table(pa.Table.from_pylist(truth, schema=TRUTH), folder / "truth.parquet")
    for name, table in (("samples", samples), ("decisions", decisions)):
        path = folder / table_file(name, 0)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table), path)
    return {line.defect: line for line in score(str(folder / "truth.parquet"), str(folder))}


def rated(caught):
    return {line.rule: line for line in rate_rules(list(caught.values()), ORDER)}


def test_a_copy_that_stays_changes_places_with_its_original(tmp_path):
    caught = scored(
        tmp_path,
        [
            ("0", "", "", DUPLICATE, "2"),
            ("1", "compressed", "0", DUPLICATE, "2"),
            ("2", "cropped", "0", "balance", ""),
            ("3", "", "", "", ""),
            ("4", "copied", "3", DUPLICATE, "3"),
        ],
    )
    assert caught[CLEAN] == Caught(CLEAN, 2, {"balance": 1, "kept": 1})
    assert caught["cropped"].rules == caught["compressed"].rules == caught["copied"].rules == {DUPLICATE: 1}
    rates = rated(caught)
    assert rates[DUPLICATE] == Rate(DUPLICATE, 3, 1.0, 3, 1.0)
    assert rates[NEAR] == Rate(NEAR, 2, 1.0, 2, 1.0)


def test_missed_copies_lower_recall_and_those_of_another_scene_precision(tmp_path):
    caught = scored(
        tmp_path,
        [
            ("0", "", "", "", ""),
            ("1", "resized", "0", "", ""),  # missed
            ("2", "resized", "0", "english", ""),  # fell to an earlier rule
            ("3", "cropped", "0", DUPLICATE, "0"),  # found
            ("4", "cropped", "0", DUPLICATE, "6"),  # gone, but for another scene's sake
            ("5", "", "", DUPLICATE, "0"),  # a clean one, likewise
            ("6", "", "", "", ""),
            ("7", "copied", "6", DUPLICATE, "6"),
        ],
    )
    assert (caught[CLEAN].mistaken, caught["cropped"].mistaken, caught["copied"].mistaken) == (1, 1, 0)
    rates = rated(caught)
    assert rates[DUPLICATE] == Rate(DUPLICATE, 4, pytest.approx(2 / 4), 5, pytest.approx(4 / 5))
    assert rates[NEAR] == Rate(NEAR, 3, pytest.approx(1 / 3), 4, pytest.approx(3 / 4))
    assert rates["english"].precision == 1.0  # of any kind injected


def test_a_scene_that_is_wholly_taken_for_another_counts_as_lost(tmp_path):
    caught = scored(
        tmp_path, [("0", "", "", "", ""), ("1", "", "", DUPLICATE, "0"), ("2", "compressed", "1", DUPLICATE, "0")]
    )
    assert caught[CLEAN].rules == {"kept": 1, DUPLICATE: 1}
    assert rated(caught)[NEAR] == Rate(NEAR, 2, 0.0, 1, 1.0)


def test_rows_of_one_uid_and_rows_without_one(tmp_path):
    """A repeated sample has its original's uid; a failed one has none."""
    caught = scored(
        tmp_path, [("0", "", "", DUPLICATE, "0"), ("1", "repeated", "0", "", ""), ("2", "not_an_image", "", FAILED, "")]
    )
    assert caught[CLEAN].rules == {"kept": 1}
    assert caught["repeated"].rules == {DUPLICATE: 1}
    assert caught["not_an_image"].rules == {FAILED: 1}
    assert rated(caught)["failed"] == Rate("failed", 1, 1.0, 1, 1.0)


def test_nothing_dropped_has_no_precision():
    nothing = rate_rules([Caught(CLEAN, 3, {"kept": 3}), Caught("cropped", 2, {"kept": 2})], ORDER)
    assert {line.rule: (line.precision, line.recall) for line in nothing}[NEAR] == (None, 0.0)


def test_a_rule_that_no_planted_defect_is_for_has_no_recall():
    caught = [Caught(CLEAN, 3, {"kept": 2, "words": 1}), Caught("language", 2, {"english": 1, "words": 1})]
    assert {line.rule: line for line in rate_rules(caught, ORDER)}["words"] == Rate("words", 2, 0.5, 0, None)
