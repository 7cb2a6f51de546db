import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base.numeric.xxh3 import _hash_pairs, hash_pairs, string_buffers

BOUNDARIES = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 96, 97, 128, 129, 144, 160, 161, 192, 239, 240, 241)
LONG = (256, 257, 320, 321, 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049, 2112, 2113)


def strings(values: list[bytes | None]) -> pa.Array:
    """Return bytes, of any kind, as a string array: the kernel does not look at what they mean."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def expected(first: list[bytes | None], second: list[bytes | None]) -> list[str | None]:
    return [
        None if b is None else xxhash.xxh3_128_hexdigest((a or b"") + b"\0" + b)
        for a, b in zip(first, second, strict=True)
    ]


def test_every_length_up_to_many_blocks() -> None:
    """Also in one array, so that what is left of a long row in the scratch does not count for the short one after it."""
    rng = np.random.default_rng(0)
    second = [rng.bytes(int(n)) for n in rng.permutation(2500)]
    first = [rng.bytes(int(n)) for n in rng.integers(0, 3, len(second))]
    assert hash_pairs(strings(first), strings(second)).to_pylist() == expected(first, second)


@pytest.mark.parametrize("length", [*BOUNDARIES, *LONG])
def test_lengths_at_boundaries(length: int) -> None:
    """Wherever the NUL is, and for bytes that are all zeros or all ones."""
    for octet in (b"\0", b"\xff", b"7"):
        cuts = sorted({0, (length - 1) // 2, length - 1})
        first, second = [octet * n for n in cuts], [octet * (length - 1 - n) for n in cuts]
        assert hash_pairs(strings(first), strings(second)).to_pylist() == expected(first, second)


octets = st.one_of(st.binary(max_size=40), st.builds(bytes.__mul__, st.binary(max_size=20), st.integers(0, 100)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | octets, st.none() | octets), max_size=8), st.integers(0, 4))
@example([(None, None)], 0)
@example([(b"", b"")], 0)
def test_columns_hash_as_the_library_does(rows: list[tuple[bytes | None, bytes | None]], skip: int) -> None:
    """Of slices, with nulls in either column."""
    first, second = ([row[side] for row in rows] for side in (0, 1))
    found = hash_pairs(strings(first)[skip:], strings(second)[skip:])
    assert (found.type, found.to_pylist()) == (pa.string(), expected(first[skip:], second[skip:]))
    assert found.null_count == found.to_pylist().count(None)
    valid = [digits for digits in found.to_pylist() if digits is not None]
    assert bytes(found.buffers()[2] or b"").decode() == "".join(valid)  # a null owns no bytes


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2000), st.randoms(use_true_random=False))
def test_random_bytes_of_up_to_2000(length: int, random: object) -> None:
    data = [random.randbytes(length)]  # type: ignore[attr-defined]
    assert hash_pairs(strings([b""]), strings(data)).to_pylist() == expected([b""], data)


def test_nulls_that_own_bytes_are_empty() -> None:
    owned = strings([b"one", b"two"])
    first = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), *owned.buffers()[1:]])
    assert hash_pairs(first, owned).to_pylist() == expected([None, b"two"], [b"one", b"two"])
    assert hash_pairs(owned, first).to_pylist() == expected([b"one", b"two"], [None, b"two"])


def test_many_rows_and_large_strings() -> None:
    urls = [f"http://x/{n}".encode() for n in range(20_000)]
    captions = [f"caption {n}".encode() * (n % 9) for n in range(20_000)]
    want = expected(urls, captions)
    assert hash_pairs(strings(urls), strings(captions)).to_pylist() == want
    assert hash_pairs(strings(urls).cast(pa.large_string()), strings(captions)).to_pylist() == want


def test_other_threads_go_on_meanwhile() -> None:
    assert _hash_pairs.targetoptions["nogil"]


def test_buffers_of_slices() -> None:
    for kind in (pa.string(), pa.large_string()):
        data, offsets = string_buffers(pa.array(["a", "bc", "d"], kind)[1:])
        assert bytes(data[offsets[0] : offsets[-1]]) == b"bcd"
        assert (offsets.dtype, np.diff(offsets).tolist()) == (np.int64, [2, 1])
    assert string_buffers(pa.array([], pa.string()))[1].tolist() == [0]
