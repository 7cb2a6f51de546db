"""Derived columns equal those of numpy and of DuckDB's window functions, however the pool is cut."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.decide.units import curate, rules_of


def pool(rows=400):
    rng = np.random.default_rng(3)
    texts = [" ".join(["word"] * n) for n in rng.integers(1, 6, rows)]
    texts[::19] = [None] * len(texts[::19])
    a = np.round(rng.normal(size=rows), 1)
    a[5], a[6], a[7] = np.nan, np.inf, -np.inf
    columns = {"url": [f"http://x/{i}" for i in range(rows)], "text": pa.array(texts, pa.string())}
    columns["a"] = pa.array(a, pa.float32(), mask=rng.random(rows) < 0.1)
    return pa.table(columns | {"b": rng.lognormal(size=rows)})


DERIVE = {
    "z": "zscore(a)", "rank": "quantile(a)", "blend": "(zscore(b) + 2 * minmax(a) + quantile(ln(b)) + 0 * z * rank) / 4",
    "sure": "coalesce(a, 0) > 0.5", "nested": "zscore(rank * words)",
}  # fmt: skip
ORACLE = """
WITH x AS (SELECT *, reached AND a IS NOT NULL AND isfinite(a) AS known FROM rows),
y AS (SELECT *, CASE WHEN isfinite(a) THEN a::DOUBLE END AS f FROM x),
z AS (SELECT *,
    (f - (SELECT avg(f) FROM y WHERE known)) / (SELECT stddev_pop(f) FROM y WHERE known) AS z,
    (b - (SELECT avg(b) FROM y WHERE reached)) / (SELECT stddev_pop(b) FROM y WHERE reached) AS zb,
    (f - (SELECT min(f) FROM y WHERE known)) / (SELECT max(f) - min(f) FROM y WHERE known) AS m,
    (SELECT count(*) FILTER (o.f <= y.f) / count(o.f) FROM y o WHERE o.known) AS rank,
    (SELECT count(*) FILTER (o.b <= y.b) / count(o.b) FROM y o WHERE o.reached) AS rank_b FROM y)
SELECT z, (zb + 2 * m + CASE WHEN f IS NULL THEN NULL ELSE rank_b END) / 4 AS blend, CASE WHEN f IS NOT NULL THEN rank END AS rank,
    coalesce(a, 0) > 0.5 AS sure FROM z ORDER BY url
"""


def nan_for_null(values):
    return np.array([np.nan if value is None else value for value in values], np.float64)


@pytest.mark.thorough
@pytest.mark.parametrize("files", [1, 3])
def test_they_are_as_sql_has_them(files, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (70, 70) if files == 3 else (400, 400))
    rules = {"short": "words < 5", "best": {"top": 0.5, "of": "blend"}}
    rules |= {"other": "z > -1 and rank < 0.9 and nested > -3"}
    context, plan, _ = curate(tmp_path, pool(), files=files, derive=DERIVE, rules=rules)
    tables = [context.unit_tables(unit) for unit in plan.units]
    found = pa.concat_tables([one.read("derived") for one in tables])
    verdicts = rules_of(context, plan)
    assert {"short", "best", "other", None} <= set(verdicts)
    rows = pa.concat_tables([one.read_measured(["url", "a", "b", "words"]) for one in tables])
    reached = pa.array([name not in ("failed", "short") for name in verdicts])
    order = np.argsort(rows["url"].to_pylist())
    connection = duckdb.connect().from_arrow(rows.append_column("reached", reached))
    expected = connection.query("rows", ORACLE).to_arrow_table()
    for name in ("z", "blend", "rank"):
        assert found.schema.field(name).type == pa.float64()
        values = [nan_for_null(column.to_pylist()) for column in (found[name].take(pa.array(order)), expected[name])]
        np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-12)
    assert found["sure"].take(pa.array(order)).to_pylist() == expected["sure"].to_pylist()
    # The statistic of `nested` is over the rows that reach `other`, which uses it first.
    products = nan_for_null(found["rank"].to_pylist()) * nan_for_null(rows["words"].to_pylist())
    known = products[np.isin(verdicts, ["other", None])]
    scores = (products - np.nanmean(known)) / np.nanstd(known)
    np.testing.assert_allclose(nan_for_null(found["nested"].to_pylist()), scores, rtol=1e-12, atol=1e-12)


def test_all_equal_and_none_at_all(tmp_path):
    table = pool(40).set_column(2, "a", pa.array([0.25] * 40, pa.float32()))
    derive = {"z": "zscore(a)", "m": "minmax(a)", "q": "quantile(a)", "none": "zscore(sqrt(a - 1))"}
    context, plan, _ = curate(tmp_path, table, derive=derive)
    found = pa.concat_tables([context.unit_tables(unit).read("derived") for unit in plan.units])
    values = {name: set(found[name].to_pylist()) for name in derive}
    assert values == {"z": {0.0}, "m": {0.0}, "q": {1.0}, "none": {None}}


def test_what_is_no_number_is_null(tmp_path):
    """Infinity minus infinity is NaN, which a rule must not take for a large number."""
    derive, rules = {"difference": "a - a"}, {"least": "difference >= 0"}
    context, plan, _ = curate(tmp_path, pool(40), derive=derive, rules=rules)
    [unit] = plan.units
    values, inputs = context.unit_tables(unit).read("derived")["difference"], pool(40)["a"]
    expected = [0.0 if a is not None and np.isfinite(a) else None for a in inputs.to_pylist()]
    assert values.to_pylist() == expected and None in expected
    assert [rule == "least" for rule in rules_of(context, plan)] == [value is None for value in expected]


def test_the_preferred_duplicate_may_be_by_a_derived_column(tmp_path):
    table = pa.table({"url": ["u"] * 3, "text": ["x y z"] * 3, "uid": ["1" * 32] * 3, "a": [0.5, 0.25, 0.75]})
    for sql, expected in (
        ("zscore(a)", ["duplicate", "duplicate", None]),
        ("-zscore(a)", ["duplicate", None, "duplicate"]),
    ):
        assert rules_of(*curate(tmp_path, table, derive={"score": sql}, dedup={"prefer": "score"})) == expected
