"""Each named query against an answer worked out by hand on the run of `runs.py`; headers, parameters and the page."""

import inspect
import json
import re
import shutil
from datetime import UTC, datetime
from io import StringIO

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
from tests.kit.written_runs import (
    EVIL,
    NEEDED,
    RUN,
    finish,
    kept_open,
    run_query,
    sample,
    uid,
    verdict,
    write_bare,
    write_small,
    write_units,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with kept_open(write_small(str(tmp_path_factory.mktemp("small"))).url) as url:
        yield url


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    with kept_open(write_bare(str(tmp_path_factory.mktemp("bare"))).url) as url:
        yield url


def ask(url, query, **params):
    return list(run_query(url, query, params).rows)


def near(*values):
    """A row, its fractions to six digits."""
    return tuple(pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for value in values)


# ---- overview


def test_funnel(small):
    rows = ask(small, "funnel")
    assert [row[:4] for row in rows] == [
        ("pool", 12, 0, 12),
        ("failed", 12, 1, 11),
        ("words", 11, 1, 10),
        ("side", 10, 1, 9),
        ("aligned", 9, 1, 8),
        ("unmatched", 8, 1, 7),
        ("duplicate", 7, 2, 5),
        ("balance", 5, 1, 4),
        ("kept", 4, 0, 4),
    ]
    assert sum(row[2] for row in rows) + rows[-1][3] == rows[0][1]
    assert rows[6][4:] == pytest.approx((2 / 12, 5 / 12))
    assert sum(row[4] for row in rows) + rows[-1][5] == pytest.approx(1)


def test_failures(small):
    assert [row[:4] for row in ask(small, "failures")] == [
        ("file", "not_a_tar", 1, None),
        ("sample", "truncated_image", 1, pytest.approx(1 / 12)),
    ]
    assert [row[5:] for row in ask(small, "failures")] == [
        ("bad.tar", "begins with <html>", 0),
        ("photos.tar a3", "ends at byte 100", 0),
    ]


def test_entries(small):
    assert ask(small, "entries") == [
        (0, "cat", "words", "en", 7, 4, 0.5, 2.5, 3),
        (1, "red", "words", "en", 2, 1, 1.0, 1.0, 1),
        (2, "photo", "titles", "en", 1, 1, 1.0, 1.0, 1),
        (4, "score", "words", "en", 1, 0, 1.0, 0.0, 0),
    ]
    assert [row[1] for row in ask(small, "entries", like="%o%", min_pool=0, limit=1)] == ["photo"]
    assert len(ask(small, "entries", min_pool="0", limit="null")) == 5


def test_top_entries(small):
    assert ask(small, "top_entries", limit=2) == [("cat", 7, 4, 0.5, 2.5, 3, 0.75), ("red", 2, 1, 1.0, 1.0, 1, 1.0)]


def test_top_entries_by_another_count(small):
    assert [row[0] for row in ask(small, "top_entries", by="kept")] == ["cat", "red", "photo", "score"]
    assert [row[0] for row in ask(small, "top_entries", by="Probability")] == ["red", "photo", "score", "cat"]
    with pytest.raises(RecipeError, match=r"accepted: .*pool, survivors, probability, expected, kept"):
        ask(small, "top_entries", by="entry")


def test_tail_entries(small):
    assert ask(small, "tail_entries", limit=2) == [("score", 1, 0, 0, True), ("photo", 1, 1, 1, False)]


def test_sources(small):
    assert ask(small, "sources") == [
        ("photos", 6, 1, 3, 2, pytest.approx(1 / 3), 0.5),
        ("web", 6, 0, 4, 2, pytest.approx(1 / 3), 0.5),
        ("empty", 0, 0, 0, 0, None, 0.0),
    ]


def test_source_funnel(small):
    rows = ask(small, "source_funnel")
    assert [row for row in rows if row[2]] == [
        (source, rule, 1, pytest.approx(1 / 6))
        for source, rule in [
            ("photos", "failed"), ("photos", "words"), ("photos", "side"), ("photos", "duplicate"),
            ("web", "aligned"), ("web", "unmatched"), ("web", "duplicate"), ("web", "balance"),
        ]
    ]  # fmt: skip
    assert len(rows) == 3 * 7


def test_duplicates(small):
    assert ask(small, "duplicates") == [
        (uid("a1"), True, 2, [uid("a5"), uid("a1")], ["photos.tar a5", "web.tar b5"], "a red cat", "http://x/a1")
    ]
    group = ask(small, "duplicates")
    assert ask(small, "duplicates", uid=uid("a1").upper()) == ask(small, "duplicates", uid=uid("a5")) == group
    assert ask(small, "duplicates", uid=uid("b2")) == ask(small, "duplicates", uid="1e9") == []
    assert ask(small, "duplicates", uid="null") == group


def test_explain(small):
    result = run_query(small, "explain", {"uid": uid("a1").upper()})
    first, second = (dict(zip(result.names, row, strict=True)) for row in result.rows)
    assert (first["unit"], first["row"], first["kept"], first["entries"]) == (0, 0, True, ["cat", "red"])
    assert (second["unit"], second["row"], second["rule"], second["entries"]) == (1, 4, "duplicate", [])
    assert first["clip_score"] == 0.5 and first["phash"] == 2**64 - 1
    assert ask(small, "explain", uid=uid("ff")) == []


def test_estimate(small, bare):
    # π of the kept rows: 1, 0.5, 1, 0.5. Estimate 1 + 2 + 1 + 2; variance 2 · (1 - 0.5) / 0.25.
    assert ask(small, "estimate") == [(4, 6.0, 2.0, pytest.approx(2.08), pytest.approx(9.92), 5, 0.5)]
    assert ask(bare, "estimate") == [(2, 2.0, 0.0, 2.0, 2.0, 2, None)]


def test_languages(small):
    assert ask(small, "languages") == [
        ("en", 11, 3, pytest.approx(3 / 11), pytest.approx(11 / 12), 0.75),
        ("fr", 1, 1, 1.0, pytest.approx(1 / 12), 0.25),
    ]


def test_licences(small):
    """What they are where there are some: tests/pool/pmc/test_runs.py."""
    assert ask(small, "licences") == []


def test_sizes(small):
    assert ask(small, "sizes") == [
        (0, 128, 1, 0, 1, 0, 1, 0),
        (256, 384, 1, 1, 0, 0, 1, 1),
        (384, 512, 0, 0, 10, 4, 9, 3),
        (640, 768, 9, 3, 0, 0, 0, 0),
    ]
    assert ask(small, "sizes", step=1000) == [(0, 1000, 11, 4, 11, 4, 11, 4)]
    assert ask(small, "score_histogram", of="min_side", buckets=1)[0][3:6] == (11, 5, 4)  # as the header says


def test_formats(small):
    assert ask(small, "formats") == [("jpeg", 10, 4, 1000.0, 6000), ("png", 1, 0, 100.0, 0), (None, 1, 0, 1000.0, 0)]


def test_caption_lengths(small):
    assert ask(small, "caption_lengths") == [(0, 5, 10, 3, 0.3, "a red cat"), (5, 10, 2, 1, 0.5, "a cat again and now")]


def test_matches_per_text(small):
    assert ask(small, "matches_per_text") == [(0, 3, 0, 0), (1, 7, 4, 3), (2, 1, 1, 1)]


def test_language_balance(small, bare):
    """A language of samples that the metadata has no entries of is listed too, but no language that none has."""
    assert ask(small, "language_balance") == [
        ("en", 11, 9, 5, 4, 5, 4, 2, 1, 2, 6, pytest.approx(2 / 6), 1.0),
        ("fr", 1, 0, 0, 0, 0, 0, None, None, None, 0, None, 0),
    ]
    assert ask(bare, "language_balance") == []


def test_coverage(small):
    assert ask(small, "coverage") == [(5, 4, 3, 3, 0, 1, 2, pytest.approx(2 / 6), pytest.approx(2 / 5))]


def test_dropped(small):
    assert [row[:2] for row in ask(small, "dropped", rule="duplicate")] == [
        ("duplicate", uid("a1")),
        ("duplicate", uid("a5")),
    ]
    [failed] = ask(small, "dropped", rule="failed")
    assert failed[1] is None and failed[-2:] == ("a3", "truncated_image: ends at byte 100")  # a key to explain
    assert len(ask(small, "dropped")) == 8 and len(ask(small, "dropped", limit=3)) == 3


def test_shards(small, bare):
    assert [row[:3] for row in ask(small, "shards")] == [("shards/00000.tar", 3, 3), ("shards/00001.tar", 1, 3)]
    assert [row[:2] for row in ask(bare, "shards")] == [("shards/00000.parquet", 2)]


def test_cooccurrence(small):
    """By source and language: photos 6 English, web 5 English and 1 French; shares are of the source."""
    given = {"class": "source", "context": "language", "min_class": 1, "counter_share": 0.2}
    rows = ask(small, "cooccurrence", **given)
    assert [row[:4] for row in rows] == [("photos", "en", 6, 2), ("web", "en", 5, 1), ("web", "fr", 1, 1)]
    assert [row[4] for row in rows] == [1, 5 / 6, 1 / 6]
    assert [row[5] for row in rows] == [1, 1 / 2, 1 / 2]
    assert [round(row[6], 6) for row in rows] == [round(12 / 11, 6), round(5 / 6 / (11 / 12), 6), 2]
    assert [row[7] for row in rows] == ["common", "common", "counter"]


def test_drift(small):
    assert ask(small, "drift") == [("web", "clip", "image", 6, 2, 0.25, 0.01, 0.125)]


def test_provenance(small):
    facts = dict(ask(small, "provenance"))
    assert facts == {
        "curate": "0.1.0", "python": "3.11.7", "name": "small", "seed": "7", "t": "2", "packages.duckdb": "2", "started": "2023-11-14 22:13:20", "finished": "2023-11-14 22:13:28", "seconds": "8.0",
    }  # fmt: skip


def test_step_times(small, bare):
    assert ask(small, "step_times") == [("measure", 2, 12, 3.0, 0.75, 4.0), ("caption", 1, None, 1.0, 0.25, None)]
    assert ask(bare, "step_times") == []


def test_costs(small, bare):
    # 4 kept in 8 s; captions took 28 tokens of 30 + 12, since one was cached, and 10 + 2, and 0.06.
    none, nothing = (None,) * 7, (0, 0, 0, 0)
    assert ask(small, "costs") == [
        near("run", 8.0, 3, 40, 0.06, 4, 2.0, 10.0, 0.015, 0.002, 0.002, 0.01, 24, 4, 2, 100),
        near("start", None, 0, 0, None, None, None, None, None, 0.0005, 0, 0, *nothing),
        near("measure", 3.0, 0, 0, None, None, None, None, None, 0.001, 0.002, 0.01, 8, 4, 2, 100),
        near("duplicates", None, 0, 0, None, None, None, None, None, 0.0005, 0, 0, 16, 0, 0, 0),
        near("recaption", 1.0, 1, 12, None, 1, 1.0, 12.0, None, *none),
        near("rewrite", 2.0, 2, 28, 0.06, 1, 2.0, 28.0, 0.06, *none),
    ]
    assert ask(bare, "costs") == [("run", 8.0, 0, 0, None, 2, 4.0, None, None, *none)]


# ---- sources, languages and hosts


def test_source_languages(small):
    assert ask(small, "source_languages") == [
        near("photos", "en", 6, 2, 1 / 3, 1.0, 1.0),
        near("web", "en", 5, 1, 0.2, 5 / 6, 0.5),
        near("web", "fr", 1, 1, 1.0, 1 / 6, 0.5),
    ]


def test_hosts(small):
    assert ask(small, "hosts") == [
        ("y.example", 1, 0, 0, 0, 0.0, "unmatched", 1),
        near("x", 11, 1, 0, 4, 4 / 11, "duplicate", 2),
    ]
    assert [row[0] for row in ask(small, "hosts", min_pool=2)] == ["x"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:word@Host.example:80/a?b=c://d", "host.example"), ("http://a@b@host/", "host"),
        ("http://host?a=b@c", "host"), ("http://host#a:b", "host"), ("http://[::1]:80/a", "[::1]"), ("a/b:c", ""),
    ],
)  # fmt: skip
def test_the_host_of_a_url(tmp_path, url, host):
    rows = [
        (sample("a1", "a", url=url), verdict(), [], None),
        (sample("a2", "a", url=url, status="x"), verdict("failed"), [], None),
    ]
    run = write_units(str(tmp_path), [rows]).url
    assert [row[0] for row in ask(run, "hosts")] == [row[0] for row in ask(run, "failures_by_host")] == [host]


