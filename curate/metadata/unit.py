"""Table `matches` of a unit: which metadata entries each caption holds. The matcher is built once per process.

In: `samples.caption` and `samples.status`. Out: `entry_ids` list<int32>, ascending; empty where nothing matches or the
sample could not be read.
"""

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.metadata.match import Matcher
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.layout import ENTRIES_FILE, METADATA_FILE

_lock = threading.Lock()
_loaded: dict[str, "Entries"] = {}


@dataclass(frozen=True)
class Entries:
    """The metadata of a run, loaded: entries, their keys in draws, and the matcher, made when first asked for."""

    entries: pa.Array
    mode: str
    lock: threading.RLock = field(default_factory=threading.RLock)

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """`ids.entry_keys` of the entries."""
        return ids.entry_keys(self.entries)

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.entries, self.mode)

    @property
    def matcher(self) -> Matcher:
        """The matcher, built once."""
        with self.lock:
            return self._matcher


def load_entries(context: RunContext) -> Entries:
    """The run's metadata, loaded once per process; of a finished run as its entries list it."""
    assert context.recipe.match is not None
    with _lock:
        if context.metadata_key not in _loaded:
            _loaded.clear()  # one run at a time; another's metadata would only take memory
            file = METADATA_FILE if context.store.exists(METADATA_FILE) else ENTRIES_FILE
            table = context.store.read_parquet(file, ["entry"])
            _loaded[context.metadata_key] = Entries(table["entry"].combine_chunks(), context.recipe.match.mode)
        return _loaded[context.metadata_key]


def match_unit(context: RunContext, unit: Unit) -> Unit:
    """Writes the unit's `matches`, unless they stand."""
    key = context.matches_key(unit)
    if not context.is_current("matches", unit, key):
        samples = context.read("samples", unit, ["unit", "row", "uid", "caption", "status"])
        readable = pc.equal(samples["status"], schema.OK)
        captions = pc.if_else(readable, samples["caption"], pa.scalar(None, pa.string()))
        found = load_entries(context).matcher.match(captions.combine_chunks())
        table = samples.select(["unit", "row", "uid"]).append_column("entry_ids", found)
        # Samples without a key are measured again, with other rows perhaps: so are these.
        lasting = context.store.is_current(context.table("samples", unit), context.measure_key(unit))
        context.write("matches", unit, table.cast(schema.MATCHES), key if lasting else "")
    return unit
