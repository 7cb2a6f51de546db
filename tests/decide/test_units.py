"""The decision over whole pools, unit by unit and without Beam, against straight definitions."""

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base import ids, schema, stages
from curate.decide.draw import entry_sums, inclusion
from curate.decide.select_rows import choose, count_alive, draw_rows, sum_entries
from curate.decide.settings import DecideSettings
from curate.match.metadata import read_metadata
from curate.match.unit import read_matches
from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from tests import kit
from tests.base.uids import content_uid
from tests.kit import decide_in_process

BASIC = {  # DataComp's basic filter
    "english": "language = 'en'",
    "words": "words > 2",
    "characters": "characters > 5",
    "side": "least(width, height) >= 200",
    "aspect": "greatest(width, height) / least(width, height) <= 3.0",
}


def curate(folder, table, entries=None, files=1, **recipe):
    """Measures, matches and decides a pool of Parquet, in one process."""
    for i in range(files):
        start, stop = i * len(table) // files, (i + 1) * len(table) // files
        pq.write_table(table[start:stop], folder / f"{i:03d}.parquet", row_group_size=max(1, len(table) // 7))
    source = {"name": "pool", "format": "parquet", "path": f"{folder}/*.parquet"}
    key = ""
    if entries is not None:
        (folder / "entries.txt").write_text("\n".join(entries))
        recipe["match"] = {"metadata": str(folder / "entries.txt")}
        metadata = read_metadata(str(folder / "entries.txt"))[0]
        key = ids.table_digest(metadata)
    checked = parse_recipe({"input": source, **recipe})
    plan = make_plan(checked)
    context = RunContext(checked, plan.pool, RunStore(str(folder / f"run-{uuid.uuid4().hex}")), metadata_key=key)
    DecideSettings.of(context)  # checks rules and passes
    kit.measure_and_match(context, plan.units, None if entries is None else metadata)
    return context, plan, decide(context, plan)


def decide(context, plan):
    """The steps of the pipeline, one after the other."""
    settings = DecideSettings.of(context)
    states = decide_in_process(settings, context, plan.units)
    counts = count_alive(states, settings) if context.recipe.match else None
    draw_rows(states, settings, states.ask("Unread", lambda *_: []), choose(states, settings, counts), counts)
    units = plan.units if counts else []
    sums = [next(sum_entries(settings.tables(unit), unit, settings)) for unit in units]
    return [part.dense(settings.n_entries) for part in sums]


def decisions(context, plan):
    """All decisions, after checking that they conform to the schema and to each other."""
    tables = []
    for unit in plan.units:
        table = context.unit_tables(unit).read("decisions")
        assert table.schema.remove_metadata() == schema.DECISIONS
        base = context.unit_tables(unit).read("samples", ["unit", "row", "uid", "status"])
        assert table.select(["unit", "row", "uid"]).to_pydict() == base.select(["unit", "row", "uid"]).to_pydict()
        names = {*context.recipe.rules, *stages.RESERVED_RULES, "balance", "sample"}
        for row, status in zip(table.to_pylist(), base["status"].to_pylist(), strict=True):
            assert row["kept"] == (row["rule"] is None) and (row["rule"] is None or row["rule"] in names)
            assert (row["rule"] == "failed") == (status != "ok")
            assert (row["duplicate_of"] is not None) == (row["rule"] == "duplicate")
            reached = row["rule"] in (None, "balance")
            assert (row["probability"] > 0) == reached and 0 <= row["probability"] <= 1
            assert (row["draw"] is not None) == (reached and context.recipe.balance is not None)
            if row["draw"] is not None:
                assert row["kept"] == (row["draw"] < 1)
        tables.append(table)
    return pa.concat_tables(tables)


def rules_of(context, plan):
    found = decisions(context, plan)["rule"].to_pylist()
    return found


def datacomp(rows, seed):
    """A pool shaped as DataComp's, with values at every limit of the basic filter, and nulls."""
    rng = np.random.default_rng(seed)
    pick = rng.choice
    lengths = pick([1, 2, 3, 4, 9], rows)
    texts = [" ".join(pick(["a", "be", "sea", "dogs"], n)) for n in lengths]
    sides = [1, 199, 200, 201, 599, 600, 601, 1000]
    unknown = rng.random(rows) < 0.02
    scores = np.where(rng.random(rows) < 0.5, rng.random(rows), np.round(rng.random(rows), 1))
    return pa.table(
        {
            "uid": [f"{i:032x}" for i in rng.permutation(rows)],
            "url": [f"http://x/{i}" for i in range(rows)],
            "text": [None if drop else text for text, drop in zip(texts, rng.random(rows) < 0.02, strict=True)],
            "language": pa.array(pick(["en", "de", None], rows, p=[0.8, 0.15, 0.05]).tolist(), pa.string()),
            "original_width": pa.array(pick(sides, rows), mask=unknown),
            "original_height": pa.array(pick(sides, rows), mask=unknown),
            "clip_b32_similarity_score": pa.array(scores, pa.float32(), mask=rng.random(rows) < 0.1),
            "clip_l14_similarity_score": pa.array(rng.random(rows), pa.float64()),
        }
    )


def basic_filter(table):
    """DataComp's basic filter, row by row; the name of the first condition that fails."""
    out = []
    for row in table.to_pylist():
        text, width, height = row["text"], row["original_width"], row["original_height"]
        if text is None:
            out.append("failed")
        elif row["language"] != "en":
            out.append("english")
        elif len(text.split()) <= 2:
            out.append("words")
        elif len(text) <= 5:
            out.append("characters")
        elif width is None or height is None or min(width, height) < 200:
            out.append("side")
        elif max(width, height) / min(width, height) > 3.0:
            out.append("aspect")
        else:
            out.append(None)
    return out


def cut(rules, scores, fraction, name):
    """DataComp's CLIP score fraction, over the rows that are still in: descending[int(N·f)] is the threshold."""
    reached = np.array([score for score, rule in zip(scores, rules, strict=True) if rule is None and score is not None])
    if not len(reached):
        return [rule or name for rule in rules]
    threshold = np.sort(reached)[::-1][int(len(reached) * fraction)]
    return [
        rule if rule is not None else None if score is not None and score >= threshold else name
        for rule, score in zip(rules, scores, strict=True)
    ]


# ---- DataComp's baselines


BY_COLUMNS = BASIC | {"side": "min_side >= 200", "aspect": "aspect <= 3.0"}


@pytest.mark.parametrize(("files", "rules"), [(1, BASIC), (5, BASIC), (2, BY_COLUMNS)])
def test_the_basic_filter(tmp_path, files, rules):
    table = datacomp(3000, 1)
    context, plan, _ = curate(tmp_path, table, files=files, rules=rules)
    expected = basic_filter(table)
    assert {"failed", *BASIC, None} == set(expected)  # every condition decides somewhere
    assert rules_of(context, plan) == expected


def test_a_column_of_the_pool_comes_before_one_that_is_computed(tmp_path):
    table = datacomp(50, 1).append_column("aspect", pa.array(np.arange(50.0), pa.float64()))
    rules = {"first": "aspect < 20", "side": "min_side >= 200"}
    found = rules_of(*curate(tmp_path, table, rules=rules)[:2])
    assert found[20:] == [name if name == "failed" else "first" for name in found[20:]]
    assert {"side", None} <= set(found[:20]) and "first" not in found[:20]


@pytest.mark.thorough
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_score_fraction_of_what_reached_the_rule(tmp_path, fraction, seed, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (200, 200))
    table = datacomp(2000, seed)
    scores = table["clip_b32_similarity_score"].to_pylist()
    rules = {**BASIC, "clip": {"top": fraction, "of": "clip_b32_similarity_score"}}
    context, plan, _ = curate(tmp_path, table, files=3, rules=rules)
    assert len(plan.units) > 5
    found = rules_of(context, plan)
    assert found == cut(basic_filter(table), scores, fraction, "clip")
    survivors = [s for s, rule in zip(scores, basic_filter(table), strict=True) if rule is None and s is not None]
    kept = sorted((s for s, rule in zip(scores, found, strict=True) if rule is None), reverse=True)
    at_least = int(len(survivors) * fraction) + 1
    assert len(kept) >= at_least and all(score == kept[at_least - 1] for score in kept[at_least:])  # ties only


def test_the_order_of_rules_counts(tmp_path):
    table = datacomp(2000, 3)
    scores = table["clip_b32_similarity_score"].to_pylist()
    others = table["clip_l14_similarity_score"].to_pylist()
    first = {"clip": {"top": 0.3, "of": "clip_b32_similarity_score"}}
    failed = [None if text is not None else "failed" for text in table["text"].to_pylist()]
    english = [language == "en" for language in table["language"].to_pylist()]

    def only_english(rules):
        return [rule or (None if yes else "english") for rule, yes in zip(rules, english, strict=True)]

    expected = {
        "top first": (first | {"english": BASIC["english"]}, only_english(cut(failed, scores, 0.3, "clip"))),
        "top last": ({"english": BASIC["english"]} | first, cut(only_english(failed), scores, 0.3, "clip")),
        "two tops": (
            {"other": {"top": 0.5, "of": "clip_l14_similarity_score"}} | first | {"english": BASIC["english"]},
            only_english(cut(cut(failed, others, 0.5, "other"), scores, 0.3, "clip")),
        ),
    }
    for name, (rules, verdicts) in expected.items():
        context, plan, _ = curate(tmp_path, table, rules=rules)
        assert rules_of(context, plan) == verdicts, name
    assert len({tuple(verdicts) for _, verdicts in expected.values()}) == 3


def test_a_top_rule_that_no_row_reaches(tmp_path):
    table = datacomp(50, 4)
    rules = {"none": "false", "clip": {"top": 0.3, "of": "clip_b32_similarity_score"}}
    context, plan, _ = curate(tmp_path, table, rules=rules)
    assert set(rules_of(context, plan)) <= {"failed", "none"}
    nulls = table.set_column(6, "clip_b32_similarity_score", pa.nulls(50, pa.float32()))
    context, plan, _ = curate(tmp_path, nulls, rules={"clip": rules["clip"]})
    assert set(rules_of(context, plan)) <= {"failed", "clip"}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.0, -0.0, 0.25, 0.5, -1.0, float("inf"), float("nan")]), st.booleans()),
        min_size=1,
        max_size=20,
    ),
    st.floats(0.01, 0.99),
)
def test_any_small_pool_equals_the_definition(tmp_path_factory, rows, fraction):
    scores = [None if score is None or np.isnan(score) else score for score, _ in rows]
    words = ["two words" if two else "one" for _, two in rows]
    table = pa.table(
        {"caption": [f"{text}{i}" for i, text in enumerate(words)], "s": pa.array([s for s, _ in rows], pa.float64())}
    )
    rules = {"words": "words = 2", "best": {"top": fraction, "of": "s"}}
    context, plan, _ = curate(tmp_path_factory.mktemp("pool"), table, rules=rules)
    assert rules_of(context, plan) == cut([None if two else "words" for _, two in rows], scores, fraction, "best")


