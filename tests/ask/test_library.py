"""Each named query against an answer by hand on the run of `write_small`; headers, parameters and the generated pages."""

import json
import re
import shutil
from collections import Counter
from datetime import UTC, datetime
from io import StringIO
from unittest.mock import ANY

import pyarrow as pa
import pytest

from curate.ask.explain import explain_sample
from curate.ask.library import THEMES, fill_params, named_queries
from curate.ask.output import write_result
from curate.ask.query import open_run
from curate.base import schema
from curate.base.errors import RecipeError
from curate.store.store import RunStore
from tests.ask.library import FOLDER, PAGES, library_pages
from tests.kit.written_runs import EVIL, NEEDED, RUN, finish, run_query, sample, uid, verdict, write_units


def ask(url, query, **params):
    return list(run_query(url, query, params).rows)


A1, A4, A5, A6, B2, B3, B4, B6 = map(uid, ("a1", "a4", "a5", "a6", "b2", "b3", "b4", "b6"))
GROUP = [(A1, True, 2, [A5, A1], ["photos.tar a5", "web.tar b5"], "a red cat", "http://x/a1")]
NEAR_PAIR = (A5, A1, "near", 0, None, True, None, "a cat again and now", "a red cat")
SPREAD = 2**0.5
STEPS = ("failed", "words", "side", "aligned", "unmatched", "duplicate", "balance")
NOTHING, ZEROS = (None,) * 7, (0, 0, 0, 0)
# A row may end early: the other columns are not compared.
ANSWERS = [
    ("funnel", {}, [
        ("pool", 12, 0, 12, 0, 1), ("failed", 12, 1, 11), ("words", 11, 1, 10), ("side", 10, 1, 9), ("aligned", 9, 1, 8),
        ("unmatched", 8, 1, 7), ("duplicate", 7, 2, 5, 2 / 12, 5 / 12), ("balance", 5, 1, 4, 1 / 12, 4 / 12),
        ("kept", 4, 0, 4, 0, 4 / 12),
    ]),
    ("failures", {}, [
        ("file", "not_a_tar", 1, None, ANY, "bad.tar", "begins with <html>", 0),
        ("sample", "truncated_image", 1, 1 / 12, ANY, "photos.tar a3", "ends at byte 100", 0),
    ]),
    ("entries", {}, [
        (0, "cat", "words", "en", 7, 4, 0.5, 2.5, 3), (1, "red", "words", "en", 2, 1, 1.0, 1.0, 1),
        (2, "photo", "titles", "en", 1, 1, 1.0, 1.0, 1), (4, "score", "words", "en", 1, 0, 1.0, 0.0, 0),
    ]),
    ("entries", {"like": "%o%", "min_pool": 0, "limit": 1}, [(2, "photo")]),
    ("entries", {"min_pool": "0", "limit": "null"}, [(0,), (1,), (2,), (3,), (4,)]),
    ("top_entries", {"limit": 2}, [("cat", 7, 4, 0.5, 2.5, 3, 0.75), ("red", 2, 1, 1.0, 1.0, 1, 1.0)]),
    ("top_entries", {"by": "kept"}, [("cat",), ("red",), ("photo",), ("score",)]),
    ("top_entries", {"by": "Probability"}, [("red",), ("photo",), ("score",), ("cat",)]),
    ("tail_entries", {"limit": 2}, [("score", 1, 0, 0, True), ("photo", 1, 1, 1, False)]),
    ("sources", {}, [
        ("photos", 6, 1, 3, 2, 1 / 3, 0.5), ("web", 6, 0, 4, 2, 1 / 3, 0.5), ("empty", 0, 0, 0, 0, None, 0.0),
    ]),
    ("source_funnel", {}, [
        *[("photos", rule, n, n / 6) for rule, n in zip(STEPS, (1, 1, 1, 0, 0, 1, 0), strict=True)],
        *[("web", rule, n, n / 6) for rule, n in zip(STEPS, (0, 0, 0, 1, 1, 1, 1), strict=True)],
        *[("empty", ANY, 0, None)] * 7,
    ]),
    *[("duplicates", params, GROUP) for params in ({}, {"uid": A1.upper()}, {"uid": A5}, {"uid": "null"})],
    *[("duplicates", {"uid": text}, []) for text in (B2, "1e9")],
    ("explain", {"uid": A1.upper()}, [(0, 0, A1, "photos", *[ANY] * 22, True, None, None, 1.0, 0.0, ["cat", "red"]),
                                      (1, 4, A1, "web", *[ANY] * 22, False, "duplicate", A1, 0.0, None, [])]),
    ("explain", {"uid": uid("ff")}, []),
    # π of the kept rows: 1, 0.5, 1, 0.5. Estimate 1 + 2 + 1 + 2; variance 2 · (1 - 0.5) / 0.25.
    ("estimate", {}, [(4, 6.0, 2.0, 2.08, 9.92, 5, 0.5)]),
    ("languages", {}, [("en", 11, 3, 3 / 11, 11 / 12, 0.75), ("fr", 1, 1, 1.0, 1 / 12, 0.25)]),
    ("licences", {}, []),  # tests/pool/pmc/test_runs.py has a pool with licenses
    ("sizes", {}, [
        (0, 128, 1, 0, 1, 0, 1, 0), (256, 384, 1, 1, 0, 0, 1, 1), (384, 512, 0, 0, 10, 4, 9, 3),
        (640, 768, 9, 3, 0, 0, 0, 0),
    ]),
    ("sizes", {"step": 1000}, [(0, 1000, 11, 4, 11, 4, 11, 4)]),
    ("formats", {}, [("jpeg", 10, 4, 1000.0, 6000), ("png", 1, 0, 100.0, 0), (None, 1, 0, 1000.0, 0)]),
    ("caption_lengths", {}, [(0, 5, 10, 3, 0.3, "a red cat"), (5, 10, 2, 1, 0.5, "a cat again and now")]),
    ("matches_per_text", {}, [(0, 3, 0, 0), (1, 7, 4, 3), (2, 1, 1, 1)]),
    ("language_balance", {}, [  # French has samples but no entries
        ("en", 11, 9, 5, 4, 5, 4, 2, 1, 2, 6, 2 / 6, 1.0), ("fr", 1, 0, 0, 0, 0, 0, None, None, None, 0, None, 0),
    ]),
    ("coverage", {}, [(5, 4, 3, 3, 0, 1, 2, 2 / 6, 2 / 5)]),
    ("dropped", {"rule": "duplicate"}, [("duplicate", A1), ("duplicate", A5)]),
    ("dropped", {"rule": "failed"}, [("failed", None, *[ANY] * 7, "a3", "truncated_image: ends at byte 100")]),
    ("dropped", {}, [(ANY,)] * 8), ("dropped", {"limit": 3}, [(ANY,)] * 3),
    ("shards", {}, [("shards/00000.tar", 3, 3), ("shards/00001.tar", 1, 3)]),
    # photos: 6 English samples; web: 5 English and 1 French; shares are of the source.
    ("cooccurrence", {"class": "source", "context": "language", "min_class": 1, "counter_share": 0.2}, [
        ("photos", "en", 6, 2, 1.0, 1.0, 12 / 11, "common"), ("web", "en", 5, 1, 5 / 6, 0.5, 5 / 6 / (11 / 12), "common"),
        ("web", "fr", 1, 1, 1 / 6, 0.5, 2.0, "counter"),
    ]),
    ("drift", {}, [("web", "clip", "image", 6, 2, 0.25, 0.01, 0.125)]),
    ("provenance", {}, [
        ("curate", "0.1.0"), ("finished", "2023-11-14 22:13:28"), ("name", "small"), ("packages.duckdb", "2"),
        ("python", "3.11.7"), ("seconds", "8.0"), ("seed", "7"), ("started", "2023-11-14 22:13:20"), ("t", "2"),
    ]),
    ("step_times", {}, [("measure", 2, 12, 3.0, 0.75, 4.0), ("caption", 1, None, 1.0, 0.25, None)]),
    # 4 kept in 8 s; captions took 28 tokens of 30 + 12, since one was cached, and 10 + 2, and 0.06.
    ("costs", {}, [
        ("run", 8.0, 3, 40, 0.06, 4, 2.0, 10.0, 0.015, 0.002, 0.002, 0.01, 24, 4, 2, 100),
        ("start", None, 0, 0, None, None, None, None, None, 0.0005, 0, 0, *ZEROS),
        ("measure", 3.0, 0, 0, None, None, None, None, None, 0.001, 0.002, 0.01, 8, 4, 2, 100),
        ("duplicates", None, 0, 0, None, None, None, None, None, 0.0005, 0, 0, 16, 0, 0, 0),
        ("recaption", 1.0, 1, 12, None, 1, 1.0, 12.0, None, *NOTHING),
        ("rewrite", 2.0, 2, 28, 0.06, 1, 2.0, 28.0, 0.06, *NOTHING),
    ]),
    ("source_languages", {}, [
        ("photos", "en", 6, 2, 1 / 3, 1.0, 1.0), ("web", "en", 5, 1, 0.2, 5 / 6, 0.5), ("web", "fr", 1, 1, 1.0, 1 / 6, 0.5),
    ]),
    ("hosts", {}, [("y.example", 1, 0, 0, 0, 0.0, "unmatched", 1), ("x", 11, 1, 0, 4, 4 / 11, "duplicate", 2)]),
    ("hosts", {"min_pool": 2}, [("x",)]),
    # From 0.125 to 0.9 in two: a1, a4, a5, b2, b4, b5, b6 below the middle, 0.5125; a2, a6, b1, b3 above.
    ("score_histogram", {"buckets": 2}, [
        ("clip_score", 0.125, 0.5125, 7, 3, 2, 5, 2 / 7), ("clip_score", 0.5125, 0.9, 4, 2, 2, 2, 0.5),
    ]),
    ("score_histogram", {"of": "HEIGHT", "buckets": 1}, [("height", 80.0, 480.0, 11, 5, 4, 7, 4 / 11)]),
    ("score_histogram", {"of": "min_side", "buckets": 1}, [("min_side", ANY, ANY, 11, 5, 4)]),
    ("score_summary", {}, [
        ("clip_score", "web", 6, 2, 2.925 / 6, 0.65, 0.125, 0.5, 0.8, 0.5, 0.5, 0.8),
        ("clip_score", "photos", 5, 2, 0.58, 0.55, 0.4, 0.5, 0.9, 0.5, 0.5, 0.6),
    ]),
    ("score_summary", {"of": "words", "by": "language"}, [("words", "en", 11, 3), ("words", "fr", 1, 1)]),
    ("score_summary", {"by": "kept"}, [("clip_score", False, 7, 0), ("clip_score", True, 4, 4)]),
    ("score_summary", {"by": "rule"}, [("clip_score", None, 4, 4), ("clip_score", "duplicate", 2, 0), *[(ANY,)] * 5]),
    # At `aligned`, which names the score: a1, a5, b2, b6 with 0.5, a6 0.6, b1 0.7, b3 0.8, b5 0.3, b4 0.125. All but the
    # failed one reach `words`. No rule names characters: all those but b4 pass all rules.
    ("thresholds", {"at": "0.8, 0.5"}, [
        ("clip_score", 0.5, 9, 7, 7 / 9, 4, "aligned"), ("clip_score", 0.8, 9, 1, 1 / 9, 1, "aligned"),
    ]),
    ("thresholds", {"at": 0.9, "rule": "words"}, [("clip_score", 0.9, 11, 1, 1 / 11, 0, "words")]),
    ("thresholds", {}, [("clip_score", ANY, 9, n) for n in (9, 8, 7, 3, 2, 1)]),
    ("thresholds", {"of": "words", "at": "99"}, [("words", 99.0, 11, 0, 0.0, 0, "words")]),
    ("thresholds", {"of": "height", "at": "9"}, [("height", 9.0, 10, 10, 1.0, 4, "side")]),
    ("thresholds", {"of": "characters", "at": "1"}, [("characters", 1.0, 8, 8, 1.0, 4, None)]),
    ("threshold_for_size", {"rows": 3}, [("clip_score", 0.6, 9, 3, 2, 3 / 9, "aligned")]),
    ("threshold_for_size", {"rows": 5}, [("clip_score", 0.5, 9, 7, 3, 7 / 9, "aligned")]),
    ("threshold_for_size", {"rows": 10}, [("clip_score", None, 9, None, None, None, "aligned")]),
    ("threshold_for_size", {"rows": 1, "of": "width"}, [("width", 640.0, 10, 8, 0, 0.8, "side")]),
    ("threshold_for_size", {"rows": 1, "of": "bytes"}, [("bytes", 3000.0, 8, 1, 0, 1 / 8, None)]),
    ("lost_entries", {}, [("score", 1, 0, "aligned", 1, "low score image")]), ("lost_entries", {"min_pool": 2}, []),
    ("entry_funnel", {"entry": "cat"}, [
        ("pool", 7, 1.0, 1.0), ("failed", 1), ("words", 0), ("side", 1), ("aligned", 0), ("unmatched", 0),
        ("duplicate", 1, 1 / 7, 2 / 12), ("balance", 1), ("kept", 3),
    ]),
    ("entry_funnel", {"entry": "nothing"}, [(ANY, 0)] * 9),
    # photos: cat in a1, a4, a5, a6 and red in a1; web: cat in b2 and b6, photo in b3, score in b4.
    ("source_coverage", {}, [("photos", 2, 2, 1, 1, 5, 3), ("web", 3, 2, 2, 1, 4, 2), ("empty", 0, 0, 0, 0, 0, 0)]),
    ("concentration", {}, [(1, 7 / 11, 4 / 6, 3 / 5), (4, 1, 1, 1)]),
    # cat has 4 matches, red and photo one each.
    ("balance_choices", {"at": "1 3"}, [(1.0, 1, 0, 0.0), (3.0, 1, 2, 2 / 6)]),
    ("balance_choices", {"at": 4}, [(4.0, 0, 2, 2 / 6)]),
    ("balance_choices", {}, [(1,), (2,), (4,), (8,), (16,)]),
    ("probabilities", {}, [(0.5, 0.6, 3, 1.5, 2, 0.5 / 0.75**0.5), (1.0, None, 2, 2.0, 2, None)]),
    # photos keeps π of 1 and 0.5, and so does web: 1 + 2 = 3, variance (1 - 0.5) / 0.25 = 2, effective 3² / (1 + 4).
    ("estimate_by", {}, [
        ("web", 2, 3.0, SPREAD, 3 - 1.96 * SPREAD, 3 + 1.96 * SPREAD, 3, 1.8),
        ("photos", 2, 3.0, SPREAD, 3 - 1.96 * SPREAD, 3 + 1.96 * SPREAD, 2, 1.8),
    ]),
    ("duplicate_kinds", {}, [("near", 1, 1, 0.5), ("pair", 1, 1, 0.5)]),
    ("duplicate_sources", {}, [("photos", "photos", 1, 1 / 6), ("web", "photos", 1, 1 / 6)]),
    ("near_duplicates", {}, [(A1, 1, None, 0, [A5], [None], ["a cat again and now"], "a red cat", "http://x/a1")]),
    ("duplicate_pairs", {}, [(A1, A1, "pair", 0, None, True, None, "a red cat", "a red cat"), NEAR_PAIR]),
    ("duplicate_pairs", {"match_type": "near"}, [NEAR_PAIR]), ("duplicate_pairs", {"limit": 1}, [(A1,)]),
    ("repeated_captions", {}, [("a red cat", 2, 1, 1)]),
    ("captions", {"kind": "rewrite"}, [
        (A6, EVIL, "rewrite", "plain", "a cat that is red", "passed", []),
        (B3, "une photo de chien", "rewrite", "plain", None, "no_answer", None),
        (B6, "a cat and a 日本 cat", "rewrite", "plain", "a cat that is red", "names", ["names", "numbers"]),
    ]),
    ("captions", {"gate": "passed"}, [(A6,), (B3,)]),
    ("caption_gates", {}, [
        ("recaption", "short", "passed", 1, 1.0),
        *[("rewrite", "plain", gate, 1, 1 / 3) for gate in ("names", "no_answer", "numbers", "passed")],
    ]),
    ("caption_work", {}, [
        ("recaption", "v", "n", 1, 1, 0, 1, 1, 10, 2, 12, 1.0, None, None),
        ("rewrite", "e", "m", 3, 2, 1, 1, 0, 30, 12, 28, 2.0, 0.06, 0.06),
    ]),
    # b3's original has 4 words and scores 0.8; a6's has 3 and scores 0.6.
    ("caption_styles", {}, [
        ("recaption", "short", 1, 1, 1.0, 2.0, 0.5, 2.0, 1.0, 0.5, -0.3),
        ("rewrite", "plain", 3, 1, 1 / 3, 5.0, 5 / 3, 7.0, 0.5, 0.75, 0.15),
    ]),
    ("aspect_ratios", {}, [("1:2 to 3:4", 1, 1, 1.0, 256 * 480), ("3:4 to 4:3", 10, 3, 0.3, 640 * 480)]),
    ("shared_images", {}, [("a6".rjust(64, "0"), 2, [EVIL, "a cat and a 日本 cat"], "http://x/a6")]),
    ("borderline", {"limit": 2}, [
        ("kept", "clip_score", 0.5, None, A1), ("kept", "clip_score", 0.5, None, B6),
        ("dropped", "clip_score", 0.125, "aligned", B4),
    ]),
    ("borderline", {"limit": 1, "rule": "words"}, [("kept",), ("dropped", "clip_score", 0.9, "words", uid("a2"))]),
    ("borderline", {"of": "bytes", "limit": 2}, [
        ("kept",), ("kept",), ("dropped", "bytes", 1000.0, "duplicate"), ("dropped", "bytes", 1000.0, "words"),
    ]),
    ("examples", {"each": 2}, [("photos", 2, A1), ("photos", 2, A6), ("web", 2, B6), ("web", 2, B3)]),
    ("examples", {"each": 1, "by": "language"}, [(ANY,), (ANY,)]),
    ("entry_samples", {"entry": "cat"}, [
        (A1, True, None, 1.0, 2, "a red cat", "http://x/a1"), (A6,), (B6,), (A4,), (A5,), (B2, False, "balance", 0.5),
        (None,),
    ]),
    ("entry_samples", {"entry": "cat", "limit": 3}, [(A1,), (A6,), (B6,)]),
    ("failures_by_host", {}, [("x", "truncated_image", 1, 0, 1 / 11, "http://x/a3", 0)]),
    ("inputs", {}, [("photos", "photos.tar", 6, 1, 2, 1 / 6, 1 / 3), ("web", "web.tar", 6, 0, 2, 0.0, 1 / 3)]),
    *[(query, {}, []) for query in ("downloads", "urls_failed", "links")],  # `rotten` and `crawl` below have some
]  # fmt: skip
OF_BARE = [
    ("estimate", {}, [(2, 2.0, 0.0, 2.0, 2.0, 2, None)]), ("shards", {}, [("shards/00000.parquet", 2)]),
    ("costs", {}, [("run", 8.0, 0, 0, None, 2, 4.0, None, None, *NOTHING)]),
    ("score_histogram", {"buckets": 2}, [("words", 1.0, 2.0, 1, 0, 0, 1, 0.0), ("words", 2.0, 3.0, 2, 2, 2, 0, 1.0)]),
    ("score_histogram", {"of": "width"}, []),
    *[(query, {}, []) for query in ("language_balance", "step_times", "balance_choices", "downloads")],
]  # fmt: skip


