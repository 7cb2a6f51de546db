"""Time and throughput of the run and its steps.

In: the times in run.json: wall time of the run, and work of its steps, which run in parallel over units. The cost of
captions is in their own section.
"""

from datetime import UTC, datetime

from curate.report.blocks import Bar, Block, Cell, Section, Table
from curate.report.source import Run
from curate.report.text import count, percent
from curate.wording import format_seconds


def time_section(run: Run) -> Section | None:
    """Return how long the run took, and its throughput; None where run.json holds no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    moment = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    speed = count(round(run.counts["pool"] / seconds))
    text = f"The run started at {moment} and finished {format_seconds(seconds)} later: {speed} samples of the pool per second."
    return Section("time", "Time", [text, *_steps(run)])


def _steps(run: Run) -> list[Block]:
    """Return the work of each step; nothing where all tables were present already."""
    total = sum(step.seconds for step in run.facts.steps)
    if not total:
        return []
    cells: list[list[Cell]] = [
        [
            step.step,
            count(step.units),
            "–" if step.rows is None else count(step.rows),
            format_seconds(step.seconds),
            Bar(percent(step.seconds, total, 1), step.seconds / total),
            count(round(step.rows / step.seconds)) if step.rows and step.seconds else "–",
        ]
        for step in run.facts.steps
    ]
    note = "Work summed over units (of emit: over shards), which run in parallel. Tables that were reused or already present are not counted."
    heads = ("step", "units", "samples", "work", "share", "samples per second")
    return [Table(heads, cells, words=("step", "share"), note=note)]