@pytest.mark.thorough
@pytest.mark.parametrize("query", [query.name for query in named_queries() if any(p.view for p in query.params)])
def test_names_of_scores_do_not_hide_what_a_query_means(small, tmp_path, query):
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
    given = {
        **NEEDED.get(query, {}),
        **({} if query in ("cooccurrence", "estimate_by", "examples", "top_entries") else {"of": "clip_score"}),
    }
    assert ask(folder.url, query, **given) == ask(small, query, **given)


# ---- scores and thresholds


def test_score_histogram(small, bare):
    # From 0.125 to 0.9 in two: a1, a4, a5, b2, b4, b5, b6 below the middle, 0.5125; a2, a6, b1, b3 above.
    assert ask(small, "score_histogram", buckets=2) == [
        near("clip_score", 0.125, 0.5125, 7, 3, 2, 5, 2 / 7),
        near("clip_score", 0.5125, 0.9, 4, 2, 2, 2, 0.5),
    ]
    assert ask(bare, "score_histogram", buckets=2) == [
        ("words", 1.0, 2.0, 1, 0, 0, 1, 0.0),
        ("words", 2.0, 3.0, 2, 2, 2, 0, 1.0),
    ]
    assert ask(small, "score_histogram", of="HEIGHT", buckets=1) == [near("height", 80.0, 480.0, 11, 5, 4, 7, 4 / 11)]
    assert ask(bare, "score_histogram", of="width") == []


