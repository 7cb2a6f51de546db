"""Balancing schemes: how the limits of entries follow from a number t. See `inclusion`.

A scheme puts entries into groups (one for all, or one per language); entries of a group have the same limit. So only a
few numbers depend on the counts of all entries, and a unit looks only at its own entries.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import F64, I32, I64, split_by
from curate.base.wording import did_you_mean
from curate.decide.draw.inclusion import tail_share_t
from curate.match.unit import NO_ENTRY, Entries

STACK = 1 << 22  # limits at a time: 32 MB


class LanguageLimit(NamedTuple):
    """A scheme's choice for the entries of a language."""

    language: str
    t: int  # maximum rows of each of its entries
    matches: int  # matches between remaining rows and its entries
    is_uncertain: bool  # whether t is based on few matches


class Scheme:
    """A scheme; this one limits every entry to t rows ("Demystifying CLIP Data", arXiv 2309.16671, section 3.3).

    Limits are at least 1 and must not decrease as t grows, because searches for t rely on it.
    """

    key: ClassVar[str] = "metaclip"  # its name in `balance.scheme`

    def of(self, section: Any) -> "Scheme":
        """Return the scheme with its keys from a section, if it has any."""
        return self

    def check(self, entries: Entries) -> None:
        """Check the section against the metadata's entries. Raises RecipeError."""

    def groups(self, entries: Entries) -> I32 | None:
        """Return the group of each entry (int32[entries], from 0); None if all are in one."""
        return None

    def limits(self, ts: Sequence[int] | I64, counts: I64, entries: Entries) -> I64:
        """Return the limit of each group, for each t ≥ 1, from the remaining rows of each entry.

        Returns int64[k, groups]. Raises RunError if the counts do not determine limits.
        """
        return np.asarray(ts, np.int64)[:, np.newaxis]

    def t_of_share(self, share: float, counts: I64, entries: Entries) -> int:
        """Return the t whose share of the tail is nearest to `share`."""
        return tail_share_t(counts, share)

    def highest(self, counts: I64, entries: Entries) -> int:
        """Return a t from which on every entry keeps all of its rows; here the largest count."""
        return int(np.max(counts, initial=0))

    def languages(self, limits: I64, counts: I64, entries: Entries) -> tuple[LanguageLimit, ...]:
        """Return the limits (int64[groups]) by language, if they differ by language."""
        return ()


FEW = 100  # minimum matches in a language's tail for a certain t
_LISTED = 10  # languages in a message


