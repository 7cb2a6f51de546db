"""`balance` limits the rows of each entry by a number t, which is given or solved for, and draws rows (MetaCLIP).

With `of`, the values of a column (clusters, tags) are the entries: each row has exactly one, and π is its p. Rows
without a value are never drawn.

Sources: "Demystifying CLIP Data" (arXiv 2309.16671), section 3.3; for a t that follows from the share of the tail,
"Meta CLIP 2" (arXiv 2507.22062). `inclusion` has the arithmetic, `bracket` the search for a size, and `schemes` the
limits that follow from t.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids
from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import F64, I64
from curate.base.process import in_threads
from curate.base.wording import next_size, pluralize
from curate.decide.draw import inclusion, selection
from curate.decide.draw.bracket import ROUNDS, Bracket, Solution
from curate.decide.draw.entry_sums import EntryVector, own_entries
from curate.decide.draw.groups import ColumnGroups, check_groups, find_groups
from curate.decide.draw.schemes import FEW, STACK, LanguageLimit, Scheme, stack_limits
from curate.decide.draw.selection import SelectionRun
from curate.match.unit import Entries
from curate.recipe.deciding import SCHEMES, Balance
from curate.run.units import Answer, Fold, Units
from curate.store.facts import RunFacts, SelectionWords, read_facts
from curate.store.layout import ENTRIES_FILE, RUN_FILE, SUCCESS_FILE
from curate.store.store import RunStore
from curate.store.tables import OpenTables

_SHOWN = 4  # languages shown in a line


@dataclass(frozen=True)
class LimitsChoice(selection.Choice):
    """Limits per entry."""

    solution: Solution
    counts: I64  # [entries], counts for the draws: of the remaining rows, or from another run
    limits: I64  # [entries] or [1], maximum rows of each entry
    languages: tuple[LanguageLimit, ...] = ()  # if limits differ by language
    groups: ColumnGroups | None = None  # the groups that are the entries; None: metadata entries

    @cached_property
    def p(self) -> F64:
        return inclusion.probabilities(self.counts, self.limits)

    def inclusion(self, rows: selection.RowsLeft) -> F64:
        """Return π = 1 − ∏(1 − p). With `one_per`, it is divided among the image's texts, which are equally likely."""
        pi = inclusion.inclusion_probability(rows.with_values(self.groups).matches, self.p)
        return pi if rows.texts is None else np.asarray(pi / rows.texts)

    def draws(self, rows: selection.RowsLeft) -> F64:
        """Return the smallest u/p over a row's entries, compared with 1 in exact integers."""
        rows = rows.with_values(self.groups)
        keys = selection.required(rows.entries).keys
        return inclusion.draw(rows.uids, rows.matches, self.counts, self.limits, keys, rows.seed, rows.earlier)

    def entry_probabilities(self) -> F64 | None:
        return self.p if self.groups is None else None

    @property
    def values(self) -> Mapping[str, Any]:
        values: dict[str, Any] = {"t": self.solution.t, "expected": self.solution.expected}
        if self.languages:
            values["t_by_language"] = {limit.language: limit.t for limit in self.languages}
        return values | {"expected_above": self.solution.above}

    @property
    def label(self) -> str:
        label = f"t = {self.solution.t:,}"
        if not self.languages:
            return label
        others = "".join(f", {limit.t:,} for {limit.language}" for limit in self.languages[1:_SHOWN])
        rest = f", and {len(self.languages) - _SHOWN} more" if len(self.languages) > _SHOWN else ""
        return f"{label} for {self.languages[0].language}{others}{rest}"

    def say(self, section: Balance, fraction: float) -> str:
        solution = self.solution
        if section.rows is None or solution.expected is None or solution.above is None:
            return self.label
        above = next_size(section.rows, solution.t, solution.expected / fraction, solution.above / fraction)
        return f"{self.label}; {above}" if above else self.label

    def shortfall(self, section: Balance) -> str:
        """Return a warning if no t comes within 5% of the share of the tail, or if languages have few matches."""
        if self.languages:
            return _say_uncertain(self.languages[0], [limit for limit in self.languages if limit.is_uncertain])
        ts, shares = inclusion.tail_shares(self.counts)
        share = section.tail_share
        if share is None or not len(ts) or np.abs(shares - share).min() <= 0.05 * share:
            return ""
        above = int(np.searchsorted(shares, share))
        near = [f"{shares[i]:.4g} (t = {ts[i]:,})" for i in (above - 1, above) if i < len(ts)]
        return f"balance.tail_share {share:.4g} is out of reach; the nearest possible shares: {' and '.join(near)}"

    @property
    def tail_share(self) -> float | None:
        """The share of matches in entries below their limit; None without matches."""
        return _share(self.counts, self.counts < self.limits)

    def shares(self, survivors: I64, kept: I64 | F64) -> Mapping[str, float | None]:
        """Return the shares of matches in entries below their limit, and of entries that keep all rows; and each t."""
        below = inclusion.tail_shares(self.counts)[1]
        smallest = float(below[1]) if len(below) > 1 and not self.languages else None
        shares = {"tail_share": self.tail_share, "smallest_tail_share": smallest}
        if self.groups is not None:
            return shares
        whole = self.counts <= self.limits
        shares = {"whole_share": _share(survivors, whole), "whole_share_kept": _share(kept, whole)} | shares
        return shares | {f"t of {limit.language}": float(limit.t) for limit in self.languages}


