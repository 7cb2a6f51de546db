"""The run itself: its time and throughput, and its provenance: recipe, models, versions, inputs, keys.

Times are those of run.json: wall time of the run, and work of its steps, which run in parallel over units.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import yaml

from curate.ask.library import report_sql
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Bar, Block, Cell, Code, Section, Table, Tables
from curate.ask.report.text import SHORT, clean, count, names, percent
from curate.base.wording import format_bytes, format_seconds
from curate.store.facts import RunFacts
from curate.store.layout import REPORT_FILE

_LONGEST = 40_000  # characters of the recipe that are shown


def time_section(run: OpenRun) -> Section | None:
    """Return how long the run took, and its throughput; None where run.json holds no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    moment = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    speed = count(round(run.counts["pool"] / seconds))
    text = f"The run started at {moment} and finished {format_seconds(seconds)} later"
    blocks: list[Block] = [f"{text}: {speed} samples of the pool per second."]
    total = sum(step.seconds for step in run.facts.steps)
    if not total:  # all tables were present already
        return Section("time", "Time", blocks)
    cells: list[list[Cell]] = []
    for step in run.facts.steps:
        numbers = [count(step.units), count(step.rows), format_seconds(step.seconds)]
        share = Bar(percent(step.seconds, total, 1), step.seconds / total)
        speed = count(round(step.rows / step.seconds)) if step.rows and step.seconds else "–"
        cells.append([step.step, *numbers, share, speed])
    note = (
        "Wall time of each unit (of emit: shard), summed; units run in parallel. Of all commands that the run took. "
        "Tables that were reused are not counted."
    )
    heads = ("step", "units", "samples", "work", "share", "samples per second")
    return Section("time", "Time", [*blocks, Table(heads, cells, words=("step", "share"), note=note)])


def provenance_section(run: OpenRun) -> Section:
    """Return what determines the run, and its digests."""
    facts = run.facts
    recipe = yaml.safe_dump(_plain(facts.recipe), sort_keys=False, allow_unicode=True, width=110)
    lines = [clean(line, 500) for line in recipe[:_LONGEST].splitlines()] + (["…"] if len(recipe) > _LONGEST else [])
    # The lines `sha256  path` of all files but the report, as sha256sum prints them.
    files = run.rows("SELECT path, sha256 FROM manifest WHERE path <> $path ORDER BY path", path=REPORT_FILE)
    digests = "".join(f"{file['sha256']}  {file['path']}\n" for file in files)
    main = {"curate": facts.curate, "run": facts.name, "seed": facts.seed, "identity": facts.identity}
    main |= {"python": facts.python, "all other files, sha256": hashlib.sha256(digests.encode()).hexdigest()}
    if facts.metadata:
        main["metadata"] = f"{count(facts.metadata.entries)} entries, digest {facts.metadata.digest}"
    for source, before in (facts.input_runs or {}).items():
        kept = f"{count(before.kept)} of {count(before.rows)} samples"
        main[f"source {source}"] = f"what run {before.name} kept, {kept}; its identity: {before.identity}"
    blocks: list[Block] = [_pairs("Run", main, folded=False), *_models(facts), Tables([_inputs(run), _files(run)])]
    blocks += [_pairs("Table keys", facts.keys), _pairs("Packages", facts.packages)]
    return Section("provenance", "Provenance", [*blocks, Code("Recipe, resolved", "\n".join(lines))])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, {}, [])}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _pairs(title: str, pairs: dict[str, Any], folded: bool = True) -> Table:
    rows = [[clean(name, SHORT), clean(value, 200)] for name, value in list(pairs.items())[:60]]
    return Table(("name", "value"), rows, words=("name", "value"), title=title, folded=folded)


def _models(facts: RunFacts) -> list[Block]:
    """Return models with all that identifies them, one line for each part."""
    rows = [
        [clean(name, SHORT), part, clean(value, 200)]
        for name, identity in [*facts.models.items(), *facts.engine_ids.items()]
        for part, value in _parts(identity)
    ]
    heads = ("model", "part", "value")
    return [Table(heads, rows[:200], words=heads, title="Models", folded=len(rows) > 12)] if rows else []


def _parts(identity: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(identity, dict):
        return [(clean(prefix, SHORT), identity)]
    parts = {f"{prefix}.{key}".strip("."): value for key, value in identity.items() if value is not None}
    return [part for key, value in parts.items() for part in _parts(value, key)]


def _inputs(run: OpenRun) -> Table:
    rows = []
    for source in run.facts.recipe.get("input", [])[:60]:
        path = source.get("path") or source["from"]
        where = clean(path if isinstance(path, str) else ", ".join(path), 300)
        units = sum(number for name, number in run.facts.units if name == source["name"])
        rows.append([*names(source, "name", "format"), where, count(units)])
    return Table(("source", "format", "path", "units"), rows, words=("source", "format", "path"), title="Inputs")


def _files(run: OpenRun) -> Table:
    files = run.rows(report_sql("published_files"), report=REPORT_FILE)
    rows = [[row["what"], count(row["files"]), format_bytes(row["bytes"])] for row in files]
    note = "manifest.parquet lists each file with its sha256."
    return Table(("published", "files", "size"), rows, words=("published",), title="Published files", note=note)