@dataclass(frozen=True)
class PerLanguage(Scheme):
    """Limits entries to the t of their language, so that all tails have the same share (MetaCLIP 2, section 3.2).

    p = Σ(count of entries below t) / Σ(count) in the reference language. In another language, t is the count at which
    the cumulative share of its ascending counts is nearest to p, the first of ties ("Meta CLIP 2: A Worldwide Scaling
    Recipe", arXiv 2507.22062). The results are those of the published `t_to_p` and `p_to_t`, which are not inverses,
    except that zero counts are left out, so that t is at least 1, and a reference language without matches is an error.

    As t grows, p does not decrease, nor does any language's t.
    """

    key = "per_language"

    language: str = "en"  # the reference language
    by_hand: Mapping[str, int] = field(default_factory=dict)  # t of other languages, from the recipe
    share: float | None = None  # p, if the recipe gives it

    def of(self, section: Any) -> Self:
        by_language = section.t if isinstance(section.t, dict) else {}
        by_hand = {name: t for name, t in by_language.items() if name != section.language}
        return replace(self, language=section.language, by_hand=by_hand, share=section.tail_share)

    def check(self, entries: Entries) -> None:
        names = [name for name in entries.languages.names if name != NO_ENTRY]
        keys = {self.language: "balance.language"} | dict.fromkeys(self.by_hand, "balance.t")
        for name, key in keys.items():
            if name not in names:
                listed = ", ".join(names[:_LISTED]) + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)
                error = f"{key}: the metadata has no entries in language {name!r}"
                raise RecipeError(f"{error}; {did_you_mean(name, names)}its languages: {listed}")

    def groups(self, entries: Entries) -> I32:
        return entries.languages.codes

    def limits(self, ts: Sequence[int] | I64, counts: I64, entries: Entries) -> I64:
        self.check(entries)
        ts = np.asarray(ts, np.int64)
        names, ascending = entries.languages.names, _ascending(counts, entries)
        reference = ascending[names.index(self.language)]
        by_share = [counts for name, counts in zip(names, ascending, strict=True) if name not in self.by_hand]
        if self.share is None and not len(reference) and any(map(len, by_share)):
            error = f"balance.language is {self.language!r}, but no remaining row matches an entry in this language"
            raise RunError(f"{error}; accepted: another language, or weaker rules before balancing")
        shares = self._shares(ts, reference)
        columns = [self._column(name, counts, ts, shares) for name, counts in zip(names, ascending, strict=True)]
        return np.stack(columns, axis=1)

    def _shares(self, ts: I64, reference: I64) -> F64:
        if self.share is not None:
            return np.full(len(ts), self.share)
        sums = np.concatenate([[0], np.cumsum(reference)])
        return np.asarray(sums[np.searchsorted(reference, ts)] / max(1, int(sums[-1])))

    def _column(self, name: str, ascending: I64, ts: I64, shares: F64) -> I64:
        if name == self.language:
            return ts
        return np.full(len(ts), self.by_hand[name]) if name in self.by_hand else nearest_counts(ascending, shares)

    def t_of_share(self, share: float, counts: I64, entries: Entries) -> int:
        return tail_share_t(counts[entries.languages.codes == entries.languages.names.index(self.language)], share)

    def highest(self, counts: I64, entries: Entries) -> int:
        """Return the largest count of the reference language plus one, from which on p is 1."""
        ascending = _ascending(counts, entries)[entries.languages.names.index(self.language)]
        return int(ascending.max(initial=0)) + 1

    def languages(self, limits: I64, counts: I64, entries: Entries) -> tuple[LanguageLimit, ...]:
        names, ascending = entries.languages.names, _ascending(counts, entries)
        reference = names.index(self.language)
        [share] = self._shares(limits[[reference]], ascending[reference])
        sums = {name: int(counts.sum()) for name, counts in zip(names, ascending, strict=True)}
        by_share = {name for name in names if sums[name] and name not in (self.language, *self.by_hand)}
        if by_share:
            by_share.add(self.language)
        limited = [
            LanguageLimit(name, int(t), sums[name], name in by_share and share * sums[name] < FEW)
            for name, t in zip(names, limits, strict=True)
            if sums[name] or name == self.language
        ]
        limited.sort(key=lambda limit: (limit.language != self.language, -limit.matches, limit.language))
        return tuple(limited)


def nearest_counts(ascending: I64, shares: F64) -> I64:
    """Return the ascending positive counts whose cumulative shares are nearest to these; 1 without counts."""
    if not len(ascending):
        return np.ones(len(shares), np.int64)
    reached = np.cumsum(ascending) / int(ascending.sum())
    above = np.searchsorted(reached, shares)
    below = np.searchsorted(reached, reached[np.maximum(above - 1, 0)])
    next_ones = np.append(reached, np.inf)[above]
    return ascending[np.where(shares - reached[below] <= next_ones - shares, below, above)]


def _ascending(counts: I64, entries: Entries) -> list[I64]:
    counts, codes = np.asarray(counts), entries.languages.codes
    matched = np.flatnonzero(counts)
    matched = matched[np.argsort(counts[matched])]
    return split_by(counts[matched], codes[matched], len(entries.languages.names))


KINDS: tuple[Scheme, ...] = (Scheme(), PerLanguage())


def stack_limits(limits: I64, groups: I32 | None) -> Iterator[I64]:
    """Yield limits of groups (int64[k, groups]) expanded to their entries, int64[k, n] or [k, 1], in parts."""
    if groups is None:
        yield limits
        return
    step = max(1, STACK // max(1, len(groups)))
    yield from (limits[start : start + step][:, groups] for start in range(0, len(limits), step))
