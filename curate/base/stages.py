"""The stages of a run, in order: the one list from which costs, progress, statistics and the funnel are made.

A stage is work that units go through (`curate.run.units.Units.at`). It writes tables of units, and decides what becomes
of rows (`Verdict`). To add one: its facts in `stages.toml`, its module, and its call in `pipelines/curate.py`.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Literal, NamedTuple

Growth = Literal["rows", "kept rows", "sampled rows", "run"]


@dataclass(frozen=True)
class Verdict:
    """What may become of a row."""

    name: str  # of the row in `decisions.rule`, in run.json's counts and in the funnel; of RULES and SELECTION no row's
    code: int  # of the row in `UnitState.verdicts`; a rule's code is its position among the rules
    meaning: str  # for people, of all rows
    reason: str  # for people, of one row: `str.format` fills in what `curate explain` knows of it
    section: str = ""  # the recipe's section that it needs, as a dotted key; empty where it needs none


class Counted(NamedTuple):
    """Files by which people see how far a stage is: those of a folder that end with `suffix`."""

    name: str
    folder: str
    suffix: str
    unit: str  # what a file is of


@dataclass(frozen=True)
class Stage:
    """A stage of a run."""

    name: str  # in the run's records of its work, in tables `steps` and `used`, and on pages
    section: str = ""  # what a recipe that has it has, as a dotted attribute; empty: all runs have the stage
    # Tables of units, in the order in which they are written, each with a section of its own, if it needs one
    tables: Mapping[str, str] = field(default_factory=dict)
    version: int = 1  # raised when its code changes what it writes
    verdicts: tuple[Verdict, ...] = ()  # in the order in which they apply
    counted: tuple[Counted, ...] = ()
    grows: Growth = "rows"  # by what its work grows with the pool
    is_reused: bool = False  # whether rows whose tables an older run lends cost nothing


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
USUAL = tuple(counted.name for stage in STAGES if not stage.section for counted in stage.counted)  # of all runs
_STAGE_OF = {f"tables/{table}": stage.name for stage in STAGES for table in stage.tables} | {"shards": "emit"}

VERDICTS = tuple(verdict for stage in STAGES for verdict in stage.verdicts)
OF_RULES = next(verdict for verdict in VERDICTS if verdict.name == RULES)
VERDICT = {verdict.name: verdict for verdict in VERDICTS if verdict.name not in (RULES, SELECTION)}
CODES = {verdict.name: verdict.code for verdict in VERDICTS if verdict.name != RULES}
POOL = "pool"  # no verdict, but the first line of the funnel
RESERVED_RULES = (*VERDICT, POOL)  # names that a recipe's rules may not have, besides those of selections


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
    """Return the verdicts of a run in the order in which they apply, one for each rule, `kept` last.

    Args:
        rules: their names, in order.
        has: whether the run's recipe has a section, as of `Verdict.section`.
        forgotten: whether some rows are taken out on request, which no recipe says.
        dedup: the position of the rule that is deduplication: it is no verdict of its own, but `duplicate` and what
            comes right before it are there; None where they come after all rules.
        selection: key and meaning of the run's selection; None without one.
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