def check(url, query, params, expected):
    rows = [row[: len(want)] for row, want in zip(ask(url, query, **params), expected, strict=True)]
    assert rows == [tuple(pytest.approx(n, rel=1e-6) if isinstance(n, float) else n for n in row) for row in expected]


@pytest.mark.parametrize(("query", "params", "expected"), ANSWERS)
def test_an_answer(small, query, params, expected):
    check(small, query, params, expected)


@pytest.mark.parametrize(("query", "params", "expected"), OF_BARE)
def test_an_answer_without_images_and_entries(bare, query, params, expected):
    check(bare, query, params, expected)


def test_files(small):
    rows = {row[0]: row[1:] for row in ask(small, "files")}
    assert rows["tables/samples"][:2] == (2, 12) and rows["shards/*.tar"][:3] == (2, None, 6)
    assert rows["shards/*.parquet"][:2] == (2, 4) and rows["stats.duckdb"][0] == 1
    assert sum(row[3] for row in rows.values()) == pytest.approx(1)


@pytest.mark.thorough
def test_the_host_of_a_url(tmp_path):
    hosts = {
        "https://user:word@Host.example:80/a?b=c://d": "host.example", "http://a@b@host/": "host", "a/b:c": "",
        "http://host?a=b@c": "host", "http://host#a:b": "host", "http://[::1]:80/a": "[::1]",
    }  # fmt: skip
    rows = [(sample(f"a{i}", "a", url=url), verdict(), [], None) for i, url in enumerate(hosts)]
    rows += [(sample(f"b{i}", "a", url=url, status="x"), verdict("failed"), [], None) for i, url in enumerate(hosts)]
    run = write_units(str(tmp_path), [rows]).url
    counts = Counter(hosts.values())
    assert {row[0]: row[1] for row in ask(run, "hosts")} == {host: 2 * n for host, n in counts.items()}
    assert {row[0]: row[2] for row in ask(run, "failures_by_host")} == counts


