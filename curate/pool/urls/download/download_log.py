"""What a run downloads: a line of a log for each shard that is done, which progress shows and publishing sums.

In: a run folder. Out: DownloadFacts, for run.json. What an earlier command of the run did is not in it: `tmp` is
emptied when a run starts.
"""

import json
from collections import Counter
from collections.abc import Mapping

from curate.store.facts import DownloadFacts
from curate.store.store import RunStore

_LOG = "tmp/downloads"


def log_download(run: RunStore, shard: str, facts: DownloadFacts) -> None:
    """Record what downloading a shard gave; of one that is downloaded twice, by several workers, one record counts."""
    run.log(_LOG, json.dumps([shard, facts.to_json()]))


def sum_downloads(run: RunStore) -> DownloadFacts | None:
    """Return what all shards gave together; None where none was downloaded."""
    by_shard = dict(json.loads(line) for line in run.read_log(_LOG))
    shards = [DownloadFacts.model_validate(facts) for facts in by_shard.values()]
    if not shards:
        return None
    return DownloadFacts(
        urls=sum(shard.urls for shard in shards),
        came=sum(shard.came for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        began=min(shard.began for shard in shards),
        ended=max(shard.ended for shard in shards),
        reasons=by_frequency(sum((Counter(shard.reasons) for shard in shards), Counter())),
    )


def by_frequency(reasons: Mapping[str, int]) -> dict[str, int]:
    """Return reasons with their counts, the most frequent first."""
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