def test_score_summary(small):
    assert ask(small, "score_summary") == [
        near("clip_score", "web", 6, 2, 2.925 / 6, 0.65, 0.125, 0.5, 0.8, 0.5, 0.5, 0.8),
        near("clip_score", "photos", 5, 2, 0.58, 0.55, 0.4, 0.5, 0.9, 0.5, 0.5, 0.6),
    ]
    assert [row[:4] for row in ask(small, "score_summary", of="words", by="language")] == [
        ("words", "en", 11, 3), ("words", "fr", 1, 1),
    ]  # fmt: skip
    assert [row[1:4] for row in ask(small, "score_summary", by="kept")] == [(False, 7, 0), (True, 4, 4)]
    assert [row[1:4] for row in ask(small, "score_summary", by="rule")][:2] == [(None, 4, 4), ("duplicate", 2, 0)]


def test_thresholds(small):
    # At `aligned`, which names the score: a1, a5, b2, b6 with 0.5, a6 0.6, b1 0.7, b3 0.8, b5 0.3, b4 0.125. All but the
    # failed one reach `words`. No rule names characters: past all rules is all that but b4.
    assert ask(small, "thresholds", at="0.8, 0.5") == [
        ("clip_score", 0.5, 9, 7, pytest.approx(7 / 9), 4, "aligned"),
        ("clip_score", 0.8, 9, 1, pytest.approx(1 / 9), 1, "aligned"),
    ]
    assert ask(small, "thresholds", at=0.9, rule="words") == [near("clip_score", 0.9, 11, 1, 1 / 11, 0, "words")]
    assert [row[3] for row in ask(small, "thresholds")] == [9, 8, 7, 3, 2, 1]
    assert ask(small, "thresholds", of="words", at="99") == [("words", 99.0, 11, 0, 0.0, 0, "words")]
    assert ask(small, "thresholds", of="height", at="9") == [("height", 9.0, 10, 10, 1.0, 4, "side")]
    assert ask(small, "thresholds", of="characters", at="1") == [("characters", 1.0, 8, 8, 1.0, 4, None)]


