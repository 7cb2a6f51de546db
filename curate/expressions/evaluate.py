"""Evaluates checked SQL expressions over the rows of a table in DuckDB, with one connection per thread.

In: an Arrow table, and an expression that `curate.expressions.check` accepted. Out: one value per row. NULL is null. If
an expression fails in a row, for example in a cast, the value is NULL.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I32

_local = threading.local()  # its `connection`


def connect() -> Any:
    """Return this thread's DuckDB connection: in memory, one thread, UTC, locked settings, no access to files."""
    if not hasattr(_local, "connection"):
        _local.connection = duckdb.connect(":memory:")
        _local.connection.execute(
            "SET threads=1; SET TimeZone='UTC'; SET python_enable_replacements=false; "
            "SET ieee_floating_point_ops=false; "  # x / 0 is NULL: NaN and infinity would pass rules
            "SET enable_external_access=false; SET lock_configuration=true"
        )
    return _local.connection


def compute(sql: str, kind: pa.DataType, table: pa.Table) -> pa.ChunkedArray:
    """Return the value of an expression for each row of a table, as an Arrow array of type `kind`."""
    with _batch(table) as connection:
        answers: pa.Table = connection.sql(f"SELECT TRY(({sql}\n)) AS answer FROM batch").to_arrow_table()
    return answers["answer"].cast(kind)


def count_values(sql: str, table: pa.Table, highest: int) -> I32:
    """Return an expression's value as a count for each row, from 0 to `highest`; 0 if it is NULL or fails."""
    if not len(table):
        return np.zeros(0, np.int32)
    bounded = f"greatest(0, least({highest}, coalesce(TRY(({sql}\n)), 0)))::INTEGER"
    return np.asarray(evaluate(bounded, table), np.int32)


def query(sql: str, table: pa.Table) -> dict[str, Any]:
    """Return the columns that a query of a table, named `batch`, gives, as numpy arrays. NULLs are masked."""
    with _batch(table) as connection:
        return dict(connection.execute(sql).fetchnumpy())


def query_type(sql: str, table: pa.Table) -> str:
    """Return the SQL type of an expression, and its values over a table. Raises the error if a row fails."""
    with _batch(table) as connection:
        answer = connection.execute(f"SELECT ({sql}\n) AS answer FROM batch")
        kind = str(answer.description[0][1])
        answer.fetchall()
    return kind


@contextmanager
def _batch(table: pa.Table) -> Iterator[Any]:
    connection = connect()
    connection.register("batch", table)
    try:
        yield connection
    finally:
        connection.unregister("batch")


def evaluate(sql: str, table: pa.Table) -> Any:
    """Return the value of an expression for each row of a table, as a numpy array.

    NULLs are masked; errors are raised.
    """
    return query(f"SELECT {sql} AS answer FROM batch", table)["answer"]
