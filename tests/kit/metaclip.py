"""MetaCLIP (arXiv 2309.16671) by its definitions, in Python's integers; the product's matching and balancing must agree.

A text matches the entries that are substrings of its spaced text. An entry that `count` rows match draws each of them
with p = t / max(count, t), and a row is kept if any of its entries draws it. A draw is a hash of uid, entry, and seed.
"""

from collections.abc import Mapping
from operator import truediv

WORD = 1 << 64


def space(text, marks=",.;:?!`"):
    """The text in which an entry is looked up, with a space on each side."""
    spaced = f" {text} "
    for mark in marks:
        spaced = spaced.replace(mark, f" {mark} ")
    return spaced.translate(str.maketrans("\t\n\r", "   "))


def number_entries(entries):
    """Entry → its number; of equal entries the first."""
    return {entry: number for number, entry in reversed([*enumerate(entries)])}


def match_substrings(numbers, text):
    """The numbers of the entries that are substrings of the spaced text: the definition itself."""
    spaced = space(text)
    return sorted(number for entry, number in numbers.items() if f" {entry} " in spaced)


def match(numbers, text, longest):
    """The same, faster: looks up each run of up to `longest` tokens; a token may be empty."""
    tokens = space(text).split(" ")[1:-1]
    ends = ((a, b) for a in range(len(tokens)) for b in range(a + 1, min(a + longest, len(tokens)) + 1))
    runs = {" ".join(tokens[a:b]) for a, b in ends}
    return sorted(numbers[run] for run in runs if run in numbers)


def mix64(z):
    """SplitMix64's finalizer."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def draw(uid, key, seed):
    """The draw of an entry, by the xxh3 hash of its text, for a row: an integer below 2⁶⁴."""
    return mix64(int(uid[16:], 16) ^ mix64((key * 0x9E3779B97F4A7C15 + seed) % WORD))


def limit(t, entry):
    """The t of an entry, if each has its own."""
    return t[entry] if isinstance(t, Mapping) else t


def is_kept(uid, entries, counts, t, keys, seed):
    """Whether an entry of the row draws it; `t` is a number, or a number for each entry."""
    ts = {e: limit(t, e) for e in entries}
    return any(counts[e] <= ts[e] or draw(uid, keys[e], seed) < ts[e] * WORD // counts[e] for e in entries)


def inclusion(entries, counts, t, ratio=truediv):
    """π of a row with these entries; exact if `ratio` is Fraction."""
    miss = ratio(1, 1)
    for e in entries:
        miss *= 1 - ratio(limit(t, e), max(counts[e], limit(t, e)))
    return 1 - miss


def fixed(pi):
    """π in units of 2⁻³², so that sums do not depend on their order."""
    return round(pi * 2**32)


def expected_rows(rows, counts, t):
    """The expected number of kept rows, in units of 2⁻³²."""
    return sum(fixed(inclusion(row, counts, t)) for row in rows)


def solve_t(rows, counts, target):
    """The largest t that keeps at most `target` rows in expectation."""
    low, high = 1, max(counts.values()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if expected_rows(rows, counts, middle) <= target << 32:
            low = middle
        else:
            high = middle
    return low
