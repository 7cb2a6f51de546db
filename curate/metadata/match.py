"""Which metadata entries occur in which text: MetaCLIP's substring matching, exact, over Arrow arrays.

In: entries (string), once; texts (string or large_string), again and again. Out: a list<int32> of entry ids per text.

The definition (MetaCLIP, arXiv 2309.16671, section 3.2 and its published code). A text is *spaced*: one space before
and behind it, one around each of `, . ; : ? !` and the backtick, then tab, newline and carriage return become spaces.
Entry e matches iff `" " + e + " "` is a substring of that. Case counts, nothing is normalised, occurrences may overlap,
and double spaces break an entry of several words. On tokens: cut the spaced text at single spaces, drop the first and
the last token, keep empty ones; e matches iff its own cut is a run of them. `curate.metadata.kernel` works on tokens and
never makes the spaced text. Trade-off: its half-empty tables take 50 MB for 400,000 entries.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, RunError
from curate.metadata import kernel

_MOST_IDS = 2**31 - 1  # offsets of a ListArray are int32


class Matcher:
    """Finds entries in texts. Built in a fraction of a second; immutable, so threads may share it.

    Args:
        entries: string array, large_string array or strings. The position of an entry is its id; of equal entries only
            the first is found. The empty one matches where the spaced text has two spaces in a row.

    Raises:
        RecipeError: an entry is null.
        TypeError: entries are not strings.

    Example:
        >>> Matcher(["dog", "hot dog"]).match(pa.array(["A hot dog, a cat", None])).to_pylist()
        [[0, 1], []]
    """

    def __init__(self, entries: pa.Array | pa.ChunkedArray | Sequence[str]) -> None:
        array = entries if isinstance(entries, pa.Array | pa.ChunkedArray) else pa.array(entries, pa.string())
        if array.null_count:
            raise RecipeError(f"metadata entry {array.is_null().index(True).as_py()} is null; accepted: strings")
        array = pa.concat_arrays([_strings(chunk).cast(pa.large_string()) for chunk in _chunks(array)])
        tokens = pc.split_pattern(array, " ")
        ids = tokens.flatten().dictionary_encode()
        data, token_at = _buffers(ids.dictionary)
        pool = np.pad(data[: token_at[-1]], (0, kernel.PADDING))
        self._tables = kernel.build_tables(pool, token_at, ids.indices.to_numpy(), tokens.offsets.to_numpy())

    def match(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Return the ids of the entries in each text: list<int32>, ascending, each once; of a null text none.

        Raises:
            TypeError: texts are not strings.
            RunError: there are more than 2^31 - 1 matches, more than one Arrow list array can hold.
        """
        try:
            parts = [self._match_chunk(_strings(chunk)) for chunk in _chunks(texts)]
            if sum(len(part.values) for part in parts) > _MOST_IDS:
                raise OverflowError
        except OverflowError:
            what = f"{len(texts):,} texts have more than {_MOST_IDS:,} matches together"
            raise RunError(f"{what}; pass fewer texts at a time") from None
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

    def _match_chunk(self, texts: pa.Array) -> pa.ListArray:
        data, offsets = _buffers(texts)
        null = texts.is_null().to_numpy(zero_copy_only=False) if texts.null_count else np.zeros(0, np.bool_)
        null.flags.writeable = False
        id_at, ids = kernel.match_texts(self._tables, data, offsets, null, _MOST_IDS)
        return pa.ListArray.from_arrays(pa.array(id_at.astype(np.int32)), pa.array(ids))


def _chunks(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """Return the chunks of an array, at least one."""
    if isinstance(array, pa.ChunkedArray):
        return array.chunks or [pa.array([], array.type)]
    return [array]


def _strings(array: pa.Array) -> pa.Array:
    """Return the array itself; an array of type null as strings."""
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise TypeError(f"an array of {array.type}; accepted: string, large_string")
    return array


def _buffers(array: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the bytes (uint8) of a string array and the offsets (int64, len + 1) into them, without a copy where they are so.

    Both read-only and aligned: each other kind would be compiled separately.
    """
    if len(array) == 0:
        data, offsets = np.zeros(0, np.uint8), np.zeros(1, np.int64)
    else:
        _, ends, chars = array.buffers()
        data = np.zeros(0, np.uint8) if chars is None else np.frombuffer(chars, np.uint8)
        wide = np.frombuffer(ends, np.int64 if pa.types.is_large_string(array.type) else np.int32)
        offsets = np.require(wide[array.offset : array.offset + len(array) + 1], np.int64, "A")
    data.flags.writeable = offsets.flags.writeable = False
    return data, offsets


@cache
def compile_kernels() -> None:
    """Compile the kernels, unless that was done since the installation: seconds that count for no text."""
    Matcher(pa.array(["a"])).match(pa.array(["a"]))
