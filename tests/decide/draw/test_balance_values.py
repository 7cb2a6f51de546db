"""Balancing over the values of a column is balancing over entries of which each row has one."""

from collections import Counter

import numpy as np
import pytest

from tests import kit

T = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pool in which some rows have no tag."""
    rng, rows = np.random.default_rng(3), kit.make_rows(600)
    tags = rng.choice(["dog", "cat", "boat", "\u00e9t\u00e9"], len(rows), p=[0.6, 0.3, 0.07, 0.03]).tolist()
    tagged = rows.append_column("tag", [[None if place % 20 == 0 else tag for place, tag in enumerate(tags)]])
    return kit.write_parquets(tmp_path_factory.mktemp("values") / "pool", tagged, 3, 100)


def balanced(path, folder, **section):
    return kit.run_local(kit.recipe_of(path, "parquet", balance={"of": "tag", **section}), folder / f"{section}")


def left(run):
    """The tag and decision of each row left."""
    pairs = zip(run.table("scores")["tag"].to_pylist(), run.table("decisions").to_pylist(), strict=True)
    return [(tag, row) for tag, row in pairs if row["kept"] or row["rule"] == "balance"]


def test_each_value_is_thinned_to_about_t(path, tmp_path):
    run, more = (balanced(path, tmp_path, t=t) for t in (T, 2 * T))
    kit.conserved(run)
    counts = Counter(tag for tag, _ in left(run))
    kept = Counter(tag for tag, row in left(run) if row["kept"])
    assert counts["été"] < T < counts["boat"] + 20 and kept[None] == 0 and run.run["t"] == T
    for tag, row in left(run):
        expected = 0 if tag is None else min(1, T / counts[tag])
        assert row["probability"] == pytest.approx(expected) and row["kept"] == (row["draw"] < 1)
    for tag in ("dog", "cat", "boat", "été"):
        p = min(1, T / counts[tag])
        assert abs(kept[tag] - p * counts[tag]) <= 4 * (p * (1 - p) * counts[tag]) ** 0.5
    few, many = ({row["uid"] for _, row in left(of) if row["kept"]} for of in (run, more))
    assert few < many


def test_a_size_and_a_share_of_the_tail_are_solved(path, tmp_path):
    sized, shared = balanced(path, tmp_path, rows=150), balanced(path, tmp_path, tail_share=0.1)
    counts, t = Counter(tag for tag, _ in left(sized) if tag), sized.run["t"]
    assert sum(min(t, n) for n in counts.values()) <= 150 < sum(min(t + 1, n) for n in counts.values())
    assert shared.run["t"] in counts.values()
