"""Finds the metadata entries in texts: exact matching as in MetaCLIP and MetaCLIP 2, over Arrow arrays.

In: entries (string) with the keys of their languages, once; texts (string) with theirs. Out: a list<int32> of entry ids
per text.

Mode `reference` (MetaCLIP, arXiv 2309.16671, section 3.2 and its published code). A text is *spaced*: it gets a space
at both ends and around each of `, . ; : ? !` and the backtick; then tab, newline and carriage return become spaces.
Entry e matches if and only if `" " + e + " "` is a substring. Nothing is normalized, and occurrences may overlap.

Mode `worldwide` (MetaCLIP 2, arXiv 2507.22062, and its published code). A text is stripped of white space, then spaced.
Entry e matches if and only if it is a substring with a space before it unless its first character has *no boundary*,
and a space after it unless its last character has none. Characters without boundaries are those of Chinese, Thai, Lao,
Burmese, Khmer and Tibetan script, ASCII punctuation, and 25 other marks. A text is matched only with the entries of its
key (see `curate.match.languages`), or with those of `other` if its key has no entries. Mode `corrected` adds kana,
Bopomofo and other scripts without spaces, and as marks the full-width forms of the seven marks and 、 。 ، ؟ ۔ । ።;
texts and entries are in NFC.

Tables are built once per machine and user, in the folder for temporary files, and memory-mapped, so processes share
them.
"""

import fcntl
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import RecipeError, RunError, reraised
from curate.base.ids import digest
from curate.base.numeric.arrays import I32, I64, U8, U64, string_buffers, whole
from curate.base.process import temporary_folder
from curate.match import kernel
from curate.match.characters import CORRECTED_MARKS, CORRECTED_SCRIPTS, MARKS, PUNCTUATION, SCRIPTS, WHITE, normalize
from curate.match.languages import OTHER, keys_of
from curate.recipe.recipe import CORRECTED, REFERENCE

MAX_IDS = 2**31 - 1  # offsets of a ListArray are int32
_LOAD = 0.5  # of the slots that are used
_DAY = 24 * 3600  # seconds
_FILES = {"slots": np.uint64, "filter": np.uint64, "pool": np.uint8}


def characters_without_boundary(mode: str) -> U8:
    """Return the code points without boundaries in a mode (uint8[0x40000], 1 or 0)."""
    without = np.zeros(kernel.CODE_POINTS, np.uint8)
    if mode != REFERENCE:
        for first, last in (*SCRIPTS, *(CORRECTED_SCRIPTS if mode == CORRECTED else ())):
            without[first : last + 1] = 1
        without[[*map(ord, PUNCTUATION)]] = 1
    return without


def _byte_kinds(without_boundary: U8, of_texts: bool) -> U8:
    """Return the kinds of bytes (uint8[256]); atoms may also end at characters of three or four bytes.

    Only texts get spaces around marks.
    """
    kinds = np.zeros(256, np.uint8)
    kinds[:128] = without_boundary[:128] * kernel.EDGE
    kinds[0xE0:] = without_boundary.any() * kernel.EDGE
    kinds[ord(" ")] = kernel.EDGE
    if of_texts:
        kinds[[*MARKS.encode()]] = kernel.MARK
        kinds[[*b"\t\n\r"]] = kernel.WHITE
    return kinds


