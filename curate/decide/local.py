"""The decision over a few units, in one process and without Beam: what `curate plan` estimates from, and tests compare with."""

from collections.abc import Sequence

import numpy as np

from curate.decide import ballot, cosine, dedup, hamming, quantiles
from curate.decide.ballot import Ballot
from curate.decide.near import Groups
from curate.job import Job
from curate.plan import Unit
from curate.recipe import Near, Top


def apply_rules(job: Job, units: Sequence[Unit]) -> list[Ballot]:
    """The units' ballots after all rules and `unmatched`."""
    ballots = [ballot.open_ballot(job, unit) for unit in units]
    for i, segment in enumerate(job.segments):
        if segment.top is None:
            continue
        assert isinstance(segment.top.spec, Top)
        radix = quantiles.Radix(segment.top.spec.top)
        while not radix.solved:
            total = np.sum([ballot.top_histogram(job, b, i, radix) for b in ballots], axis=0)
            radix = radix.narrow(total)
        ballots = [ballot.apply_top(job, b, i, radix.key) for b in ballots]
    return ballots


def deduplicate(job: Job, ballots: Sequence[Ballot]) -> list[Ballot]:
    """The ballots with the duplicates among these units dropped."""
    groups = {place: _groups(job, by, ballots) for place, by in job.recipe.dedup.near.items()}
    hashes: dict[int, list[ballot.U64]] = {}
    for b in ballots:
        for (number, _), found in ballot.hash_keys(job, b, 1, groups):
            hashes.setdefault(number, []).append(found)
    repeats = [(number, dedup.repeated(parts)) for number, parts in hashes.items()]
    records = np.concatenate([ballot.find_candidates(job, b, repeats, groups) for b in ballots])
    for i in range(len(job.recipe.dedup.passes)):
        records = dedup.resolve(records, i)
    lost = records[records["dead"]]
    return [ballot.drop_duplicates(b, [lost[lost["unit"] == b.unit.index]]) for b in ballots]


def _groups(job: Job, by: Near, ballots: Sequence[Ballot]) -> Groups:
    """The groups of a pass by nearness."""
    if by.phash:
        return Groups.of(
            hamming.edges(np.concatenate([ballot.alive_hashes(job, b) for b in ballots]), by.phash.distance)
        )
    assert by.embedding is not None
    model = by.embedding.of
    nodes, vectors = (
        np.concatenate(p) for p in zip(*(ballot.alive_vectors(job, b, model) for b in ballots), strict=True)
    )
    return Groups.of(cosine.edges(nodes, vectors, by.embedding.cosine))
