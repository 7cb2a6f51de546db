"""Matching equals its definition."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base.compiling import interpreting
from curate.base.errors import RunError
from curate.match import kernel
from curate.match import matcher as module
from curate.match.matcher import build_matcher
from tests.kit import metaclip

ALPHABET = "  \t\n\r,.;:?!`'\"-\u00a0\0é漢😀\x1f\x7fabA"


def by_substring(entries, texts):
    """The definition itself; only the first of equal entries counts."""
    numbers = metaclip.number_entries(entries)
    return [metaclip.match_substrings(numbers, text) if text is not None else [] for text in texts]


def by_runs(entries, texts, longest=0):
    """The same, faster."""
    numbers = metaclip.number_entries(entries)
    longest = longest or max((entry.count(" ") + 1 for entry in entries), default=0)
    return [metaclip.match(numbers, text, longest) if text is not None else [] for text in texts]


@st.composite
def cases(draw):
    """Texts, and entries that are mostly pieces of the texts and of the spaced texts."""
    words = st.lists(st.sampled_from(["a", "b", "ab", "long-token-of-20-byt", ",", "", "é"]), max_size=12).map(" ".join)
    texts = draw(st.lists(st.none() | st.text(ALPHABET, max_size=40) | words, max_size=12))
    pieces = ["", *(t for t in texts if t), *(metaclip.space(t) for t in texts if t)]
    piece = st.sampled_from(pieces).flatmap(
        lambda t: st.tuples(st.integers(0, len(t)), st.integers(0, 12)).map(lambda cut: t[cut[0] : cut[0] + cut[1]])
    )
    whole = st.sampled_from(pieces).flatmap(  # tokens a to b of a piece, so that most do match
        lambda t: st.tuples(st.integers(0, t.count(" ")), st.integers(1, 4)).map(lambda cut: " ".join(t.split(" ")[cut[0] : sum(cut)]))
    )  # fmt: skip
    return draw(st.lists(whole | piece | st.text(ALPHABET, max_size=6), max_size=30)), texts


@settings(max_examples=120)
@given(cases())
@example(([": "], [":"]))  # more trie nodes than tokens
def test_equals_the_definition(case):
    entries, texts = case
    expected = by_substring(entries, texts)
    matcher = build_matcher(entries)
    got = matcher.match(pa.array(texts, pa.string()))
    got.validate(full=True)
    assert got.type == pa.list_(pa.int32()) and got.null_count == 0
    assert got.to_pylist() == expected
    assert matcher.match(pa.array(texts, pa.large_string())).to_pylist() == expected
    padded = pa.array(["a, b", None, *texts, "x a"], pa.string())
    assert matcher.match(padded.slice(2, len(texts))).to_pylist() == expected
    assert build_matcher(pa.array(["x", *entries]).slice(1)).match(padded)[2:-1].to_pylist() == expected
    assert by_runs(entries, texts) == expected


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from([1, 3]))
def test_is_exact_where_hashes_collide(case, bits):
    entries, texts = case
    mask = np.uint64((1 << bits) - 1 << 64 - bits)
    with interpreting(True), pytest.MonkeyPatch.context() as patch:
        for name in ("_hash_atom", "_chain"):
            plain = getattr(kernel, name)
            patch.setattr(kernel, name, lambda *values, plain=plain: plain(*values) & mask)
        got = build_matcher(entries).match(pa.array(texts, pa.string()))
    assert got.to_pylist() == by_substring(entries, texts)


def test_words_differ_in_any_one_byte():
    for length in (1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 40):
        word = "".join(chr(97 + i % 26) for i in range(length))
        changed = [word[:i] + "_" + word[i + 1 :] for i in range(length)]
        words = [word, *changed, word + "\0", "\0" + word, word[:-1]]
        assert build_matcher(words[::2]).match(pa.array(words)).to_pylist() == by_substring(words[::2], words)


def test_four_threads_at_once():
    draw = random.Random(4)
    words = [f"w{i}" for i in range(50)]
    texts = [" ".join(draw.choices(words, k=30)) for _ in range(4000)]
    matcher, halves = build_matcher(words), [pa.array(texts[:2000]), pa.array(texts[2000:])]
    expected = [matcher.match(half) for half in halves]
    start = threading.Barrier(4)

    def work(i):
        start.wait()
        return all(matcher.match(halves[i % 2]).equals(expected[i % 2]) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.slow
def test_one_megabyte_captions_among_short_ones():
    draw = random.Random(1)
    words = [f"w{i}" for i in range(2000)] + ["a-token-that-is-longer-than-16-bytes", ",", ""]
    entries = [" ".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(5000)]
    entries += [*words, "w1 " * 50 + "w1"]
    long = " ".join(draw.choices(words, k=200_000))
    texts = ["w1 w2", long, "", "w1 " * 300_000, ",`" * 500_000, "x" * 1_000_000, "w3", "w1" + " w1" * 50]
    assert len(long) > 1_000_000
    short = by_runs(entries, texts, longest=3)  # the one longer entry is the last
    expected = [row + [len(entries) - 1] * (entries[-1] + " " in t + " ") for row, t in zip(short, texts, strict=True)]
    assert build_matcher(entries).match(pa.array(texts)).to_pylist() == expected
    assert len(expected[1]) > 2000 and expected[3][-1] == expected[7][-1] == len(entries) - 1


def test_lists_of_any_length_ascend():
    for number in (1, 2, 15, 16, 17, 32, 33, 63, 64, 65, 66, 1000):
        draw, entries = random.Random(number), [f"e{i}" for i in range(number)]
        draw.shuffle(entries)
        twice = draw.sample(entries * 2, number * 2)
        assert build_matcher(entries).match(pa.array([" ".join(twice)])).to_pylist() == [list(range(number))]


def test_many_texts_about_the_size_of_a_block():
    draw = random.Random(2)
    entries = ["a", "b", "a b", "b b a", ",", "a ,", ""]
    lengths = [0] * 2000 + [draw.randint(0, 3) for _ in range(2000)] + [draw.randint(2000, 2100) for _ in range(30)]
    lengths += [4094, 4095, 4096, 4097, 8193, 0, 0, 1]
    texts = ["".join(draw.choices("ab  ,", k=n)) for n in lengths]
    nulls = [None if draw.random() < 0.1 else t for t in texts]
    assert build_matcher(entries).match(pa.array(nulls)).to_pylist() == by_runs(entries, nulls)


def test_buffers_without_padding_or_alignment():
    """A null may cover bytes, and bytes need not be valid UTF-8."""

    def match(kind, offsets, data, entries, validity=None, shift=0):
        raw = bytes(shift) + np.array(offsets, kind).tobytes()
        buffers = [validity and pa.py_buffer(validity), pa.py_buffer(raw).slice(shift), pa.py_buffer(data)]
        type_ = pa.string() if kind is np.int32 else pa.large_string()
        texts = pa.Array.from_buffers(type_, len(offsets) - 1, buffers)
        return build_matcher(entries).match(texts).to_pylist()

    for shift, kind in [(0, np.int32), (1, np.int32), (4, np.int64), (0, np.int64)]:
        words = ["a", "long-token-of-20-byt"]
        assert match(kind, [0, 1, 22], b"a long-token-of-20-byt", words, shift=shift) == [[0], [1]]
    assert match(np.int32, [0, 1, 3, 3], b"a b", ["a", "b", ""], validity=b"\x05") == [[0], [], [2]]
    assert match(np.int32, [0, 4, 7], b"abc\xffabc", ["abc"]) == [[], [0]]


def test_arrays_of_other_shapes():
    matcher = build_matcher(["dog", "hot dog", "dog"])
    texts = ["hot dog", None, "cat", "dog,hot dog"]
    expected = [[0, 1], [], [], [0, 1]]
    chunked = pa.chunked_array([pa.array(texts).slice(0, 1), pa.array([], pa.string()), pa.array(texts).slice(1)])
    assert matcher.match(chunked).to_pylist() == expected
    assert isinstance(matcher.match(chunked), pa.ListArray)
    assert matcher.match(pa.chunked_array([], pa.string())).to_pylist() == []
    assert matcher.match(pa.array([], pa.large_string())).to_pylist() == []
    assert matcher.match(pa.nulls(2)).to_pylist() == [[], []]
    assert matcher.match(pa.array(["dog", "dog"]).slice(2)).to_pylist() == []
    assert build_matcher([]).match(pa.array(texts)).to_pylist() == [[]] * 4


def test_more_matches_than_a_list_array_holds(monkeypatch):
    monkeypatch.setattr(module, "MAX_IDS", 10)
    texts = pa.array(["a b"] * 5)
    assert len(build_matcher(["a", "b"]).match(texts).values) == 10
    for entries, more in [
        (["a", "b"], pa.array(["a b"] * 6)),  # in the kernel
        (["a", "b"], pa.chunked_array([texts, texts])),  # over chunks
    ]:
        with pytest.raises(RunError, match="more than 10 matches in total; pass fewer texts"):
            build_matcher(entries).match(more)
