"""The page of `curate plan` on what a run costs: by step, how each sum comes, and what it comes to in money.

In: the table of costs, the work, the engine's workers and prices. Out: lines. What is not known is asked for.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.ask.costs.model import (
    CPU,
    GPU,
    MEMORY,
    READS,
    SHUFFLED,
    STORED,
    WRITES,
    Cost,
    Range,
    Trials,
    Work,
    Workers,
    add_idle,
    find_seconds,
    predict,
)  # fmt: skip
from curate.ask.costs.prices import Prices
from curate.ask.page import Line, columns, heading, line
from curate.ask.whatif.estimate import EstimatedRequests
from curate.base.wording import format_bytes, format_seconds, pluralise

_HOUR = 3600
# Each resource: the key of its price, and how much of it that is for
_PRICED = {
    CPU: ("engines.{engine}.core_hour", _HOUR),
    MEMORY: ("engines.{engine}.memory_hour", _HOUR),
    GPU: ("engines.{engine}.gpu_hour", _HOUR),
    SHUFFLED: ("engines.{engine}.shuffled_gb", 1e9),
    READS: ("stores.{store}.read", 1),
    WRITES: ("stores.{store}.write", 1),
    STORED: ("stores.{store}.gb_month", 1e9),
}


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        work, workers: what it has to do, and with what.
        costs: the table, idle cores included.
        seconds: of wall; None where nobody says how many cores there are.
        store: the kind of store of the run's folder, such as gs; empty where that is on disks.
        gpu: what runs on a GPU, which was not measured; empty where nothing does.
    """

    work: Work
    workers: Workers
    costs: Sequence[Cost]
    seconds: Range | None
    store: str = ""
    gpu: str = ""

    @classmethod
    def of(cls, trials: Trials, work: Work, workers: Workers, store: str = "", gpu: str = "") -> "Plan":
        """Return the plan of a run by what trials took."""
        costs = [cost for cost in predict(trials, work, workers) if cost.kind != MEMORY]
        seconds = find_seconds(costs, work, workers)
        if seconds:
            costs += add_idle(costs, seconds, workers)
            margin = (seconds.high - seconds.low) / 2
            if workers.memory:
                costs.append(Cost("all", MEMORY, "GB", workers.memory, seconds.value, margin))
        return cls(work, workers, costs, seconds, store, gpu)

    def sum(self, kind: str, step: str | None = None) -> Range:
        """Return what a step uses of a resource; None: all of them."""
        return Range.of(cost for cost in self.costs if cost.kind == kind and step in (None, cost.step))

    def key(self, kind: str) -> str:
        """Return the key of a resource's price; empty where it is on disks of one's own."""
        key = _PRICED[kind][0].format(engine=self.workers.engine, store=self.store)
        return key if self.store or not key.startswith("stores") else ""

    def money(self, prices: Prices, kind: str, step: str | None = None) -> Range | None:
        """Return what a resource costs; None where the price is missing."""
        price = prices.find(self.key(kind)) if self.key(kind) else None
        return self.sum(kind, step).times(price.each / _PRICED[kind][1]) if price else None


def show_costs(plan: Plan, prices: Prices, measured: str, requests: Sequence[EstimatedRequests] = ()) -> Iterator[Line]:
    """Yield the page; `measured` says on what grounds."""
    workers = plan.workers
    with_what = f"{workers.engine}, {pluralise(workers.cores, 'core')}" if workers.cores else workers.engine
    yield heading("costs", f"on {with_what}, from {measured}; [low, high] holds the truth in 8 of 10 runs")
    unit = _HOUR if plan.sum(CPU).value > _HOUR else 1
    rows = [("", "core-hours" if unit > 1 else "core-seconds", "", "money", "as")]
    steps = dict.fromkeys(cost.step for cost in plan.costs if cost.kind == CPU)
    for step in steps:
        money = [plan.money(prices, kind, step) for kind in (CPU, SHUFFLED, READS, WRITES, STORED)]
        total = f"{sum(amount.value for amount in money if amount):,.2f}" if any(money) else ""
        rows.append((step, *_amount(plan.sum(CPU, step).times(1 / unit)), total, _say(plan.costs, step)))
    rows.append(("all", *_amount(plan.sum(CPU).times(1 / unit)), "", ""))
    yield from columns(rows, right=(1, 3))
    yield line()
    yield from columns(list(_totals(plan, requests)))
    yield line()
    yield from _bill(plan, prices, requests)


