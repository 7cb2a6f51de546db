"""Time and throughput, of the run and its stages.

In: run.json's times, and those of shards/*_stats.json, where a run has not so many shards that reading them is slow.
Stages overlap in a pipeline: what is shown are the moments when the first shard was begun and the last one finished.
What captions took is with the captions.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from curate.publish.report.blocks import Block, Cell, Paragraph, Section, Table
from curate.publish.report.source import Run
from curate.publish.report.text import count, percent, seconds_text

MOST_SHARDS = 1_000
_READERS = 8  # files read at once: what hides the latency of an object store


def time_section(run: Run) -> Section | None:
    """How long the run took, and how fast it was; None where run.json holds no times."""
    started, seconds = run.facts.get("started"), run.facts.get("seconds")
    if not started or not seconds:
        return None
    moment = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    speed = count(round(run.counts["pool"] / seconds))
    text = f"The run was started at {moment} and finished {seconds_text(seconds)} later: {speed} samples of the pool a second."
    return Section("time", "Time", [Paragraph(text), *_stages(run, started, seconds)])


def _stages(run: Run, started: float, seconds: float) -> list[Block]:
    """Until the first shard, while shards were written, after the last; nothing where the shards are of an earlier start."""
    span = _emitting(run)
    if span is None or not started <= span[0] <= span[1] <= started + seconds:
        return []
    pool, kept = run.counts["pool"], run.counts["kept"]
    stages = [
        ("measuring, deciding and captions, until the first shard was begun", span[0] - started, pool),
        ("writing shards, from the first to the last", span[1] - span[0], kept),
        ("entries, statistics and manifest", started + seconds - span[1], None),
    ]
    cells: list[list[Cell]] = [
        [name, seconds_text(took), percent(took, seconds, 1), count(round(rows / took)) if rows and took else "–"]
        for name, took, rows in stages
    ]
    return [Table(("stage", "took", "of the run", "samples a second"), cells, words=("stage",))]


def _emitting(run: Run) -> tuple[float, float] | None:
    """When the first shard was begun and the last one finished; None where that is not known."""
    names = run.rows("SELECT path FROM manifest WHERE path LIKE 'shards/%\\_stats.json' ESCAPE '\\' ORDER BY path")
    if not 0 < len(names) <= MOST_SHARDS:
        return None
    with ThreadPoolExecutor(_READERS) as readers:
        stats = list(readers.map(lambda row: run.folder.read_json(row["path"]), names))
    return min(shard["start_time"] for shard in stats), max(shard["end_time"] for shard in stats)