class Matcher:
    """Finds the entries of each text's language. Immutable, so threads may share it.

    Args:
        folder: a folder filled by `build_tables`.

    Example:
        >>> entries, keys = pa.array(["Hund", "dog", "犬"]), pa.array(["de", "en", "other"])
        >>> matcher = build_matcher(entries, keys, "worldwide")
        >>> matcher.match(pa.array(["a dog", "ein dog", "子犬"]), pa.array(["en", "de", "ja"])).to_pylist()
        [[1], [], [2]]
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        self.mode: str = facts["mode"]
        self.keys: dict[str, int] = {key: number for number, key in enumerate(facts["keys"])}
        without = characters_without_boundary(self.mode)
        mapped = [np.memmap(folder / name, kind, "r") for name, kind in _FILES.items()]
        arrays = [*mapped, np.array(facts["parts"], np.int64), _byte_kinds(without, of_texts=True), without]
        self._tables = kernel.Tables(*(np.frombuffer(array, array.dtype) for array in arrays))

    def match(self, texts: pa.Array | pa.ChunkedArray, codes: pa.Array | pa.ChunkedArray | None = None) -> pa.ListArray:
        """Return the distinct ids of the entries in each text: list<int32>, ascending; none for a null text.

        `codes` are the language codes of the texts, see `curate.match.languages`; mode `reference` needs none. Raises
        RunError if there are more matches than an Arrow list array can hold, 2^31 - 1.
        """
        array = (whole(texts) if isinstance(texts, pa.ChunkedArray) else texts).cast(pa.large_string())
        languages = self._languages(array, codes)
        if self.mode != REFERENCE:
            array = _correct(array) if self.mode == CORRECTED else pc.utf8_trim(array, WHITE)
        data, offsets = string_buffers(array)
        try:
            id_at, ids = kernel.match_texts(self._tables, data, offsets, languages, MAX_IDS)
        except OverflowError:
            error = f"{len(array):,} texts have more than {MAX_IDS:,} matches in total; pass fewer texts at a time"
            raise RunError(error) from None
        return pa.ListArray.from_arrays(pa.array(id_at.astype(np.int32)), pa.array(ids))

    def _languages(self, texts: pa.Array, codes: pa.Array | pa.ChunkedArray | None) -> I32:
        if self.mode == REFERENCE or codes is None:
            languages = np.zeros(len(texts), np.int32)
        else:
            numbers: Any = pc.index_in(keys_of(codes, self.keys), value_set=pa.array(list(self.keys), pa.string()))
            languages = np.array(numbers.fill_null(-1))
        languages[texts.is_null().to_numpy(zero_copy_only=False)] = -1
        return languages


def _correct(texts: Any) -> pa.Array:
    texts = pc.utf8_trim(texts, WHITE)
    others = pc.invert(pc.string_is_ascii(texts)).fill_null(False)
    changed = normalize(texts.filter(others))
    changed = pc.replace_substring_regex(changed, f"([{CORRECTED_MARKS}])", r" \1 ")
    corrected: pa.Array = pc.replace_with_mask(texts, others, changed)
    return corrected


def build_tables(entries: pa.Array, keys: pa.Array, mode: str, folder: Path) -> None:
    """Write the tables of entries (string), with the keys of their languages (string), into an existing folder.

    The position of an entry is its id; of equal entries of a language only the first matches. The empty entry matches
    if the spaced text has two spaces in a row. Raises RecipeError if an entry has more than 32,767 bytes.
    """
    if mode == CORRECTED:
        entries = normalize(entries)
    if mode == REFERENCE:
        keys = pa.repeat(pa.scalar(OTHER), len(entries))
    lengths: Any = pc.binary_length(entries)  # type: ignore[call-overload]
    if (longest := pc.max(lengths).as_py() or 0) > kernel.MAX_LENGTH:
        raise RecipeError(f"metadata: found an entry of {longest:,} bytes; accepted: at most {kernel.MAX_LENGTH:,}")
    encoded = keys.dictionary_encode()
    names, numbers = encoded.dictionary.to_pylist() or [OTHER], encoded.indices.to_numpy()
    order = np.argsort(numbers, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(numbers, minlength=len(names)))
    without_boundary, parts = characters_without_boundary(mode), []
    padding = pa.array(["\0" * kernel.PADDING], pa.large_string())
    in_order = entries.cast(pa.large_string()).take(pa.array(order, pa.int64()))
    pool, offsets = string_buffers(pa.concat_arrays([in_order, padding]))
    with (folder / "slots").open("wb") as slots_file, (folder / "filter").open("wb") as filter_file:
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            slots, bits, shift = _fill(pool, offsets[first : end + 1], order[first:end], without_boundary)
            parts += [slots_file.tell() // 8, len(slots) // 8, filter_file.tell() // 8, shift]
            slots.tofile(slots_file)
            bits.tofile(filter_file)
    pool.tofile(folder / "pool")
    (folder / "facts.json").write_text(json.dumps({"mode": mode, "keys": names, "parts": parts}), "utf-8")


def _fill(pool: U8, offsets: I64, ids: I32, without_boundary: U8) -> tuple[U64, U64, int]:
    """Return the slots and the filter of one language's entries, and the shift of the filter's hashes."""
    bits, kinds = max(6, int(3 * len(ids)).bit_length()), _byte_kinds(without_boundary, of_texts=False)

    def fill(buckets: int) -> tuple[U64, U64, int] | None:
        slots, words = np.zeros(8 * buckets, np.uint64), np.zeros(1 << (bits - 6), np.uint64)
        tables = kernel.Tables(slots, words, pool, np.zeros(0, np.int64), kinds, without_boundary)
        used = kernel.fill_slots(tables, offsets, ids, 64 - bits, int(1.1 * _LOAD * 4 * buckets))
        return None if used < 0 else (slots, words, used)

    buckets = int(1.3 * len(ids) / _LOAD / 4) + 16
    while (filled := fill(buckets)) is None:
        buckets *= 2
    fewer = int(filled[2] / _LOAD / 4) + 16
    slots, words, _ = (fill(fewer) if 1.2 * fewer < buckets else None) or filled
    return slots, words, 64 - bits


def build_matcher(
    entries: pa.Array | Sequence[str], keys: pa.Array | Sequence[str] = (), mode: str = REFERENCE
) -> Matcher:
    """Return a matcher of entries (string), with the keys of their languages (string), with tables of its own."""
    with temporary_folder() as folder:
        build_tables(pa.array(entries, pa.string()), pa.array(keys, pa.string()), mode, Path(folder))
        return Matcher(Path(folder))


def open_matcher(metadata_key: str, mode: str, load: Callable[[], pa.Table]) -> Matcher:
    """Return the matcher of metadata with this digest; this user's processes on this machine share its tables.

    If there are none yet, one process builds them from the result of `load` (entry, language), and removes tables that
    were not opened for a day. Raises RunError if the folder belongs to another user, or its disk is full.
    """
    failed = f"match.mode {mode}: its tables cannot be written under {tempfile.gettempdir()}"
    remedy = "; set the environment variable TMPDIR to another folder"
    with ExitStack() as stack, reraised(RunError, failed, OSError, remedy=remedy):
        shared = _shared_folder()
        folder = shared / digest([metadata_key, mode, _code(), platform.machine()])
        lock = stack.enter_context((shared / f"{folder.name}.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _remove_old(shared)
            entries = load()
            building = Path(tempfile.mkdtemp(dir=shared))
            stack.callback(shutil.rmtree, building, ignore_errors=True)
            build_tables(whole(entries["entry"]), whole(entries["language"]), mode, building)
            building.rename(folder)
        os.utime(folder)
        return Matcher(folder)


def _shared_folder() -> Path:
    """Return the folder of shared tables, which only this user may write to. Raises OSError."""
    folder = Path(tempfile.gettempdir()) / f"curate-match-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022 or not stat.S_ISDIR(facts.st_mode):
        raise PermissionError(f"{folder} must be a folder that only this user can write to")
    return folder


def _remove_old(shared: Path) -> None:
    for path in shared.iterdir():
        if time.time() - path.lstat().st_mtime > _DAY:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@cache
def _code() -> str:
    return digest([Path(module.__file__ or "").read_text("utf-8") for module in (kernel, sys.modules[__name__])])


@cache
def compile_kernels() -> None:
    """Compile the kernels unless numba has cached them, so that compiling does not count as matching."""
    build_matcher(["a"], ["en"], CORRECTED).match(pa.array(["a"]), pa.array(["en"]))
