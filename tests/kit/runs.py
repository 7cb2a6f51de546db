"""Runs of recipes over small pools, through Beam or in this process, and what a finished run holds."""

import hashlib
import json
import re
import tarfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from curate.ask.verify import verify_run
from curate.base.meter import START
from curate.base.schema import DAMAGE_REASONS, FILE_REASONS, SAMPLE_REASONS
from curate.base.stages import KEPT
from curate.decide.apply_rules import apply_later_rules, apply_rules
from curate.decide.deduplicate import deduplicate
from curate.match.unit import MatchSettings, match_unit
from curate.measure.part import measure_part, read_supplied
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.recipe.recipe import parse_recipe
from curate.run.in_process import InProcessUnits
from curate.run.units import WorkerLocation
from curate.store.layout import METADATA_FILE
from curate.store.timings import log_used
from pipelines.claim import claim_folder
from pipelines.curate import build
from pipelines.prepare import prepare
from pipelines.steps.units import BeamUnits
from tests.kit.pools import write_parquets, write_tars

# What two runs of one plan may differ in: times and durations, and what digests them.
VARYING = (
    "run.json",
    "stats.duckdb",
    "manifest.parquet",
    "forgotten.parquet",
    "README.md",
    "croissant.json",
    "_SUCCESS",
)


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    folder: Path

    @property
    def run(self):
        """run.json."""
        return dict(json.loads((self.folder / "run.json").read_text()))

    @property
    def counts(self):
        """Rows by rule, and `kept`; without what dropped none."""
        return {name: rows for name, rows in self.run["counts"].items() if rows}

    @property
    def kept(self):
        """The bytes of uids.npy."""
        return (self.folder / "uids.npy").read_bytes()

    def table(self, name, columns=None):
        """A table of all units, or a file of the run that is a table."""
        if (self.folder / f"{name}.parquet").exists():
            return pq.read_table(self.folder / f"{name}.parquet", columns=columns)
        files = sorted((self.folder / "tables" / name).glob("*.parquet"))
        return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])

    @property
    def verdicts(self):
        """How often each (uid, or key where it could not be read; rule; duplicate_of) occurs."""
        decisions, samples = self.table("decisions"), self.table("samples", ["key", "caption", "error"])
        names = (
            uid or f"{key} {error}"
            for uid, key, error in zip(
                *(c.to_pylist() for c in (decisions["uid"], samples["key"], samples["error"])), strict=True
            )
        )
        return Counter(zip(names, decisions["rule"].to_pylist(), decisions["duplicate_of"].to_pylist(), strict=True))

    @property
    def reasons(self):
        """failures.parquet: (file name, key) → reason."""
        rows = self.table("failures").to_pylist()
        return {(Path(row["shard"]).name, row["key"]): row["reason"] for row in rows}

    @property
    def outcomes(self):
        """(file name, key) → the rule that dropped the sample, its reason where it could not be read, or `kept`."""
        decisions, samples = self.table("decisions"), self.table("samples", ["shard", "key", "status"])
        columns = (samples["shard"], samples["key"], samples["status"], decisions["rule"])
        return {
            (Path(shard).name, key): status if status != "ok" else rule or KEPT
            for shard, key, status, rule in zip(*(column.to_pylist() for column in columns), strict=True)
        }

    @property
    def by_key(self):
        """Key → the rule that dropped the sample, its reason where it could not be read, or `kept`."""
        outcomes = {key: outcome for (_, key), outcome in self.outcomes.items()}
        assert len(outcomes) == len(self.outcomes), "two files have the same key"
        return outcomes

    @property
    def members(self):
        """Name and content of every member of every shard, in order."""
        found = []
        for path in sorted(self.folder.glob("shards/*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None, member.name
                    found.append((member.name, content.read()))
        return found


def recipe_of(path, form="webdataset", **sections):
    """A recipe with one source named `pool`; damage is allowed unless a limit is given."""
    limits = {"max_failed": 1.0, "max_failed_files": 1.0}
    source = {"name": "pool", "format": form, "path": path, **sections.pop("source", {})}
    return parse_recipe({"input": [source], **limits, **sections})


def curate(folder, pool, **sections):
    """Write a pool, samples or a table of rows, below `folder`, and run a recipe of these sections over it."""
    if isinstance(pool, pa.Table):
        return run_local(recipe_of(write_parquets(folder / "pool", pool, 1), "parquet", **sections), folder / "run")
    return run_local(recipe_of(write_tars(folder / "pool", pool, 1), **sections), folder / "run")


def run_beam(recipe, out, options=(), n_buckets=4, reuse=None, here=True, retry=False):
    """Runs the pipeline as `pipelines.driver.run` does, by default in memory with one worker; errors come as they are.

    `here` is false to run what many machines would.
    """
    defaults = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    prepared = prepare(recipe, str(out), str(reuse) if reuse else None, options=options or defaults, retry=retry)
    assert not prepared.finished
    claim_folder(prepared)
    log_used(prepared.context.store, START)  # else units that begin at once each look for the log's folder
    root = beam.Pipeline(options=prepared.engine.options)
    context, plan = (
        replace(prepared.context, place=WorkerLocation.THIS_PROCESS if here else WorkerLocation.CLUSTER),
        prepared.plan.units,
    )
    units = BeamUnits(root, plan, context)
    build(units, context, plan, n_buckets)
    units.finish()
    root.run().wait_until_finish()
    prepared.context.store.delete("tmp")
    return Ran(out)


def measure(context, unit):
    """Measures a unit of a run."""
    return measure_unit(MeasureSettings.of(context), unit, context.unit_tables(unit))


def watch_measuring(patched):
    """The input files that are opened to be measured, from now on; those of which columns alone are read as `columns of FILE`."""
    seen = []

    def reading(settings, source, part):
        seen.append(f"columns of {Path(part.path).name}")
        return read_supplied(settings, source, part)

    def measuring(settings, source, part, *others, **options):
        seen.append(Path(part.path).name)
        return measure_part(settings, source, part, *others, **options)

    patched.setattr("curate.measure.unit.measure_part", measuring)
    patched.setattr("curate.measure.unit.read_supplied", reading)
    return seen


def match(context, unit):
    """Matches a measured unit of a run."""
    match_unit(MatchSettings.of(context), context.unit_tables(unit))


def measure_and_match(context, units, metadata):
    """Measures units of a run that nothing claimed, and matches them where there is metadata."""
    if metadata is not None:
        context.store.write_parquet(METADATA_FILE, metadata)
    for unit in units:
        measure(context, unit)
        if metadata is not None:
            match(context, unit)


def run_local(recipe, out, reuse=None, retry=False, content=False):
    """The same run without Beam: each step over all units of this process, one after the other."""
    prepared = prepare(recipe, str(out), str(reuse) if reuse else None, content, retry=retry)
    assert not prepared.finished
    claim_folder(prepared)
    context, units = prepared.context, prepared.plan.units
    build(InProcessUnits(units, context), context, units, n_buckets=1)
    context.store.delete("tmp")
    return Ran(out)


def decide_in_process(settings, context, units):
    """Takes measured units through rules, deduplication and later rules."""
    states = InProcessUnits(units, context)
    apply_rules(states, settings)
    deduplicate(states, settings)
    apply_later_rules(states, settings)
    return states


# ---------------------------------------------------------------- what holds of every run
def conserved(run):
    """That a run is finished, whole, and accounts for every row, with known reasons."""
    assert (run.folder / "_SUCCESS").exists() and not (run.folder / "tmp").exists()
    assert verify_run(str(run.folder))[1] == []
    samples, decisions = run.table("samples"), run.table("decisions")
    counts = run.counts
    assert len(samples) == len(decisions) == sum(counts.values())
    kept, rules = decisions["kept"].to_pylist(), decisions["rule"].to_pylist()
    assert Counter(rule or "kept" for rule in rules) == Counter(counts)
    assert [rule is None for rule in rules] == kept
    failed = [status for status in samples["status"].to_pylist() if status != "ok"]
    assert len(failed) == counts.get("failed", 0)
    listed = run.table("failures").to_pylist()
    assert Counter(failed) == Counter(row["reason"] for row in listed if row["reason"] in SAMPLE_REASONS)
    assert all(row["reason"] in {**SAMPLE_REASONS, **FILE_REASONS, **DAMAGE_REASONS} for row in listed)
    assert all(row["detail"] or row["reason"] == "no_url" for row in listed if row["reason"] not in SAMPLE_REASONS)
    sizes = json.loads((run.folder / "shards/sizes.json").read_text())
    assert sum(sizes.values()) == counts.get("kept", 0)


def loads(run):
    """The samples of the shards by key, read by tarfile; checks that names are harmless, unique and together."""
    samples = {}
    last = ""
    for name, data in run.members:
        key, _, suffix = name.rpartition("/")[2].partition(".")
        key = f"{name.rpartition('/')[0]}/{key}".lstrip("/")
        assert not name.startswith("/") and not set(name.split("/")) & {"", ".", ".."}, name
        assert not re.search(r'[\x00-\x1f\x7f\\<>:"|?*]', name), name
        assert key == last or key not in samples, f"{key}: its members are not together, or two samples have it"
        assert suffix not in samples.setdefault(key, {}), name
        samples[key][suffix], last = data, key
    for members in samples.values():
        fields = json.loads(members["json"])
        assert re.fullmatch("[0-9a-f]{32}", fields["uid"])
        assert members["txt"].strip()
    assert len(samples) == run.counts.get("kept", 0)
    return samples


# ---------------------------------------------------------------- files
def last_of_each_kind(names):
    """The places of the last name of each kind, in order.

    Names that differ in numbers alone are of one kind; where the same name comes again, that is another.
    """
    kinds = {(kind_of(name), names[:place].count(name)): place for place, name in enumerate(names)}
    return sorted(kinds.values())


def kind_of(name):
    """A file's name without its numbers."""
    return re.sub(r"[0-9a-f]{32}|\d+", "*", name)


def files_of(folder):
    """Every file below a folder, by relative path: its sha256."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def lasting_files(folder):
    """The files that law 2 lists: all but those that hold times, and what workers said."""
    files = files_of(folder).items()
    return {p: h for p, h in files if p not in VARYING and not p.endswith("_stats.json") and not p.startswith("logs/")}
