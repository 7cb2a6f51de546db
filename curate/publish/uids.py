"""uids.npy: the kept uids in DataComp's subset format: a sorted array of dtype `u8,u8`, high and low 64 bits; each as often as it repeats.

Source: DataComp's resharder (see its `--subset-file`). Memory stays at a bucket of uids however many are kept.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.ids import uid_halves
from curate.base.process import temporary_folder
from curate.store.layout import UIDS_FILE
from curate.store.store import RunStore

PAIR = np.dtype("u8,u8")
_BUCKET = 4_000_000  # uids sorted at a time: 64 MB


def uid_pairs(uids: pa.Array) -> npt.NDArray[np.void]:
    """Return uids as PAIR, in their order."""
    high, low = uid_halves(uids)
    return np.rec.fromarrays([high, low], PAIR)


def sort_pairs(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return uids as PAIR in their order; ten times as fast as numpy, which compares pairs field by field."""
    pairs = pairs[np.argsort(pairs["f0"])]
    is_tied = pairs["f0"][1:] == pairs["f0"][:-1]
    if is_tied.any():
        rows = np.flatnonzero(np.append(is_tied, False) | np.append(False, is_tied))
        tied = pairs[rows]
        pairs[rows] = tied[np.lexsort((tied["f1"], tied["f0"]))]
    return pairs


def pair_bytes(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    """Return each of the uids, as PAIR, as its 16 bytes."""
    return np.frombuffer(np.stack([pairs["f0"], pairs["f1"]], axis=1).astype(">u8").tobytes(), "S16")


def read_uids(folder: RunStore) -> npt.NDArray[np.void]:
    """Return the kept uids of a run as PAIR, sorted. Raises ValueError or EOFError where the file is damaged."""
    with folder.open(UIDS_FILE) as file:
        pairs: npt.NDArray[np.void] = np.load(file, allow_pickle=False)
    return pairs


def write_uids(store: RunStore, shards: Sequence[str], kept: int, repeated: bool = False) -> int:
    """Write uids.npy from the Parquet files of shards, which have `kept` rows together; return how many uids it holds.

    Where the run repeats rows (`repeated`), each is there as often as column `repeats` of those files says.
    """
    columns = ["uid", schema.REPEATS.name] if repeated else ["uid"]
    if repeated:
        kept = sum(pc.sum(store.read_parquet(name, columns[1:])[0]).as_py() or 0 for name in shards)
    buckets = max(1, kept // _BUCKET)
    with temporary_folder() as aside, ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(open(f"{aside}/{n}", "w+b")) for n in range(buckets)]
        for name in shards:
            uids, *repeats = store.read_parquet(name, columns).columns
            pairs = uid_pairs(uids)
            if repeats:
                pairs = np.repeat(pairs, repeats[0].to_numpy())
            place = ((pairs["f0"] >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)
            for bucket in np.unique(place):
                files[bucket].write(pairs[place == bucket].tobytes())
        header = {"descr": np.lib.format.dtype_to_descr(PAIR), "fortran_order": False, "shape": (kept,)}
        with store.create(UIDS_FILE) as out:
            np.lib.format.write_array_header_1_0(out, header)
            for file in files:
                file.seek(0)
                out.write(sort_pairs(np.frombuffer(file.read(), PAIR)).view(np.uint8).data)
    return kept