def test_threshold_for_size(small):
    assert ask(small, "threshold_for_size", rows=3) == [near("clip_score", 0.6, 9, 3, 2, 3 / 9, "aligned")]
    assert ask(small, "threshold_for_size", rows=5) == [near("clip_score", 0.5, 9, 7, 3, 7 / 9, "aligned")]
    assert ask(small, "threshold_for_size", rows=10) == [("clip_score", None, 9, None, None, None, "aligned")]
    assert ask(small, "threshold_for_size", rows=1, of="width") == [("width", 640.0, 10, 8, 0, 0.8, "side")]
    assert ask(small, "threshold_for_size", rows=1, of="bytes") == [("bytes", 3000.0, 8, 1, 0, 1 / 8, None)]
    assert shown(small, "threshold_for_size", rows=3).split()[:2] == ["clip_score", "0.6"]  # of float32


def test_a_table_shows_all_digits_of_thresholds_and_of_a_query_s_own_numbers(small):
    assert shown(small, "thresholds", at=0.2702580690383911).split()[:2] == ["clip_score", "0.2702580690383911"]
    assert shown(small, "thresholds", at=0.5, rule="words").split()[4] == "0.727273"  # a share
    sql = "SELECT 0.2702581::FLOAT AS f, 1.620762348175049::DOUBLE AS d, 0.00001::FLOAT, 3::DOUBLE, 'nan'::FLOAT"
    assert shown(small, sql).split() == ["0.2702581", "1.620762348175049", "0.00001", "3", "nan"]


def shown(url, query, **params):
    """Return the one row that a table has for people."""
    file = StringIO()
    write_result(run_query(url, query, params), "table", file)
    return file.getvalue().splitlines()[2]


# ---- entries and balancing


def test_lost_entries(small):
    assert ask(small, "lost_entries") == [("score", 1, 0, "aligned", 1, "low score image")]
    assert ask(small, "lost_entries", min_pool=2) == []


def test_entry_funnel(small):
    rows = ask(small, "entry_funnel", entry="cat")
    assert [row[:2] for row in rows] == [
        ("pool", 7), ("failed", 1), ("words", 0), ("side", 1), ("aligned", 0), ("unmatched", 0), ("duplicate", 1),
        ("balance", 1), ("kept", 3),
    ]  # fmt: skip
    assert rows[6] == near("duplicate", 1, 1 / 7, 2 / 12) and rows[0][2:] == (1, 1)
    assert {row[1] for row in ask(small, "entry_funnel", entry="nothing")} == {0}


