"""Price a run: by step, by resource, and in money.

In: the table of costs, including idle cores, and a YAML file of prices, each with its source and date; curate guesses
none. Out: a `CostPlan`; `costs.txt` is its page. The page asks for missing prices instead of counting them as 0, and
names figures older than MAX_DAYS.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from curate.ask.costs import model
from curate.ask.whatif.estimate import EstimatedRequests
from curate.base.errors import RecipeError
from curate.recipe.errors import explain_faults
from curate.recipe.files import read_mapping, shipped_folder
from curate.recipe.section import Section

MAX_DAYS = 180
FILE = "infra/prices.yaml"
_HOUR = 3600
# For each resource: the key of its price, and the quantity that the price buys
_PRICED = {
    model.CPU: ("engines.{}.core_hour", _HOUR),
    model.MEMORY: ("engines.{}.memory_hour", _HOUR),
    model.DISK: ("engines.{}.disk_hour", _HOUR),
    model.GPU: ("engines.{}.gpu_hour", _HOUR),
    model.SHUFFLED: ("engines.{}.shuffled_gb", 1e9),
    model.READS: ("stores.{}.read", 1),
    model.WRITES: ("stores.{}.write", 1),
    model.STORED: ("stores.{}.gb_month", 1e9),
}


class Price(Section):
    """A figure: `price` for `per` units, as published by `source` on `date`."""

    price: float = Field(ge=0, allow_inf_nan=False)
    per: float = Field(1, gt=0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    date: datetime.date

    @property
    def each(self) -> float:
        return self.price / self.per


_OfEngine = Literal["core_hour", "memory_hour", "disk_hour", "gpu_hour", "shuffled_gb"]


class Prices(Section):
    """A file of prices: engines charge per hour of a core, a GB or a GPU, and stores per request or GB."""

    currency: str
    engines: dict[str, dict[_OfEngine, Price]] = Field({})
    stores: dict[str, dict[Literal["read", "write", "gb_month"], Price]] = Field({})

    def find(self, key: str) -> Price | None:
        """Return the figure under a dotted key, such as engines.spark.core_hour."""
        section, name, figure = key.split(".")
        price: Price | None = getattr(self, section).get(name, {}).get(figure)
        return price

    def find_old(self, keys: Iterable[str], today: datetime.date) -> Iterator[tuple[str, Price, int]]:
        """Yield each figure that is older than MAX_DAYS or dated in the future, with its key and its age in days."""
        for key in keys:
            if (price := self.find(key)) and not 0 <= (days := (today - price.date).days) <= MAX_DAYS:
                yield key, price, days


def load_prices(path: str | None = None) -> Prices:
    """Read a file of prices; if `path` is None, the packaged file. Raises RecipeError with a line for each error."""
    name = f"--prices {path or FILE}"
    shipped = str(shipped_folder("infra").parent / FILE)
    data, text = read_mapping(path or shipped, name, "file of prices", f"a YAML mapping like {FILE}")
    try:
        return Prices.model_validate(data)
    except ValidationError as error:
        lines = (f"{name}, line {_line(text, problem)}: {problem}" for problem in explain_faults(error, data))
        raise RecipeError("\n".join(lines)) from None


def _line(text: str, fault: str) -> int:
    """Return the line of the key that an error names, or of the nearest key that encloses it."""
    node, number = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for key in fault.partition(": ")[0].split("."):
        pairs: list[Any] = [pair for pair in getattr(node, "value", ()) if getattr(pair[0], "value", None) == key]
        if not pairs:
            break
        number, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
    return number


class BillLine(NamedTuple):
    """What a run costs under one key: `quantity` units at a price; price and amount are None if the price is missing.

    Requests to a caption engine have their own price; `requests` names what they are for.
    """

    key: str
    amount: model.Range | None
    quantity: float = 0.0
    price: Price | None = None
    requests: str = ""


@dataclass(frozen=True)
class CostPlan:
    """What a run will cost: wall `seconds`, None if the number of cores is unknown.

    `store` is the kind of store of the run folder, such as gs, empty for a local disk; the estimate is based on
    `trials`; `requests` are those to caption engines.
    """

    costs: Sequence[model.Cost]
    seconds: model.Range | None
    work: model.Work
    workers: model.Workers
    store: str
    trials: model.Trials
    prices: Prices
    requests: Sequence[EstimatedRequests] = ()

    def sum(self, kind: str, step: str | None = None) -> model.Range:
        """Return how much of a resource a step uses; if `step` is None, how much all steps use."""
        return model.add_up(cost for cost in self.costs if cost.kind == kind and step in (None, cost.step))

    def steps_of(self, kind: str) -> list[str]:
        """Return the steps that use a resource."""
        return list(dict.fromkeys(cost.step for cost in self.costs if cost.kind == kind))

    def price_key(self, kind: str) -> str:
        """Return the key of a resource's price; empty if the resource is part of a machine that you own."""
        key = _PRICED[kind][0]
        is_own = self.workers.overhead is None and kind in (model.MEMORY, model.SHUFFLED)
        name = self.store if key.startswith("stores") else "" if is_own else self.workers.engine
        return key.format(name) if name else ""

    def money(self, kind: str, step: str | None = None) -> model.Range | None:
        """Return what a step's use of a resource costs; None if the price is missing."""
        key = self.price_key(kind)
        price = self.prices.find(key) if key else None
        return self.sum(kind, step).times(price.each / _PRICED[kind][1]) if price else None

    def parts(self, step: str | None) -> list[model.Cost]:
        """Return a step's CPU use by kind of work, largest first."""
        parts = (cost for cost in self.costs if (cost.kind, cost.step) == (model.CPU, step) and cost.each)
        return sorted(parts, key=lambda cost: -cost.count * cost.each)

    def step_money(self, step: str | None) -> float | None:
        """Return the total cost of a step, or of all steps if `step` is None; return None if no price is known."""
        amounts = [amount.value for kind in _PRICED if (amount := self.money(kind, step))]
        return sum(amounts) if amounts else None

    @property
    def busy(self) -> model.Range:
        """CPU of all steps without idle cores, as `curate sql RUN costs` shows it for a run."""
        return model.add_up(cost for cost in self.costs if cost.kind == model.CPU and cost.step != model.IDLE)

    @property
    def bill(self) -> list[BillLine]:
        lines = []
        for kind, (_, per) in _PRICED.items():
            if (used := self.sum(kind).value) and (key := self.price_key(kind)):
                lines.append(BillLine(key, self.money(kind), used / per, self.prices.find(key)))
        for asked in self.requests:
            amount = model.Range(asked.cost, 0.0, asked.cost)
            lines.append(BillLine(f"captions.engines.{asked.engine}", amount, requests=asked.kind))
        return lines

    @property
    def total(self) -> model.Range:
        """The total of all lines that have a price."""
        amounts = [line.amount for line in self.bill if line.amount]
        return model.Range(*map(sum, zip((0.0, 0.0, 0.0), *amounts, strict=True)))
