"""The connection that evaluates expressions reaches no file; errors and NaN become NULL."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.decide.rules.rules import Rule, first_failed
from curate.expressions import evaluate
from tests.expressions.tables import SECRET, table

STATEMENTS = [
    "SELECT content FROM read_text('{0}')", "SELECT content FROM read_blob('{0}')", "FROM '{0}'",
    "FROM read_csv('{0}')", "FROM read_json_auto('{0}')", "FROM read_parquet('{0}')", "FROM parquet_metadata('{0}')",
    "FROM sniff_csv('{0}')", "FROM glob('{1}/*')", "FROM query('FROM ''{0}''')", "COPY (SELECT 1) TO '{1}/new'",
    "WITH x AS (COPY (SELECT 1) TO '{1}/new') SELECT 1", "ATTACH '{1}/new' AS db", "EXPORT DATABASE '{1}/new'",
    "IMPORT DATABASE '{1}'", "INSTALL httpfs", "LOAD '{0}'", "SET enable_external_access = true",
    "SET allowed_paths = ['{0}']", "SET temp_directory = '{1}/new'", "SET log_query_path = '{1}/new'",
    "PRAGMA enable_profiling; PRAGMA profiling_output = '{1}/new'", "RESET lock_configuration",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b'); FROM 's3://a/b.parquet'", "FROM secret_table",
]  # fmt: skip


@pytest.mark.parametrize("sql", STATEMENTS)
def test_the_connection_cannot_reach_files_either(sql, secret):
    secret_table = pa.table({"secret": [SECRET]})  # noqa: F841
    with pytest.raises(duckdb.Error) as caught:
        evaluate.connect().execute(sql.format(*secret)).fetchall()
    assert SECRET not in str(caught.value)
    assert [path.name for path in Path(secret[1]).iterdir()] == ["secret.txt"]
    assert evaluate.evaluate("words > 2", table(words=[3])).tolist() == [True]  # and it still works


def test_counts_are_bounded():
    rows = table(words=[-3, 2, 90, None, 2**31 - 1])
    assert evaluate.count_values("words * 2", rows, 100).tolist() == [0, 4, 100, 0, 0]  # the last one is an error
    assert evaluate.count_values("words", rows[:0], 100).dtype == np.int32


def test_compute_gives_null_for_an_error():
    column = evaluate.compute("caption::int", pa.int64(), table(caption=["1", "x", None]))
    assert column.to_pylist() == [1, None, None] and column.type == pa.int64()


@pytest.mark.parametrize("ratio", ["a / b", "a % b", "ln(a)", "sqrt(b)"])
def test_what_is_no_number_passes_no_rule(ratio):
    """DuckDB orders NaN above all numbers."""
    columns = pa.table({"a": [0.0, 2.0, -1.0], "b": [0.0, 1.0, -1.0]})
    values = evaluate.compute(ratio, pa.float64(), columns).to_pylist()
    assert None in values and np.isfinite([value for value in values if value is not None]).all()
    failed = first_failed((Rule("ratio", f"{ratio} >= -9", ("a", "b")),), columns)
    assert failed.tolist() == [0 if value is None else -1 for value in values]