def test_source_coverage(small):
    # photos: cat of a1, a4, a5, a6 and red of a1; web: cat of b2 and b6, photo of b3, score of b4.
    assert ask(small, "source_coverage") == [
        ("photos", 2, 2, 1, 1, 5, 3),
        ("web", 3, 2, 2, 1, 4, 2),
        ("empty", 0, 0, 0, 0, 0, 0),
    ]


def test_concentration(small):
    assert ask(small, "concentration") == [near(1, 7 / 11, 4 / 6, 3 / 5), (4, 1, 1, 1)]


def test_balance_choices(small, bare):
    # cat has 4 matches, red and photo one each.
    assert ask(small, "balance_choices", at="1 3") == [near(1.0, 1, 0, 0.0), near(3.0, 1, 2, 2 / 6)]
    assert ask(small, "balance_choices", at=4) == [(4.0, 0, 2, pytest.approx(2 / 6))]
    assert [row[0] for row in ask(small, "balance_choices")] == [1, 2, 4, 8, 16]
    assert ask(bare, "balance_choices") == []


def test_probabilities(small):
    assert ask(small, "probabilities") == [near(0.5, 0.6, 3, 1.5, 2, 0.5 / 0.75**0.5), (1.0, None, 2, 2.0, 2, None)]


def test_estimate_by(small):
    # photos keeps π of 1 and 0.5, and so does web: 1 + 2 = 3, variance (1 - 0.5) / 0.25 = 2, effective 3² / (1 + 4).
    spread = 2**0.5
    assert ask(small, "estimate_by") == [
        near("web", 2, 3.0, spread, 3 - 1.96 * spread, 3 + 1.96 * spread, 3, 1.8),
        near("photos", 2, 3.0, spread, 3 - 1.96 * spread, 3 + 1.96 * spread, 2, 1.8),
    ]


# ---- duplicates


def test_duplicate_kinds(small):
    assert ask(small, "duplicate_kinds") == [("near", 1, 1, 0.5), ("pair", 1, 1, 0.5)]


def test_duplicate_sources(small):
    assert ask(small, "duplicate_sources") == [near("photos", "photos", 1, 1 / 6), near("web", "photos", 1, 1 / 6)]


def test_near_duplicates(small):
    assert ask(small, "near_duplicates") == [
        (uid("a1"), 1, None, 0, [uid("a5")], [None], ["a cat again and now"], "a red cat", "http://x/a1")
    ]


def test_duplicate_pairs(small):
    near_pair = (uid("a5"), uid("a1"), "near", 0, None, True, None, "a cat again and now", "a red cat")
    assert ask(small, "duplicate_pairs") == [
        (uid("a1"), uid("a1"), "pair", 0, None, True, None, "a red cat", "a red cat"),
        near_pair,
    ]
    assert ask(small, "duplicate_pairs", match_type="near") == [near_pair]
    assert len(ask(small, "duplicate_pairs", limit=1)) == 1


def test_a_duplicate_has_one_representative_whatever_became_of_rows_with_its_uid(tmp_path):
    rows = [
        (
            sample("a", "a small copy", width=100),
            verdict("side"),
            [],
            None,
        ),  # another row of this uid reached deduplication
        (sample("a", "a cat"), verdict("balance", 0.5, 1.5), [0], 0.5),
        (sample("a", "a copy"), verdict("duplicate", of="a"), [0], 0.5),
        (
            sample("b", "the same bytes", sha256="a".rjust(64, "0"), phash=2**64 - 8),
            verdict("duplicate", of="a"),
            [],
            0.5,
        ),
    ]
    run = write_units(str(tmp_path), [rows]).url
    assert [row[:3] + row[5:] for row in ask(run, "duplicate_pairs")] == [
        (uid("b"), uid("a"), "image", False, "balance", "the same bytes", "a cat"),
        (uid("a"), uid("a"), "pair", False, "balance", "a copy", "a cat"),
    ]
    assert ask(run, "SELECT uid, row FROM representatives") == [(uid("a"), 1)]


# ---- captions


def test_repeated_captions(small):
    assert ask(small, "repeated_captions") == [("a red cat", 2, 1, 1)]


def test_captions(small):
    assert ask(small, "captions", kind="rewrite") == [
        (uid("a6"), EVIL, "rewrite", "plain", "a cat that is red", "passed", []),
        (uid("b3"), "une photo de chien", "rewrite", "plain", None, "no_answer", None),
        (uid("b6"), "a cat and a 日本 cat", "rewrite", "plain", "a cat that is red", "names", ["names", "numbers"]),
    ]
    assert [row[0] for row in ask(small, "captions", gate="passed")] == [uid("a6"), uid("b3")]


