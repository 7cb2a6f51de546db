"""Measures download rates from a run's log and from existing shards, and estimates how long other downloads take.

A shard takes the total time of its URLs divided by the number of threads, but at least the time of all attempts at one
URL that does not answer. The log has one line for each shard that this command has downloaded.
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
_MAX_SHARDS = 50  # number of shards to sample
# Assumed for a list that is some years old: the share of URLs that give an image, its bytes, its seconds, and the bytes
# per pixel in img2dataset's JPEGs
CAME, BYTES, SECONDS, PIXEL = 0.7, 200_000, 1.5, 0.4


@dataclass(frozen=True)
class DownloadForecast:
    """What it takes to download the parts of a source."""

    rows: int  # number of rows in all parts, such as URLs
    left: int  # number of rows in the parts that are missing
    parts: int  # number of missing parts
    at_once: int  # number of parts in a unit that are downloaded at the same time
    rates: "Rates"  # per row, measured or assumed


@dataclass(frozen=True)
class Rates:
    """Rates per URL."""

    came: float  # share of URLs that gave an image
    bytes: float  # per image, in the download
    stored: float  # per image, in the tar
    seconds: float  # per shard, by its number of URLs
    shards: int = 0  # number of shards and URLs that were measured; 0 if the rates are assumed
    urls: int = 0


def measured_rates(store: RunStore, stems: Collection[str]) -> Rates | None:
    """Return the rates from a sample of shards, given by paths without suffix; None if the shards record none."""
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
    """Return assumed rates for shards with this average number of URLs."""
    policy, side = source.network, source.image_size
    slowest = policy.attempts * source.timeout + sum(policy.pause * 2**n for n in range(policy.attempts - 1))
    stored = BYTES if side is None else PIXEL * side**2
    return Rates(CAME, BYTES, stored, SECONDS / min(source.thread_count, urls) + slowest / urls)


def log_download(run: RunStore, shard: str, facts: DownloadFacts, digests: Mapping[str, Digest] | None = None) -> None:
    """Record the download of a shard. If several workers download a shard, only one record counts.

    `digests` are the digests of its files that are known, by path in the run's folder.
    """
    run.log(_LOG, json.dumps([shard, facts.to_json(), digests or {}]))


def read_downloads(run: RunStore) -> tuple[DownloadFacts | None, dict[str, Digest]]:
    """Return the sum of all records, None if there are none, and the known digests of files."""
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
