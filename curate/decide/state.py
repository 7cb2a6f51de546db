"""A unit on its way through the decision: which rows are still in, and what dropped the others.

Every function takes the job and one unit's state and looks at that unit's tables only; what is global (thresholds,
duplicates, counts, t) comes in as an argument, computed from the units' small answers. The last step writes `decisions`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.decide import balance, cells, dedup, near, quantiles
from curate.decide.evaluation import find_contaminated
from curate.metadata.unit import MatchSettings, load_entries
from curate.numeric.vectors import embedding_matrix
from curate.pool.plan import Unit
from curate.recipe.rules import Top
from curate.run.context import RunContext
from curate.run.rules import first_failed
from curate.schema import CODES
from curate.store.forgotten import forgotten_mask

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

ALIVE = CODES[schema.KEPT]


@dataclass(frozen=True)
class UnitState:
    """A unit's state.

    Attributes:
        unit: the unit.
        verdicts: int16[rows]: ALIVE, the position of the rule that dropped the row, or a reserved rule's code.
        duplicates: after deduplication, the rows that lost to another (int32).
        winners: for each of them, the halves of the uid of the row that stands for it (uint64[2, duplicates]).
        contaminated: the rows that are near an evaluation image (int64).
        evaluated: for each of them, the name of that image (string).
    """

    unit: Unit
    verdicts: npt.NDArray[np.int16]
    duplicates: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    winners: U64 = field(default_factory=lambda: np.zeros((2, 0), np.uint64))
    contaminated: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    evaluated: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """The rows still in."""
        return np.asarray(self.verdicts == ALIVE)

    def drop(self, rows: npt.NDArray[np.bool_], code: int) -> "UnitState":
        """The ballot with these rows dropped, where they were alive."""
        return replace(self, verdicts=np.where(rows & self.alive, np.int16(code), self.verdicts))


@dataclass(frozen=True)
class UnitResult:
    """What a unit reports after deciding.

    Attributes:
        unit: the unit.
        kept: how many rows are kept.
        entries: int64[2, n] or None: per entry the expected rows in fixed point (2⁻³²), and the kept rows.
    """

    unit: Unit
    kept: int
    entries: I64 | None


def open_ballot(context: RunContext, unit: Unit) -> UnitState:
    """All rows of the unit, the unreadable and the forgotten ones dropped, after the rules before the first top rule."""
    samples = context.read("samples", unit, ["status", "characters"])
    ok = pc.equal(samples["status"], schema.OK).to_numpy()
    state = UnitState(unit, np.where(ok, np.int16(ALIVE), np.int16(CODES[schema.FAILED])))
    return apply_segment(context, state.drop(forgotten_mask(samples), CODES[schema.FORGOTTEN]), 0)


def apply_segment(context: RunContext, ballot: UnitState, index: int) -> UnitState:
    """Applies the SQL rules of a segment; after the last one, drops what matches no entry."""
    segment = context.segments[index]
    if segment.rules:
        columns = list(dict.fromkeys(column for rule in segment.rules for column in rule.columns)) or ["row"]
        alive = ballot.alive
        table = context.columns(ballot.unit, columns)
        failed = first_failed(segment.rules, table if alive.all() else table.filter(pa.array(alive)))
        verdicts = ballot.verdicts.copy()
        verdicts[alive] = np.where(failed >= 0, failed + segment.first, ALIVE)
        ballot = replace(ballot, verdicts=verdicts)
    if segment.top is None and context.recipe.match:
        unmatched = pc.equal(pc.list_value_length(_matches(context, ballot.unit)), 0).to_numpy(zero_copy_only=False)
        ballot = ballot.drop(unmatched, CODES[schema.UNMATCHED])
    return decontaminate(context, ballot) if segment.top is None and context.recipe.dedup.against else ballot


def decontaminate(context: RunContext, ballot: UnitState) -> UnitState:
    """Drops the rows that are near an image of the evaluation set."""
    against = context.recipe.dedup.against
    assert against is not None
    if against.phash:
        hashes = context.read("samples", ballot.unit, ["phash"])["phash"]
        rows = np.flatnonzero(ballot.alive & hashes.is_valid().to_numpy())
        near_rows, names = find_contaminated(context, hashes.take(pa.array(rows)).to_numpy().astype(np.uint64), None)
        rows = rows[near_rows]
    else:
        assert against.embedding is not None
        nodes, vectors = alive_vectors(context, ballot, against.embedding.of)
        near_rows, names = find_contaminated(context, None, vectors)
        rows = near.rows_of(nodes[near_rows])[1].astype(np.int64)
    dropped = np.zeros(len(ballot.verdicts), bool)
    dropped[rows] = True
    return replace(ballot.drop(dropped, CODES[schema.CONTAMINATED]), contaminated=rows, evaluated=names)


def top_histogram(context: RunContext, ballot: UnitState, index: int, radix: quantiles.Radix) -> I64:
    """Counts the digits of the top rule's column that the radix search asks for, over the rows that reached the rule."""
    return radix.histogram(top_keys(context, ballot, index))


