"""Prices, and the page of `curate plan` on what a run costs: by step, how each sum comes, and what that is in money.

In: the table of costs, idle cores included, and a file of prices in YAML, each figure with its source and date; none is
guessed. Out: lines. What is not known is asked for, and not taken as 0; figures older than MAX_DAYS are named.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from curate.ask.costs import model
from curate.ask.costs.model import CPU, DISK, GPU, MEMORY, READS, SHUFFLED, STORED, WRITES, Cost, Range, Work, Workers
from curate.ask.output import Line, columns, heading, line
from curate.ask.whatif.estimate import EstimatedRequests
from curate.base.errors import RecipeError
from curate.base.wording import format_bytes, format_seconds, pluralise
from curate.recipe.faults import explain_faults
from curate.recipe.files import read_mapping, shipped_folder
from curate.recipe.section import Section

MAX_DAYS = 180
FILE = "infra/prices.yaml"
_HOUR = 3600
# Of each resource: the key of its price, and how much of it that is for
_PRICED = {
    **{CPU: ("engines.{}.core_hour", _HOUR), MEMORY: ("engines.{}.memory_hour", _HOUR)},
    **{DISK: ("engines.{}.disk_hour", _HOUR), GPU: ("engines.{}.gpu_hour", _HOUR)},
    SHUFFLED: ("engines.{}.shuffled_gb", 1e9),
    **{READS: ("stores.{}.read", 1), WRITES: ("stores.{}.write", 1), STORED: ("stores.{}.gb_month", 1e9)},
}


class Price(Section):
    """A figure: `price` for `per` units, as `source` said on `date`."""

    price: float = Field(ge=0, allow_inf_nan=False)
    per: float = Field(1, gt=0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    date: datetime.date

    @property
    def each(self) -> float:
        return self.price / self.per


class Prices(Section):
    """All of a file: what engines ask for an hour of a core, a GB or a GPU, and stores for a request or a GB."""

    currency: str
    engines: dict[str, dict[Literal["core_hour", "memory_hour", "disk_hour", "gpu_hour", "shuffled_gb"], Price]] = (
        Field({})
    )
    stores: dict[str, dict[Literal["read", "write", "gb_month"], Price]] = Field({})

    def find(self, key: str) -> Price | None:
        """Return the figure under a dotted key, such as engines.spark.core_hour."""
        section, name, figure = key.split(".")
        price: Price | None = getattr(self, section).get(name, {}).get(figure)
        return price

    def find_old(self, keys: Iterable[str], today: datetime.date) -> Iterator[str]:
        """Yield a line for each of these figures that is old, or of a day to come."""
        for key in keys:
            if (price := self.find(key)) and not 0 <= (days := (today - price.date).days) <= MAX_DAYS:
                when = f"{days} days old" if days > 0 else "a day to come"
                yield f"{key} is of {price.date}, {when}; look at {price.source}"


def load_prices(path: str | None = None) -> Prices:
    """Read a file of prices; None: the package's. Raises RecipeError, a line per fault with file, line and key."""
    name = f"--prices {path or FILE}"
    shipped = str(shipped_folder("infra").parent / FILE)
    data, text = read_mapping(path or shipped, name, "file of prices", f"a YAML mapping as {FILE}")
    try:
        return Prices.model_validate(data)
    except ValidationError as error:
        lines = (f"{name}, line {_line(text, fault)}: {fault}" for fault in explain_faults(error, data))
        raise RecipeError("\n".join(lines)) from None


def _line(text: str, fault: str) -> int:
    """Return the line of the key that a fault begins with, or of the nearest one around it."""
    node, number = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for key in fault.partition(": ")[0].split("."):
        pairs: list[Any] = [pair for pair in getattr(node, "value", ()) if getattr(pair[0], "value", None) == key]
        if not pairs:
            break
        number, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
    return number


class CostPlan(NamedTuple):
    """What a run will cost: `seconds` of wall, None where nobody says how many cores there are.

    `store` is the kind of store of its folder, such as gs, empty where that is on disks; `measured` says on what
    grounds, and `requests` are those to engines of captions.
    """

    costs: Sequence[Cost]
    seconds: Range | None
    work: Work
    workers: Workers
    store: str
    measured: str
    requests: Sequence[EstimatedRequests] = ()

    def sum(self, kind: str, step: str | None = None) -> Range:
        """Return what a step uses of a resource; None: all of them."""
        return model.add_up(cost for cost in self.costs if cost.kind == kind and step in (None, cost.step))

    def key(self, kind: str) -> str:
        """Return the key of a resource's price; empty for what is part of a machine of one's own."""
        key = _PRICED[kind][0]
        is_own = self.workers.overhead is None and kind in (MEMORY, SHUFFLED)
        name = self.store if key.startswith("stores") else "" if is_own else self.workers.engine
        return key.format(name) if name else ""

    def money(self, prices: Prices, kind: str, step: str | None = None) -> Range | None:
        """Return what a resource costs; None where its price is missing."""
        price = prices.find(self.key(kind)) if self.key(kind) else None
        return self.sum(kind, step).times(price.each / _PRICED[kind][1]) if price else None


