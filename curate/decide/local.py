"""The decision in one process and without Beam: over a few units what `curate plan` estimates from, and tests compare with.

Near groups of whole pools are found so too where the run has one machine: hashes wait in memory, 8 bytes a row, and
embeddings in a file of the run folder, of which no more is in memory than the system likes to keep.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curate.decide import ballot, cosine, dedup, hamming, quantiles
from curate.decide.ballot import Ballot
from curate.decide.near import I64, Groups
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
    groups = {place: find_groups(job, by, ballots)[0] for place, by in job.recipe.dedup.near.items()}
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


def find_groups(job: Job, by: Near, ballots: Sequence[Ballot]) -> tuple[Groups, I64]:
    """The groups of a pass by nearness, and of a sample's close pairs how many there are and were candidates (int64[2])."""
    if by.phash:
        hashes = np.concatenate([ballot.alive_hashes(job, b) for b in ballots])
        return Groups.of(hamming.edges(hashes, by.phash.distance)), np.zeros(2, np.int64)
    assert by.embedding is not None
    nodes, dimension = [], 0
    with job.folder.spool() as file:
        for b in ballots:
            own, vectors = ballot.alive_vectors(job, b, by.embedding.of)
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
