"""`sample: {quotas: …}`: numbers of rows per cluster that are as close as possible to target shares, within bounds.

Source: "Effective pruning of web-scale datasets based on complexity of concept clusters" (density-based pruning, arXiv
2401.04578), with these differences: min ‖x − P·N‖², Σx = N, least ≤ x ≤ size is solved exactly by water-filling in
integers, and rounded by largest remainders; clusters without rows have no share. P is equal, by the clusters' sizes, or
softmax(C / τ) of a cluster's complexity C = d_inter · d_intra, with τ = 0.5 as in the published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import F32, F64, I64
from curate.base.numeric.elementary import exp
from curate.base.numeric.spherical import cosine_distances, rounded
from curate.decide.draw.groups import ColumnGroups, GroupsChoice, check_groups, check_numbers, find_groups
from curate.decide.draw.selection import Outcome, Selection, SelectionRun, required
from curate.decide.draw.smallest import Cut, find_cut
from curate.models.tensor_files import array_digest, read_rows
from curate.recipe.deciding import Sample
from curate.recipe.section import AnyColumn, Section, UserFile, is_none
from curate.run.units import Answer, Units
from curate.store.facts import SelectionWords
from curate.store.layout import MODELS
from curate.store.validity import valid_digest

_BITS = 16  # target numbers of rows are multiples of 2⁻¹⁶
_ROUNDS = 4
_BLOCK = 256  # centroids compared with all others at a time


class Quotas(Section):
    """Takes a number of rows from each cluster, or from each value of another column (density-based pruning).

    `by` sets the share of each cluster. The numbers of rows come as close to these shares as `rows`, `least`, `most`,
    and the sizes of the clusters allow. The shares by `complexity` are softmax(d_inter · d_intra / temperature).
    d_inter is the mean distance of a cluster's centroid to the 20 nearest other centroids. d_intra is the mean distance
    of its rows to the centroid. curate never keeps a row without a cluster. If `by` or `keep` needs distances, it never
    keeps a row without a distance. `probability` is null unless `keep` is `random`.
    """

    example: ClassVar[Any] = {"of": "cluster", "rows": 100000, "by": "complexity", "keep": "farthest"}

    of: AnyColumn = Field(examples=["cluster"])
    """Column with the clusters, or another column of integers, texts, or booleans."""
    rows: int = Field(examples=[100000], ge=1, lt=2**40, strict=True)
    """Total number of rows."""
    by: Literal["equal", "size", "complexity"] = Field("equal", examples=["complexity"])
    """How to choose the share of each cluster: the same for all clusters (`equal`), by size (`size`), or by complexity,
    as published (`complexity`)."""
    keep: Literal["random", "farthest", "nearest"] = Field("random", examples=["farthest"])
    """Which rows of a cluster to keep: random rows, those farthest from its centroid (as published), or those nearest
    to it."""
    least: int | None = Field(None, exclude_if=is_none, examples=[100], ge=0, lt=2**40, strict=True)
    """Minimum number of rows from each cluster. From a smaller cluster, curate takes all rows. null: half of an equal
    share, as published."""
    most: int | None = Field(None, exclude_if=is_none, examples=[10000], ge=1, lt=2**40, strict=True)
    """Maximum number of rows from each cluster. null: no limit."""
    distance: AnyColumn | None = Field(None, exclude_if=is_none, examples=["cluster_distance"])
    """Column with each row's distance to its centroid. null: `NAME_distance`, if `of` is NAME."""
    centroids: UserFile | None = Field(None, exclude_if=is_none, examples=["centroids.npy"])
    """Centroids for `complexity`: a .npy or .pt file [k, dimension]. null: the centroids of `relate.clusters`."""
    temperature: float = Field(0.5, examples=[0.1], gt=0, strict=True)
    """Temperature for `complexity`. The published code uses 0.5, and the paper 0.1."""

    @property
    def distance_column(self) -> str | None:
        """The column of distances, if one is needed."""
        needs_it = self.by == "complexity" or self.keep != "random"
        return (self.distance or f"{self.of}_distance") if needs_it else None


