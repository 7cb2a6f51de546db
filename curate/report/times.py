"""Time and throughput, of the run and its stages.

In: run.json's times: those of the run by the clock, and those of its steps, which units do side by side. What captions took
is with the captions.
"""

from datetime import UTC, datetime

from curate.report.blocks import Bar, Block, Cell, Paragraph, Section, Table
from curate.report.source import Run
from curate.report.text import count, percent
from curate.wording import format_seconds


def time_section(run: Run) -> Section | None:
    """How long the run took, and how fast it was; None where run.json holds no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    moment = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    speed = count(round(run.counts["pool"] / seconds))
    text = f"The run was started at {moment} and finished {format_seconds(seconds)} later: {speed} samples of the pool a second."
    return Section("time", "Time", [Paragraph(text), *_steps(run)])


def _steps(run: Run) -> list[Block]:
    """What each step worked; nothing where all stood already."""
    steps = run.rows("SELECT * FROM steps")
    total = sum(step["seconds"] for step in steps)
    cells: list[list[Cell]] = [
        [
            step["step"],
            count(step["units"]),
            "–" if step["rows"] is None else count(step["rows"]),
            format_seconds(step["seconds"]),
            Bar(percent(step["seconds"], total, 1), step["seconds"] / total),
            count(round(step["rows"] / step["seconds"])) if step["rows"] and step["seconds"] else "–",
        ]
        for step in steps
        if total
    ]
    note = (
        "Seconds of work, summed over units (of emit: shards), which run side by side. What was taken from an older run or stood "
        "already is not counted."
    )
    heads = ("step", "units", "samples", "worked", "share", "samples a second")
    return [Table(heads, cells, words=("step", "share"), note=note)] if cells else []
