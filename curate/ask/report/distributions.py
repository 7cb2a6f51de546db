"""Scores and sizes before and after: a histogram of each measured number, with the thresholds of rules.

Bins are counted by DuckDB in one scan for all columns; their edges are quantiles of about a million rows at most, so
that no outlier stretches a chart.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from curate.ask.report.blocks import Figure, Figures, Section
from curate.ask.report.charts import PANEL, THRESHOLD, Bin, compare_bins
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, number
from curate.ask.report.thresholds import ASPECT, drawn_thresholds
from curate.base.wording import all_digits
from curate.publish.views import quote_name

BINS = 40
MOST = 40  # columns that are drawn
LEGEND = (("pool", "readable samples of the pool"), ("kept", "kept"))
_SAMPLED = 1_000_000  # rows that quantiles are taken of, about
_SCAN = "samples s JOIN decisions d USING (unit, row) LEFT JOIN scored c USING (unit, row) WHERE s.status = 'ok'"
_SIZES = {
    "words": ("s.words", "words in the caption"),
    "characters": ("s.characters", "characters in the caption"),
    "width": ("s.width", "width, pixels"),
    "height": ("s.height", "height, pixels"),
    ASPECT: ("greatest(s.width, s.height) / nullif(least(s.width, s.height), 0)", "longer side ÷ shorter side"),
    "bytes": ("s.bytes", "image file, bytes"),
}


class Axis(NamedTuple):
    """A column with the edges of its bins: bin i holds values above edges[i], up to edges[i + 1]."""

    name: str
    sql: str
    label: str
    edges: tuple[float, ...]
    log: bool


class Histogram(NamedTuple):
    """Rows by bin, of the pool's readable rows and of the kept set; values beyond the edges count in the end bins."""

    axis: Axis
    pool: tuple[int, ...]
    kept: tuple[int, ...]


def distributions_section(run: Run, histograms: Sequence[Histogram] | None = None) -> Section | None:
    """Return figures of scores, then of sizes, or of these histograms; None where nothing was measured."""
    histograms = count_bins(run) if histograms is None else histograms
    if not histograms:
        return None
    drawn = drawn_thresholds(run)
    figures = [_figure(histogram, drawn.get(histogram.axis.name, [])) for histogram in histograms]
    text = (
        "Each chart compares the kept set (line) with all readable samples (grey), each as shares of its own total: "
        "where the line is above the grey, curation prefers such samples. Dashed lines are thresholds of rules. The "
        "outermost 0.1 % of the values count in the end bins."
    )
    left_out = len(run.scores) - (MOST - len(_SIZES))
    more = [f"{left_out} more score columns are not shown; `curate sql` has them."] if left_out > 0 else []
    return Section("distributions", "Scores and sizes", [text, Figures(figures, legend=LEGEND), *more])


def count_bins(run: Run) -> list[Histogram]:
    """Return a histogram of each measured number that has more than one value, scores first."""
    axes = _axes(run)
    parts = []
    for i, axis in enumerate(axes):
        counts = f"histogram({axis.sql}, {list(axis.edges[1:-1])}::DOUBLE[])"
        parts.append(f"{counts} AS p{i}, {counts} FILTER (d.kept) AS k{i}")
    row = run.row(f"SELECT {', '.join(parts)} FROM {_SCAN}") if axes else {}
    return [Histogram(axis, _by_bin(axis, row[f"p{i}"]), _by_bin(axis, row[f"k{i}"])) for i, axis in enumerate(axes)]


def _by_bin(axis: Axis, histogram: dict[float, int] | None) -> tuple[int, ...]:
    """Return counts in the order of the bins; DuckDB counts values above the last bound under infinity."""
    counts = histogram or {}
    inner = [counts.get(edge, 0) for edge in axis.edges[1:-1]]
    return (*inner, sum(counts.values()) - sum(inner))


