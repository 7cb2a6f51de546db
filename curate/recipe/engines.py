"""The section `captions.engines` of a recipe: what writes texts, and what it costs. See `curate.recipe.captions`.

The options of each kind lie with the engine, in `curate.engines`; this section is made of that registry.
"""

from functools import cache
from typing import Any

from pydantic import Field, create_model, model_validator

from curate.recipe.section import Section
from curate.registry import Registry

ENGINES = Registry[Any]("engine", "curate.engines.registry:ENGINES")
"""The kinds of engines, `curate.engines.options.EngineKind`."""


class Price(Section):
    """What an engine costs, in any currency: per million tokens, or per hour that it works."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    hour: float = Field(0.0, ge=0)

    def cost(self, tokens_in: float, tokens_out: float, seconds: float = 0.0) -> float:
        """Return the cost of tokens and of seconds of work."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6 + seconds / 3600 * self.hour


class EngineSpec(Section):
    """One engine of a recipe: the options of one kind, under its key, and a price."""

    price: Price = Price()

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (), self.__getstate__()  # its class is made in each process

    @property
    def options(self) -> Any:
        """The options, an `EngineOptions`."""
        return next(options for key in ENGINES.kinds() if (options := getattr(self, key)) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> "EngineSpec":
        kinds = list(ENGINES.kinds())
        if sum(getattr(self, key) is not None for key in kinds) != 1:
            raise ValueError(f"give one of {', '.join(kinds[:-1])} and {kinds[-1]}")
        return self


def engine_section() -> type[EngineSpec]:
    """Return the section with a field for each kind of engine."""
    return _make_section(tuple((key, kind.options) for key, kind in ENGINES.kinds().items()))


@cache
def _make_section(kinds: tuple[tuple[str, type[Section]], ...]) -> type[EngineSpec]:
    fields: dict[str, Any] = {key: (options | None, None) for key, options in kinds}
    return create_model("EngineSpec", __base__=EngineSpec, __doc__=EngineSpec.__doc__, **fields)


def _empty() -> EngineSpec:
    """Return a section that is to be filled by `__setstate__`."""
    section = engine_section()
    return section.__new__(section)
