"""Prices of what runs use: a file of YAML, each figure with its source and date. Nothing is guessed.

In: infra/prices.yaml, or a file like it. Out: `Prices`. What a run needs and the file lacks is an error of the plan's
page, which names the key; a figure older than MAX_DAYS is named there too.
"""

import datetime
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.base.errors import RecipeError
from curate.recipe.faults import explain_faults, shorten
from curate.recipe.files import read_whole, shipped_folder
from curate.recipe.strict_yaml import MAX_CHARACTERS, load_yaml, say_yaml_error

MAX_DAYS = 180
FILE = "prices.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Part):
    """A figure: `price` for `per` units, as `source` said on `date`."""

    price: float = Field(ge=0, allow_inf_nan=False)
    per: float = Field(1, gt=0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    date: datetime.date

    @property
    def each(self) -> float:
        """Return the price of one unit."""
        return self.price / self.per


class EnginePrices(_Part):
    """What an engine's machines cost, by what is used or kept waiting."""

    core_hour: Price | None = None
    memory_hour: Price | None = None  # of a GB
    gpu_hour: Price | None = None
    shuffled_gb: Price | None = None


class StorePrices(_Part):
    """What a store costs."""

    read: Price | None = None  # GET, HEAD
    write: Price | None = None  # PUT, LIST
    gb_month: Price | None = None


class Prices(_Part):
    """All of a file; `path` is where it is from."""

    path: str = Field(FILE, exclude=True)
    currency: str
    engines: dict[str, EnginePrices] = {}
    stores: dict[str, StorePrices] = {}

    def find(self, key: str) -> Price | None:
        """Return the figure under a dotted key, such as `engines.spark.core_hour`."""
        section, name, field = key.split(".")
        return getattr(getattr(self, section).get(name), field, None)

    def old(self, keys: Iterator[str], today: datetime.date) -> Iterator[str]:
        """Yield a line for each of these figures that is old, or dated in the future."""
        for key in keys:
            if (price := self.find(key)) and not 0 <= (days := (today - price.date).days) <= MAX_DAYS:
                when = f"{days} days old" if days > 0 else "of a day to come"
                yield f"{self.path}: {key}: is of {price.date}, {when}; look at {price.source}, and set date"


def load_prices(path: str | None = None) -> Prices:
    """Read a file of prices; None: the package's. Raises RecipeError, a line per fault with file, line and key."""
    where = path or str(shipped_folder("infra") / FILE)
    name = path or f"infra/{FILE}"
    try:
        text = read_whole(where, MAX_CHARACTERS).decode()
        data = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--prices {name}: not valid YAML: {say_yaml_error(error)}") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"--prices {name}: cannot be read: {error}; accepted: YAML as infra/{FILE}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"--prices {name}: holds {shorten(data)}; accepted: a mapping as infra/{FILE}")
    try:
        return Prices.model_validate(data).model_copy(update={"path": name})
    except ValidationError as error:
        lines = (f"--prices {name}, line {_line(text, line)}: {line}" for line in explain_faults(Prices, error))
        raise RecipeError("\n".join(lines)) from None


def _line(text: str, fault: str) -> int:
    """Return the line of the key that a fault begins with, or of the nearest one around it."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    number = 1
    for key in fault.partition(": ")[0].split("."):
        pair = next((pair for pair in getattr(node, "value", ()) if getattr(pair[0], "value", None) == key), None)
        if pair is None:
            break
        number, node = pair[0].start_mark.line + 1, pair[1]
    return number
