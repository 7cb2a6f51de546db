"""With `balance.one_per`, one text of each image may be drawn: runs and what-if follow a naive definition."""

import math
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base import ids
from tests import kit
from tests.kit import languages, metaclip
from tests.kit.whatif import whatif


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return languages.write_all(tmp_path_factory.mktemp("texts"))


def recipe_of(folder, shards=7, **section):
    section = {"t": 20, "one_per": "url", **section}
    return languages.recipe_of(folder / f"pool{shards}", folder / "entries.parquet", **section)


@pytest.fixture(scope="module")
def run(folder):
    return kit.run_local(recipe_of(folder), folder / "run")


class Left:
    """The rows of a run that reach balancing, and which of them may be drawn by the definition."""

    def __init__(self, run, column="url"):
        names = run.table("entries")["entry"].to_pylist()
        parts = (run.table(name).to_pylist() for name in ("samples", "matches", "decisions"))
        rows = [sample | match | decision for sample, match, decision in zip(*parts, strict=True)]
        self.rows = [row for row in rows if row["rule"] in (None, "balance", "other_text")]
        self.entries = [[names[e] for e in row["entry_ids"]] for row in self.rows]
        self.images = defaultdict(list)
        for i, row in enumerate(self.rows):
            self.images[row[column] or i].append(i)
        self.texts = np.array([len(self.images[row[column] or i]) for i, row in enumerate(self.rows)])

    def chosen(self, seed=0):
        hashes = ids.hash_uids(pa.array([row["uid"] for row in self.rows]), seed).tolist()
        first = {min(rows, key=lambda i: hashes[i]) for rows in self.images.values()}
        return [i in first for i in range(len(self.rows))]

    def variance(self, pi):
        sums = [sum(pi[i] for i in rows) for rows in self.images.values()]
        return sum(p * (1 - p) for p in sums)


def test_one_text_of_an_image_may_be_drawn_and_all_count(run):
    kit.conserved(run)
    left = Left(run)
    assert max(left.texts) >= 3 and run.counts["other_text"] == len(left.rows) - len(left.images) > 50
    counts = Counter(entry for row in left.entries for entry in row)
    entries = run.table("entries").to_pylist()
    assert [row["survivors"] for row in entries] == [counts[row["entry"]] for row in entries]
    ts = languages.naive_ts(languages.counts_of(left.entries), 20)
    assert run.run["t_by_language"] == ts
    pi = np.array(languages.naive_probabilities(left.entries, ts)) / left.texts
    assert [row["probability"] for row in left.rows] == pytest.approx(pi)
    limits, keys = {e: ts[e[:2]] for e in counts}, {e: ids.hash64(e) for e in counts}
    expected = defaultdict(float)
    for row, own, is_chosen, p in zip(left.rows, left.entries, left.chosen(), pi, strict=True):
        kept = metaclip.is_kept(row["uid"], own, counts, limits, keys, 0)
        assert row["rule"] == ((None if kept else "balance") if is_chosen else "other_text")
        assert (row["draw"] is not None) == is_chosen
        for entry in own:
            expected[entry] += p
    assert [row["expected"] for row in entries] == pytest.approx([expected[row["entry"]] for row in entries])


@pytest.mark.thorough
def test_decisions_are_the_same_for_any_sharding_and_on_beam(folder, run):
    runs = [run, *(kit.run_local(recipe_of(folder, n), folder / f"sharded{n}") for n in (1, 17))]
    runs += [kit.run_beam(recipe_of(folder, 17), folder / "beam", here=False)]
    names = ("uid", "rule", "probability", "draw")
    decided = [{row["uid"]: [row[n] for n in names] for row in of.table("decisions").to_pylist()} for of in runs]
    assert all(of == decided[0] for of in decided)
    assert [of.kept for of in runs[1:]] == [run.kept] * 3


def test_a_solved_t(folder):
    run = kit.run_local(recipe_of(folder, t=None, rows=250), folder / "solved")
    left, t = Left(run), run.run["t"]
    counts = languages.counts_of(left.entries)
    pi = [languages.naive_probabilities(left.entries, languages.naive_ts(counts, n)) for n in (t, t + 1)]
    assert sum(pi[0] / left.texts) <= 250 < sum(pi[1] / left.texts)
    assert whatif(str(run.folder), []).expected == pytest.approx(sum(row["probability"] for row in left.rows))


def test_what_if_is_what_a_run_does(folder, run):
    plain = kit.run_local(recipe_of(folder, one_per=None), folder / "plain")
    left = Left(run)
    pi = [row["probability"] for row in left.rows]
    found = whatif(str(plain.folder), ["balance.one_per=url"])
    assert found.expected == pytest.approx(sum(pi)) and found.error == pytest.approx(math.sqrt(left.variance(pi)))
    lines = {row["rule"]: row for row in found.funnel.to_pylist()}
    assert lines["other_text"]["whatif"] == -run.counts["other_text"] and lines["other_text"]["run"] is None
    same, back = whatif(str(run.folder), []), whatif(str(run.folder), ["balance.one_per=null"])
    assert same.is_same and same.expected == pytest.approx(found.expected)
    assert same.fact("survivors") == back.fact("survivors") == len(left.rows)
    assert back.expected == pytest.approx(sum(row["probability"] or 0 for row in plain.table("decisions").to_pylist()))
    rule = whatif(str(run.folder), ["rules.long=words > 2"])
    rerun = kit.run_local(recipe_of(folder).model_copy(update={"rules": {"long": "words > 2"}}), folder / "rerun")
    assert rule.expected == pytest.approx(sum(rerun.table("decisions")["probability"].to_pylist()))
    lines = {row["rule"]: row["whatif"] for row in rule.funnel.to_pylist()}
    assert lines["other_text"] == -rerun.counts["other_text"]


def test_explain_names_the_text_that_may_be_drawn(run):
    left = Left(run)
    row = next(row for row in left.rows if row["rule"] == "other_text")
    other = next(left.rows[i] for i in left.images[row["url"]] if left.rows[i]["rule"] != "other_text")
    page = str(Run(str(run.folder)).explain(row["uid"]))
    assert "dropped by other_text" in page and other["uid"] in page


def test_images_without_a_url_are_on_their_own_and_images_may_be_told_by_their_bytes(tmp_path):
    pictures = [kit.encode(kit.picture(i), "PNG") for i in range(3)]
    rows = [
        {"image": pictures[i % 3], "caption": f"a {('dog', 'cat')[i % 2]} {i}", "url": (None, "", "u://1")[i // 4]}
        for i in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    match = {"metadata": kit.write_metadata(tmp_path, ["dog", "cat"])}
    for one_per, images, column in (("url", 8 + 1, "url"), ("image", 3, "sha256")):
        balance = {"t": 100, "one_per": one_per}
        recipe = kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet", match=match, balance=balance)
        run = kit.run_local(recipe, tmp_path / one_per)
        kit.conserved(run)
        assert run.counts["kept"] == images and run.counts["other_text"] == 12 - images
        left = Left(run, column)
        assert [row["rule"] is None for row in left.rows] == left.chosen()