def show_costs(plan: CostPlan, prices: Prices) -> Iterator[Line]:
    """Yield the page."""
    workers, hours = plan.workers, plan.sum(CPU).value > _HOUR
    cores = f", {pluralise(workers.cores, 'core')}" if workers.cores else ""
    yield heading("costs", f"on {workers.engine}{cores}, from {plan.measured}; 8 of 10 runs are between [low, high]")
    rows = [("", "core-hours" if hours else "core-seconds", "", prices.currency, "how it comes")]
    for step in (*dict.fromkeys(cost.step for cost in plan.costs if cost.kind == CPU), None):
        # The sum of the steps before it is what `curate sql RUN costs` says of a run.
        if step in (model.IDLE, None) and rows[-1][0] != model.IDLE:
            work = model.add_up(cost for cost in plan.costs if cost.kind == CPU and cost.step != model.IDLE)
            rows.append(("run", *_format(work, 1 / _HOUR if hours else 1), "", "all of these steps"))
        amounts = [plan.money(prices, kind, step) for kind in _PRICED]
        money = f"{sum(amount.value for amount in amounts if amount):,.2f}" if any(amounts) else ""
        parts = [c for c in plan.costs if (c.kind, c.step) == (CPU, step) and c.each]
        sums = (f"{_time(c.each)} × {_count(c)}" for c in sorted(parts, key=lambda c: -c.count * c.each))
        amount = _format(plan.sum(CPU, step), 1 / _HOUR if hours else 1)
        rows.append((step or "in all", *amount, money, " + ".join(sums)))
    yield from columns(rows, right=(1, 3))
    yield line()
    yield from columns(list(_totals(plan)))
    yield line()
    yield from _bill(plan, prices)


def _count(cost: Cost) -> str:
    return pluralise(round(cost.count), {"processes": "process"}.get(cost.per, cost.per.removesuffix("s")), cost.per)


def _format(amount: Range, factor: float = 1.0, digits: int = 2) -> tuple[str, str]:
    value, low, high = (f"{factor * each:,.{digits}f}" for each in amount)
    return value, f"[{low}, {high}]"


def _time(seconds: float) -> str:
    unit, size = next(pair for pair in (("s", 1.0), ("ms", 1e-3), ("µs", 0.0)) if abs(seconds) >= pair[1])
    return f"{_number(seconds / (size or 1e-6))} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _totals(plan: CostPlan) -> Iterator[tuple[str, str, str]]:
    workers = plan.workers
    if plan.seconds:
        time, low, high = map(format_seconds, plan.seconds)
        units = pluralise(round(plan.work.units), "unit")
        yield "time", f"{time} [{low}, {high}]", f"{units} on {pluralise(workers.cores or 1, 'core')}"
    else:
        yield "time", "not known", workers.missing
    names = {GPU: "GPU-hours", MEMORY: "GB-hours of memory", DISK: "GB-hours of disk"}
    for (kind, name), gb in zip(names.items(), (0, workers.memory, workers.disk), strict=True):
        if (amount := plan.sum(kind)).value:
            yield name, " ".join(_format(amount, 1 / _HOUR)), f"{gb:,.1f} GB" if gb else "as measured"
    for kind, name in ((SHUFFLED, "shuffled"), (STORED, "storage")):
        value, low, high = map(format_bytes, plan.sum(kind))
        steps = dict.fromkeys(cost.step for cost in plan.costs if cost.kind == kind)
        by_step = ", ".join(f"{step} {format_bytes(plan.sum(kind, step).value)}" for step in steps)
        yield name, f"{value} [{low}, {high}]", by_step
    for kind, name in ((READS, "GET and HEAD"), (WRITES, "PUT and LIST")) if plan.store else ():
        yield name, " ".join(_format(plan.sum(kind), digits=0)), f"to {plan.store}://"


def _bill(plan: CostPlan, prices: Prices) -> Iterator[Line]:
    rows, amounts, missing = [], [], []
    keys = {plan.key(kind): kind for kind in _PRICED if plan.sum(kind).value and plan.key(kind)}
    for key, kind in keys.items():
        price, amount = prices.find(key), plan.money(prices, kind)
        if price is None or amount is None:
            missing.append(key)
        else:
            count, each = plan.sum(kind).value / _PRICED[kind][1], f"{price.each:.10f}".rstrip("0").rstrip(".")
            rows.append((key, *_format(amount), f"{_number(count)} × {each}: {price.source}"))
            amounts.append(amount)
    for requests in plan.requests:
        amounts.append(Range(requests.cost, 0.0, requests.cost))
        rows.append((f"captions.engines.{requests.engine}", *_format(amounts[-1]), f"{requests.kind}, at most"))
    yield heading("money", prices.currency)
    total = "without what is missing" if missing else "in all"
    yield from columns(
        [*rows, (total, *_format(Range(*map(sum, zip((0.0, 0.0, 0.0), *amounts, strict=True)))), "")], (1,)
    )
    yield from (line(f"warning: prices: {text}") for text in prices.find_old(keys, datetime.date.today()))
    if missing:
        remedy = "copy infra/prices.yaml, give each {price: …, source: …, date: …}, and name your file with --prices"
        yield line(f"missing prices: {', '.join(missing)}: {remedy}")
