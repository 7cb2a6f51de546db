"""The stages of a run, in order. Costs, progress, statistics and the funnel are all derived from this list.

A stage is work on units (`curate.run.units.Units.at`). It writes tables of units, and decides what happens to rows
(`Verdict`). To add a stage, write its facts in `stages.toml`, then its module, and its call in `pipelines/curate.py`.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Literal, NamedTuple

Growth = Literal["rows", "kept rows", "sampled rows", "run"]


@dataclass(frozen=True)
class Verdict:
    """What can happen to a row."""

    name: str  # in `decisions.rule`, in run.json's counts and in the funnel; no row has RULES or SELECTION
    code: int  # in `UnitState.verdicts`; a rule's code is its position among the rules
    meaning: str  # text for readers, about all rows with this verdict
    reason: str  # text for readers, about one row: a `str.format` template that `curate explain` fills in
    section: str = ""  # the section of the recipe that it needs, as a dotted key; empty if none


class Counted(NamedTuple):
    """Files that show the progress of a stage: the files in a folder that end with `suffix`."""

    name: str
    folder: str
    suffix: str
    unit: str  # what each file belongs to


@dataclass(frozen=True)
class Stage:
    """A stage of a run."""

    name: str  # in timing records, in tables `steps` and `used`, and on pages
    section: str = ""  # the recipe attribute that enables the stage, dotted; empty if all runs have the stage
    # Tables of units, in the order in which they are written, each with the section of the recipe that it needs, if any
    tables: Mapping[str, str] = field(default_factory=dict)
    version: int = 1  # increase it when the stage's code changes what it writes
    verdicts: tuple[Verdict, ...] = ()  # in the order in which they apply
    counted: tuple[Counted, ...] = ()
    grows: Growth = "rows"  # what its amount of work depends on
    is_reused: bool = False  # whether rows whose tables are reused cost nothing


FAILED, FORGOTTEN, RULES, UNMATCHED, CONTAMINATED = "failed", "forgotten", "rules", "unmatched", "contaminated"
DUPLICATE, OTHER_TEXT, SELECTION, KEPT = "duplicate", "other_text", "*selection", "kept"


def _read_stage(name: str, facts: dict[str, Any]) -> Stage:
    verdicts = tuple(Verdict(**verdict) for verdict in facts.pop("verdicts", ()))
    counted = tuple(Counted(**of_files) for of_files in facts.pop("counted", ()))
    return Stage(name, verdicts=verdicts, counted=counted, **facts)


_FACTS: dict[str, Any] = tomllib.loads(files("curate.base").joinpath("stages.toml").read_text("ascii"))
STAGES = tuple(_read_stage(name, facts) for name, facts in _FACTS.items())
STAGE = {stage.name: stage for stage in STAGES}
VERSIONS = {stage.name: stage.version for stage in STAGES}
TABLES = {table: section or stage.section for stage in STAGES for table, section in stage.tables.items()}
COUNTED = tuple(counted for stage in STAGES for counted in stage.counted)
USUAL = tuple(counted.name for stage in STAGES if not stage.section for counted in stage.counted)  # stages of all runs
_STAGE_OF = {f"tables/{table}": stage.name for stage in STAGES for table in stage.tables} | {"shards": "emit"}

VERDICTS = tuple(verdict for stage in STAGES for verdict in stage.verdicts)
OF_RULES = next(verdict for verdict in VERDICTS if verdict.name == RULES)
VERDICT = {verdict.name: verdict for verdict in VERDICTS if verdict.name not in (RULES, SELECTION)}
CODES = {verdict.name: verdict.code for verdict in VERDICTS if verdict.name != RULES}
POOL = "pool"  # not a verdict, but the first line of the funnel
RESERVED_RULES = (*VERDICT, POOL)  # names that rules must not have, in addition to the names of selections


def stage_of(path: str) -> str:
    """Return the name of the stage that writes a published file."""
    return _STAGE_OF.get(path.rpartition("/")[0], "publish")


def run_verdicts(
    rules: Sequence[str],
    has: Callable[[str], bool],
    forgotten: bool,
    dedup: int | None = None,
    selection: tuple[str, str] | None = None,
) -> list[Verdict]:
    """Return the verdicts of a run in the order in which they apply, with one for each rule, and `kept` last.

    Args:
        rules: the names of the rules, in order.
        has: returns whether the recipe has a section, given `Verdict.section`.
        forgotten: whether rows are removed on request, which recipes do not say.
        dedup: the position of the rule that stands for deduplication. `duplicate`, and the verdicts directly before
            it, are moved to this position. None: they come after all rules.
        selection: key and meaning of the run's selection; None if there is none.
    """
    verdicts: list[Verdict] = []
    of_rules = [replace(OF_RULES, name=name, code=position) for position, name in enumerate(rules)]
    for verdict in VERDICTS:
        if verdict.name == RULES:
            verdicts += of_rules[:dedup]
        elif verdict.name == SELECTION:
            verdicts += [replace(verdict, name=selection[0], meaning=selection[1])] if selection else []
        elif verdict.name == DUPLICATE and dedup is not None:
            verdicts += [verdict, *of_rules[dedup + 1 :]]
        elif forgotten if verdict.name == FORGOTTEN else not verdict.section or has(verdict.section):
            verdicts.append(verdict)
    return verdicts