@pytest.mark.thorough
def test_names_of_scores_do_not_hide_what_a_query_means(small, tmp_path):
    """A run may have scores with the name of any word in any query."""
    shutil.copytree(small, tmp_path / "run")
    folder = RunStore(str(tmp_path / "run"))
    words = sorted(set(re.findall(r"[a-z_]+", " ".join(query.sql for query in named_queries()))))
    names = [name for name in words if name not in {*schema.SAMPLES.names, *schema.DECISIONS.names, "clip_score"}]
    for path in [path for path in folder.files() if path.startswith("tables/scores/")]:
        table = folder.read_parquet(path)
        for name in names:
            table = table.append_column(name, pa.nulls(len(table), pa.float32()))
        folder.write_parquet(path, table)
    finish(folder, RUN)
    for query in named_queries():
        if any(param.view for param in query.params):
            params = dict(NEEDED.get(query.name, {}))
            if query.name not in ("cooccurrence", "estimate_by", "examples", "top_entries"):
                params["of"] = "clip_score"
            assert ask(folder.url, query.name, **params) == ask(small, query.name, **params), query.name


def shown(url, query, **params):
    """The one row of a table for people."""
    file = StringIO()
    write_result(run_query(url, query, params), "table", file)
    return file.getvalue().splitlines()[2].split()


