"""How many times a decided row counts, by a recipe's expression: texts of a caption kind, repeats in the curated set.

In: rows of a unit. Out: int32[rows]. Expressions see what rules see, and what is known of a row once it is decided.
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

# What such expressions see besides the columns that rules see: π, how many entries the caption has, and the least of
# their counts among the survivors.
DECIDED = define(probability=pa.float64(), entries=pa.int32(), rarest=pa.int64())
Read = Callable[[list[str]], pa.Table]  # from names of columns to a table of all rows of a unit
_NO_ENTRY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class RowFacts:
    """What is known of some rows of a decided unit."""

    rows: I64  # [n], their places in the unit
    probability: F64  # [n], that balancing keeps the row; NaN where it was not by chance
    entry_ids: pa.Array | None  # list<int32>, the entries that each caption holds; None without match
    counts: I64 | None  # [entries], rows of each entry among the survivors; None without match


def count_columns(visible: pa.Schema, has_entries: bool) -> pa.Schema:
    """Return the columns that such expressions see: `visible`, which rules see, and of DECIDED those of other names."""
    names = {name.lower() for name in visible.names}
    decided = [field for field in DECIDED if has_entries or field.name == "probability"]
    return pa.schema([*visible, *(field for field in decided if field.name not in names)])


def count_rows(expression: CheckedExpression, visible: pa.Schema, read: Read, facts: RowFacts, highest: int) -> I32:
    """Return an expression's values, 0 to `highest`, 0 where it is NULL or fails; `read` reads columns of all rows."""
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
