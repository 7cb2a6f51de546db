"""Prices of what runs use: a file of YAML, each figure with its source and date; none is guessed.

What a run needs and the file lacks is asked for on the plan's page, which also names figures older than MAX_DAYS.
"""

import datetime
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.base.errors import RecipeError
from curate.recipe.faults import explain_faults
from curate.recipe.files import read_mapping, shipped_folder

MAX_DAYS = 180
FILE = "infra/prices.yaml"


class Price(BaseModel):
    """A figure: `price` for `per` units, as `source` said on `date`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    price: float = Field(ge=0, allow_inf_nan=False)
    per: float = Field(1, gt=0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    date: datetime.date

    @property
    def each(self) -> float:
        """Return the price of one unit."""
        return self.price / self.per


class Prices(BaseModel):
    """All of a file: what engines ask for an hour of a core, a GB or a GPU, and stores for a request or a GB."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    currency: str
    engines: dict[str, dict[Literal["core_hour", "memory_hour", "disk_hour", "gpu_hour", "shuffled_gb"], Price]] = {}
    stores: dict[str, dict[Literal["read", "write", "gb_month"], Price]] = {}

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
        lines = (f"{name}, line {_line(text, fault)}: {fault}" for fault in explain_faults(Prices, error))
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