def test_a_table_shows_all_digits_of_thresholds_and_of_a_query_s_own_numbers(small):
    assert shown(small, "thresholds", at=0.2702580690383911)[:2] == ["clip_score", "0.2702580690383911"]
    assert shown(small, "threshold_for_size", rows=3)[:2] == ["clip_score", "0.6"]  # a float32
    assert shown(small, "thresholds", at=0.5, rule="words")[4] == "0.727273"  # a share
    sql = "SELECT 0.2702581::FLOAT AS f, 1.620762348175049::DOUBLE AS d, 0.00001::FLOAT, 3::DOUBLE, 'nan'::FLOAT"
    assert shown(small, sql) == ["0.2702581", "1.620762348175049", "0.00001", "3", "nan"]


def test_a_duplicate_has_one_representative_whatever_became_of_rows_with_its_uid(tmp_path):
    rows = [  # the second row with this uid reached deduplication
        (sample("a", "a small copy", width=100), verdict("side"), [], None),
        (sample("a", "a cat"), verdict("balance", 0.5, 1.5), [0], 0.5),
        (sample("a", "a copy"), verdict("duplicate", of="a"), [0], 0.5),
        (sample("b", "equal", sha256="a".rjust(64, "0"), phash=2**64 - 8), verdict("duplicate", of="a"), [], 0.5),
    ]
    run = write_units(str(tmp_path), [rows]).url
    assert [row[:3] + row[5:] for row in ask(run, "duplicate_pairs")] == [
        (uid("b"), uid("a"), "image", False, "balance", "equal", "a cat"),
        (uid("a"), uid("a"), "pair", False, "balance", "a copy", "a cat"),
    ]
    assert ask(run, "SELECT uid, row FROM representatives") == [(uid("a"), 1)]


