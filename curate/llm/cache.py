"""Caches a model's answers: from this run, from the run to reuse, and from a unit in progress.

An answered request is never sent again; its key is its digest (see `Request`). The cache looks in the unit's table
`answers` and its parts in `parts/`, then in those of the run to reuse. That run's other units are in an index of
digests, 24 bytes each, built once per process. Failed requests are sent again. New answers are written to parts
immediately or, in an object store, where each write costs requests, once a minute.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import I32, I64, U64, Mask
from curate.base.process import process_cache
from curate.llm.engine import Answer, Request
from curate.store import checkpoints
from curate.store.checkpoints import begin_files, begun_files, delete_files
from curate.store.layout import ANSWER_PARTS, RUN_FILE, unit_parts
from curate.store.store import RunStore
from curate.store.tables import ChunkTables, UnitTables
from curate.store.timings import Sent, log_sent, write_records
from curate.store.validity import valid_digest


class AnswerCache:
    """The cached and the new answers of a unit.

    `reuse` is the run to reuse, `is_new` says that the unit has no table `answers` yet, and `parts` are the files in
    its folder of parts. `on_part` is called after answers are written to a part.
    """

    def __init__(
        self, tables: UnitTables, reuse: RunStore | None, is_new: bool, parts: list[str], on_part: Callable[[], None]
    ) -> None:
        self._store, self._reuse, self._on_part = tables.store, reuse, on_part
        self._folder = unit_parts("answers", tables.unit)
        self._files = {name.rpartition("/")[2] for name in parts}
        self._answers: dict[str, Answer] = {}
        self._waiting, self._last = list[pa.Table](), time.monotonic()
        self._sent = defaultdict[tuple[str, str], Sent](Sent)  # by kind and engine, not recorded yet
        for other in tables.locations:
            if not (other is tables and is_new) and other.is_valid("answers"):
                self._learn(other.read("answers"))
            if not isinstance(other, ChunkTables):
                names = parts if other is tables else begun_files(other.store, unit_parts("answers", other.unit))
                self._learn_parts(other.store, names)

    def _learn_parts(self, store: RunStore, names: Sequence[str]) -> None:
        for name in names:
            if name.endswith(".parquet"):
                with suppress(FileNotFoundError):  # another attempt completed and deleted it
                    if valid_digest(store, name):
                        self._learn(store.read_parquet(name))
                    elif store == self._store:
                        store.delete(name)

    def find(self, digests: Sequence[str]) -> dict[str, Answer]:
        missing, reuse = [digest for digest in digests if digest not in self._answers], self._reuse
        if missing and reuse is not None:
            for name, rows in load_index(reuse).find(missing):
                self._learn(reuse.read_parquet(name).take(rows))
        return {digest: self._answers[digest] for digest in digests if digest in self._answers}

    def add(self, answers: pa.Table, seconds: float, kind: str, engine: str) -> None:
        """Add rows of `schema.ANSWERS`, which are written in batches; `seconds`: the engine's time for this kind."""
        self._waiting.append(answers)
        tokens = (pc.sum(answers[name]).as_py() or 0 for name in ("tokens_in", "tokens_out"))
        self._sent[kind, engine] = self._sent[kind, engine].plus(Sent(len(answers), seconds, *tokens))
        self._learn(answers)
        if self._store.is_local or time.monotonic() - self._last >= checkpoints.INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Write the waiting answers to a new part; other attempts may write their own parts."""
        if self._waiting:
            if not self._files:
                begin_files(self._store, self._folder)
            self._files.add(file := f"{uuid.uuid4().hex}.parquet")
            self._store.write_parquet(f"{self._folder}/{file}", pa.concat_tables(self._waiting))
            self._on_part()
            self._record()
            write_records()
        self._waiting, self._last = [], time.monotonic()

    def _record(self) -> None:
        for (kind, engine), sent in self._sent.items():
            log_sent(self._store, kind, engine, sent)
        self._sent.clear()

    def delete_parts(self) -> None:
        """Delete the unit's parts and waiting answers, once its table exists."""
        self._record()
        self._waiting = []
        if self._files:
            delete_files(self._store, self._folder, self._files)

    def _learn(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            if row["error"] is None:
                self._answers[row["digest"]] = Answer.of_row(row)


def delete_parts(tables: UnitTables) -> None:
    """Delete parts that a killed process left for a unit whose table exists."""
    folder = unit_parts("answers", tables.unit)
    if parts := begun_files(tables.store, folder):
        delete_files(tables.store, folder, {name.rpartition("/")[2] for name in parts})


def answer_table(requests: Sequence[Request], digests: Sequence[str], answers: Sequence[Answer]) -> pa.Table:
    """Return requests and their answers as table `answers`."""
    columns: dict[str, list[Any]] = {"digest": list(digests), "answer": [answer.text for answer in answers]}
    columns |= {name: [getattr(request, name) for request in requests] for name in ("uid", "kind", "style", "ordinal")}
    columns |= {name: [getattr(a, name) for a in answers] for name in ("tokens_in", "tokens_out", "finish", "error")}
    return pa.table(columns, schema=schema.ANSWERS)


class Index(NamedTuple):
    """The locations of a run's answers: the sorted first halves of digests, and the file and row of each.

    Half a digest is enough: among a billion answers, two have the same half with a probability of 3%. Then one of them
    is requested again.
    """

    names: list[str]
    halves: U64
    file: I32
    row: I32

    def find(self, digests: Sequence[str]) -> Iterator[tuple[str, I32]]:
        """Yield each file with the rows that answer some of the digests."""
        indices = self._locate(digests)
        held = indices[indices >= 0]
        for file in np.unique(self.file[held]):
            yield self.names[file], np.sort(self.row[held][self.file[held] == file])

    def holds(self, digests: Sequence[str]) -> Mask:
        return self._locate(digests) >= 0

    def _locate(self, digests: Sequence[str]) -> I64:
        halves, _ = ids.uid_halves(pa.array(digests, pa.string()))
        indices = np.searchsorted(self.halves, halves)
        return np.where(np.searchsorted(self.halves, halves, "right") > indices, indices, -1)


def load_index(store: RunStore) -> Index:
    """Return the index of a run's answers. Each process builds it once, and again if the run has changed."""
    of_run = f"index of answers {store.url} "
    state = ids.digest(store.read_json(RUN_FILE)) if store.exists(RUN_FILE) else ""
    return process_cache(of_run + state, lambda: index_answers(store), replaces=of_run)


def index_answers(store: RunStore) -> Index:
    """Return the locations of a run's answers."""
    files_of_run = (*store.files("tables/answers"), *store.files(ANSWER_PARTS))
    names = [name for name in files_of_run if name.endswith(".parquet")]
    halves, files, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for number, name in enumerate(names):
        table = store.read_parquet(name, ["digest", "error"])
        good = np.flatnonzero(table["error"].is_null()).astype(np.int32)
        halves.append(ids.uid_halves(table["digest"].take(good).combine_chunks())[0])
        files.append(np.full(len(good), number, np.int32))
        rows.append(good)
    all_halves = np.concatenate(halves)
    order = np.argsort(all_halves, kind="stable")
    return Index(names, all_halves[order], np.concatenate(files)[order], np.concatenate(rows)[order])
