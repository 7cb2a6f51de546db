"""Scores and sizes before and after: a histogram of each measured number, with the thresholds of rules.

DuckDB counts the bins of all columns in one scan. Quantiles of at most about a million rows set their range, so that no
outlier stretches a chart. A threshold comes from a top rule, or from a SQL rule whose conditions, joined by AND,
compare a column, the shorter or longer side, or their ratio with a number. Other conditions, such as OR, are not drawn.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import SHORT, Figure, Section, clean, number
from curate.ask.report.charts import Bin, describe_bins, render_svg
from curate.base.numeric.sides import SQL
from curate.base.wording import all_digits
from curate.publish.views import quote_name

ASPECT, MIN_SIDE = "aspect", "min_side"  # the longer side by the shorter one; the shorter one
_NUMBER, _BOTH = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", r"\((?:width,height|height,width)\)"
_CUT = re.compile(rf"(?P<column>\w+)[<>]=?(?P<value>{_NUMBER})|(?P<least>{_NUMBER})[<>]=?(?P<of>\w+)")
_BETWEEN = re.compile(rf"(\w+) between ({_NUMBER}) and ({_NUMBER})")
_EXPRESSIONS = {ASPECT: f"greatest{_BOTH}/least{_BOTH}", MIN_SIDE: f"least{_BOTH}", "max_side": f"greatest{_BOTH}"}
_SIDES = {MIN_SIDE: ("width", "height", MIN_SIDE), "max_side": ("width", "height")}
BINS = 40
MAX_COLUMNS = 40  # columns drawn at most
LEGEND = (("pool", "readable samples of the pool"), ("kept", "kept"))
_SAMPLED = 1_000_000  # about how many rows the quantiles are computed from
_SCAN = "measured s JOIN decisions d USING (unit, row) WHERE s.status = 'ok'"
_MEASURES = {
    "words": ("s.words", "words in the caption"),
    "characters": ("s.characters", "characters in the caption"),
    "width": ("s.width", "width, pixels"),
    "height": ("s.height", "height, pixels"),
    MIN_SIDE: (SQL[MIN_SIDE], "shorter side, pixels"),
    ASPECT: ("greatest(s.width, s.height) / nullif(least(s.width, s.height), 0)", "longer side ÷ shorter side"),
    "bytes": ("s.bytes", "image file, bytes"),
}


def drawn_thresholds(run: OpenRun) -> dict[str, list[tuple[str, float]]]:
    """Return column → the rules with a threshold on it, and the threshold."""
    thresholds: dict[str, list[tuple[str, float]]] = {}
    for rule in run.facts.rules:
        cuts = list(find_cuts(rule.sql or ""))
        if rule.of and rule.threshold is not None:
            cuts = [(rule.of, float(rule.show(rule.threshold)))]
        for column, value in cuts:
            name = run.column_names.get(column.lower(), column)  # the name as measured: a rule may write Width
            thresholds.setdefault(name, []).append((rule.name, value))
    return thresholds


def find_cuts(sql: str) -> Iterator[tuple[str, float]]:
    """Yield each column that a rule compares with a number, and the number; for the shorter side, both sides."""
    text = re.sub(r'"(\w+)"', r"\1", re.sub("'[^']*'", "''", sql).lower())
    text = re.sub(r"\s*([(),/<>=]+)\s*", r"\1", text)
    for name, expression in _EXPRESSIONS.items():
        text = re.sub(expression, name, text)
    if re.search(r"\b(or|not|case)\b|--|/\*", text):
        return
    for part in re.split(r"\s*\band\b\s*", re.sub(_BETWEEN, r"\1>=\2 and \1<=\3", text)):
        if part.count("(") == part.count(")") and (match := _CUT.fullmatch(part.strip("( )"))):
            column, value = match["column"] or match["of"], float(match["value"] or match["least"])
            yield from ((name, value) for name in _SIDES.get(column, (column,)))


class Histogram(NamedTuple):
    """The rows per bin for a column: the readable rows of the pool, and the kept rows.

    Bin i holds values above edges[i], up to edges[i + 1]; values beyond the edges count in the end bins.
    """

    name: str
    label: str
    edges: tuple[float, ...]
    log: bool
    pool: tuple[int, ...]
    kept: tuple[int, ...]


def distributions_section(run: OpenRun, histograms: Sequence[Histogram] | None = None) -> Section | None:
    """Return figures for scores, then for sizes, or for these histograms; None if nothing was measured."""
    histograms = count_bins(run) if histograms is None else histograms
    if not histograms:
        return None
    drawn = drawn_thresholds(run)
    figures = [_figure(histogram, drawn.get(histogram.name, [])) for histogram in histograms]
    left_out = max(0, len(run.scores) - (MAX_COLUMNS - len(_MEASURES)))
    facts = {"figures": figures, "legend": LEGEND, "left_out": left_out}
    return Section("distributions", "Scores and sizes", facts)


def count_bins(run: OpenRun) -> list[Histogram]:
    """Return a histogram for each measured number with more than one value, scores first."""
    columns = {name: (f"s.{quote_name(name)}", name) for name in run.scores[: MAX_COLUMNS - len(_MEASURES)]} | _MEASURES
    finite = [f"(CASE WHEN isfinite(({sql})::DOUBLE) THEN ({sql})::DOUBLE END)" for sql, _ in columns.values()]
    step = max(1, round(run.counts["pool"] / _SAMPLED))
    sampled = f" AND hash(s.unit, s.row) % {step} = 0" if step > 1 else ""
    values = ", ".join(f"{sql} AS x{i}" for i, sql in enumerate(finite))
    facts = ", ".join(
        f"quantile_disc(x{i}, [0.001, 0.5, 0.999]) AS q{i}, bool_and(x{i} = floor(x{i})) AS w{i}"
        for i in range(len(columns))
    )
    [row] = run.rows(f"SELECT {facts} FROM (SELECT {values} FROM {_SCAN}{sampled})")
    edges, parts = {}, []
    for i in range(len(columns)):
        low, middle, high = row[f"q{i}"] or (0, 0, 0)
        if low == high:
            continue
        edges[i] = bounds, _ = bin_edges(low, middle, high, bool(row[f"w{i}"]))
        counts = f"histogram({finite[i]}, {list(bounds[1:-1])}::DOUBLE[])"
        parts.append(f"{counts} AS p{i}, {counts} FILTER (d.kept) AS k{i}")
    [counted] = run.rows(f"SELECT {', '.join(parts)} FROM {_SCAN}") if parts else [{}]
    histograms = []
    for i, (name, (_, label)) in enumerate(columns.items()):
        if i in edges:
            sets = (_by_bin(edges[i][0], counted[f"{kind}{i}"]) for kind in "pk")
            histograms.append(Histogram(name, clean(label, SHORT), *edges[i], *sets))
    return histograms


def _by_bin(edges: Sequence[float], histogram: dict[float, int] | None) -> tuple[int, ...]:
    """Return counts in the order of bins; DuckDB counts values above the last bound under infinity."""
    counts = histogram or {}
    inner = [counts.get(edge, 0) for edge in edges[1:-1]]
    return (*inner, sum(counts.values()) - sum(inner))


def bin_edges(low: float, middle: float, high: float, whole: bool) -> tuple[tuple[float, ...], bool]:
    """Return the edges of at most BINS bins from low to high, and whether they are logarithmic, for wide ranges.

    Bins for integers (`whole`) have an integer width, with edges between integers.
    """
    if low > 0 and high >= 50 * low and high >= 6 * middle and not (whole and low < 20):
        first, last = math.log(low), math.log(high)  # their ratio may overflow a float
        return tuple(math.exp(first + (last - first) * i / BINS) for i in range(BINS + 1)), True
    if whole:
        span, minimum = high - low + 1, math.ceil((high - low + 1) / BINS)
        width = min(range(minimum, 2 * minimum), key=lambda width: (-span % width) / width)  # fill the last bin
        return tuple(low - 0.5 + width * i for i in range(math.ceil(span / width) + 1)), False
    return tuple(low + (high - low) * i / BINS for i in range(BINS + 1)), False


def _figure(histogram: Histogram, thresholds: list[tuple[str, float]]) -> Figure:
    low, *_, high = histogram.edges
    counts = zip(pairwise(histogram.edges), histogram.pool, histogram.kept, strict=True)
    bins = [Bin(_bin_name(*bounds), *bounds, pool, kept) for bounds, pool, kept in counts]
    axis = {"tickCount": 5, "format": "~s" if high >= 10_000 or histogram.log else ",~f"}
    lines = []
    for rule, value in thresholds:
        if low <= value <= high:
            part = math.log(value / low) / math.log(high / low) if histogram.log else (value - low) / (high - low)
            lines.append((clean(rule, 24), value, part > 0.6))
    scale_type = "log" if histogram.log else "linear"
    spec, table = describe_bins(bins, histogram.label, axis, thresholds=lines[:8], scale_type=scale_type)
    svg = render_svg(spec, f"{histogram.label}: shares of the pool and of the kept set by value")
    notes = ", ".join(f"{clean(rule, SHORT)}: {all_digits(value)}" for rule, value in thresholds[:8])
    return Figure(clean(histogram.name, SHORT), svg, table, note=notes and f"Thresholds: {notes}", spec=spec)


def _bin_name(low: float, high: float) -> str:
    if low % 1 == 0.5 and high % 1 == 0.5:
        low, high = math.ceil(low), math.floor(high)
    return number(low) if low == high else f"{number(low)} – {number(high)}"
