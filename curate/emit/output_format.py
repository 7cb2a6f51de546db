"""The interface of output formats: how a shard's kept rows are written to files, and read again.

Each shard has `STEM.parquet`, one row per sample, and `STEM_stats.json`. A format may add a file for training,
`STEM.SUFFIX`; otherwise the Parquet file is the shard. The Parquet file is written last and has the key. A recipe
chooses a format by its key; by default, the first format that accepts the pool is used.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Set
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import U64
from curate.emit.layout import Shard
from curate.emit.settings import EmitSettings
from curate.recipe.output import OUTPUTS
from curate.store.facts import RunFacts
from curate.store.store import RunStore
from curate.store.tables import UnitTables
from curate.store.validity import valid_digest

JSON_DTYPE = "json_dtype"  # in a shard's statistics: the type of its samples' jsons, from `merge_dtypes`


class OutputFormat(ABC):
    """An output format. `STEM` is the path of a shard's files without suffix, such as shards/00000."""

    key: ClassVar[str]  # its name, unique among the formats
    suffix: ClassVar[str]  # of the shard's file in shards/sizes.json and in the manifest
    media_type: ClassVar[str]  # of that file
    file_set: ClassVar[tuple[str, str]]  # the files' name and content in dataset cards
    has_members: ClassVar[bool] = False  # whether samples are files KEY.SUFFIX; column `key` has KEY, unique in the run
    # Columns of the Parquet file with each sample's URL and images: pairs of a kind in `Items` and a column. Empty if
    # the file has the columns of the inputs
    item_columns: ClassVar[tuple[tuple[str, str], ...]] = ()
    tags: ClassVar[tuple[str, ...]] = ()  # of the dataset card
    # Columns that `datasets` adds to those of the files, with their types
    loader_columns: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def accepts(self, has_images: bool) -> bool:
        """Return whether this format accepts pools with or without images."""

    @abstractmethod
    def write(self, settings: EmitSettings, shard: Shard, repeated: U64, stats: dict[str, Any]) -> pa.Table:
        """Write the shard's own file, and return the rows of its Parquet file.

        `repeated` are the ascending hashes of names that several kept rows may have (see `name_hashes`); `stats`
        receives further fields for `STEM_stats.json`.
        """

    @abstractmethod
    def card_lines(self, shards: int) -> list[str]:
        """Return Markdown for the dataset card about this number of shards."""

    def files(self, stem: str) -> dict[str, bool]:
        """Return a shard's files in the order of writing, path → whether a row is a sample; Parquet is last."""
        return {f"{stem}.{self.suffix}": True, f"{stem}_stats.json": False, f"{stem}.parquet": True}

    def name_hashes(self, tables: UnitTables) -> U64:
        """Return xxh3-64 of the names that a unit's kept rows may get; names that repeat in the run are not used."""
        return np.zeros(0, np.uint64)

    def remove(self, store: RunStore, stem: str, removed: pa.Table) -> list[str]:
        """Rewrite the shard's own file without these rows of the Parquet file. Returns the written files."""
        return []

    def names(self, store: RunStore, stem: str) -> set[str] | None:
        """Return the names of the samples in the shard's own file; None if they have none."""
        return None

    def members(self, store: RunStore, stem: str, names: Set[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each member that is not a text.

        Yields them for the samples in `names`, or for all samples if it is None.
        """
        yield from ()


def find_output(key: str | None, has_images: bool) -> OutputFormat:
    """Return the format chosen by a recipe, by default the first for its pool. Raises RecipeError."""
    fitting = [kind for kind in OUTPUTS.kinds().values() if kind.accepts(has_images)]
    kind: OutputFormat = fitting[0] if key is None else OUTPUTS.find(key)
    if key and not kind.accepts(has_images):
        accepted = ", ".join(other.key for other in fitting)
        pools = f"pools {'with' if has_images else 'without'} images"
        raise RecipeError(f"output.format: {key} does not work for {pools}; accepted: {accepted}")
    return kind


def find_written(run: RunFacts) -> OutputFormat:
    """Return the format of a finished run's shards. Raises RecipeError if its package is not installed."""
    return find_output((run.recipe.get("output") or {}).get("format"), run.pool.images)


def emit_shard(settings: EmitSettings, shard: Shard, repeated: U64) -> Any:
    """Write the shard's files unless they are current; the Parquet file is last, and has the key.

    Returns the type of the samples' jsons (`JSON_DTYPE` in the statistics), None in formats without jsons. `repeated`
    is as in `OutputFormat.write`.
    """
    started, store = time.time(), settings.store
    kind = find_output(settings.output.format, settings.pool.has_images)
    parquet, files, statistics = f"{shard.stem}.parquet", kind.files(shard.stem), f"{shard.stem}_stats.json"
    # `shard_key` reads tables of each unit, so it is only called if a file may be current.
    written_key = store.key(parquet)
    is_current = bool(written_key) and written_key == settings.shard_key(shard)
    if is_current and all(store.exists(name) and valid_digest(store, name) for name in files):
        return store.read_json(statistics).get(JSON_DTYPE)
    facts: dict[str, Any] = {}  # `write` adds to it
    table = kind.write(settings, shard, repeated, facts)
    stats = {
        "count": shard.rows,
        "successes": shard.rows,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": time.time() - started,
        "start_time": started,
        "end_time": time.time(),
        "status_dict": {"success": shard.rows},
        **facts,
    }

    def is_written() -> bool:
        """Return whether another attempt wrote the statistics, with other times; then its file stays."""
        recorded = valid_digest(store, statistics, is_new=True)
        return recorded is not None and store.read_json(statistics).get("count") == shard.rows

    store.write_json(statistics, stats, keep=is_written)
    store.write_parquet(parquet, table, settings.shard_key(shard))
    return facts.get(JSON_DTYPE)
