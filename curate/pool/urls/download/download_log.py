"""What a run downloads: a line of a log for each shard that is done, which progress shows and publishing sums.

In: a run folder. Out: DownloadFacts, for run.json. What an earlier command of the run did is not in it: `tmp` is emptied when a run starts.
"""

from collections import Counter
from collections.abc import Mapping

from curate.store.facts import DownloadFacts
from curate.store.store import RunStore

_LOG = "tmp/downloads"


def log_download(run: RunStore, shard: str, facts: DownloadFacts) -> None:
    """Record what downloading a shard gave; of one that is downloaded twice, by several workers, one record counts."""
    numbers = (facts.urls, facts.came, facts.bytes, round(1000 * facts.began), round(1000 * facts.ended))
    reasons = (f"{reason}={count}" for reason, count in facts.reasons.items())
    run.log(_LOG, ",".join([shard, *map(str, numbers), *reasons]))


def sum_downloads(run: RunStore) -> DownloadFacts | None:
    """Return what all shards gave together; None where none was downloaded."""
    shards = {}
    for line in run.read_log(_LOG):
        shard, urls, came, size, began, ended, *reasons = line.split(",")
        counts = {reason: int(count) for reason, _, count in (text.partition("=") for text in reasons)}
        numbers = {"urls": int(urls), "came": int(came), "bytes": int(size)}
        shards[shard] = DownloadFacts(**numbers, began=int(began) / 1000, ended=int(ended) / 1000, reasons=counts)
    if not shards:
        return None
    found = shards.values()
    return DownloadFacts(
        urls=sum(one.urls for one in found),
        came=sum(one.came for one in found),
        bytes=sum(one.bytes for one in found),
        began=min(one.began for one in found),
        ended=max(one.ended for one in found),
        reasons=by_frequency(sum((Counter(one.reasons) for one in found), Counter())),
    )


def by_frequency(reasons: Mapping[str, int]) -> dict[str, int]:
    """Return reasons with their counts, the most frequent first."""
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
