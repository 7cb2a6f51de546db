"""What downloads gave, by the log of a run and by shards that are there, and what others will take.

A shard takes its URLs' time over all threads, and all attempts at one without an answer. The log has a line for each
shard that this command has done.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from curate.download.shard_names import STATISTICS
from curate.download.source import UrlsSource
from curate.store.facts import DownloadFacts
from curate.store.local import Digest
from curate.store.store import RunStore

_LOG = "tmp/downloads"
_MAX_SHARDS = 50  # shards that are looked at
# Assumed of a list some years old: the share of URLs that give an image, its bytes, its seconds, and bytes of a pixel
# of img2dataset's JPEGs
CAME, BYTES, SECONDS, PIXEL = 0.7, 200_000, 1.5, 0.4


@dataclass(frozen=True)
class DownloadForecast:
    """What fetching the parts of a source will take."""

    rows: int  # of all parts, such as URLs
    left: int  # those of parts that are not there yet
    parts: int  # how many are not
    at_once: int  # how many parts of a unit are fetched at once
    rates: "Rates"  # what is known, or assumed, of a row


@dataclass(frozen=True)
class Rates:
    """What URLs give."""

    came: float  # the share that gave an image
    bytes: float  # of an image, as it came
    stored: float  # of an image, in the tar
    seconds: float  # of a shard, by the number of its URLs
    shards: int = 0  # how many shards and URLs these are measured of; 0: they are assumed
    urls: int = 0


def measured_rates(store: RunStore, stems: Collection[str]) -> Rates | None:
    """Return what shards gave, a few of them by their paths without suffix; None where they say nothing of it."""
    few = sorted(stems)[:: max(1, len(stems) // _MAX_SHARDS)]
    sums: Counter[str] = Counter()
    for stem in few:
        if "bytes" in (statistics := store.read_json(f"{stem}{STATISTICS}")):
            sums.update({name: statistics[name] for name in ("count", "successes", "bytes", "duration")})
            sums.update(shards=1, stored=store.size(f"{stem}.tar"))
    urls, came = sums["count"], sums["successes"]
    if not came:
        return None
    sizes = sums["bytes"] / came, sums["stored"] / came
    return Rates(came / urls, *sizes, sums["duration"] / urls, sums["shards"], urls)


def assumed_rates(source: UrlsSource, urls: float) -> Rates:
    """Return assumptions for shards of so many URLs, on the average."""
    policy, side = source.network, source.image_size
    slowest = policy.attempts * source.timeout + sum(policy.pause * 2**n for n in range(policy.attempts - 1))
    stored = BYTES if side is None else PIXEL * side**2
    return Rates(CAME, BYTES, stored, SECONDS / min(source.thread_count, urls) + slowest / urls)


def log_download(run: RunStore, shard: str, facts: DownloadFacts, digests: Mapping[str, Digest] | None = None) -> None:
    """Record what downloading a shard gave; of one that is downloaded twice, by several workers, one record counts.

    `digests` are those of its files in the run's folder, by their paths there, where they are known.
    """
    run.log(_LOG, json.dumps([shard, facts.to_json(), digests or {}]))


def read_downloads(run: RunStore) -> tuple[DownloadFacts | None, dict[str, Digest]]:
    """Return what all shards gave together, None where none was downloaded, and digests of their files, if known."""
    lines = [json.loads(line) for line in run.read_log(_LOG)]
    digests = {path: Digest(*digest) for _, _, of_shard in lines for path, digest in of_shard.items()}
    by_shard = {shard: facts for shard, facts, _ in lines}
    shards = [DownloadFacts.model_validate(facts) for facts in by_shard.values()]
    if not shards:
        return None, digests
    sums = {name: sum(getattr(shard, name) for shard in shards) for name in ("urls", "came", "bytes")}
    reasons = by_frequency(sum((Counter(shard.reasons) for shard in shards), Counter()))
    began, ended = min(shard.began for shard in shards), max(shard.ended for shard in shards)
    return DownloadFacts(**sums, began=began, ended=ended, reasons=reasons), digests


def by_frequency(reasons: Mapping[str, int]) -> dict[str, int]:
    """Return reasons with their counts, the most frequent first."""
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
