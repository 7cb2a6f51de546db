"""The run itself: its time and throughput, and its provenance: recipe, models, versions, inputs, keys.

Times are those of run.json: wall time of the run, and work of its steps, which run in parallel over units.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import yaml

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Block, Code, Section, Table, Tables
from curate.ask.report.text import clean, count
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
    if not any(step.seconds for step in run.facts.steps):  # all tables were present already
        return Section("time", "Time", blocks)
    note = (
        "Wall time of each unit (of emit: shard), summed; units run in parallel. Of all commands that the run took. "
        "Tables that were reused are not counted."
    )
    rows = [row | {"work": format_seconds(row["work"])} for row in run.report("steps")]
    return Section("time", "Time", [*blocks, Table.of(rows, note=note)])


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
    return Table.of([{"name": n, "value": str(v)} for n, v in list(pairs.items())[:60]], title, folded=folded)


def _models(facts: RunFacts) -> list[Block]:
    rows = [
        {"model": name, "part": part, "value": str(value)}
        for name, identity in [*facts.models.items(), *facts.engine_ids.items()]
        for part, value in _parts(identity)
    ]
    return [Table.of(rows[:200], "Models", folded=len(rows) > 12)] if rows else []


def _parts(identity: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(identity, dict):
        return [(prefix, identity)]
    parts = {f"{prefix}.{key}".strip("."): value for key, value in identity.items() if value is not None}
    return [part for key, value in parts.items() for part in _parts(value, key)]


def _inputs(run: OpenRun) -> Table:
    rows = []
    for source in run.facts.recipe.get("input", [])[:60]:
        path = source.get("path") or source["from"]
        units = sum(number for name, number in run.facts.units if name == source["name"])
        rows.append({"source": source["name"], "format": source["format"], "path": path, "units": units})
    return Table.of(rows, "Inputs")


def _files(run: OpenRun) -> Table:
    files = run.report("published_files", report=REPORT_FILE)
    rows = [row | {"size": format_bytes(row["size"])} for row in files]
    return Table.of(rows, "Published files", "manifest.parquet lists each file with its sha256.")