def test_caption_gates(small):
    third = pytest.approx(1 / 3)
    assert ask(small, "caption_gates") == [
        ("recaption", "short", "passed", 1, 1.0),
        ("rewrite", "plain", "names", 1, third),
        ("rewrite", "plain", "no_answer", 1, third),
        ("rewrite", "plain", "numbers", 1, third),
        ("rewrite", "plain", "passed", 1, third),
    ]


def test_caption_work(small):
    assert ask(small, "caption_work") == [
        ("recaption", "v", "n", 1, 1, 0, 1, 1, 10, 2, 12, 1.0, None, None),
        ("rewrite", "e", "m", 3, 2, 1, 1, 0, 30, 12, 28, 2.0, 0.06, 0.06),
    ]


def test_caption_styles(small):
    # b3's original has 4 words and scores 0.8; a6's has 3 and scores 0.6.
    assert ask(small, "caption_styles") == [
        near("recaption", "short", 1, 1, 1.0, 2.0, 0.5, 2.0, 1.0, 0.5, -0.3),
        near("rewrite", "plain", 3, 1, 1 / 3, 5.0, 5 / 3, 7.0, 0.5, 0.75, 0.15),
    ]


# ---- images


def test_aspect_ratios(small):
    assert ask(small, "aspect_ratios") == [("1:2 to 3:4", 1, 1, 1.0, 256 * 480), ("3:4 to 4:3", 10, 3, 0.3, 640 * 480)]


def test_shared_images(small):
    assert ask(small, "shared_images") == [("a6".rjust(64, "0"), 2, [EVIL, "a cat and a 日本 cat"], "http://x/a6")]


# ---- samples to look at


def test_borderline(small):
    assert [row[:5] for row in ask(small, "borderline", limit=2)] == [
        ("kept", "clip_score", 0.5, None, uid("a1")),
        ("kept", "clip_score", 0.5, None, uid("b6")),
        near("dropped", "clip_score", 0.125, "aligned", uid("b4")),
    ]
    assert [row[2:5] for row in ask(small, "borderline", limit=1, rule="words")][1:] == [near(0.9, "words", uid("a2"))]
    assert [row[2:4] for row in ask(small, "borderline", of="bytes", limit=2)][2:] == [
        (1000.0, "duplicate"),
        (1000.0, "words"),
    ]


def test_examples(small):
    rows = ask(small, "examples", each=2)
    assert [row[:2] for row in rows] == [("photos", 2), ("photos", 2), ("web", 2), ("web", 2)]
    assert {row[2] for row in rows} == {uid("a1"), uid("a6"), uid("b3"), uid("b6")}
    assert rows == ask(small, "examples", each=2) and len(ask(small, "examples", each=1, by="language")) == 2


def test_entry_samples(small):
    rows = ask(small, "entry_samples", entry="cat")
    assert [row[0] for row in rows] == [*map(uid, ("a1", "a6", "b6", "a4", "a5", "b2")), None]
    assert rows[0] == (uid("a1"), True, None, 1.0, 2, "a red cat", "http://x/a1")
    assert rows[5][:4] == (uid("b2"), False, "balance", 0.5)
    assert len(ask(small, "entry_samples", entry="cat", limit=3)) == 3


# ---- files and failures


def test_failures_by_host(small):
    assert ask(small, "failures_by_host") == [near("x", "truncated_image", 1, 0, 1 / 11, "http://x/a3", 0)]


@pytest.fixture(scope="module")
def rotten(tmp_path_factory):
    """A run of a source that downloads, of one of tars without a sample that img2dataset lists, and of one that is whole."""
    time, never = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"sha256": None, "bytes": None}
    missing = [
        ("w1", "web", "http_503", 6, True),
        ("w2", "web", "http_404", 1, False),
        ("t1", "tars", "missing_sample", None, None),
        ("w4", "web", "served_no_image", 1, False),  # it came, and could not be decoded
    ]
    failures = [
        {
            "unit": 0,
            "row": row,
            "shard": source,
            "key": name,
            "reason": reason,
            "attempts": attempts,
            "may_pass": may_pass,
        }
        | {"attempted": attempts and time}
        for row, (name, source, reason, attempts, may_pass) in enumerate(missing)
    ]
    rows = [
        (sample(name, "a", source, status=status, **({} if name == "w4" else never)), verdict("failed"), [], None)
        for name, source, status, *_ in missing
    ]
    rows += [
        (sample("w3", "a b c", "web"), verdict(), [], None),
        (sample("p1", "a b c", "photos"), verdict(), [], None),
    ]
    run = RUN | {"recipe": {"input": [{"name": "web", "format": "urls"}, {"name": "photos", "format": "webdataset"}]}}
    return write_units(str(tmp_path_factory.mktemp("rotten")), [rows], run, failures=failures).url


