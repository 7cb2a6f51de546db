"""The options of an engine: a section of a recipe that opens what it describes."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from curate.engines.request import Engine
from curate.recipe.section import Section


class EngineOptions(Section):
    """Base of the kinds of engines.

    Attributes:
        takes_words: whether it can be given a prompt or a chat; if not, an image and nothing else.
        is_local: whether its model runs in this process.
        batch_size: requests at a time, where a section of captions does not say.
    """

    takes_words: ClassVar[bool] = True
    is_local: ClassVar[bool] = False
    batch_size: ClassVar[int] = 256

    @abstractmethod
    def open(self) -> Engine:
        """Return an engine that has loaded and connected nothing yet. Raises RecipeError."""

    def fingerprint(self) -> str:
        """Return what its answers depend on besides these options and its model's name, as it is now."""
        return ""


@dataclass(frozen=True)
class EngineKind:
    """A kind of engines: `key` names it in a recipe."""

    key: str
    section: type[EngineOptions]