def top_keys(context: RunContext, ballot: UnitState, index: int) -> U64:
    """The order keys of a top rule's column, of the rows that reached the rule and have a value."""
    keys, valid = _top_keys(context, ballot, index)
    return keys[valid & ballot.alive]


def apply_top(context: RunContext, ballot: UnitState, index: int, key: int | None) -> UnitState:
    """Drops what is below the threshold of the segment's top rule, then applies the next segment."""
    keys, valid = _top_keys(context, ballot, index)
    segment = context.segments[index]
    below = ~quantiles.threshold_mask(keys, valid, key)
    return apply_segment(context, ballot.drop(below, segment.first + len(segment.rules)), index + 1)


def alive_hashes(context: RunContext, ballot: UnitState) -> U64:
    """The perceptual hashes of the rows still in (uint64)."""
    hashes = context.read("samples", ballot.unit, ["phash"])["phash"].filter(pa.array(ballot.alive))
    return np.asarray(hashes.drop_null().to_numpy(), np.uint64)


def alive_vectors(context: RunContext, ballot: UnitState, model: str) -> tuple[U64, npt.NDArray[np.float16]]:
    """The nodes (see `near.row_ids`) of the rows still in, and their image embeddings by a model, those with one."""
    prefix = next(one.prefix for one in context.recipe.measure.kept if one.name == model)
    column = context.read("embeddings", ballot.unit, [f"{prefix}image"]).column(0)
    vectors = embedding_matrix(column)
    rows = np.flatnonzero(ballot.alive & cells.usable(vectors))
    return near.row_ids(ballot.unit.index, rows), vectors[rows]


def hash_keys(
    context: RunContext, ballot: UnitState, n_buckets: int, groups: Mapping[int, near.Groups]
) -> Iterator[tuple[tuple[int, int], U64]]:
    """Deduplication, phase 1: the hashes of each pass's keys, by (pass, bucket); `groups` of the passes by nearness."""
    for i, column in enumerate(_pass_columns(context, ballot, groups)):
        for bucket, hashes in enumerate(dedup.split_buckets(dedup.key_hashes(column, ballot.alive), n_buckets)):
            if len(hashes):
                yield (i, bucket), hashes


def find_candidates(
    context: RunContext, ballot: UnitState, found: Iterable[tuple[int, U64]], groups: Mapping[int, near.Groups]
) -> dedup.Records:
    """Deduplication, phase 2: the records of the rows whose hash repeats somewhere in the pool.

    Args:
        context: the run.
        ballot: after rules and `unmatched`.
        found: (pass, hashes of this unit that repeat), any number of each.
        groups: of the passes by nearness.
    """
    passes = context.recipe.dedup.by
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *[h for i, h in found if i == p]])) for p in range(len(passes))
    ]
    columns = _pass_columns(context, ballot, groups)
    rows = dedup.candidates(columns, ballot.alive, hashes)
    take = pa.array(rows)
    taken = [column.take(take) for column in columns]
    best = context.recipe.dedup.prefer
    prefer = (
        None
        if best is None
        else dedup.preferences(context.columns(ballot.unit, [best])[best].combine_chunks().take(take))
    )
    content = _content(context, ballot.unit, take)
    return dedup.make_records(ballot.unit.index, rows, taken[passes.index("uid")], taken, content, prefer)