# ---- matching, deduplication, balance

ENTRIES = ["cat", "dog", "a", "photo", "big dog", "never there"]


def pets(rows=400):
    rng = np.random.default_rng(5)
    nouns = rng.choice(["cat", "dog", "big dog", "bird"], rows, p=[0.5, 0.25, 0.1, 0.15])
    texts = [f"a photo of {noun} {i}" if i % 3 else f"{noun} {i}" for i, noun in enumerate(nouns)]
    return pa.table({"caption": texts, "s": rng.random(rows)})


def test_what_matches_nothing_is_unmatched_after_all_rules(tmp_path):
    table = pets()
    rules = {"best": {"top": 0.5, "of": "s"}, "not7": "caption not like '%7'"}
    context, plan, _ = curate(tmp_path, table, ENTRIES, rules=rules)
    captions = table["caption"].to_pylist()
    expected = cut([None] * len(table), table["s"].to_pylist(), 0.5, "best")
    expected = [rule or ("not7" if text.endswith("7") else None) for rule, text in zip(expected, captions, strict=True)]
    expected = [
        rule or (None if any(f" {entry} " in f" {text} " for entry in ENTRIES) else "unmatched")
        for rule, text in zip(expected, captions, strict=True)
    ]
    assert expected.count("unmatched") > 0
    assert rules_of(context, plan) == expected