def inter_distances(centroids: npt.NDArray[Any], nearest: int = 20) -> F64:
    """Return the mean of 1 − cos between each centroid and its nearest others (float64[k]); 0 if it is the only one.

    The nearest are found by exact products of rounded directions, the first of ties, so they are the same on every
    machine.
    """
    rows, few = np.ascontiguousarray(centroids, np.float32), min(nearest, len(centroids) - 1)
    if not few:
        return np.zeros(len(rows))
    directions, others = rounded(rows), np.empty((len(rows), few), np.int32)
    for first in range(0, len(rows), _BLOCK):
        products = directions[first : first + _BLOCK] @ directions.T  # integers below 2²⁴, exactly
        order = products.astype(np.int64) * -len(rows) + np.arange(len(rows))  # the first of ties
        order[np.arange(len(order)), first + np.arange(len(order))] = np.iinfo(np.int64).max  # not itself
        others[first : first + _BLOCK] = np.sort(np.argpartition(order, few - 1, axis=1)[:, :few], axis=1)
    distances = [cosine_distances(rows, rows, cells) for cells in np.ascontiguousarray(others.T)]
    return np.asarray(sum(distances) / few)


def solve_quotas(shares: F64, sizes: I64, rows: int, least: I64, most: I64) -> I64:
    """Return integers x with Σx = rows that are closest to shares · rows, with least ≤ x ≤ most (int64[k]).

    The real solution is least ≤ clip(shares · rows + λ) ≤ most; it is rounded by largest remainders, the first of ties.
    If `most` sums to fewer rows, it is the result. Raises ValueError if `least` sums to more.
    """
    most = np.minimum(most, sizes)
    least = np.minimum(least, most)
    if most.sum() <= rows:
        return most
    if least.sum() > rows:
        raise ValueError(f"at least {least.sum():,} rows")
    wished = np.rint(shares * (rows * float(1 << _BITS))).astype(np.int64)
    low, high = (least << _BITS) - wished, (most << _BITS) - wished  # the range of λ in which a number changes
    ends = np.concatenate([low, high])
    order = np.argsort(ends, kind="stable")
    slopes = np.cumsum(np.where(order < len(low), 1, -1))
    totals = np.cumsum(np.concatenate([[least.sum() << _BITS], slopes[:-1] * np.diff(ends[order])]))
    at = int(np.searchsorted(totals, rows << _BITS, side="right")) - 1
    level, rest, slope = int(ends[order][at]), (rows << _BITS) - int(totals[at]), int(slopes[at])
    level += rest // slope if slope else 0  # plus less than one, equal for all numbers that change
    moves = (low <= level) & (high > level)
    real = np.where(moves, wished + level, np.where(high <= level, most << _BITS, least << _BITS))
    whole = real >> _BITS
    remainders = np.where(moves, real - (whole << _BITS), -1)
    whole[np.argsort(-remainders, kind="stable")[: rows - int(whole.sum())]] += 1
    return np.asarray(whole)


def find_shares(groups: ColumnGroups, section: Quotas, inter: F64 | None) -> F64:
    """Return P of each group (float64[groups]). `inter` are `inter_distances` of all centroids. Raises RunError."""
    if section.by == "equal":
        return np.full(len(groups), 1 / max(1, len(groups)))
    if section.by == "size":
        return np.asarray(groups.rows / max(1, int(groups.rows.sum())))
    assert inter is not None
    names = groups.names.to_pylist()
    numbers = np.array([int(name) if name.isdecimal() else -1 for name in map(str, names)], np.int64)
    if (bad := (numbers < 0) | (numbers >= len(inter))).any():
        error = f"a row has {section.of} = {names[int(np.argmax(bad))]!r}, but there are {len(inter):,} centroids"
        raise RunError(f"sample.quotas: {error}; accepted: integers from 0 to {len(inter) - 1:,}")
    scaled = inter[numbers] * groups.means / section.temperature
    weights = np.array([exp(x) for x in (scaled - scaled.max(initial=0)).tolist()], np.float64)
    return np.asarray(weights / max(1e-300, weights.sum()))


def find_quotas(groups: ColumnGroups, section: Quotas, inter: F64 | None) -> I64:
    """Return the number of rows to keep of each group (int64[groups]). Raises RunError if `least` is too large."""
    sizes, k, none = groups.rows, max(1, len(groups)), np.full(len(groups), 1 << 62)
    minimum = none * 0 + section.least if section.least is not None else np.maximum(0, sizes - 1)
    if section.least is None:
        minimum = np.minimum(minimum, int(section.rows / k * 0.5))
    maximum = none if section.most is None else none * 0 + max(1, section.most)  # `plan` may scale it to none
    try:
        return solve_quotas(find_shares(groups, section, inter), sizes, section.rows, minimum, maximum)
    except ValueError as error:
        total = f"sample.quotas.least is {section.least:,}, which needs {error}, but rows is {section.rows:,}"
        raise RunError(f"{total}; accepted: at most {section.rows // k:,}") from None


