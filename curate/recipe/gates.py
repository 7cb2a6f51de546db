"""The section `captions.gates` of a recipe: which quality filters judge synthetic captions, and how strictly."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from curate.base.registry import Registry
from curate.recipe.measure import Embedder
from curate.recipe.section import ColumnName, KindOf, KindsSection

GATES = Registry[Any]("gate", ".captions.gates.registry:KINDS", "curate.gates", ".captions.gates.gate:Gate")
"""The gates, `curate.captions.gates.gate.Gate`, in the order in which the first one that fails is reported."""


class Gates(KindsSection):
    """Settings of the quality filters (gates) for synthetic captions. By default, all gates that apply are on.

    curate does not write captions that fail a gate to the shards. The table `captions` still has them, with the name of
    the gate. Gates are heuristics: `preamble` and `unsafe` find only the patterns that they know, and `language` misses
    short texts.

    Some guidance for the limits:

    - `entries: 0.4` rejects one in seven of curate's own example pairs, which are good rewrites. It rejects half of the
      rewrites that lost their rarest entry.
    - `entries: 0.6` rejects one in three of these good rewrites, and two thirds of the rewrites that lost their rarest
      entry.
    - The scale of `clip_score` depends on the model.
    - With ViT-H-14, a wrong word lowers `f_clipscore` by about 0.00035.
    """

    registry: ClassVar[Registry[Any]] = GATES

    off: tuple[Annotated[str, KindOf(GATES, or_broken=True)], ...] = Field((), examples=[["f_clipscore"]])
    """Gates to turn off."""
    of: ColumnName = Field("clip", examples=["large"])
    """Name of the model in `measure.clip` that scores captions. It needs `embeddings: true`."""

    @classmethod
    def full(cls, doc: str | None = None) -> type[Self]:
        lines = "".join(f"    - `{gate.key}`: {gate.summary}.\n" for gate in GATES.kinds().values())
        return super().full(f"{cls.__doc__}\n    A caption fails a gate in these cases:\n\n{lines}")

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        """Return the options of the gates."""
        return tuple(gate.option for gate in GATES.kinds().values() if gate.option is not None)

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.type, kind.field

    def needs(self, name: str) -> bool:
        """Return whether an active gate needs this field of its candidates."""
        return any(name in gate.needs for key, gate in GATES.kinds().items() if key not in self.off)

    def check_needs(self, has_entries: bool, models: Mapping[str, Embedder]) -> None:
        """Check that gates with options have the entries or scores that they need. Raises ValueError."""
        kinds = [gate for gate in GATES.kinds().values() if gate.option is not None]
        changed = [gate for gate in kinds if getattr(self, gate.option.key) != gate.option.field.default]
        for key, needs in ((gate.option.key, gate.needs) for gate in changed):
            if "entries" in needs and not has_entries:
                raise ValueError(f"captions.gates.{key} needs match, because it checks metadata entries")
            if needs & {"clip", "f_clip"} and self.of not in models:
                model = f"a model named {self.of!r} in measure.clip, with embeddings: true"
                raise ValueError(f"captions.gates.{key} needs {model}")
            if "f_clip" in needs and not models[self.of].scores_words:
                raise ValueError(f"captions.gates.{key} needs words: true in measure.clip.{self.of}")