def test_downloads(tmp_path):
    """A source that downloads, tars that lack a sample which img2dataset lists, and a source without failures."""
    time, never = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"sha256": None, "bytes": None}
    missing = [
        ("w1", "web", "http_503", 6, True), ("w2", "web", "http_404", 1, False),
        ("t1", "tars", "missing_sample", None, None),
        ("w4", "web", "served_no_image", 1, False),  # it was downloaded, but could not be decoded
    ]  # fmt: skip
    names = ("key", "shard", "reason", "attempts", "may_pass")
    failures = [
        dict(zip(names, values, strict=True)) | {"unit": 0, "row": row, "attempted": values[3] and time}
        for row, values in enumerate(missing)
    ]
    rows = [
        (sample(name, "a", source, status=status, **({} if name == "w4" else never)), verdict("failed"), [], None)
        for name, source, status, *_ in missing
    ]
    rows += [(sample(name, "a b c", source), verdict(), [], None) for name, source in (("w3", "web"), ("p1", "photos"))]
    run = RUN | {"recipe": {"input": [{"name": "web", "format": "urls"}, {"name": "photos", "format": "webdataset"}]}}
    url, last = write_units(str(tmp_path), [rows], run, failures=failures).url, time.replace(tzinfo=None)
    check(url, "downloads", {}, [
        ("tars", "missing_sample", 1, 1.0, 0, None, None), ("web", "came", 2, 1 / 2, 0, None, None),
        ("web", "http_404", 1, 1 / 4, 0, 1, last), ("web", "http_503", 1, 1 / 4, 1, 6, last),
    ])  # fmt: skip
    by_host = {row[1]: (row[3], row[-1]) for row in ask(url, "failures_by_host")}
    may_pass = {"http_503": 1, "http_404": 0, "missing_sample": 0, "served_no_image": 0}
    assert by_host == {reason: (int(reason != "served_no_image"), may) for reason, may in may_pass.items()}
    assert [row[1:5] for row in ask(url, "hosts")] == [(6, 4, 3, 2)]
    assert {row[1]: row[-1] for row in ask(url, "failures")} == may_pass
    assert "not downloaded: http_404 (" in str(explain_sample(url, "w2"))
    assert "could not be read: served_no_image (" in str(explain_sample(url, "w4"))
    failed = [
        (ANY, "http_503", None, 6, last, True, "web"), (ANY, "http_404", None, 1, last, False, "web"),
        (ANY, "missing_sample", None, None, None, None, "tars"),
    ]  # fmt: skip
    for params, expected in (
        ({}, failed), ({"may_pass": "true"}, failed[:1]), ({"may_pass": "false"}, failed[1:2]), ({"limit": 2}, failed[:2])
    ):  # fmt: skip
        check(url, "urls_failed", params, expected)