def _number(value: float) -> str:
    """Return a number with three digits that say something, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    unit, size = next(pair for pair in (("s", 1.0), ("ms", 1e-3), ("µs", 0.0)) if seconds >= pair[1])
    return f"{_number(seconds / (size or 1e-6))} {unit}"


def _say(costs: Sequence[Cost], step: str) -> str:
    """Return how a step's core-hours come."""
    some = sorted(
        (cost for cost in costs if (cost.kind, cost.step) == (CPU, step) and cost.each), key=lambda cost: -cost.total
    )
    return " + ".join(f"{_time(cost.each)} × {cost.count:,.0f} {cost.per}" for cost in some)


def _totals(plan: Plan, requests: Sequence[EstimatedRequests]) -> Iterator[tuple[str, str, str]]:
    """Yield the other resources: a name, how much, and how it comes."""
    workers, work = plan.workers, plan.work
    if plan.seconds:
        of, low, high = (format_seconds(s) for s in (plan.seconds.value, plan.seconds.low, plan.seconds.high))
        yield "time", f"{of} [{low}, {high}]", f"{work.units:,.0f} units on {workers.cores:,} cores"
    else:
        yield "time", "not known", workers.missing
    if plan.gpu:
        yield "GPU-hours", "not known", plan.gpu
    elif (gpu := plan.sum(GPU)).value:
        yield "GPU-hours", " ".join(_amount(gpu.times(1 / _HOUR))), "as measured"
    if (memory := plan.sum(MEMORY)).value:
        yield (
            "memory",
            f"{' '.join(_amount(memory.times(1 / _HOUR)))} GB-hours",
            f"{workers.memory:,.1f} GB for this time",
        )
    for kind, name in ((SHUFFLED, "shuffled"), (STORED, "storage")):
        bytes_of = plan.sum(kind)
        interval = f"[{format_bytes(bytes_of.low)}, {format_bytes(bytes_of.high)}]"
        steps = dict.fromkeys(cost.step for cost in plan.costs if cost.kind == kind)
        by_step = ", ".join(f"{step} {format_bytes(plan.sum(kind, step).value)}" for step in steps)
        yield name, f"{format_bytes(bytes_of.value)} {interval}", by_step
    if plan.store:
        for kind, name in ((READS, "GET and HEAD"), (WRITES, "PUT and LIST")):
            count = plan.sum(kind)
            yield name, f"{count.value:,.0f} [{count.low:,.0f}, {count.high:,.0f}]", f"to {plan.store}://"
    for kind_of in requests:
        tokens = f"{kind_of.tokens_in:,.0f} tokens in, at most {kind_of.tokens_out:,.0f} out"
        yield kind_of.kind, f"{kind_of.requests:,.0f} requests to {kind_of.engine}", tokens


def _bill(plan: Plan, prices: Prices, requests: Sequence[EstimatedRequests]) -> Iterator[Line]:
    """Yield what each resource costs, the sum, and which prices are missing or old."""
    kinds = [kind for kind in _PRICED if plan.sum(kind).value and plan.key(kind)]
    kinds += [GPU] if plan.gpu and GPU not in kinds else []
    rows, total = [], Range(0.0, 0.0, 0.0)
    for kind in kinds:
        amount = plan.money(prices, kind)
        if amount is not None and amount.value:
            price, count = prices.find(plan.key(kind)), plan.sum(kind).times(1 / _PRICED[kind][1])
            assert price is not None
            rows.append(
                (plan.key(kind), *_amount(amount), f"{_number(count.value)} × {price.each:.6g}: {price.source}")
            )
            total = Range(total.value + amount.value, total.low + amount.low, total.high + amount.high)
    for of in requests:
        if of.cost:
            rows.append(
                (f"captions.engines.{of.engine}", f"{of.cost:,.2f}", "", f"{of.kind}: by the recipe's price, at most")
            )
            total = Range(total.value + of.cost, total.low, total.high + of.cost)
    missing = [plan.key(kind) for kind in kinds if prices.find(plan.key(kind)) is None]
    yield heading("money", f"{prices.currency}, by {prices.path}")
    what = "in all" if not missing and not plan.gpu else "without what is missing"
    yield from columns([*rows, (what, *_amount(total), "")], right=(1,))
    today = datetime.date.today()
    yield from (line(f"warning: {text}") for text in prices.old((plan.key(kind) for kind in kinds), today))
    if missing:
        how = "give each {price: …, source: …, date: …} in a copy of that file, and name it with --prices"
        yield line(f"missing in {prices.path}: {', '.join(missing)}: {how}")


def _amount(of: Range) -> tuple[str, str]:
    return f"{of.value:,.2f}", f"[{of.low:,.2f}, {of.high:,.2f}]"
