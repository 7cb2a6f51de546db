"""Which metadata entries occur in which text: MetaCLIP's substring matching, exact, over Arrow arrays.

In: entries (string), once; texts (string or large_string). Out: a list<int32> of entry ids per text.

The definition (MetaCLIP, arXiv 2309.16671, section 3.2 and its published code). A text is *spaced*: one space before
and behind it, one around each of `, . ; : ? !` and the backtick, then tab, newline and carriage return become spaces.
Entry e matches iff `" " + e + " "` is a substring of that. Case counts, nothing is normalised, occurrences may overlap,
and double spaces break an entry of several words. On tokens: cut the spaced text at single spaces, drop the first and
the last token, keep empty ones; e matches iff its own cut is a run of them. `curate.match.kernel` works on tokens and
never makes the spaced text. Trade-off: its half-empty tables take 50 MB for 400,000 entries.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import string_buffers
from curate.match import kernel

MAX_IDS = 2**31 - 1  # offsets of a ListArray are int32


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
        array = _strings(pa.array(entries, pa.string()) if isinstance(entries, Sequence) else entries)
        if array.null_count:
            raise RecipeError(f"metadata entry {array.is_null().index(True).as_py()} is null; accepted: strings")
        self._tables = kernel.build_tables(array)

    def match(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Return the ids of the entries in each text: list<int32>, ascending, each once; of a null text none.

        Raises:
            TypeError: texts are not strings.
            RunError: there are more than 2^31 - 1 matches, more than one Arrow list array can hold.
        """
        array = _strings(texts)
        data, offsets = string_buffers(array)
        null = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else np.zeros(0, np.bool_)
        null.flags.writeable = False
        try:
            id_at, ids = kernel.match_texts(self._tables, data, offsets, null, MAX_IDS)
        except OverflowError:
            what = f"{len(texts):,} texts have more than {MAX_IDS:,} matches together"
            raise RunError(f"{what}; pass fewer texts at a time") from None
        return pa.ListArray.from_arrays(pa.array(id_at.astype(np.int32)), pa.array(ids))


def _strings(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return strings as one array, also those of type null. Raises TypeError for others."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise TypeError(f"an array of {array.type}; accepted: string, large_string")
    return array


@cache
def compile_kernels() -> None:
    """Compile the kernels, unless that was done since the installation: seconds that count for no text."""
    Matcher(pa.array(["a"])).match(pa.array(["a"]))