def test_links(tmp_path):
    counts = {"pages": 9, "images": 10, "rows": 3, "no_text": 6, "data_url": 1}
    crawl = write_units(str(tmp_path), [[]], RUN | {"links": {"cc": counts}}).url
    rows = [("cc", "row", 3, 0.3, 9), ("cc", "no_text", 6, 0.6, 9), ("cc", "data_url", 1, 0.1, 9)]
    check(crawl, "links", {}, rows)


# ---- all queries


@pytest.mark.parametrize("query", named_queries(), ids=lambda query: query.name)
def test_each_query_runs_on_every_run_and_yields_its_columns(query, small, bare):
    assert query.summary.endswith(".") and len(query.summary) <= 90 and query.columns
    assert query.theme in THEMES and all(query.columns.values()) and all(param.help for param in query.params)
    assert all(f"${param.name}" in query.sql for param in query.params)
    assert query.name == "files" or query.name in {name for name, _, _ in ANSWERS}
    for url in (small, bare):
        params = NEEDED.get(query.name, {})
        result = run_query(url, query.name, params)
        if "*" in query.columns:
            assert set(query.columns) - {"*"} <= set(result.names)
        else:
            assert tuple(query.columns) == result.names
        file = StringIO()
        write_result(result, "json", file)
        assert json.loads(file.getvalue()) is not None
    if any(param.name == "limit" for param in query.params):
        assert ask(small, query.name, **params, limit="null") == ask(small, query.name, **params, limit=1000)


