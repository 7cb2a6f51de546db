"""The run itself: its time and throughput, and its provenance: recipe, models, versions, inputs, keys.

Times are those of run.json: wall time of the run, and work of its steps, which run in parallel over units.
"""

from datetime import UTC, datetime
from typing import Any

import yaml

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Section
from curate.base.wording import format_bytes, format_seconds
from curate.store.layout import REPORT_FILE


def time_section(run: OpenRun) -> Section | None:
    """Return how long the run took, and its throughput; None where run.json holds no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    steps = []
    if any(step.seconds for step in run.facts.steps):  # else all tables were present already
        steps = [row | {"work": format_seconds(row["work"])} for row in run.report("steps")]
    times = {"started": datetime.fromtimestamp(started, UTC), "seconds": seconds, "pool": run.counts["pool"]}
    return Section("time", "Time", times | {"steps": steps})


def provenance_section(run: OpenRun) -> Section:
    """Return what determines the run, and its digests."""
    facts = run.facts
    [digest] = run.report("published_digest", report=REPORT_FILE)
    published = run.report("published_files", report=REPORT_FILE)
    found = {
        "run": facts,
        "digest": digest["sha256"],
        "models": [*facts.models.items(), *facts.engine_ids.items()],
        "files": [row | {"size": format_bytes(row["size"])} for row in published],
        "recipe": yaml.safe_dump(_plain(facts.recipe), sort_keys=False, allow_unicode=True, width=110),
    }
    return Section("provenance", "Provenance", found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, {}, [])}
    return [_plain(item) for item in value] if isinstance(value, list) else value