@dataclass(frozen=True)
class QuotasChoice(GroupsChoice):
    """Takes rows of each cluster."""

    @property
    def label(self) -> str:
        kept, rows = self.cut.taken, self.cut.rows
        if not len(rows):
            return f"quotas by {self.groups.column}: no row has a value"
        numbers = f"{kept.min():,} to {kept.max():,} rows kept of each, out of {rows.min():,} to {rows.max():,}"
        return f"quotas of {len(rows):,} values of {self.groups.column}: {numbers}"

    def shortfall(self, section: Sample) -> str:
        wanted, kept = required(section.quotas).rows, int(self.cut.taken.sum())
        return f"sample.quotas: {wanted:,} rows wanted, but the quotas allow only {kept:,}" if kept < wanted else ""


class QuotasSample(Selection):
    """A sample with a quota for each cluster."""

    key, section = "sample", Sample
    meaning = "beyond the quota of its cluster"
    sizes_of = ("quotas.rows", "quotas.least", "quotas.most")

    def columns(self, section: Sample) -> Sequence[str]:
        quotas = required(section.quotas)
        return [quotas.of, *([quotas.distance_column] if quotas.distance_column else [])]

    def check(self, section: Sample, columns: pa.Schema, recipe: Any) -> None:
        quotas = required(section.quotas)
        check_groups("sample.quotas.of", quotas.of, columns)
        if quotas.distance_column:
            check_numbers("sample.quotas.distance", quotas.distance_column, columns)
        made = [name for kind, name, _ in recipe.relate.requested if kind == "clusters"]
        if quotas.by == "complexity" and quotas.centroids is None and quotas.of not in made:
            error = f"sample.quotas.by: complexity needs the centroids of {quotas.of!r}"
            raise RecipeError(f"{error}; accepted: sample.quotas.centroids: FILE.npy, or clusters of relate.clusters")

    def files_key(self, section: Sample, metadata_key: str) -> str:
        path = required(section.quotas).centroids
        return array_digest(_read(path)) if path else ""

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        quotas = required(section.quotas)
        inter = inter_distances(_read(quotas.centroids)) if quotas.centroids else None
        groups = find_groups(units, "Quotas", run, quotas.of, quotas.distance_column)

        def solve(groups: ColumnGroups) -> QuotasChoice:
            made = inter_distances(_made(run, quotas.of)) if quotas.by == "complexity" and inter is None else inter
            return QuotasChoice(Cut.wanting(find_quotas(groups, quotas, made)), groups, quotas.keep)

        return find_cut(units, "Quotas", run, units.get("Quotas: solve", solve, groups), rounds=_ROUNDS)

    def words(self, outcome: Outcome) -> SelectionWords:
        choice, quotas = outcome.choice, required(outcome.section.quotas)
        by = {"equal": "equal shares", "size": "shares in proportion to size", "complexity": "shares by complexity"}
        kept, order = f"at random; seed {outcome.seed}", "where each row is drawn with probability {probability}"
        if not choice.is_random:
            kept = {"farthest": "rows farthest from", "nearest": "rows nearest to"}[quotas.keep] + " the centroid"
            order = f"which keeps {kept}"
        short = choice.shortfall(outcome.section)
        return SelectionWords(
            kept=f": within the quota of {quotas.of} {{value}}, {order}",
            dropped=f"beyond the quota of {quotas.of} {{value}}, {order}",
            card=f"{choice.label}; {by[quotas.by]}, {kept}",
            summary=[choice.label, *([short] if short else [])],
            of=quotas.of,
        )


def _read(path: str | None) -> F32:
    rows = read_rows("sample.quotas.centroids", path or "", "k, dimension")
    if not (is_some := rows.any(axis=1)).all():
        error = f"{path} has only zeros in row {int(np.argmin(is_some))}"
        raise RecipeError(f"sample.quotas.centroids: {error}; accepted: centroids that are not zero")
    return rows


def _made(run: SelectionRun, name: str) -> F32:
    file = f"{MODELS}/{name}.npy"
    if run.store.exists(file) and valid_digest(run.store, file):
        return read_rows("sample.quotas", f"{run.store.url}/{file}", "k, dimension")
    accepted = "run the recipe again to write it, or set sample.quotas.centroids: FILE.npy"
    raise RunError(f"sample.quotas: {file}, the centroids of {name}, is missing or damaged in the run; {accepted}")