def test_downloads(small, bare, rotten):
    last = datetime(2026, 1, 2, 3, 4, 5)
    assert ask(rotten, "downloads") == [
        ("tars", "missing_sample", 1, 1.0, 0, None, None),
        near("web", "came", 2, 1 / 2, 0, None, None),
        near("web", "http_404", 1, 1 / 4, 0, 1, last),
        near("web", "http_503", 1, 1 / 4, 1, 6, last),
    ]
    assert ask(small, "downloads") == ask(bare, "downloads") == []
    by_host = {row[1]: (row[3], row[-1]) for row in ask(rotten, "failures_by_host")}
    may_pass = {"http_503": 1, "http_404": 0, "missing_sample": 0, "served_no_image": 0}
    assert by_host == {reason: (int(reason != "served_no_image"), may) for reason, may in may_pass.items()}
    assert [row[1:5] for row in ask(rotten, "hosts")] == [(6, 4, 3, 2)]
    assert {row[1]: row[-1] for row in ask(rotten, "failures")} == may_pass
    assert "not downloaded: http_404 (" in str(explain_sample(rotten, "w2"))
    assert "could not be read: served_no_image (" in str(explain_sample(rotten, "w4"))


def test_urls_failed(small, rotten):
    last = datetime(2026, 1, 2, 3, 4, 5)
    rows = [row[1:7] for row in ask(rotten, "urls_failed")]
    assert rows == [
        ("http_503", None, 6, last, True, "web"),
        ("http_404", None, 1, last, False, "web"),
        ("missing_sample", None, None, None, None, "tars"),
    ]
    assert [row[1:7] for row in ask(rotten, "urls_failed", may_pass="true")] == rows[:1]
    assert [row[1:7] for row in ask(rotten, "urls_failed", limit=2)] == rows[:2]
    assert [row[1:7] for row in ask(rotten, "urls_failed", may_pass="false")] == rows[1:2]
    assert ask(small, "urls_failed") == []


def test_links(small, tmp_path):
    counts = {"pages": 9, "images": 10, "rows": 3, "no_text": 6, "data_url": 1}
    crawl = write_units(str(tmp_path), [[]], RUN | {"links": {"cc": counts}}).url
    assert ask(crawl, "links") == [
        near("cc", "row", 3, 0.3, 9),
        near("cc", "no_text", 6, 0.6, 9),
        near("cc", "data_url", 1, 0.1, 9),
    ]
    assert ask(small, "links") == []


def test_inputs(small):
    assert ask(small, "inputs") == [
        near("photos", "photos.tar", 6, 1, 2, 1 / 6, 1 / 3),
        near("web", "web.tar", 6, 0, 2, 0.0, 1 / 3),
    ]


def test_files(small):
    rows = {row[0]: row[1:] for row in ask(small, "files")}
    assert rows["tables/samples"][:2] == (2, 12) and rows["shards/*.tar"][:3] == (2, None, 6)
    assert rows["shards/*.parquet"][:2] == (2, 4) and rows["stats.duckdb"][0] == 1
    assert sum(row[3] for row in rows.values()) == pytest.approx(1)


# ---- all of them


@pytest.mark.parametrize("query", named_queries(), ids=lambda query: query.name)
def test_each_query_runs_on_every_run_and_says_what_it_gives(query, small, bare):
    assert query.summary.endswith(".") and len(query.summary) <= 90 and query.columns
    assert query.theme in THEMES and all(query.columns.values()) and all(param.help for param in query.params)
    for url in (small, bare):
        result = run_query(url, query.name, NEEDED.get(query.name))
        if "*" in query.columns:
            assert set(query.columns) - {"*"} <= set(result.names)
        else:
            assert tuple(query.columns) == result.names
        file = StringIO()
        write_result(result, "json", file)
        assert json.loads(file.getvalue()) is not None
        assert all(f"${param.name}" in query.sql for param in query.params)


@pytest.mark.parametrize("query", named_queries(), ids=lambda query: query.name)
def test_each_query_has_an_answer_above(query):
    source = inspect.getsource(inspect.getmodule(test_each_query_has_an_answer_above) or object)
    [test] = re.findall(rf"^def test_{query.name}\(small.*?(?=^\S)", source, re.MULTILINE | re.DOTALL)
    assert f'(small, "{query.name}"' in test and "assert" in test


