"""Where the steps of a run work: the engine says it, and the one run differs from the other by nothing else."""

from enum import Enum


class Place(Enum):
    """Where steps work. What they write is the same everywhere; what travels to them, and how many, is not."""

    THIS_PROCESS = "this process"  # so what it loads before is there for them
    PROCESSES = "processes of this machine"
    LOCAL_CLUSTER = "a cluster on this machine"  # as Spark's local[N]
    CLUSTER = "other machines"

    @property
    def is_this_machine(self) -> bool:
        """Whether workers have the files of this machine."""
        return self is not Place.CLUSTER

    @property
    def is_cluster(self) -> bool:
        """Whether work is spread over workers, none of which may hold what belongs to the whole pool."""
        return self in (Place.LOCAL_CLUSTER, Place.CLUSTER)