def test_the_pages_match_the_headers():
    assert {page.name: page.read_text("utf-8") for page in PAGES} == library_pages(), (
        "run `python -m tests.ask.library`"
    )


def tables_of_the_page():
    """The tables of sql/tables.md, by the heads of their first columns: the names of the rows, and their columns."""
    page = (FOLDER / "tables.md").read_text("utf-8")
    tables = {}
    for part in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
        tables[head[0]] = {cells[0].strip("`"): re.findall(r"`(\w+)`", cells[-1]) for cells in rows}
    return tables


def test_the_page_lists_all_tables_with_their_columns(small):
    views, aligned, decisions, _, others = tables_of_the_page().values()
    with open_run(small) as connection:
        columns = {
            name: [column for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall()]
            for (name,) in connection.execute("SHOW TABLES").fetchall()
        }
    assert sorted(columns) == sorted([*views, *aligned, *others])
    for name in ("kept", "dropped", "survivors", "representatives"):
        assert columns[name] == columns["verdicts"]
    assert columns["verdicts"] == list(dict.fromkeys([*columns["measured"], *columns["decisions"]]))
    assert columns["measured"] == [*columns["samples"], *columns["scored"][3:], "min_side", "aspect"]
    assert columns["scored"] == [*columns["scores"], "clipscore"]
    assert list(decisions) == [*columns["decisions"][3:], schema.REPEATS.name, schema.DUPLICATE_COSINE.name]
    assert columns["matched"][3:] == views["matched"]
    for name, listed in {**others, **{name: views[name] for name in ("published", "later_rules")}}.items():
        assert columns[name] == listed, name
    for name, listed in aligned.items():
        assert columns[name][:3] == ["unit", "row", "uid"]
        assert name in ("scores", "embeddings", "related", "derived") or columns[name][3:] == listed, name