def _axes(run: Run) -> list[Axis]:
    """Return the columns that are drawn, with their bins."""
    columns = {name: (f"c.{quote_name(name)}", name) for name in run.scores[: MOST - len(_SIZES)]} | _SIZES
    finite = [f"(CASE WHEN isfinite(({sql})::DOUBLE) THEN ({sql})::DOUBLE END)" for sql, _ in columns.values()]
    step = max(1, round(run.counts["pool"] / _SAMPLED))
    sampled = f" AND hash(s.unit, s.row) % {step} = 0" if step > 1 else ""
    values = ", ".join(f"{sql} AS x{i}" for i, sql in enumerate(finite))
    facts = ", ".join(
        f"quantile_disc(x{i}, [0.001, 0.5, 0.999]) AS q{i}, bool_and(x{i} = floor(x{i})) AS w{i}"
        for i in range(len(columns))
    )
    row = run.row(f"SELECT {facts} FROM (SELECT {values} FROM {_SCAN}{sampled})")
    axes = []
    for i, (name, (_, label)) in enumerate(columns.items()):
        if row[f"q{i}"] and row[f"q{i}"][0] < row[f"q{i}"][2]:
            low, middle, high = row[f"q{i}"]
            edges, log = bin_edges(low, middle, high, bool(row[f"w{i}"]))
            axes.append(Axis(name, finite[i], clean(label, SHORT), edges, log))
    return axes


def bin_edges(low: float, middle: float, high: float, whole: bool) -> tuple[tuple[float, ...], bool]:
    """Return the edges of at most BINS bins from low to high, and whether they grow by a factor, over many magnitudes.

    Bins of integers (`whole`) have an integer width, with edges between integers.
    """
    if low > 0 and high >= 50 * low and high >= 6 * middle and not (whole and low < 20):
        first, last = math.log(low), math.log(high)  # their ratio may be more than a float holds
        return tuple(math.exp(first + (last - first) * i / BINS) for i in range(BINS + 1)), True
    if whole:
        span, least = high - low + 1, math.ceil((high - low + 1) / BINS)
        width = min(range(least, 2 * least), key=lambda width: (-span % width) / width)  # a last bin that is full
        return tuple(low - 0.5 + width * i for i in range(math.ceil(span / width) + 1)), False
    return tuple(low + (high - low) * i / BINS for i in range(BINS + 1)), False


def _figure(histogram: Histogram, thresholds: list[tuple[str, float]]) -> Figure:
    axis, title = histogram.axis, f"{histogram.axis.label}: shares of the pool and of the kept set by value"
    counts = zip(pairwise(axis.edges), histogram.pool, histogram.kept, strict=True)
    bins = [Bin(_bin_name(low, high), low, high, pool, kept) for (low, high), pool, kept in counts]
    scale = {"type": "log" if axis.log else "linear", "domain": [axis.edges[0], axis.edges[-1]], "nice": False}
    ticks = {"tickCount": 5, "format": "~s" if axis.edges[-1] >= 10_000 or axis.log else ",~f"}
    lines = [(clean(rule, 24), value) for rule, value in thresholds if axis.edges[0] <= value <= axis.edges[-1]][:8]
    marks = [mark for i, line in enumerate(lines) for mark in _threshold_marks(axis, scale, i, *line)]
    room = 0.05 + 0.1 * len(lines[:4])  # for the names
    svg, table = compare_bins(bins, {"title": axis.label, "scale": scale, "axis": ticks}, title, marks=marks, room=room)
    notes = [f"{clean(rule, SHORT)}: {all_digits(value)}" for rule, value in thresholds[:8]]
    return Figure(clean(axis.name, SHORT), svg, note=f"Thresholds: {', '.join(notes)}" if notes else "", table=table)


def _bin_name(low: float, high: float) -> str:
    if low % 1 == 0.5 and high % 1 == 0.5:
        low, high = math.ceil(low), math.floor(high)
    return number(low) if low == high else f"{number(low)} – {number(high)}"


def _threshold_marks(axis: Axis, scale: dict[str, Any], i: int, rule: str, value: float) -> list[dict[str, Any]]:
    """Return a dashed line at the threshold of a rule, the i-th one here, and the rule's name."""
    low, high = axis.edges[0], axis.edges[-1]
    place = math.log(value / low) / math.log(high / low) if axis.log else (value - low) / (high - low)
    side = {"align": "right", "dx": -4} if place > 0.6 else {"align": "left", "dx": 4}
    name = {"type": "text", "y": 7 + 13 * i, **side}
    data = {"data": {"values": [{"at": value, "rule": rule}]}}
    at = {"x": {"field": "at", "type": "quantitative", "scale": scale}}
    label = {**data, "encoding": at | {"text": {"field": "rule"}}}
    halo = name | {"stroke": PANEL, "strokeWidth": 3}  # so that the name can be read over the data
    return [{**data, "mark": THRESHOLD, "encoding": at}, {**label, "mark": halo}, {**label, "mark": name}]
