"""Balancing per language: t of each language follows the published definitions, and runs decide by it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.api import Run
from curate.ask.diff import diff_runs
from curate.ask.report.page import write_report
from curate.base.errors import RecipeError, RunError
from curate.decide.draw import inclusion
from curate.decide.draw.schemes import PerLanguage
from curate.match.unit import Entries
from tests import kit
from tests.kit import languages
from tests.kit.whatif import whatif


def entries_of(counts):
    names = [name for name, of in counts.items() for _ in of]
    table = pa.table({"entry": [f"{i}" for i in range(len(names))], "source": names, "language": names})
    return Entries(table), np.array([count for of in counts.values() for count in of], np.int64)


def ts_of(scheme, ts, counts):
    entries, flat = entries_of(counts)
    limits = scheme.limits(ts, flat, entries)
    groups = scheme.groups(entries)
    first = {name: groups[list(entries.table["language"].to_pylist()).index(name)] for name in counts}
    return [{name: int(row[first[name]]) for name in counts} for row in limits]


COUNTS = st.lists(st.integers(0, 12) | st.integers(0, 10**6), min_size=1, max_size=12)
SOME = COUNTS.filter(any)


@given(SOME, st.dictionaries(st.sampled_from(["de", "ja", "tr"]), SOME), st.integers(1, 30) | st.integers(1, 10**6))
def test_each_t_is_that_of_the_published_functions_without_zero_counts(english, others, t):
    counts = {"en": english, **others}
    [found] = ts_of(PerLanguage(), [t], counts)
    assert found == languages.naive_ts(counts, t)
    for name, of in others.items():  # the published ones themselves differ where they choose a zero count
        published = languages.published_t(of, languages.published_share(english, t))
        assert found[name] == (published or min(count for count in of if count))


def test_a_t_of_zero_is_mended():
    counts = {"en": [0, 1, 99], "de": [0, 0, 3, 5, 7]}
    assert languages.published_t(counts["de"], languages.published_share(counts["en"], 1)) == 0  # and 0/0 is NaN
    assert ts_of(PerLanguage(), [1], counts) == [{"en": 1, "de": 3}]


def test_a_language_without_a_match_has_no_t_and_the_reference_language_needs_one():
    entries, flat = entries_of({"en": [4, 1], "de": [0, 0]})
    limits = PerLanguage().limits([2], flat, entries)
    assert limits.tolist() == [[2, 1]]
    assert [of.language for of in PerLanguage().languages(limits[0], flat, entries)] == ["en"]
    by_hand = PerLanguage(language="de", by_hand={"en": 3})  # so no t depends on the share of German
    assert by_hand.limits([2], flat, entries).tolist() == [[3, 2]]
    assert by_hand.languages(np.array([3, 2]), flat, entries)[1].t == 3
    with pytest.raises(RunError, match=r"balance.language is 'de', but no remaining row matches an entry"):
        PerLanguage(language="de").limits([2], flat, entries)
    none = np.zeros(4, np.int64)  # as where rules drop every row: nothing is drawn
    assert PerLanguage(language="de").limits([2], none, entries).tolist() == [[1, 2]]


def test_the_published_functions_are_no_inverses_and_that_stays():
    same = [1, 5, 1, 5, 3, 90]
    assert ts_of(PerLanguage(), [90], {"en": same, "de": same}) == [{"en": 90, "de": 5}]


LARGE = st.lists(st.integers(1, 3) | st.integers(1, 1 << 58), min_size=1, max_size=10)


@given(LARGE, LARGE, st.lists(st.integers(1, 1 << 59), min_size=2, max_size=20))
def test_limits_never_fall_as_t_grows_not_by_rounding_either(english, other, ts):
    near = [count + d for count in english for d in (0, 1)]
    found = ts_of(PerLanguage(), sorted([*ts, *near]), {"en": english, "de": other})
    for name in ("en", "de"):
        assert [row[name] for row in found] == sorted(row[name] for row in found)
        assert min(row[name] for row in found) >= 1
    entries, flat = entries_of({"en": english, "de": other})
    highest = PerLanguage().highest(flat, entries)
    [last] = ts_of(PerLanguage(), [highest], {"en": english, "de": other})
    assert last["en"] > max(english)
    if sum(english) < 1 << 50:
        assert last["de"] >= max(other)


def test_t_by_hand_and_a_share_of_the_tail():
    counts = {"en": [1, 2, 3, 40], "de": [2, 4, 60], "ja": [9, 9]}
    share = (1 + 2 + 3) / 46
    by_hand = PerLanguage(by_hand={"de": 7})
    assert ts_of(by_hand, [4, 9], counts) == [{"en": t, "de": 7, "ja": 9} for t in (4, 9)]
    entries, flat = entries_of(counts)
    given_share = PerLanguage(share=share)
    t = given_share.t_of_share(share, flat, entries)
    assert t == 40 == inclusion.tail_share_t(np.array(counts["en"]), share)
    assert ts_of(given_share, [t], counts) == ts_of(PerLanguage(), [t], counts)
    off = PerLanguage(share=0.5)  # uses the share itself instead of the share that the reference language's t has
    assert ts_of(off, [off.t_of_share(0.5, flat, entries)], counts) == [{"en": 40, "de": 4, "ja": 9}]


def test_a_norwegian_t_is_no_boolean(tmp_path):
    from curate.recipe.recipe import load_recipe

    (tmp_path / "recipe.yaml").write_text(
        "input: {name: pool, format: parquet, path: pool.parquet}\nmatch: {metadata: entries.parquet}\n"
        "balance: {scheme: per_language, language: no, t: {no: 5, de: 3}}\n"
    )
    section = load_recipe(str(tmp_path / "recipe.yaml")).balance
    assert section is not None and (section.language, section.t) == ("no", {"no": 5, "de": 3})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return languages.write_all(tmp_path_factory.mktemp("languages"))


def recipe_of(folder, shards=7, **section):
    return languages.recipe_of(folder / f"pool{shards}", folder / "entries.parquet", **section)


def left_of(run):
    """The rows that reach balancing, and their entries by name."""
    names = run.table("entries")["entry"].to_pylist()
    matches = run.table("matches")["entry_ids"].to_pylist()
    pairs = zip(run.table("decisions").to_pylist(), matches, strict=True)
    left = [(row, [names[e] for e in ids]) for row, ids in pairs if row["rule"] in (None, "balance")]
    return [row for row, _ in left], [entries for _, entries in left]


@pytest.mark.parametrize("section", [{"t": {"en": 20, "de": 5}}, {"rows": 300}, {"tail_share": 0.3}])
def test_a_run_decides_by_the_definition(folder, section):
    run = kit.run_local(recipe_of(folder, **section), folder / f"{section}")
    rows, entries = left_of(run)
    counts, t = languages.counts_of(entries), run.run["t"]
    if "tail_share" in section:
        share = section["tail_share"]
        ts = {name: languages.published_t([c for c in of if c], share) for name, of in counts.items()}
        ts["en"] = inclusion.tail_share_t(np.array(counts["en"]), share)
    else:
        ts = languages.naive_ts(counts, t) | (section["t"] if isinstance(section.get("t"), dict) else {})
    assert run.run["t_by_language"] == ts and next(iter(ts)) == "en" and ts["en"] == t
    pi = languages.naive_probabilities(entries, ts)
    assert [row["probability"] for row in rows] == pytest.approx(pi)
    assert [row["kept"] for row in rows] == [row["draw"] < 1 for row in rows]
    if "rows" in section:  # the largest t that gives at most the target
        sizes = [sum(languages.naive_probabilities(entries, languages.naive_ts(counts, n))) for n in (t, t + 1)]
        assert sizes[0] <= 300 < sizes[1]
    for row in run.table("entries").to_pylist():
        limit = ts.get(row["language"], 1)
        assert row["probability"] == pytest.approx(limit / max(limit, row["survivors"]))
    expected = whatif(str(run.folder), [])
    assert expected.expected == pytest.approx(sum(pi)) and expected.is_same


@pytest.mark.thorough
def test_what_if_diff_and_a_query_know_languages(folder):
    first = kit.run_local(recipe_of(folder, t=20), folder / "first")
    second = kit.run_local(recipe_of(folder, t=50, language="de"), folder / "second")
    found = whatif(str(first.folder), ["balance.t=50", "balance.language=de"])
    same = whatif(str(second.folder), [])
    assert found.expected == same.expected == pytest.approx(sum(second.table("decisions")["probability"].to_pylist()))
    old, new = (run.run["t_by_language"] for run in (first, second))
    assert found.choice.values["t_by_language"] == new
    settings = diff_runs(str(first.folder), str(second.folder)).settings.to_pylist()
    assert (str(old["tr"]), str(new["tr"])) in [(row["a"], row["b"]) for row in settings if row["key"] == "t.tr"]
    assert (old["tr"], new["tr"]) in [(row["run"], row["whatif"]) for row in found.facts.to_pylist()]
    with pytest.raises(RecipeError, match=r"'de' does not fit 20; accepted: .* --set 'balance.t=\{en: 20, de: …\}'"):
        whatif(str(first.folder), ["balance.t.de=5"])
    with pytest.raises(RecipeError, match=r"--language fr: no entry has this language; accepted: en, de, ja, tr, sw"):
        write_report(str(first.folder), language="fr")

    rows, entries = left_of(first)
    lines = {row["language"]: row for row in Run(str(first.folder)).sql("language_balance").to_pylist()}
    assert list(lines) == list(languages.SIZES)  # by matches
    counts = languages.counts_of(entries)
    for name, row in lines.items():
        kept = [decided["kept"] for decided, own in zip(rows, entries, strict=True) if own[0][:2] == name]
        matched = sum(map(bool, counts[name]))
        assert (row["t"], row["entries"], row["in_pool"]) == (old[name], languages.ENTRIES, matched)
        assert (row["survivors"], row["kept"], row["matches"]) == (len(kept), sum(kept), sum(counts[name]))
        assert row["head"] == sum(count > old[name] for count in counts[name])
        assert row["tail"] == sum(0 < count < old[name] for count in counts[name])
        assert row["tail_share"] == pytest.approx(languages.published_share(counts[name], old[name]))
    [choice] = Run(str(first.folder)).sql("balance_choices", at=20).to_pylist()  # of the language that t is of
    assert choice["tail_share"] == pytest.approx(lines["en"]["tail_share"])
