"""Evaluate checked SQL expressions over the rows of a table, in DuckDB, with a connection for each thread.

In: an Arrow table and an expression that `curate.expressions.check` accepted. Out: one value a row. NULL is null; an
error on one row's value (a cast, say) is NULL.
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
    """Return this thread's DuckDB connection: in memory, one thread, no access to files, settings locked, UTC."""
    if not hasattr(_local, "connection"):
        _local.connection = duckdb.connect(":memory:")
        _local.connection.execute(
            "SET threads=1; SET TimeZone='UTC'; SET python_enable_replacements=false; "
            "SET ieee_floating_point_ops=false; "  # x / 0 is NULL: NaN and infinity would pass rules
            "SET enable_external_access=false; SET lock_configuration=true"
        )
    return _local.connection


def compute(sql: str, kind: pa.DataType, table: pa.Table) -> pa.ChunkedArray:
    """Return what an expression gives for each row of a table, as an array of a type."""
    with _batch(table) as connection:
        answers: pa.Table = connection.sql(f"SELECT TRY(({sql}\n)) AS answer FROM batch").to_arrow_table()
    return answers["answer"].cast(kind)


def count_values(sql: str, table: pa.Table, highest: int) -> I32:
    """Return what an expression of a count gives for each row, 0 to `highest`; 0 where it is NULL or fails."""
    if not len(table):
        return np.zeros(0, np.int32)
    bounded = f"greatest(0, least({highest}, coalesce(TRY(({sql}\n)), 0)))::INTEGER"
    return np.asarray(evaluate(bounded, table), np.int32)


def query(sql: str, table: pa.Table) -> dict[str, Any]:
    """Return the columns of the answer to a query of a table, which it calls `batch`, as numpy's; NULLs are masked."""
    with _batch(table) as connection:
        return dict(connection.execute(sql).fetchnumpy())


def query_type(sql: str, table: pa.Table) -> str:
    """Return the type in SQL of an expression, which is evaluated over a table, too. Errors of rows are raised."""
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
    """Return what an expression gives for each row of a table, as numpy's array; NULLs are masked, errors raised."""
    return query(f"SELECT {sql} AS answer FROM batch", table)["answer"]