def _content(context: RunContext, unit: Unit, rows: pa.Array) -> U64:
    """What decides between rows of one uid (see `dedup.content_hashes`)."""
    if not (
        context.pool.images or "uid" in context.pool.supplied
    ):  # a uid is made of URL and caption: alike in it, alike in both
        return np.zeros(len(rows), np.uint64)
    table = context.read("samples", unit, ["sha256", "url", "caption"]).take(rows)
    return dedup.content_hashes(pc.coalesce(table["sha256"], table["url"]), table["caption"])


def drop_duplicates(ballot: UnitState, losers: Iterable[dedup.Records]) -> UnitState:
    """The ballot with the unit's losers dropped, in the order of their rows."""
    parts = list(losers)
    if not parts:
        return ballot
    records = np.concatenate(parts)
    records = records[np.argsort(records["row"])]
    lost = np.zeros(len(ballot.verdicts), bool)
    lost[records["row"]] = True
    winners = np.stack([records["rep_hi"], records["rep_lo"]])
    return replace(ballot.drop(lost, CODES[schema.DUPLICATE]), duplicates=records["row"].copy(), winners=winners)


def count_entries(context: RunContext, unit: Unit, ballot: UnitState | None = None) -> I64:
    """Rows that match each entry: all of the unit's, or those alive on the ballot (int64[entries])."""
    return balance.entry_counts(
        _matches(context, unit),
        None if ballot is None else ballot.alive,
        len(load_entries(MatchSettings.of(context)).entries),
    )


def expected_rows(context: RunContext, ballot: UnitState, counts: I64, ts: I64) -> U64:
    """The unit's part of Σπ for each t (fixed point, uint64[k])."""
    return balance.expected_rows(alive_matches(context, ballot), counts, ts)


def decide(
    context: RunContext, ballot: UnitState, counts: I64 | None, t: int | None, gaps: Sequence[str] = ()
) -> UnitResult:
    """Draws, writes the unit's `decisions`, and reports.

    Args:
        context: the run.
        ballot: after deduplication.
        counts: int64[entries] over all survivors; None without `match`.
        t: the rows an entry may have; None without `balance`.
        gaps: of all units, in any order (see `measure_unit`): what was decided with other gaps is decided again.
    """
    key = ids.digest([context.decisions_key, sorted(gaps)]) if gaps else context.decisions_key
    if not context.is_current("decisions", ballot.unit, key):
        _write_decisions(context, ballot, counts, t, key)
    table = context.read("decisions", ballot.unit, ["kept", "probability"])
    kept = table["kept"].to_numpy().astype(np.int64)
    if counts is None:
        return UnitResult(ballot.unit, int(kept.sum()), None)
    matches = _matches(context, ballot.unit)
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    sums = [balance.entry_sums(matches, weights, len(counts)) for weights in (expected, kept)]
    return UnitResult(ballot.unit, int(kept.sum()), np.stack(sums))


