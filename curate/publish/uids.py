"""uids.npy: the kept uids in DataComp's subset format, sorted pairs of their high and low 64 bits (dtype `u8,u8`).

The file has each uid as often as the run repeats it. Source: DataComp's resharder (see its `--subset-file`). Units
split their uids into buckets. Each bucket is sorted separately, and the buckets are written in order, so the use of
memory depends only on the size of a bucket.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base import schema
from curate.base.ids import uid_halves
from curate.base.numeric.arrays import split_by, whole
from curate.pool.plan import Unit
from curate.run.units import Answer, SideOutput, Units
from curate.store.layout import UIDS_FILE
from curate.store.store import RunStore
from curate.store.tables import OpenTables

PAIR = np.dtype("u8,u8")
_COPIED = 1 << 22  # bytes at a time


def uid_pairs(uids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.void]:
    """Return uids as PAIR, in the same order."""
    high, low = uid_halves(uids)
    return np.rec.fromarrays([high, low], PAIR)


def sort_pairs(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return uids as PAIR, sorted, ten times as fast as numpy, which compares pairs field by field."""
    pairs = pairs[np.argsort(pairs["f0"])]
    is_tied = pairs["f0"][1:] == pairs["f0"][:-1]
    if is_tied.any():
        rows = np.flatnonzero(np.append(is_tied, False) | np.append(False, is_tied))
        tied = pairs[rows]
        pairs[rows] = tied[np.lexsort((tied["f1"], tied["f0"]))]
    return pairs


def pair_bytes(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    """Return the 16 bytes of each uid in PAIR."""
    return np.frombuffer(np.stack([pairs["f0"], pairs["f1"]], axis=1).astype(">u8").tobytes(), "S16")


def read_uids(folder: RunStore) -> npt.NDArray[np.void]:
    """Return the kept uids of a run as PAIR, sorted. Raises ValueError or EOFError if the file is damaged."""
    with folder.open(UIDS_FILE) as file:
        pairs: npt.NDArray[np.void] = np.load(file, allow_pickle=False)
    return pairs


def sort_uids(units: Units, store: RunStore, repeated: bool, n_buckets: int = 1) -> Answer:
    """Ask each decided unit for its kept uids, and sort them in buckets, into files in `tmp`.

    Gives a list of `UidsPart`. If the run repeats rows (`repeated`), each uid occurs as often as the column `repeats`
    in `decisions` says.
    """
    pairs = units.pairs("Uids: split", _split, repeated, n_buckets)
    return units.group("Uids: sort", pairs, sort_parts, store).side_output


class UidsPart(NamedTuple):
    """The sorted uids of a bucket. Buckets have the same order as uids."""

    bucket: int
    uids: int

    @property
    def file(self) -> str:
        return f"tmp/uids/{self.bucket:05d}"


def _split(tables: OpenTables, unit: Unit, repeats: bool, n_buckets: int) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    table = tables.read("decisions", ["uid", "kept", *([schema.REPEATS.name] if repeats else [])])
    table = table.filter(table["kept"])
    if not len(table):
        return
    pairs = uid_pairs(whole(table["uid"]))
    if repeats:
        pairs = np.repeat(pairs, table[schema.REPEATS.name].to_numpy())
    yield from split_pairs(pairs, n_buckets)


def split_pairs(pairs: npt.NDArray[np.void], n_buckets: int) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    """Yield the buckets that have uids, in PAIR, with their uids."""
    offsets = ((pairs["f0"] >> np.uint64(32)) * np.uint64(n_buckets) >> np.uint64(32)).astype(np.uint16)
    yield from (pair for pair in enumerate(split_by(pairs, offsets, n_buckets)) if len(pair[1]))


def sort_parts(bucket: int, parts: Sequence[npt.NDArray[np.void]], store: RunStore) -> Iterator[SideOutput]:
    """Sort a bucket's uids from all units into its file, and yield the file as a UidsPart."""
    pairs = sort_pairs(np.concatenate(parts))
    part = UidsPart(bucket, len(pairs))
    store.write_bytes(part.file, pairs.tobytes())
    yield SideOutput(part)


def write_uids(store: RunStore, parts: Iterable[UidsPart]) -> None:
    """Write uids.npy from the files that `sort_uids` wrote."""
    parts = sorted(parts)
    total = sum(part.uids for part in parts)
    header = {"descr": np.lib.format.dtype_to_descr(PAIR), "fortran_order": False, "shape": (total,)}
    with store.create(UIDS_FILE) as out:
        np.lib.format.write_array_header_1_0(out, header)
        for part in parts:
            with store.open(part.file) as file:
                shutil.copyfileobj(file, out, _COPIED)