def test_unmatched_without_rules_and_no_unmatched_without_match(tmp_path):
    table = pa.table({"caption": ["a cat", "nothing", None]})
    context, plan, _ = curate(tmp_path, table, ENTRIES)
    assert rules_of(context, plan) == [None, "unmatched", "failed"]
    context, plan, verdicts = curate(tmp_path, table)
    assert rules_of(context, plan) == [None, None, "failed"]
    assert verdicts == [] and decisions(context, plan)["draw"].null_count == 3
    assert decisions(context, plan)["probability"].to_pylist() == [1, 1, 0]


def test_duplicates_name_the_row_that_stands_for_them(tmp_path):
    big, small = "f" * 32, "0" * 31 + "1"
    table = pa.table(
        {
            "uid": [big, small, None, big, None, small, "a" * 32],
            "caption": ["one", "two", "three", "one", "three", "dropped before", "four"],
        }
    )
    context, plan, _ = curate(tmp_path, table, rules={"no": "caption <> 'dropped before'"})
    made = content_uid(None, None, "three")
    found = decisions(context, plan).to_pylist()
    assert sum(row["kept"] for row in found) == 4
    assert sorted(row["uid"] for row in found if row["kept"]) == sorted([big, small, made, "a" * 32])
    assert [row["rule"] for row in found if row["uid"] == small] == [None, "no"]
    for row in found:
        assert row["duplicate_of"] == (row["uid"] if row["rule"] == "duplicate" else None)


def test_the_preferred_duplicate_stays(tmp_path):
    table = pa.table({"uid": ["a" * 32] * 4 + ["b" * 32], "caption": list("wxyzv"), "s": [0.1, 0.9, None, 0.5, 0.2]})
    context, plan, _ = curate(tmp_path, table, dedup={"prefer": "s"})
    assert rules_of(context, plan) == ["duplicate", None, "duplicate", "duplicate", None]


