"""The section `captions.engines` of a recipe: what writes texts, and what it costs. See `curate.recipe.captions`.

The section of each kind lies with the engine, in `curate.engines`.
"""

from typing import Any

from pydantic import Field

from curate.recipe.section import OneKind, Section
from curate.registry import Registry

ENGINES = Registry[Any]("engine", "curate.engines.registry:ENGINES")
"""The kinds of engines, `curate.engines.engine.EngineKind`."""


class Price(Section):
    """What an engine costs, in any currency: per million tokens, or per hour that it works."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    hour: float = Field(0.0, ge=0)

    def cost(self, tokens_in: float, tokens_out: float, seconds: float = 0.0) -> float:
        """Return the cost of tokens and of seconds of work."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6 + seconds / 3600 * self.hour


class EngineSpec(OneKind):
    """One engine of a recipe: the options of one kind, under its key, and a price."""

    registry = ENGINES

    price: Price = Price()

    @property
    def options(self) -> Any:
        """The options, an `EngineOptions`."""
        return self.section