def _write_decisions(context: RunContext, ballot: UnitState, counts: I64 | None, t: int | None, key: str) -> None:
    base = context.read("samples", ballot.unit, ["unit", "row", "uid"])
    survivors = ballot.alive
    probability = survivors.astype(np.float64)
    draws = np.full(len(base), np.nan)
    if t is not None and counts is not None and survivors.any():
        matches = alive_matches(context, ballot)
        probability[survivors] = balance.inclusion(matches, balance.probabilities(counts, t))
        uids = base["uid"].filter(pa.array(survivors)).combine_chunks()
        draws[survivors] = balance.draw(
            uids, matches, counts, t, load_entries(MatchSettings.of(context)).keys, context.recipe.seed
        )
        ballot = ballot.drop(survivors & (draws >= 1), CODES[schema.BALANCE])
    lost = np.zeros(len(base), bool)
    lost[ballot.duplicates] = True
    near_evaluation = np.zeros(len(base), bool)
    near_evaluation[ballot.contaminated] = True
    table = pa.table(
        {
            **{name: base[name] for name in base.column_names},
            "kept": pa.array(ballot.alive),
            "rule": _rule_names(context, ballot.verdicts),
            "duplicate_of": pc.replace_with_mask(
                pc.replace_with_mask(pa.nulls(len(base), pa.string()), pa.array(lost), ids.hex_uids(*ballot.winners)),
                pa.array(near_evaluation),
                ballot.evaluated,
            ),
            "probability": pa.array(probability),
            "draw": pa.array(draws, mask=np.isnan(draws)),
        },
        schema=schema.DECISIONS,
    )
    context.write("decisions", ballot.unit, table, key)


def _pass_columns(context: RunContext, ballot: UnitState, groups: Mapping[int, near.Groups]) -> list[pa.Array]:
    """The key column of each pass: of one by nearness, the group that the row is in."""
    columns = []
    for place, by in enumerate(context.recipe.dedup.by):
        if isinstance(by, str):
            columns.append(context.columns(ballot.unit, [by])[by].combine_chunks())
        elif by.phash:
            columns.append(near.hash_keys(context.read("samples", ballot.unit, ["phash"])["phash"], groups[place]))
        else:
            columns.append(near.row_keys(ballot.unit.index, len(ballot.verdicts), groups[place]))
    return columns


def _rule_names(context: RunContext, verdicts: npt.NDArray[np.int16]) -> pa.Array:
    return name_verdicts(verdicts, list(context.recipe.rules))


def name_verdicts(verdicts: npt.NDArray[np.int16], rules: Sequence[str]) -> pa.Array:
    """Return the rule or stage that dropped each row (string[rows]); null where it is kept."""
    names, codes = _names_and_codes(rules)
    index = pc.index_in(pa.array(verdicts, mask=verdicts == ALIVE), pa.array(codes, pa.int16()), skip_nulls=True)
    return names.take(index)


def read_verdicts(names: pa.ChunkedArray, rules: Sequence[str]) -> npt.NDArray[np.int16]:
    """Return the verdicts (int16[rows]) that `name_verdicts` gave these names. Raises ValueError for any other name."""
    known, codes = _names_and_codes(rules)
    index = pc.index_in(names, known, skip_nulls=True)
    if index.null_count != names.null_count:
        raise ValueError("a name is neither a rule nor a stage")
    missing = index.is_null().to_numpy()
    return np.where(missing, np.int16(ALIVE), np.array(codes, np.int16)[index.fill_null(0).to_numpy()])


def _names_and_codes(rules: Sequence[str]) -> tuple[pa.Array, list[int]]:
    return pa.array([*rules, *CODES], pa.string()), [*range(len(rules)), *CODES.values()]


def _top_keys(
    context: RunContext, ballot: UnitState, index: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    top = context.segments[index].top
    assert top is not None and isinstance(top.spec, Top)
    return quantiles.order_keys(context.columns(ballot.unit, list(top.columns))[top.columns[0]].combine_chunks())


def _matches(context: RunContext, unit: Unit) -> pa.ListArray:
    return context.read("matches", unit, ["entry_ids"])["entry_ids"].combine_chunks()


def alive_matches(context: RunContext, ballot: UnitState) -> pa.ListArray:
    """The entry ids of the rows still in."""
    return _matches(context, ballot.unit).filter(pa.array(ballot.alive))
