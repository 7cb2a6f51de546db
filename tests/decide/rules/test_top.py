"""Top rules follow their definition: a fraction or a number of the rows that reach them or of the pool, in all or by group."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RunError
from curate.base.numeric.quantiles import key_bits, order_keys
from curate.decide.rules.top import MAX_GROUPS, TopSearch, TopValues, add_counts
from curate.recipe.deciding import Top
from tests.decide.units import curate, rules_of

FORMS = [
    {"top": 0.3}, {"top": 1}, {"rows": 7}, {"top": 0.3, "over": "pool"}, {"rows": 40, "over": "pool"},
    {"top": 1, "over": "pool"}, {"top": 0.2, "over": "budget"}, {"top": 0.1, "by": "language", "over": "budget"},
    {"top": 0.4, "by": "language"}, {"rows": 3, "by": "language"}, {"top": 0.2, "by": "language", "over": "pool"},
    {"top": 0.5, "by": "words"},
]  # fmt: skip


def expected(spec, values, groups, reached):
    """Whether each row passes, by sorting each group."""
    passing = [False] * len(values)
    for group in set(groups):
        rows = [row for row in range(len(values)) if groups[row] == group]
        among = rows if spec.over == "pool" else [row for row in rows if reached[row]]
        known = sorted((values[row] for row in among if values[row] is not None), reverse=True)
        base = len(known) if spec.over == "reached" else len(rows)
        rank = spec.rows - 1 if spec.rows is not None else int(base * (spec.top or 0))
        rank = max(1, rank) - 1 if spec.over == "budget" and spec.rows is None else rank
        for row in rows if known else ():
            passing[row] = reached[row] and values[row] is not None and values[row] >= known[min(rank, len(known) - 1)]
    return passing


def pool(rows):
    rng = np.random.default_rng(5)
    words = [" ".join(["word"] * n) for n in rng.integers(1, 6, rows)]
    words[::17] = [None] * len(words[::17])  # rows that cannot be read, and have values
    return pa.table({
        "url": [f"http://x/{i}" for i in range(rows)], "text": pa.array(words, pa.string()),
        "language": rng.choice(["en", "de", "fr", None], rows, p=[0.6, 0.2, 0.1, 0.1]).tolist(),
        "s": pa.array(np.round(rng.normal(size=rows), 2), pa.float32(), mask=rng.random(rows) < 0.1),
        "large": rng.normal(size=rows) * 1e30,
    })  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "of"), [(FORMS[0], "large"), *((form, "s") for form in FORMS)], ids=str)
def test_it_is_as_defined(form, of, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (70, 70))
    rules = {"short": "words < 5", "best": {**form, "of": of}}
    table = pool(500)
    context, plan, _ = curate(tmp_path, table, files=2, rules=rules)
    assert len(plan.units) > 4
    found = rules_of(context, plan)
    samples = pa.concat_tables(
        context.unit_tables(unit).read_measured([of, "language", "words"]) for unit in plan.units
    )
    reached = [name in (None, "best", "duplicate") for name in found]
    groups = samples[form["by"]].to_pylist() if "by" in form else [0] * len(samples)
    passing = expected(Top(**form, of=of), samples[of].to_pylist(), groups, reached)
    assert [name in (None, "duplicate") for name in found] == passing
    assert sum(passing) > 0 and (form.get("top") == 1 or sum(passing) < sum(reached))


VALUES = st.one_of(st.none(), st.integers(-3, 3).map(float), st.floats(width=32, allow_nan=False))


@given(
    st.lists(st.tuples(VALUES, st.sampled_from(["a", "b", None]), st.booleans()), max_size=60),
    st.sampled_from(FORMS),
    st.integers(1, 5),
)
def test_any_values_in_any_number_of_parts(rows, form, parts):
    spec = Top(**({**form, "by": "g"} if "by" in form else form), of="s")
    pieces = [rows[i::parts] for i in range(parts)]
    found = [_values(piece, spec) for piece in pieces]
    alive = [np.array([row[2] for row in piece], bool) for piece in pieces]
    search = TopSearch("best", spec, pa.float32())
    for _ in range(search.rounds):
        total = {}
        for values, still in zip(found, alive, strict=True):
            total = add_counts(total, search.count(values, still))
        search = search.narrow(total)
    for piece, values, still in zip(pieces, found, alive, strict=True):
        groups = [row[1] if spec.by else 0 for row in rows]
        passing = expected(spec, [row[0] for row in rows], groups, [row[2] for row in rows])
        by_row = dict(zip(map(id, rows), passing, strict=True))
        assert (search.passing(values) & still).tolist() == [by_row[id(row)] for row in piece]


def _values(rows, spec):
    column = pa.chunked_array([pa.array([row[0] for row in rows], pa.float32())])
    groups = pa.chunked_array([pa.array([row[1] for row in rows], pa.string())])
    return TopValues.of(*order_keys(column, key_bits(pa.float32())), groups if spec.by else None)


def test_too_many_groups_are_an_error():
    spec = Top(top=0.5, of="s", by="g")
    search = TopSearch("best", spec, pa.float32())

    def count(names):
        rows = [(1.0, str(name), True) for name in names]
        return search.count(_values(rows, spec), np.ones(len(rows), bool))

    assert len(search.narrow(count(range(MAX_GROUPS))).searches or ()) == MAX_GROUPS
    both = add_counts(count(range(600)), count(range(500, 1500)))
    for counting in (lambda: count(range(MAX_GROUPS + 1)), lambda: search.narrow(both)):
        with pytest.raises(RunError, match=r"rules.best: g has more than 1,000 values; accepted: a column with"):
            counting()
