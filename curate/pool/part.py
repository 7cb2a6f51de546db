"""What reading one part of a unit gives, before it becomes tables."""

from dataclasses import dataclass, field

import pyarrow as pa

from curate.signals.signal import SignalOutput


@dataclass
class Measured:
    """What one part of a unit gives.

    Attributes:
        columns: columns of `samples` (but unit, row, uid, source, shard, language where it is measured), all of one
            length; `own_uid` holds the uids that the input brings.
        scores: columns of `scores` that the input brings.
        members: suffix, offset, size of `members`; None for Parquet.
        failure: reason and detail, where the file could not be read, or only in part.
        gauged: what each of the signals of images found, in their order; empty where there are no images.
        faults: of signals whose embeddings the pool was to bring and cannot: what is wrong, and whether it may pass.
        state: what the file was when it was read, see curate.pool.listing.file_state; None where it could not be.
    """

    columns: dict[str, pa.Array] = field(default_factory=dict)
    scores: dict[str, pa.Array] = field(default_factory=dict)
    members: tuple[pa.Array, pa.Array, pa.Array] | None = None
    failure: tuple[str, str] | None = None
    gauged: list[SignalOutput] = field(default_factory=list)
    faults: dict[str, tuple[str, bool]] = field(default_factory=dict)
    state: str | None = None

    @property
    def rows(self) -> int:
        """How many samples were found."""
        return len(self.columns["status"]) if self.columns else 0