# ---- parameters

NOT_A_NUMBER = [
    "no numeric column of this run's measured; ",
    "clip_score, clipscore",
    "words, characters, width, height",
]
REFUSED = [
    ("dropped", {"rule": "aligne"}, ["rule=aligne: ", "did you mean 'aligned'? accepted: failed, words"]),
    ("thresholds", {"rule": 3}, ["rule=3: no step of this run has this name"]),
    ("borderline", {"rule": "kept"}, ["accepted: failed, words, side, aligned, unmatched"]),
    ("thresholds", {"at": "0.2 high"}, ["'high' is not a number"]),
    ("balance_choices", {"at": "1000..5000"}, ["'1000..5000' is not a number"]),
    ("score_histogram", {"buckets": 0}, ["buckets=0: needs an integer of at least 1, such as 20"]),
    ("sizes", {"step": "-5"}, ["step=-5: needs an integer of at least 1"]),
    ("sizes", {"step": 1.5}, ["step=1.5: needs an integer of at least 1"]),
    ("dropped", {"limit": -1}, ["limit=-1: needs an integer of at least 0"]),
    ("top_entries", {"by": "entry"}, ["accepted: ", "pool, survivors, probability, expected, kept"]),
    ("estimate_by", {"by": "languages"}, ["did you mean 'language'", "accepted: unit, row, uid, source"]),
    *[("score_histogram", {"of": name}, NOT_A_NUMBER) for name in (
        "nothing", "clip_score; DROP TABLE x", '"clip_score"', "(SELECT 1)", "caption", "unit", "")],
]  # fmt: skip


def test_values_without_meaning_are_refused(small, bare):
    for query, params, parts in REFUSED:
        with pytest.raises(RecipeError) as refused:
            ask(small, query, **params)
        assert not [part for part in parts if part not in str(refused.value)], refused.value
    with pytest.raises(RecipeError, match=r"clip_score: no numeric column.*accepted: words"):
        ask(bare, "borderline", of="clip_score")


def test_a_rule_may_be_named_as_a_number(tmp_path):
    run = json.loads(json.dumps(RUN).replace('"words"', '"2024"', 1))
    url = write_units(str(tmp_path), [[(sample("a", "one"), verdict("2024"), [], None)]], run=run).url
    assert [row[0] for row in ask(url, "dropped", rule="2024")] == ["2024"]


def test_the_default_number_is_a_score_that_a_rule_names():
    [query] = [query for query in named_queries() if query.name == "threshold_for_size"]
    columns = {"words": "INTEGER", "bytes": "BIGINT", "a": "FLOAT", "clip_score": "FLOAT", "b_score": "DOUBLE"}

    def chosen(rules, *left_out):
        left = {name: kind for name, kind in {**columns, "c": "VARCHAR"}.items() if name not in left_out}
        return fill_params(query, {}, lambda _view: left, rules)["of"]

    assert chosen("top 0.3 of b_score") == chosen("B_SCORE > 1 and a > 0", "a") == "b_score"
    assert chosen("words > 2 or c = 'x'") == "clip_score" and chosen("", "clip_score") == "a"
    assert chosen("a > 1", "a", "clip_score", "b_score") == "words"
