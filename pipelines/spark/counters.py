"""What the stages of a job took."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageCost:
    """What a stage of a job, or a group, took.

    Attributes:
        name: the steps.
        tasks: that it was split into; 0 where the driver did it.
        seconds: of wall.
        seconds_in_bundles: of all its tasks within bundles, added.
        bytes_shuffled: of elements that were brought together by key.
        bytes_given: of elements that it gave to other stages.
    """

    name: str
    tasks: int
    seconds: float
    seconds_in_bundles: float
    bytes_shuffled: int
    bytes_given: int
