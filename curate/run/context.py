"""A run's fixed facts, as every step needs them: the recipe, the pool, the folders, and the key of each table.

A key is the digest of all that determines a table's file: the unit's inputs, the part of the recipe that the step reads,
and the version of the step's code. A file that stands with its key is not made again, and `--reuse` takes it over.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from curate import ids, schema
from curate.errors import RecipeError
from curate.pool.formats.registry import find_format
from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import Recipe
from curate.recipe.source import Source
from curate.run import columns
from curate.run.rules import Rule, Segment, check_rules, segments
from curate.signals.registry import find_signals
from curate.signals.signal import Signal
from curate.store.store import RunStore
from curate.store.tables import UnitTables

# Raised when a step's code changes what it writes.
VERSIONS = {"measure": 1, "matches": 1, "decisions": 1, "captions": 1, "shards": 1}


@dataclass(frozen=True)
class RunContext:
    """One run: sent to every worker, so small. `metadata_key` names the entries' content; `models` what each model is, and
    `writers` what writes captions;
    `evaluation_key` the content of `dedup.against`; `blocked` the key of the record of what is forgotten (see
    `curate.store.forgotten`), empty where nothing is; `is_local_runner` whether the runner works on this machine alone.
    """

    recipe: Recipe
    pool: Pool
    store: RunStore
    reuse: RunStore | None = None
    metadata_key: str = ""
    models: dict[str, Any] = field(default_factory=dict)
    engine_ids: dict[str, str] = field(default_factory=dict)
    evaluation_key: str = ""
    blocklist_key: str = ""
    is_local_runner: bool = True

    def source(self, unit: Unit) -> Source:
        """The recipe's source that the unit belongs to."""
        return next(source for source in self.recipe.input if source.name == unit.source)

    @cached_property
    def score_schema(self) -> pa.Schema:
        """The columns of table `scores`."""
        return columns.score_schema(self.signals, self.pool)

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the recipe asks for, in the order of their columns."""
        return find_signals(self.recipe.measure, self.models)

    @cached_property
    def embedding_schema(self) -> pa.Schema:
        """The columns of table `embeddings`."""
        return columns.embedding_schema(self.recipe.measure, self.models)

    @property
    def has_embeddings(self) -> bool:
        """Whether embeddings are kept."""
        return bool(self.recipe.measure.kept)

    @property
    def has_scores(self) -> bool:
        """Whether there is a table `scores` at all."""
        return len(self.score_schema) > len(schema.ALIGNED)

    @property
    def has_members(self) -> bool:
        """Whether some source has members."""
        return any(find_format(source).has_members for source in self.recipe.input)

    @cached_property
    def visible(self) -> pa.Schema:
        """The columns that rules see."""
        return columns.visible_columns(self.recipe.measure, self.signals, self.pool)

    @cached_property
    def rules(self) -> list[Rule]:
        """The recipe's rules, checked against the visible columns. Raises RecipeError."""
        return check_rules(self.recipe.rules, self.visible)

    @cached_property
    def segments(self) -> list[Segment]:
        """The rules, cut after each top rule."""
        return segments(self.rules)

    def check(self) -> None:
        """Checks what needs the pool's columns. Raises RecipeError."""
        looking = [signal for signal in self.signals if signal.from_images]
        if looking and not self.pool.images:
            raise RecipeError(f"measure: {looking[0].name} needs images, and the pool has none")
        own = [f.name for f in self.score_schema][len(schema.ALIGNED) : len(self.score_schema) - len(self.pool.scores)]
        brought = [name.lower() for name in self.pool.scores.names]
        for name in own:
            if name in {*schema.SAMPLES.names, *schema.DECISIONS.names} or own.count(name) > 1:
                raise RecipeError(f"measure: a signal has a column {name}, and another column has that name; rename it")
            if name in brought:
                raise RecipeError(
                    f"measure: the pool has a column {name} already; leave the signal out, give it another name, or "
                    "choose the score columns with columns.scores"
                )
        _ = self.rules
        dedup = self.recipe.dedup
        if not self.pool.images:
            for by in ("sha256", "phash"):
                if by in dedup.by:
                    raise RecipeError(f"dedup.by: {by} needs images, and the pool has none; accepted here: uid")
        if dedup.prefer is not None:
            names = self.visible.names
            if dedup.prefer not in names:
                raise RecipeError(f"dedup.prefer: no column {dedup.prefer!r}; columns: {', '.join(names)}")
            kind = self.visible.field(dedup.prefer).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise RecipeError(f"dedup.prefer: needs a numeric column; {dedup.prefer!r} is {kind}")

    # ---- keys

    def measure_key(self, unit: Unit) -> str:
        """Key of `samples` and `members`, which one reading of the unit makes."""
        return ids.digest([self._reading_key(unit), self._measuring])

    def signal_keys(self, unit: Unit) -> dict[str, str]:
        """Key of the columns of `scores` that each signal gives, and of those that the pool brings."""
        brought = {signal.name for signal in self.signals if signal.supplied}
        keys = {
            signal.name: ids.digest([signal.key, unit.sidecar_fingerprints])
            if signal.name in brought or signal.of in brought
            else signal.key
            for signal in self.signals
        }
        keys["the pool"] = ids.digest([[field.name, str(field.type)] for field in self.pool.scores])
        return {name: ids.digest([self._reading_key(unit), key]) for name, key in keys.items()}

    def scores_key(self, unit: Unit) -> str:
        """Key of `scores`."""
        return ids.digest(list(self.signal_keys(unit).items()))

    def embeddings_key(self, unit: Unit) -> str:
        """Key of `embeddings`."""
        keys = self.signal_keys(unit)
        return ids.digest([[one.name, keys[one.name]] for one in self.recipe.measure.kept])

    def _reading_key(self, unit: Unit) -> str:
        """Key of what the unit's rows are: its inputs, and which of them can be read."""
        source = self.source(unit).model_dump(exclude={"name", "path", "storage"})
        image = self.recipe.measure.image
        decoding = [image.decode, image.max_pixels, f"pillow {version('pillow')}"] if self.pool.images else []
        decoding += [image.jpeg_side] if image.jpeg_side else []
        return ids.digest([VERSIONS["measure"], unit.key, source, decoding, self.pool.images])

    @cached_property
    def _measuring(self) -> list[Any]:
        """What is measured into `samples`, with the model and the libraries whose versions decide it."""
        phash = self.pool.images and self.recipe.measure.image.phash
        hashing = [f"{name} {version(name)}" for name in ("imagehash", "scipy")] if phash else []
        return [self.models.get("language"), hashing, version("pillow") if self.pool.images else ""]

    def matches_key(self, unit: Unit) -> str:
        """Key of `matches`."""
        mode = self.recipe.match and self.recipe.match.mode
        return ids.digest([VERSIONS["matches"], self.measure_key(unit), self.metadata_key, mode])

    @cached_property
    def decisions_key(self) -> str:
        """Key of all `decisions`: they depend on the whole pool."""
        recipe = self.recipe.model_dump(include={"match", "rules", "dedup", "balance", "seed"})
        recipe["image"] = self.recipe.measure.image.model_dump()
        recipe["rules"] = list(recipe["rules"].items())  # their order counts
        if recipe["match"]:
            recipe["match"].pop("metadata")
        if recipe["dedup"]["against"]:
            recipe["dedup"]["against"].pop("images")
        sources = [source.model_dump(exclude={"path", "storage"}) for source in self.recipe.input]
        scores = [[field.name, str(field.type)] for field in self.score_schema]
        signals = [signal.key for signal in self.signals]
        versions = [VERSIONS[step] for step in ("measure", "matches", "decisions")]
        return ids.digest(
            [
                *(versions, self.pool.key, sources, recipe, scores, signals),
                *(self._measuring, version("duckdb"), self.metadata_key, self.evaluation_key),
                *([self.blocklist_key] if self.blocklist_key else []),
            ]
        )

    @cached_property
    def shards_key(self) -> str:
        """Key of all shards."""
        parts = [VERSIONS["shards"], self.decisions_key, self.recipe.output.model_dump()]
        return ids.digest([*parts, *([self._captioning] if self.recipe.captions else [])])

    @cached_property
    def _captioning(self) -> list[Any]:
        assert self.recipe.captions is not None
        return [VERSIONS["captions"], self.recipe.captions.cache_key_fields(self.engine_ids)]

    def captions_key(self, unit: Unit) -> str:
        """Key of `answers` and `captions`, but for what was decided: which rows are kept depends on the whole pool."""
        return ids.digest([self.decisions_key, unit.key, self._captioning])

    def decided(self, unit: Unit) -> str | None:
        """The key that the unit's decisions were made with. They must be there."""
        return self.store.footer(self.table("decisions", unit))[0]

    # ---- tables

    @property
    def tables(self) -> list[str]:
        """The tables of each unit of this run."""
        there = {
            "scores": self.has_scores,
            "embeddings": self.has_embeddings,
            "members": self.has_members,
            "matches": self.recipe.match is not None,
            "answers": self.recipe.captions is not None,
            "captions": self.recipe.captions is not None,
            "regions": self.recipe.captions is not None and self.recipe.captions.regions is not None,
        }
        names = ("samples", "scores", "embeddings", "members", "matches", "decisions", "answers", "captions", "regions")
        return [name for name in names if there.get(name, True)]

    @staticmethod
    def table(name: str, unit: Unit | int) -> str:
        """The file of a unit's table, relative to the run folder."""
        index = unit if isinstance(unit, int) else unit.index
        return f"tables/{name}/{index:05d}.parquet"

    def is_current(self, name: str, unit: Unit, key: str) -> bool:
        """Whether the table stands with this key; if the run to reuse has it, it is taken over first.

        Decisions are never taken over: they are cheap, and depend on what could be read when they were made.
        """
        tables = self.unit_tables(unit) if name != "decisions" else UnitTables(self.store, unit.index)
        return tables.is_current(name, key)

    def would_be_current(self, unit: Unit, *names: str) -> bool:
        """Whether each of the tables, of those that this run has, stands or can be taken over; changes nothing."""
        return all(self._would_be_current(unit, name) for name in self.tables if name in names)

    def _would_be_current(self, unit: Unit, name: str) -> bool:
        tables = self.unit_tables(unit) if name != "decisions" else UnitTables(self.store, unit.index)
        return tables.would_be_current(name, self.key_of(name)(unit))

    def key_of(self, name: str) -> Callable[[Unit], str]:
        """What gives the key of a table's file."""
        if name == "decisions":
            return lambda unit: self.decisions_key
        keys = {"matches": self.matches_key, "scores": self.scores_key, "embeddings": self.embeddings_key}
        keys |= dict.fromkeys(("answers", "captions", "regions"), self.captions_key)
        return keys.get(name, self.measure_key)

    def read(self, name: str, unit: Unit | int, columns: list[str] | None = None) -> pa.Table:
        """A unit's table, or some of its columns."""
        return self.store.read_parquet(self.table(name, unit), columns)

    def write(self, name: str, unit: Unit, table: pa.Table, key: str, note: dict[str, Any] | None = None) -> None:
        """Puts a unit's table into place."""
        text = None if note is None else json.dumps(note, ensure_ascii=False, sort_keys=True)
        self.store.write_parquet(self.table(name, unit), table, key, text)

    def note(self, name: str, unit: Unit | int) -> dict[str, Any]:
        """The note that the table was written with."""
        text = self.store.footer(self.table(name, unit))[1]
        return dict(json.loads(text)) if text else {}

    def rows(self, unit: Unit) -> int:
        """How many rows a measured unit has."""
        return self.store.footer(self.table("samples", unit))[2]

    def columns(self, unit: Unit, names: list[str]) -> pa.Table:
        """Columns of `samples` and `scores`, side by side."""
        return self.unit_tables(unit).read_measured(names)

    def unit_tables(self, unit: Unit) -> UnitTables:
        """A unit's tables in the run folder, and in the run to reuse."""
        has_old = self.reuse is not None and unit.reuse_index is not None
        old = UnitTables(self.reuse, unit.reuse_index) if has_old else None  # type: ignore[arg-type]
        return UnitTables(self.store, unit.index, old)