def _say_uncertain(reference: LanguageLimit, languages: Sequence[LanguageLimit]) -> str:
    if not languages:
        return ""
    shown = ", ".join(
        f"{limit.language} (t = {limit.t:,}, {pluralize(limit.matches, 'match', 'matches')} in all)"
        for limit in languages[:_SHOWN]
    )
    rest = f" and {len(languages) - _SHOWN} more" if len(languages) > _SHOWN else ""
    few = f"t is uncertain in {pluralize(len(languages), 'language')} whose tail has fewer than {FEW} matches"
    others = [f"{limit.language}: …" for limit in languages if limit.language != reference.language]
    by_hand = ", ".join([f"{reference.language}: {reference.t}", *others[:1]])
    return f"{few}: {shown}{rest}; to set t yourself, write balance.t: {{{by_hand}}}"


def _share(weights: Any, chosen: Any) -> float | None:
    total = float(weights.sum())
    return float(weights[chosen].sum()) / total if total else None


class BalanceSelection(selection.Selection):
    """Balanced sampling over metadata entries."""

    key, section, needs_match = "balance", Balance, True
    meaning = "not drawn: all its entries are frequent"
    sizes_of = ("rows",)

    def choose(self, units: Units, section: Balance, run: SelectionRun, counts: Answer | None) -> Answer:
        assert counts is not None
        if section.counts is not None:
            counts = units.get("Counts: given", read_counts(section.counts, run.metadata_key).view, EntryVector)
        return self.search(units, section, run, counts)

    def search(self, units: Units, section: Balance, run: Any, counts: Answer) -> Answer:
        scheme = _scheme(section)
        if (rows := section.rows) is None:
            return units.get("Balance: t", _fixed, counts, section, scheme, run)
        search = units.get("Balance: begin", _begin, counts, rows, scheme, run)
        for n in range(ROUNDS):  # a k-ary search: units sum π at several t, and the bracket narrows
            sums = units.ask(f"Balance: sums {n}", _expect, counts, search, scheme, run, combine=Fold[Any]())
            search = units.get(f"Balance: narrow {n}", _narrow, search, sums, counts, scheme, run)
        return units.get("Balance: t", _solved, search, counts, scheme, run)

    def columns(self, section: Balance) -> list[str]:
        return [section.of] if section.of else []

    def check(self, section: Balance, columns: pa.Schema, recipe: Any) -> None:
        if section.image_column is not None and section.image_column not in columns.names:
            needed = "images" if section.one_per == "image" else "URLs"
            accepted = "url" if section.one_per == "image" else "null"
            error = f"balance.one_per: {section.one_per} needs {needed}, but the pool has none"
            raise RecipeError(f"{error}; accepted: {accepted}")
        if section.of:
            check_groups("balance.of", section.of, columns)

    def check_entries(self, section: Balance, entries: Entries) -> None:
        _scheme(section).check(entries)

    def files_key(self, section: Balance, metadata_key: str) -> str:
        return ids.digest(read_counts(section.counts, metadata_key).tolist()) if section.counts else ""

    def recorded(self, section: Balance, facts: RunFacts, run: SelectionRun, counts: I64) -> LimitsChoice | None:
        """Return the limits for its t; None if the counts came from elsewhere, because they are not read again."""
        if section.counts is not None or section.of or facts.t is None:
            return None
        return _choice(Solution(facts.t), counts, _scheme(section), run)

    def sizes(self, choices: Sequence[LimitsChoice], rows: Sequence[selection.RowsLeft]) -> list[tuple[float, float]]:
        """Return the sizes for several limits, which must not decrease, in one pass over the rows."""
        if any(part.texts is not None for part in rows):
            each = ((choice, list(in_threads(choice.inclusion, rows))) for choice in choices)  # one in memory at a time
            return [(choice.expected(pi)[0], selection.texts_error(rows, pi)) for choice, pi in each]
        order = sorted(range(len(choices)), key=lambda i: choices[i].solution.t)
        counts, n_limits = choices[0].counts, len(choices[0].limits)
        step = max(1, STACK // max(1, n_limits))

        def measure(part: selection.RowsLeft) -> tuple[Any, Any]:
            matches = part.with_values(choices[0].groups).matches
            occurring: Any = slice(None)
            if n_limits > 1:
                matches, occurring = own_entries(matches, len(counts))
            sums, variances = np.zeros(len(order), object), np.zeros(len(order))
            for first in range(0, len(order), step):
                stacked = slice(first, first + step)
                limits = np.stack([choices[i].limits[occurring] for i in order[stacked]])
                sums[stacked] = inclusion.expected_rows(matches, counts[occurring], limits, variances[stacked])
            return sums, variances

        sums, variances = (sum(parts) for parts in zip(*in_threads(measure, rows), strict=True))
        sizes = {i: (int(sums[k]) / inclusion.ONE, float(np.sqrt(variances[k]))) for k, i in enumerate(order)}
        return [sizes[i] for i in range(len(choices))]

    def words(self, outcome: selection.Outcome) -> SelectionWords:
        label = outcome.choice.label
        lines = [f"balance: {label}{_format_reason(outcome.section, outcome.choice)}"]
        if shortfall := outcome.choice.shortfall(outcome.section):
            lines.append(f"warning: {shortfall}")
        if not outcome.dropped and not outcome.section.of:
            lines.append(f"balancing dropped nothing: {_explain_all_kept(outcome)}")
        limit, version, by_language = label, "", ""
        if outcome.choice.languages:
            limit, version, by_language = "the t of their language", " 2", f": {label}"
        downsampled = f"entries with more than {limit} samples are downsampled to t, in expectation (MetaCLIP{version})"
        return SelectionWords(
            kept=": its draw u/p = {draw} is below 1 (probability {probability})",
            dropped="its draw u/p = {draw} is not below 1 (probability {probability})",
            card=f"{downsampled}{by_language}; seed {outcome.seed}",
            summary=lines,
            by_entries=True,
        )

    def form(self, section: Balance) -> selection.Selection:
        return ValuesBalance() if section.of else self


class ValuesBalance(BalanceSelection):
    """Balanced sampling over the values of a column."""

    needs_match = False
    meaning = "not drawn: its value is frequent"

    def choose(self, units: Units, section: Balance, run: SelectionRun, counts: Answer | None) -> Answer:
        groups = find_groups(units, "Balance", run, selection.required(section.of))
        # For a part of the pool, counts are scaled to the whole.
        counts = units.get("Balance: counts", lambda groups: np.rint(groups.rows / run.fraction).astype("i8"), groups)
        valued = units.get("Balance: run", lambda groups: replace(run, groups=groups), groups)
        return self.search(units, section, valued, counts)

    def words(self, outcome: selection.Outcome) -> SelectionWords:
        words, column = super().words(outcome), outcome.section.of
        label = f"values of {column} with more than {outcome.choice.label} samples are downsampled to t, in expectation"
        changed = {
            "kept": f": its {column} is {{value}}, and{words.kept[1:]}",
            "dropped": f"its {column} is {{value}}, and {words.dropped}",
            "card": f"{label}; seed {outcome.seed}",
            "of": column,
            "by_entries": False,
        }
        return words.model_copy(update=changed)


def _scheme(section: Balance) -> Scheme:
    scheme: Scheme = SCHEMES.find(section.scheme).of(section)
    return scheme


def _choice(solution: Solution, counts: I64, scheme: Scheme, run: SelectionRun) -> LimitsChoice:
    [limits], groups = scheme.limits([solution.t], counts, run.entries), scheme.groups(run.entries)
    languages = scheme.languages(limits, counts, run.entries)
    return LimitsChoice(solution, counts, limits if groups is None else limits[groups], languages, run.groups)


def _fixed(counts: I64, section: Balance, scheme: Scheme, run: SelectionRun) -> LimitsChoice:
    t = section.t[section.language] if isinstance(section.t, dict) else section.t
    if section.tail_share is not None:
        t = scheme.t_of_share(section.tail_share, counts, run.entries)
    assert t is not None
    return _choice(Solution(t), counts, scheme, run)


class SizeSearch(NamedTuple):
    """A search for a target size, and the limits at its points, where units sum π (int64[k, groups])."""

    bracket: Bracket
    limits: I64


def _begin(counts: I64, rows: int, scheme: Scheme, run: SelectionRun) -> SizeSearch:
    bracket = Bracket.start(scheme.highest(counts, run.entries), rows)
    return SizeSearch(bracket, scheme.limits(bracket.points, counts, run.entries))


def _narrow(search: SizeSearch, sums: Any, counts: I64, scheme: Scheme, run: SelectionRun) -> SizeSearch:
    bracket = search.bracket.narrow(search.bracket.points, sums)
    return SizeSearch(bracket, scheme.limits(bracket.points, counts, run.entries))


def _expect(
    tables: OpenTables, state: Any, counts: I64, search: SizeSearch, scheme: Scheme, run: SelectionRun
) -> Iterator[Any]:
    if not len(search.limits):
        yield np.zeros(0, object)
        return
    rows = run.rows_left(tables, state).with_values(run.groups)
    matches, groups = rows.matches, scheme.groups(run.entries)
    if groups is not None:
        matches, occurring = own_entries(matches, len(counts))
        counts, groups = counts[occurring], groups[occurring]
    stacks = stack_limits(search.limits, groups)
    sums = [inclusion.expected_rows(matches, counts, limits, texts=rows.texts) for limits in stacks]
    # Python integers: a sum over units may exceed 2⁶⁴.
    yield np.concatenate([np.zeros(0, np.uint64), *sums]).astype(object)


def _solved(search: SizeSearch, counts: I64, scheme: Scheme, run: SelectionRun) -> LimitsChoice:
    try:
        return _choice(search.bracket.solution, counts, scheme, run)
    except RunError as error:
        smallest = _choice(Solution(1), counts, scheme, run)
        again = f"change the recipe, then run with --out NEW --reuse {run.place}"
        remedy = f". To continue without repeating downloads and measurements, {again}" if run.place else ""
        raise selection.OutOfReach(f"{error}{remedy}", smallest, "t = 1, the smallest") from None


def _format_reason(section: Balance, choice: LimitsChoice) -> str:
    solution = choice.solution
    if section.tail_share is not None:
        counts = choice.counts
        reached = f", {counts[counts < solution.t].sum() / max(1, counts.sum()):.4g},"
        reached = "" if section.counts or choice.languages else reached
        return f", whose tail share{reached} is nearest to {section.tail_share:.4g}"
    if section.rows is None:
        return ""
    reason = f", the largest whose expected size is at most {section.rows:,}"
    if solution.expected is None:
        return reason
    above = next_size(section.rows, solution.t, solution.expected, solution.above)
    return f"{reason}; expected {solution.expected:,.0f}, and {above}" if above else reason


def _explain_all_kept(outcome: selection.Outcome) -> str:
    if not outcome.kept:
        return "no row reached this step"
    rows = outcome.section.rows
    if rows is not None and rows >= outcome.kept:
        return f"balance.rows is {rows:,}, but only {pluralize(outcome.kept, 'row')} reached this step"
    entries: pa.Table = outcome.entries
    if pc.min(entries["probability"]).as_py() == 1:
        maximum = int(pc.index(entries["survivors"], pc.max(entries["survivors"])).as_py())
        entry, count = (entries[name][maximum].as_py() for name in ("entry", "survivors"))
        return f"no entry has more than t rows; the most frequent, {entry!r}, has {count:,}"
    return "each row matches an entry with at most t rows, or was drawn"


def read_counts(url: str, metadata_key: str) -> I64:
    """Return the remaining rows of each entry (int64[entries]). Raises RecipeError unless a finished run has them."""
    store, accepted = RunStore(url), "accepted: a finished run with the same match.metadata"
    if not (store.exists(RUN_FILE) and store.exists(SUCCESS_FILE)):
        raise RecipeError(f"balance.counts: {url} is not a finished run; {accepted}")
    facts = read_facts(store)
    if facts.metadata is None or facts.metadata.digest != metadata_key:
        raise RecipeError(f"balance.counts: {url} has {'different' if facts.metadata else 'no'} entries; {accepted}")
    table = store.read_parquet(ENTRIES_FILE, ["entry_id", "survivors"])
    entry_ids = table["entry_id"].to_numpy()
    counts = np.zeros(int(entry_ids.max(initial=-1)) + 1, np.int64)  # ids of dropped entries stay 0
    counts[entry_ids] = table["survivors"].to_numpy()
    return counts
