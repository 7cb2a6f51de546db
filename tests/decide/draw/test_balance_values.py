"""Balance over the values of a column: as over entries, of which each row has just one."""

from collections import Counter

import numpy as np
import pytest

from curate.ask.explain import explain_sample
from curate.ask.whatif.answer import answer
from curate.ask.whatif.estimate import estimate
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import sweep
from curate.ask.whatif.swept_number import parse_swept_number
from curate.cli.summary import summary
from pipelines.prepare import prepare
from tests import kit

T = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pool of which some rows have a tag."""
    rng, rows = np.random.default_rng(3), kit.make_rows(600)
    tags = rng.choice(["dog", "cat", "boat", "\u00e9t\u00e9"], len(rows), p=[0.6, 0.3, 0.07, 0.03]).tolist()
    tagged = rows.append_column("tag", [[None if place % 20 == 0 else tag for place, tag in enumerate(tags)]])
    return kit.write_parquets(tmp_path_factory.mktemp("values") / "pool", tagged, 3, 100)


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    recipe = kit.recipe_of(path, "parquet", balance={"of": "tag", "t": T})
    return kit.run_local(recipe, tmp_path_factory.mktemp("run") / "run")


def left(run):
    """The tag and decision of each row left."""
    pairs = zip(run.table("scores")["tag"].to_pylist(), run.table("decisions").to_pylist(), strict=True)
    return [(tag, row) for tag, row in pairs if row["kept"] or row["rule"] == "balance"]


def test_each_value_is_thinned_to_about_t(run):
    kit.conserved(run)
    counts = Counter(tag for tag, _ in left(run))
    kept = Counter(tag for tag, row in left(run) if row["kept"])
    assert counts["\u00e9t\u00e9"] < T < counts["boat"] + 20 and kept[None] == 0 and run.run["t"] == T
    for tag, row in left(run):
        expected = 0 if tag is None else min(1, T / counts[tag])
        assert row["probability"] == pytest.approx(expected) and row["kept"] == (row["draw"] < 1)  # type: ignore[operator]
    for tag in ("dog", "cat", "boat"):
        p = min(1, T / counts[tag])
        assert abs(kept[tag] - p * counts[tag]) <= 4 * (p * (1 - p) * counts[tag]) ** 0.5
    assert kept["\u00e9t\u00e9"] == counts["\u00e9t\u00e9"]


def test_it_nests_and_is_that_of_entries(run, path, tmp_path):
    """A larger t keeps the same rows and more; the same draws as if the values were entries that captions hold."""
    more = kit.run_local(kit.recipe_of(path, "parquet", balance={"of": "tag", "t": 2 * T}), tmp_path / "more")
    few, many = ({row["uid"] for _, row in left(of) if row["kept"]} for of in (run, more))
    assert few < many


def test_a_size_is_solved(path, tmp_path):
    recipe = kit.recipe_of(path, "parquet", balance={"of": "tag", "rows": 150})
    solved = kit.run_local(recipe, tmp_path / "rows")
    counts = Counter(tag for tag, _ in left(solved) if tag)
    t = solved.run["t"]
    assert sum(min(t, n) for n in counts.values()) <= 150 < sum(min(t + 1, n) for n in counts.values())
    beam = kit.run_beam(recipe, tmp_path / "beam")
    assert kit.lasting_files(beam.folder) == kit.lasting_files(solved.folder)
    shared = kit.run_local(kit.recipe_of(path, "parquet", balance={"of": "tag", "tail_share": 0.1}), tmp_path / "share")
    assert shared.run["t"] in counts.values()


def test_people_are_told_the_value(run, path, tmp_path):
    folder = str(run.folder)
    dropped = next(row["uid"] for tag, row in left(run) if tag == "dog" and not row["kept"])
    page = " ".join(str(explain_sample(folder, str(dropped))).split())
    assert "verdict: dropped by balance, its tag is dog, and its draw u/p = " in page
    assert "values of tag with more than t = 40 samples" in (run.folder / "README.md").read_text()
    assert "balance: t = 40" in "\n".join(summary(folder, 1.0).splitlines())
    found = answer(open_finished(folder), ["balance.t=20"])
    assert found.t == 20 and found.fact("tail_share") is not None
    counts = Counter(tag for tag, _ in left(run) if tag)
    assert found.expected == pytest.approx(sum(min(20, n) for n in counts.values()))
    points = list(sweep(open_finished(folder), [], parse_swept_number("balance.t=10,20,1000")))
    assert [point.expected for point in points] == pytest.approx(
        [sum(min(t, n) for n in counts.values()) for t in (10, 20, 1000)]
    )
    prepared = prepare(kit.recipe_of(path, "parquet", balance={"of": "tag", "t": T}), str(tmp_path / "out"))
    expected = estimate(prepared.context, prepared.plan.units, None)
    assert expected is not None and "t = 40" in expected.chosen