def test_the_pages_match_the_headers():
    pages = {page.name: page.read_text("utf-8") for page in PAGES}
    assert pages == library_pages(), "run `python -m tests.ask.library`"
    for query in named_queries():
        assert f"](queries.md#{query.name}): {query.summary}" in pages["README.md"]
        assert pages["queries.md"].count(f"\n## {query.name}\n") == 1
        assert all(f"- `{param.usage}`: " in pages["queries.md"] for param in query.params)


def tables_of_the_page():
    """The tables of sql/tables.md, by the heads of their first columns: the names of the rows, and the code in their last cells."""
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
    for name in ("published", "later_rules"):
        assert columns[name] == views[name]
    assert columns["matched"][3:] == views["matched"]
    for name, told in aligned.items():
        assert columns[name][:3] == ["unit", "row", "uid"]
        assert name in ("scores", "embeddings", "related", "derived") or columns[name][3:] == told, name
    for name, told in others.items():
        assert columns[name] == told, name


def test_the_page_opens_a_run_in_duckdb(small, capsys):
    page = (FOLDER / "README.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("run1", small), {})
    assert "duplicate" in capsys.readouterr().out


# ---- what parameters take


@pytest.mark.thorough
@pytest.mark.parametrize("query", [q.name for q in named_queries() if any(p.name == "limit" for p in q.params)])
def test_a_limit_of_null_returns_all_rows(small, query):
    params = NEEDED.get(query, {})
    assert ask(small, query, **params, limit="null") == ask(small, query, **params, limit=1000)


@pytest.mark.parametrize(
    ("query", "params", "told"),
    [
        (
            "dropped",
            {"rule": "aligne"},
            "rule=aligne: no step of this run has this name; did you mean 'aligned'\\? accepted: failed, words",
        ),
        ("thresholds", {"rule": 3}, "rule=3: no step of this run has this name"),
        ("borderline", {"rule": "kept"}, "accepted: failed, words, side, aligned, unmatched"),
        ("thresholds", {"at": "0.2 high"}, "'high' is not a number"),
        ("balance_choices", {"at": "1000..5000"}, "'1000..5000' is not a number"),
        ("score_histogram", {"buckets": 0}, "buckets=0: needs an integer of at least 1, such as 20"),
        ("sizes", {"step": "-5"}, "step=-5: needs an integer of at least 1"),
        ("sizes", {"step": 1.5}, "step=1.5: needs an integer of at least 1"),
        ("dropped", {"limit": -1}, "limit=-1: needs an integer of at least 0"),
    ],
)
def test_values_that_say_nothing_are_refused(small, query, params, told):
    with pytest.raises(RecipeError, match=told):
        ask(small, query, **params)


def test_a_rule_may_be_named_as_a_number(tmp_path):
    run = json.loads(json.dumps(RUN).replace('"words"', '"2024"', 1))
    url = write_units(str(tmp_path), [[(sample("a", "one"), verdict("2024"), [], None)]], run=run).url
    assert [row[0] for row in ask(url, "dropped", rule="2024")] == ["2024"]


# ---- parameters that name columns


@pytest.mark.parametrize(
    "name", ["nothing", "clip_score; DROP TABLE x", '"clip_score"', "(SELECT 1)", "caption", "unit", ""]
)
def test_a_number_is_a_column_of_numbers(small, name):
    with pytest.raises(RecipeError, match=r"no numeric column of this run's measured; .*clip_score, clipscore") as told:
        ask(small, "score_histogram", of=name)
    assert "words, characters, width, height, bytes" in str(told.value)


def test_a_column_that_a_run_lacks_is_told_with_those_there_are(small, bare):
    with pytest.raises(RecipeError, match=r"did you mean 'language'.*accepted: unit, row, uid, source"):
        ask(small, "estimate_by", by="languages")
    with pytest.raises(RecipeError, match=r"clip_score: no numeric column.*accepted: words"):
        ask(bare, "borderline", of="clip_score")


def test_the_score_of_the_rules_is_meant_where_none_is_named():
    [query] = [query for query in named_queries() if query.name == "threshold_for_size"]
    columns = {
        "words": "INTEGER",
        "bytes": "BIGINT",
        "a": "FLOAT",
        "clip_score": "FLOAT",
        "b_score": "DOUBLE",
        "c": "VARCHAR",
    }

    def chosen(rules, *left_out):
        there = {name: kind for name, kind in columns.items() if name not in left_out}
        return fill_params(query, {}, lambda _view: there, rules)["of"]

    assert chosen("top 0.3 of b_score") == chosen("B_SCORE > 1 and a > 0", "a") == "b_score"
    assert chosen("words > 2 or c = 'x'") == "clip_score" and chosen("", "clip_score") == "a"
    assert chosen("a > 1", "a", "clip_score", "b_score") == "words"
