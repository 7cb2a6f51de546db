"""The section `relate` of a recipe: columns that need the whole pool. See `curate.relate.relation`."""

from operator import not_
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from curate.base.registry import Registry
from curate.recipe.measure import Measure
from curate.recipe.section import ColumnName, KindsSection, Section, find_twice

RELATIONS = Registry[Any]("relation", ".relate.registry:KINDS", "curate.relations", ".relate.relation:Relation")
"""The kinds of relations, `curate.relate.relation.Relation`."""


class OnKept(Section):
    """Base of the sections of relations. `of` names a model whose embeddings the run keeps."""

    of: ColumnName = Field("clip", examples=["l14"])
    """Name of a model in `measure.clip` with `embeddings: true`, or of embeddings in `measure.embeddings` with `keep:
    true`."""


class Relate(KindsSection):
    """Columns that depend on the whole pool, such as clusters and s-CLIPLoss.

    curate computes these columns after `measure` and before the rules. If the pool changes, it computes these columns
    again for all rows, but measures only the new files.
    """

    registry = RELATIONS
    example: ClassVar[Any] = {"clusters": {"topic": {"k": 1000}}}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return dict[ColumnName, kind.section], Field({}, exclude_if=not_, **kind.section.about())

    @model_validator(mode="after")
    def _names_differ(self) -> "Relate":
        if twice := find_twice(relation.name for relation in self.requested):
            raise ValueError(f"two relations are named {twice!r}; give each a name of its own")
        return self

    def check_measured(self, measure: Measure) -> None:
        """Check that the run keeps the embeddings that the relations use. Raises ValueError."""
        kept = [model.name for model in measure.kept]
        for kind, name, section in self.requested:
            if section.of not in kept:
                needed = "in measure.clip, with embeddings: true, or in measure.embeddings, with keep: true"
                available = f"; available: {', '.join(kept)}" if kept else ""
                raise ValueError(f"relate.{kind}.{name} needs the model {section.of!r} {needed}{available}")
