"""`balance.one_per`: one text of each image may be drawn, against a naive definition, over seeds, and in what-if."""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.whatif.surviving import choose, find_survivors, open_finished
from curate.base import ids
from curate.base.stages import CODES, OTHER_TEXT
from curate.decide.decide_rows import drop_duplicate_captions
from curate.decide.draw.selection import texts_error
from curate.decide.unit_state import SURVIVING
from curate.run.in_process import InProcessUnits
from tests import kit
from tests.ask.whatif.asked import whatif
from tests.decide.draw import languages


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
    """The rows of a run that are left when balancing begins, and what becomes of them naively."""

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

    def chosen(self, seed):
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
    chosen = left.chosen(0)
    assert [row["rule"] != "other_text" for row in left.rows] == chosen
    assert [row["draw"] is not None for row in left.rows] == chosen
    counts = Counter(entry for row in left.entries for entry in row)
    entries = run.table("entries").to_pylist()
    assert [row["survivors"] for row in entries] == [counts[row["entry"]] for row in entries]
    ts = languages.naive_ts(languages.counts_of(left.entries), 20)
    assert run.run["t_by_language"] == ts
    pi = np.array(languages.naive_probabilities(left.entries, ts)) / left.texts
    assert [row["probability"] for row in left.rows] == pytest.approx(pi)
    assert abs(run.counts["kept"] - sum(pi)) < 4 * math.sqrt(left.variance(pi))
    expected = defaultdict(float)
    for row, p in zip(left.entries, pi, strict=True):
        for entry in row:
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


@pytest.mark.thorough
@pytest.mark.parametrize("section", [{"t": None, "rows": 250}, {"t": None, "tail_share": 0.3}])
def test_a_solved_t(folder, section):
    run = kit.run_local(recipe_of(folder, **section), folder / f"{section}")
    left, t = Left(run), run.run["t"]
    if "rows" in section:
        counts = languages.counts_of(left.entries)
        sizes = {
            t: sum(languages.naive_probabilities(left.entries, languages.naive_ts(counts, t)) / left.texts)
            for t in range(1, 300)
        }
        assert t == max(t for t, size in sizes.items() if size <= 250)
    assert whatif(str(run.folder), []).expected == pytest.approx(sum(row["probability"] for row in left.rows))


def test_what_if_is_what_a_run_does(folder, run):
    plain = kit.run_local(recipe_of(folder, one_per=None), folder / "plain")
    left = Left(run)
    pi = [row["probability"] for row in left.rows]
    found = whatif(str(plain.folder), ["balance.one_per=url"])
    assert found.expected == pytest.approx(sum(pi)) and found.error == pytest.approx(math.sqrt(left.variance(pi)))
    lines = {row["rule"]: row for row in found.funnel.to_pylist()}
    assert lines["other_text"]["whatif"] == -run.counts["other_text"] and lines["other_text"]["run"] is None
    assert sum(row["whatif"] for row in lines.values() if row["kind"] != "kept") == pytest.approx(found.expected)
    same, back = whatif(str(run.folder), []), whatif(str(run.folder), ["balance.one_per=null"])
    assert same.is_same and same.expected == pytest.approx(found.expected)
    assert same.fact("survivors") == back.fact("survivors") == len(left.rows)
    assert back.expected == pytest.approx(sum(row["probability"] or 0 for row in plain.table("decisions").to_pylist()))
    rule = whatif(str(run.folder), ["rules.long=words > 2"])
    rerun = kit.run_local(recipe_of(folder).model_copy(update={"rules": {"long": "words > 2"}}), folder / "rerun")
    assert rule.expected == pytest.approx(sum(rerun.table("decisions")["probability"].to_pylist()))
    assert -rerun.counts["other_text"] == next(
        row["whatif"] for row in rule.funnel.to_pylist() if row["rule"] == "other_text"
    )


