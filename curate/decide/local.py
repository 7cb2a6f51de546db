"""The decision in one process and without Beam: over a few units what `curate plan` estimates from, over all units what
`curate whatif` asks, and what tests compare with. Units are looked at in threads, one per core.

Keys of a top rule and hashes of deduplication wait in memory, 8 bytes a row. Near groups of whole pools are found so too
where the run has one machine, with embeddings in a file of the run folder, of which no more is in memory than the system
likes to keep.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from curate.decide import cosine, dedup, hamming, quantiles
from curate.decide import state as ballot
from curate.decide.near import I64, Groups
from curate.decide.state import UnitState
from curate.pool.plan import Unit
from curate.process import in_threads
from curate.recipe.rules import Near, Top
from curate.run.context import RunContext


def apply_rules(context: RunContext, units: Sequence[Unit]) -> list[UnitState]:
    """The units' ballots after all rules and `unmatched`."""
    return apply_tops(context, open_ballots(context, units))


def open_ballots(context: RunContext, units: Sequence[Unit]) -> list[UnitState]:
    """The units' ballots after the rules that come before the first top rule."""
    _ = context.segments  # made before threads ask for it
    return list(in_threads(partial(ballot.open_ballot, context), units))


def apply_tops(context: RunContext, ballots: list[UnitState]) -> list[UnitState]:
    """The ballots of `open_ballots` after all other rules."""
    for i, segment in enumerate(context.segments):
        if segment.top is None:
            continue
        assert isinstance(segment.top.spec, Top)
        keys = np.concatenate(list(in_threads(partial(ballot.top_keys, context, index=i), ballots)))
        radix = quantiles.Radix(segment.top.spec.top)
        while not radix.solved:
            radix = radix.narrow(radix.histogram(keys))
        ballots = list(in_threads(partial(ballot.apply_top, context, index=i, key=radix.key), ballots))
    return ballots


def deduplicate(context: RunContext, ballots: Sequence[UnitState]) -> list[UnitState]:
    """The ballots with the duplicates among these units dropped."""
    return drop_repeats(context, ballots, find_repeats(context, ballots))


def find_repeats(context: RunContext, ballots: Sequence[UnitState]) -> dedup.Records:
    """The records of the rows still in that share a key of some pass with another one."""
    groups = {place: find_groups(context, by, ballots)[0] for place, by in context.recipe.dedup.near.items()}
    hashes: dict[int, list[ballot.U64]] = {}
    for found in in_threads(lambda b: list(ballot.hash_keys(context, b, 1, groups)), ballots):
        for (number, _), part in found:
            hashes.setdefault(number, []).append(part)
    repeats = [(number, dedup.repeated(parts)) for number, parts in hashes.items()]
    return np.concatenate(list(in_threads(lambda b: ballot.find_candidates(context, b, repeats, groups), ballots)))


def drop_repeats(context: RunContext, ballots: Sequence[UnitState], records: dedup.Records) -> list[UnitState]:
    """The ballots with the duplicates dropped.

    Args:
        context: the run.
        ballots: in the order of their units.
        records: of `find_repeats` over these ballots; where all passes are by equal keys, over any that had more rows in.
    """
    own = _by_unit(records, ballots)
    records = np.concatenate([part[b.alive[part["row"]]] for b, part in zip(ballots, own, strict=True)])
    for i in range(len(context.recipe.dedup.by)):
        records = dedup.resolve(records, i)
    lost = _by_unit(records[records["dead"]], ballots)
    return [ballot.drop_duplicates(b, [part]) for b, part in zip(ballots, lost, strict=True)]


def _by_unit(records: dedup.Records, ballots: Sequence[UnitState]) -> list[dedup.Records]:
    """Each unit's part of records that are in the order of units."""
    units = records["unit"].copy()
    return [records[slice(*np.searchsorted(units, [b.unit.index, b.unit.index + 1]))] for b in ballots]


def find_groups(context: RunContext, by: Near, ballots: Sequence[UnitState]) -> tuple[Groups, I64]:
    """The groups of a pass by nearness, and of a sample's close pairs how many there are and were candidates (int64[2])."""
    if by.phash:
        hashes = np.concatenate([ballot.alive_hashes(context, b) for b in ballots])
        return Groups.of(hamming.edges(hashes, by.phash.distance)), np.zeros(2, np.int64)
    assert by.embedding is not None
    nodes, dimension = [], 0
    with context.store.spool() as file:
        for b in ballots:
            own, vectors = ballot.alive_vectors(context, b, by.embedding.of)
            nodes.append(own)
            dimension = vectors.shape[1]
            file.write(vectors.tobytes())
        file.flush()
        found = np.concatenate(nodes)
        if not len(found):
            return Groups.of(np.zeros((0, 2), np.uint64)), np.zeros(2, np.int64)
        mapped: npt.NDArray[np.float16] = np.memmap(file, np.float16, "r", shape=(len(found), dimension))
        edges, counts = cosine.edges(found, mapped, by.embedding.cosine)
        return Groups.of(edges), counts
