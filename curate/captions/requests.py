"""What is asked for a unit's kept rows, section by section: from the recipe's sections to the functions of each kind's file.

A new kind is one file with `ROWS`, `requests` and `text_of`, a section in `curate.recipe.captions`, and a branch here.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.captions.gates.gates import PASSED
from curate.captions.kinds import fuse, recaption, rewrite, translate
from curate.captions.prompts import Template, load_template
from curate.engines.request import Request
from curate.errors import RecipeError
from curate.pool.plan import Unit
from curate.recipe.captions import MOST_PER_ROW, Kind, Rewrite, Task, Translate
from curate.run.context import RunContext
from curate.run.rules import check_count, count_values

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

PER_ROW = pa.schema([("probability", pa.float64()), ("entries", pa.int32()), ("rarest", pa.int64())])
"""What `per_row` sees beside what rules see."""


_LONGEST = 20_000  # characters of an answer that are looked at: what is longer is no caption


@dataclass(frozen=True)
class Rows:
    """A unit's kept rows, in order.

    Attributes:
        rows: int64 [n], their places in the unit.
        table: uid, caption, language, sha256 (null where the pool has no images).
        entry_ids: list<int32>, the entries that each caption holds; None without match.
        counts: int64 [entries], rows of each entry among the survivors; None without match.
        probability: float64 [n], that balancing keeps the row.
        recaptions: string, what fused texts are made of; null where there is none, or it is not made yet.
    """

    rows: I64
    table: pa.Table
    entry_ids: pa.Array | None
    counts: I64 | None
    probability: F64
    recaptions: pa.Array

    @classmethod
    def read(cls, context: RunContext, unit: Unit, counts: I64 | None) -> "Rows":
        """Those of a unit whose decisions stand."""
        decisions = context.read("decisions", unit, ["kept", "probability"])
        kept = decisions["kept"].to_numpy()
        return cls.of(context, unit, np.flatnonzero(kept), counts, decisions["probability"].to_numpy()[kept])

    @classmethod
    def of(cls, context: RunContext, unit: Unit, rows: I64, counts: I64 | None, probability: F64) -> "Rows":
        """Those rows of a unit."""
        take = pa.array(rows)
        table = context.read("samples", unit, ["uid", "caption", "language", "sha256"]).take(take).combine_chunks()
        entry_ids = None
        if context.recipe.match:
            entry_ids = context.read("matches", unit, ["entry_ids"])["entry_ids"].take(take).combine_chunks()
        return cls(rows, table, entry_ids, counts, probability, pa.nulls(len(rows), pa.string()))

    def with_recaptions(self, captions: pa.Table, style: str) -> "Rows":
        """With the first recaption of a style that passed, of those in table `captions`."""
        found: dict[str, str] = {}
        for uid, own, text, gate in zip(
            *(captions[c].to_pylist() for c in ("uid", "style", "text", "gate")), strict=True
        ):
            if own == style and gate == PASSED:
                found.setdefault(uid, text)
        return replace(
            self, recaptions=pa.array([found.get(uid) for uid in self.column("uid").to_pylist()], pa.string())
        )

    def column(self, name: str) -> pa.Array:
        """One of the table's columns, as one array."""
        return self.table[name].combine_chunks()


def check_kinds(context: RunContext) -> None:
    """Checks what needs the pool's columns or a file. Raises RecipeError."""
    captions = context.recipe.captions
    assert captions is not None
    for name, asked in (("recaption", captions.recaption), ("regions", captions.regions)):
        if asked and not context.pool.images:
            raise RecipeError(f"captions.{name}: needs images, and the pool has none")
    if not context.pool.images and context.pool.output is not None:
        taken = [name for name in context.pool.output.names if name.lower() in ("captions", "curated_caption")]
        if taken:
            raise RecipeError(f"captions: the pool has a column {taken[0]!r}, and so would the output; rename it")
        if captions.output.syn_json:
            raise RecipeError("captions.output.syn_json: needs images, and the pool has none")
    for task in captions.tasks:
        if isinstance(task.section, Translate):
            for code in task.section.languages:
                translate.language_name(code, f"captions.{task.key}.languages")
        if isinstance(task.section.per_row, str):
            check_count(f"captions.{task.key}.per_row", task.section.per_row, _visible(context))