@pytest.mark.parametrize("t", [1, 5, 30, 10_000])
def test_balance(tmp_path, t):
    table = pets()
    context, plan, verdicts = curate(tmp_path, table, ENTRIES, files=3, balance={"t": t}, seed=3)
    found = decisions(context, plan).to_pylist()
    matched = [[i for i, e in enumerate(ENTRIES) if f" {e} " in f" {text} "] for text in table["caption"].to_pylist()]
    counts = np.bincount([i for row in matched for i in row], minlength=len(ENTRIES))
    for row, entries in zip(found, matched, strict=True):
        pi = 1 - np.prod([1 - t / max(counts[i], t) for i in entries]) if entries else 0
        assert row["probability"] == pytest.approx(pi)
        assert (row["rule"] == "unmatched") == (not entries)
        if any(counts[i] <= t for i in entries):
            assert row["kept"] and row["probability"] == 1
    # what the units report: rows of each entry, expected and kept
    sums = np.sum(verdicts, axis=0)
    expected = [
        sum(row["probability"] for row, entries in zip(found, matched, strict=True) if i in entries)
        for i in range(len(ENTRIES))
    ]
    assert sums[0] / 2**32 == pytest.approx(expected, abs=1e-6)
    assert sums[1].tolist() == [
        sum(row["kept"] for row, e in zip(found, matched, strict=True) if i in e) for i in range(len(ENTRIES))
    ]
    if t == 1:
        assert "balance" in [row["rule"] for row in found]


def test_counts_are_of_survivors_only(tmp_path):
    table = pa.table({"caption": [f"cat {i}" for i in range(10)] + [f"cat dropped {i}" for i in range(90)]})
    rules = {"no": "caption not like '%dropped%'"}
    context, plan, _ = curate(tmp_path, table, ["cat"], rules=rules, balance={"t": 10})
    assert decisions(context, plan)["probability"].to_pylist() == [1.0] * 10 + [0.0] * 90
    read = DecideSettings.of(context)
    pool = np.sum(
        [entry_sums.sparse_counts(read_matches(read.tables(unit)), 1).dense(1) for unit in plan.units], axis=0
    )
    assert pool.tolist() == [100]


def test_sums_of_expected_rows_agree_with_the_probabilities(tmp_path):
    context, plan, _ = curate(tmp_path, pets(), ENTRIES, files=2, balance={"t": 20})
    read = DecideSettings.of(context)
    states = decide_in_process(read, context, plan.units)
    counts = states.value(count_alive(states, read))
    ts = np.array([1, 20, 1000], np.int64)
    matches = [read.rows_left(read.tables(state.unit), state).matches for state in states.elements]
    sums = np.sum([inclusion.expected_rows(part, counts, ts[:, None]) for part in matches], axis=0)
    probabilities = decisions(context, plan)["probability"].to_numpy()
    assert int(sums[1]) == int(inclusion.fixed_point(probabilities).sum())
    assert sums[0] < sums[1] < sums[2]


def test_nothing_depends_on_how_the_pool_is_cut(tmp_path, monkeypatch):
    table = pets().append_column("uid", pa.array([f"{i * 7919 % 350:032x}" for i in range(400)]))
    found = []
    for files, least in ((1, 1000), (4, 50), (13, 7)):
        folder = tmp_path / str(files)
        folder.mkdir()
        monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (least, least))
        rules = {"best": {"top": 0.8, "of": "s"}}
        context, plan, _ = curate(folder, table, ENTRIES, files=files, rules=rules, balance={"t": 40})
        columns = decisions(context, plan).drop_columns(["unit", "row"]).to_pylist()
        found.append(sorted(str(row) for row in columns))
    assert found[0] == found[1] == found[2]
    assert {"duplicate", "balance", "best", "unmatched"} <= {
        str(row).split("'rule': '")[-1].split("'")[0] for row in found[0]
    }


def test_what_stands_is_not_decided_again(tmp_path):
    context, plan, first = curate(tmp_path, pets(), ENTRIES, balance={"t": 20})
    name = context.unit_tables(plan.units[0]).file("decisions")
    before = context.store.read_bytes(name)
    fingerprint = (Path(context.store.path(name))).stat().st_mtime_ns
    [again] = decide(context, plan)
    assert context.store.read_bytes(name) == before and Path(context.store.path(name)).stat().st_mtime_ns == fingerprint
    assert np.array_equal(again, first[0])


def test_an_empty_pool(tmp_path):
    table = pa.table({"caption": pa.array([], pa.string()), "s": pa.array([], pa.float32())})
    context, plan, _ = curate(tmp_path, table, ENTRIES, rules={"best": {"top": 0.5, "of": "s"}}, balance={"t": 2})
    assert rules_of(context, plan) == []