def test_rows_are_kept_as_often_as_they_should_and_estimate_all_texts(run):
    """Over 200 seeds: each row, their number, and Horvitz-Thompson estimates of rows, in all and of those of images with several."""
    opened = open_finished(str(run.folder))
    survivors = find_survivors(opened, opened.recipe)
    choice = choose(survivors, opened.recipe)
    assert choice is not None
    kept, seeds = [], 200
    for seed in range(seeds):
        settings = replace(survivors.settings, recipe=opened.recipe.model_copy(update={"seed": seed}))
        again = [
            replace(state, texts=None, verdicts=np.where(state.eligible, np.int16(SURVIVING), state.verdicts))
            for state in survivors.states
        ]
        units = InProcessUnits(again, opened.context)
        drop_duplicate_captions(units, settings)
        drawn = []
        for state in units.elements:
            rows = settings.rows_left(settings.tables(state.unit), state)
            drawn.append((choice.draws(rows) < 1) & (state.verdicts[state.eligible] != CODES[OTHER_TEXT]))
        kept.append(np.concatenate(drawn))
    matrix, left = np.array(kept), Left(run)
    pi = np.array([row["probability"] for row in left.rows])
    times = matrix.sum(axis=0)
    assert (times[pi == 1] == seeds).all()
    drawn_rows = pi < 1
    scores = (times - seeds * pi)[drawn_rows] / np.sqrt(seeds * pi * (1 - pi))[drawn_rows]
    assert (
        abs(scores).max() < 5 and abs((scores**2).mean() - 1) < 0.25
    )  # 800 rows: 4 standard errors are too few for all
    variance = left.variance(pi)
    assert abs(matrix.sum() - seeds * pi.sum()) < 4 * math.sqrt(seeds * variance)
    assert texts_error(survivors.rows, [choice.inclusion(rows) for rows in survivors.rows]) == pytest.approx(
        math.sqrt(variance)
    )
    for weights in (np.ones(len(pi)), left.texts > 1):
        estimates = matrix @ (weights / pi)
        of_images = [
            (sum(weights[i] ** 2 / pi[i] for i in rows) - sum(weights[i] for i in rows) ** 2)
            for rows in left.images.values()
        ]
        assert abs(estimates.mean() - weights.sum()) < 4 * math.sqrt(sum(of_images) / seeds)


def test_people_are_told(run):
    left = Left(run)
    row = next(row for row in left.rows if row["rule"] == "other_text")
    page = str(Run(str(run.folder)).explain(row["uid"]))
    assert "verdict: dropped by other_text, another text of its image is the one that may be drawn" in page
    other = next(left.rows[i] for i in left.images[row["url"]] if left.rows[i]["rule"] != "other_text")
    assert other["uid"] in page
    funnel = {line["rule"]: line["dropped"] for line in Run(str(run.folder)).sql("funnel").to_pylist()}
    assert funnel["other_text"] == run.counts["other_text"]
    [estimate] = Run(str(run.folder)).sql("estimate").to_pylist()
    assert estimate["survivors"] == len(left.rows)


def test_images_without_a_url_are_on_their_own_and_images_may_be_told_by_their_bytes(tmp_path):
    pictures = [kit.encode(kit.picture(i), "PNG") for i in range(3)]
    rows = [
        {"image": pictures[i % 3], "caption": f"a {('dog', 'cat')[i % 2]} {i}", "url": (None, "", "u://1")[i // 4]}
        for i in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    (tmp_path / "entries.txt").write_text("dog\ncat")
    match = {"metadata": str(tmp_path / "entries.txt")}
    for one_per, images in (("url", 8 + 1), ("image", 3)):
        balance = {"t": 100, "one_per": one_per}
        recipe = kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet", match=match, balance=balance)
        run = kit.run_local(recipe, tmp_path / one_per)
        kit.conserved(run)
        assert run.counts["kept"] == images and run.counts["other_text"] == 12 - images
        left = Left(run, {"url": "url", "image": "sha256"}[one_per])
        assert [row["rule"] is None for row in left.rows] == left.chosen(0)