def make_requests(context: RunContext, unit: Unit, task: Task, rows: Rows) -> list[Request]:
    """The requests of a section, by row.

    Args:
        context: the run.
        unit: the unit.
        task: the section.
        rows: the unit's kept rows.
    """
    wanted = {
        "per_row": pa.array(_per_row(context, unit, task.section, rows), pa.int32()),
        "recaption": rows.recaptions,
    }
    module, _ = _KINDS[task.kind]
    columns = [wanted[c] if c in wanted else rows.column(c) for c in module.ROWS.names]
    return list(module.requests(pa.table(columns, schema=module.ROWS), _options(context, task)))


def make_text(task: Task, request: Request, answer: str) -> str:
    """The text that an answer to a request of the section holds."""
    answer = answer[:_LONGEST]
    if isinstance(task.section, Rewrite):
        return rewrite.text_of(answer, task.section.prompt)
    if task.kind == "recaption":
        return recaption.text_of(answer, request.style)
    return fuse.text_of(answer) if task.kind == "fused" else translate.text_of(answer)


# The file of each kind, and its options.
_KINDS: dict[str, tuple[Any, Any]] = {
    "rewrite": (rewrite, rewrite.Rewrite),
    "recaption": (recaption, recaption.Recaption),
    "fused": (fuse, fuse.Fuse),
    "translation": (translate, translate.Translate),
}


def _options(context: RunContext, task: Task) -> Any:
    """The section as its kind's file has it: the recipe's where it says something."""
    asked = task.section.model_dump(exclude={"engine", "per_row", "template", "batch"}, exclude_none=True)
    return _KINDS[task.kind][1](**asked, seed=context.recipe.seed, template=template_of(task))


def template_of(task: Task) -> Template:
    """The template of a section: the user's, or the package's."""
    return load_template(task.section.default_template, task.section.template)


def _visible(context: RunContext) -> pa.Schema:
    """What rules see, and what is known of a kept row besides, without the names that the pool has for its own."""
    more = [field for field in PER_ROW if context.recipe.match or field.name == "probability"]
    taken = {name.lower() for name in context.visible.names}
    return pa.schema([*context.visible, *(field for field in more if field.name not in taken)])


def _per_row(context: RunContext, unit: Unit, kind: Kind, rows: Rows) -> I32:
    """How many texts each row gets of each style."""
    if isinstance(kind.per_row, int):
        return np.full(len(rows.rows), kind.per_row, np.int32)
    rule = check_count("per_row", kind.per_row, _visible(context))
    take = pa.array(rows.rows)
    own = [name for name in rule.columns if name in context.visible.names]
    table = context.columns(unit, own or ["row"]).take(take)
    if "probability" in rule.columns and "probability" not in own:
        table = table.append_column("probability", pa.array(rows.probability))
    if "entries" in rule.columns and "entries" not in own:
        table = table.append_column("entries", _numbers(rows, lambda ids, counts: len(ids), pa.int32()))
    if "rarest" in rule.columns and "rarest" not in own:
        least = _numbers(rows, lambda ids, counts: int(counts[ids].min()) if len(ids) else None, pa.int64())
        table = table.append_column("rarest", least)
    return count_values(rule, table, MOST_PER_ROW)


def _numbers(rows: Rows, of: Any, kind: pa.DataType) -> pa.Array:
    if rows.entry_ids is None or rows.counts is None:
        return pa.nulls(len(rows.rows), kind)
    return pa.array([of(np.asarray(ids), rows.counts) for ids in rows.entry_ids.to_pylist()], kind)
