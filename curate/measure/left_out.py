"""A unit's tables without the rows that are tried again, made of those with them: nothing is read or measured for it.

In: a unit whose parts leave rows out, and its tables as they were before, in the run's folder or the one to reuse. Out:
the same tables without these rows, under the unit's new keys. Where a table was not there before, the unit is measured.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading
from curate.store.tables import UnitTables, as_made


def leave_out(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> None:
    """Write the tables that are not current yet, `samples` last."""
    if not any(part.left_out for part in unit.parts):
        return
    before = replace(unit, parts=tuple(replace(part, left_out=()) for part in unit.parts))
    rows = tables.find("samples", settings.key("samples", before))
    if rows is None:
        return
    source = settings.source(unit)
    downloading = find_downloading(source)
    assert downloading is not None  # no other format's parts leave rows out
    keys = [key for part in unit.parts for key in downloading.left_out_keys(source, part)]
    stay = pc.invert(pc.is_in(rows.read("samples", ["key"])["key"], pa.array(keys, pa.string())))
    for name in sorted(settings.tables, key=lambda name: name == "samples"):
        place = tables.find(name, settings.key(name, before))
        if place is None or tables.is_current(name, key := settings.key(name, unit)):
            continue
        table, note = as_made(place.read(name)).filter(stay), place.note(name)
        for column, numbers in (("unit", np.full(len(table), unit.index)), ("row", np.arange(len(table)))):
            field = schema.SAMPLES.field(column)
            number_column = pa.array(numbers, field.type)
            table = table.set_column(table.schema.get_field_index(column), field, number_column)
        if "signals" in note:
            note["signals"] = settings.signal_keys(unit)
        if "rows" in note:  # of each part
            ends = np.cumsum([0, *note["rows"]])
            note["rows"] = np.diff(np.cumsum([0, *np.asarray(stay)])[ends]).tolist()
        tables.write(name, table.combine_chunks(), key, note)
