"""Computes a count for each decided row from an expression: texts of a caption kind, or repeats in the curated set.

In: rows of a unit. Out: int32[rows]. Expressions see the columns of rules, and columns about the decision.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import F64, I32, I64
from curate.base.schema import define
from curate.expressions.check import CheckedExpression
from curate.expressions.evaluate import count_values

# Further columns for such expressions: π, the number of entries in the caption, and the smallest of their counts among
# the remaining rows.
DECIDED = define(probability=pa.float64(), entries=pa.int32(), rarest=pa.int64())
Read = Callable[[list[str]], pa.Table]  # names of columns → table of all rows of a unit
_NO_ENTRY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class RowFacts:
    """Facts about rows of a decided unit."""

    rows: I64  # [n], their positions in the unit
    probability: F64  # [n], of being kept by balancing; NaN if it was not random
    entry_ids: pa.Array | None  # list<int32>, the entries in each caption; None without match
    counts: I64 | None  # [entries], remaining rows of each entry; None without match


def count_columns(visible: pa.Schema, has_entries: bool) -> pa.Schema:
    """Return the columns for such expressions: those `visible` to rules, and those of DECIDED with other names."""
    names = {name.lower() for name in visible.names}
    decided = [field for field in DECIDED if has_entries or field.name == "probability"]
    return pa.schema([*visible, *(field for field in decided if field.name not in names)])


def count_rows(expression: CheckedExpression, visible: pa.Schema, read: Read, facts: RowFacts, highest: int) -> I32:
    """Return an expression's values, 0 to `highest`, 0 if it is NULL or fails; `read` reads columns of all rows."""
    read_names = [name for name in expression.columns if name in visible.names]
    table = read(read_names or ["row"]).take(pa.array(facts.rows, pa.int64()))
    decided = {"probability": pa.array(facts.probability, mask=np.isnan(facts.probability))}
    if facts.entry_ids is not None and facts.counts is not None:
        lengths = pc.fill_null(pc.list_value_length(facts.entry_ids), 0)
        rarest = np.full(len(facts.rows), _NO_ENTRY, np.int64)
        of_row = np.repeat(np.arange(len(facts.rows)), lengths.to_numpy(zero_copy_only=False))
        np.minimum.at(rarest, of_row, facts.counts[pc.list_flatten(facts.entry_ids).to_numpy(zero_copy_only=False)])
        decided |= {"entries": lengths, "rarest": pa.array(rarest, mask=rarest == _NO_ENTRY)}
    for name in expression.columns:
        if name not in read_names:
            table = table.append_column(name, decided[name])
    return count_values(expression.sql, table, highest)
