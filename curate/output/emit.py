"""Emits a shard: its files, and last the Parquet file with the key, which shows that all of them are there."""

import time

from curate.numeric.arrays import U64
from curate.output.output_format import find_output
from curate.output.settings import EmitSettings, Shard


def emit_shard(settings: EmitSettings, shard: Shard, repeated: U64) -> Shard:
    """Write the files of the shard, unless they are current; see `OutputFormat.write`."""
    started = time.time()
    store, kind, key = settings.store, find_output(settings.pool.images), settings.shard_key(shard)
    last = f"{shard.stem}.parquet"
    if store.is_current(last, key) and all(store.exists(name) for name in kind.files(shard.stem)):
        return shard
    table = kind.write(settings, shard, repeated)
    stats = {
        "count": shard.rows,
        "successes": shard.rows,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": time.time() - started,
        "start_time": started,
        "end_time": time.time(),
        "status_dict": {"success": shard.rows},
    }
    store.write_json(f"{shard.stem}_stats.json", stats)
    store.write_parquet(last, table, key)
    return shard
