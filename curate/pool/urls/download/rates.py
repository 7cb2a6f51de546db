"""What a download will take, said before it: by shards that are there already, or by assumptions, which `Rates` says.

A shard ends with its slowest URL: it takes its URLs' time over all threads, and all attempts at one without an answer.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from curate.store.store import RunStore

_MOST = 50  # shards that are looked at
# Assumed of a list some years old: the share of URLs that give an image, its bytes, its seconds, and bytes of a pixel
# of img2dataset's JPEGs
CAME, BYTES, SECONDS, PIXEL = 0.7, 200_000, 1.5, 0.4
STATISTICS = "_stats.json"


@dataclass(frozen=True)
class Outlook:
    """What fetching the parts of a source will take."""

    rows: int  # of all parts, such as URLs
    left: int  # those of parts that are not there yet
    parts: int  # how many are not
    at_once: int  # how many parts of a unit are fetched at once
    rates: "Rates"  # what is known, or assumed, of a row


@dataclass(frozen=True)
class Rates:
    """What URLs give.

    Attributes:
        came: the share that gave an image.
        bytes: of an image, as it came.
        stored: of an image, in the tar.
        seconds: of a shard, by the number of its URLs.
        shards, urls: how many these are measured of; 0: they are assumed.
    """

    came: float
    bytes: float
    stored: float
    seconds: float
    shards: int = 0
    urls: int = 0


def measured_rates(store: RunStore, stems: Collection[str]) -> Rates | None:
    """Return what shards gave, a few of them by their paths without suffix; None where they say nothing of it."""
    few = sorted(stems)[:: max(1, len(stems) // _MOST)]
    sums: Counter[str] = Counter()
    for stem in few:
        if "bytes" in (statistics := store.read_json(f"{stem}{STATISTICS}")):
            sums.update({name: statistics[name] for name in ("count", "successes", "bytes", "duration")})
            sums.update(shards=1, stored=store.size(f"{stem}.tar"))
    urls, came = sums["count"], sums["successes"]
    if not came:
        return None
    return Rates(
        came / urls, sums["bytes"] / came, sums["stored"] / came, sums["duration"] / urls, sums["shards"], urls
    )


def assumed_rates(urls: float, threads: int, slowest: float, image_size: int | None) -> Rates:
    """Return assumptions for shards of so many URLs, on the average; `slowest`: seconds that a URL takes at most."""
    stored = BYTES if image_size is None else PIXEL * image_size**2
    return Rates(CAME, BYTES, stored, SECONDS / min(threads, urls) + slowest / urls)
