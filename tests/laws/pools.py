"""Builds small pools for the laws, and runs recipes over them: through Beam, and in memory as the oracle of Beam.

Pictures are tiny and distinct under phash, captions draw from a Zipf-like vocabulary; equal arguments give equal bytes.
"""

import hashlib
import io
import itertools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.ask.verify import verify_run
from curate.base.meter import START
from curate.base.schema import DAMAGE_REASONS, FILE_REASONS, SAMPLE_REASONS
from curate.base.stages import KEPT
from curate.decide.apply_rules import apply_later_rules, apply_rules
from curate.decide.deduplicate import deduplicate
from curate.decide.settings import DecideSettings
from curate.match.unit import MatchSettings, match_unit
from curate.measure.part import measure_part, read_supplied
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.pool.plan import Unit
from curate.recipe.recipe import Recipe, parse_recipe
from curate.run.context import RunContext
from curate.run.in_process import InProcessUnits
from curate.run.units import WorkerLocation
from curate.store.layout import METADATA_FILE
from curate.store.timings import log_used
from pipelines.claim import claim_folder
from pipelines.curate import build
from pipelines.prepare import prepare
from pipelines.steps.units import BeamUnits

WORDS = (  # noqa: SIM905  (the most frequent first)
    "a the of in photo red dog on with blue cat and house old boat green tree small car bridge over river white horse "
    "big bird city night street yellow flower garden snow mountain lake train station market fruit bowl wooden table "
    "window lamp brick wall museum statue harbour lighthouse violin orchestra tractor barn"
).split()
METADATA = [
    *WORDS,
    "red dog", "blue cat", "old boat", "green tree", "white horse", "night street", "brick wall", "train station",
    "never seen", "St. Louis",
]  # fmt: skip

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


# ---------------------------------------------------------------- samples
@dataclass(frozen=True)
class Sample:
    """One sample of a pool; None leaves the member out, or the field of the json."""

    key: str
    image: bytes | None
    caption: str | None
    url: str | None = None
    uid: str | None = None
    suffix: str = "jpg"
    fields: dict[str, Any] = field(default_factory=dict)


def picture(number: int, side: int = 48) -> Image.Image:
    """A picture of coarse noise, so that pictures differ under phash."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((side + number % 7, side + number % 5), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def caption(rng: np.random.Generator) -> str:
    """2 to 9 words, the r-th most frequent one drawn in proportion to 1/r."""
    weights = 1 / np.arange(1, len(WORDS) + 1)
    return " ".join(rng.choice(WORDS, size=rng.integers(2, 10), p=weights / weights.sum()))


def make_samples(clean: int = 240, seed: int = 0) -> list[Sample]:
    """Clean samples, then one twelfth as many of each kind of duplicate and of damage; keys are unique.

    Every fifth sample has no URL. Kinds: the same pair again (one uid), the image with another caption, the picture
    encoded otherwise (equal phash), one own uid for two captions, and what cannot be read.
    """
    rng = np.random.default_rng(seed)
    samples = [
        Sample(
            f"{i:05d}",
            encode(picture(seed * 100_000 + i)),
            f"{caption(rng)} {i}",
            None if i % 5 == 0 else f"https://example.com/{seed}/{i}.jpg",
            suffix=("jpg", "jpeg")[i % 2],
            fields={"license": "cc0", "number": i},
        )
        for i in range(clean)
    ]
    few = max(1, clean // 12)
    of = iter(rng.permutation(clean))
    for i in range(few):
        one, two, three, four, five = (samples[next(of) % clean] for _ in range(5))
        samples += [
            replace(one, key=f"again{i}"),
            replace(two, key=f"recaptioned{i}", caption=f"{caption(rng)} r{i}", url=two.url and f"{two.url}?2"),
            replace(
                three,
                key=f"reencoded{i}",
                image=encode(Image.open(io.BytesIO(three.image or b"")), "PNG"),
                url=None,
                suffix="png",
            ),
            replace(four, key=f"own{i}a", image=encode(picture(10**6 + i)), uid=f"{i:032x}", caption=f"red dog {i}"),
            replace(four, key=f"own{i}b", image=encode(picture(10**6 + i)), uid=f"{i:032x}", caption=f"blue cat {i}"),
            replace(five, key=f"bad{i}", **_damaged(five, i)),
        ]
    return samples


def _damaged(sample: Sample, kind: int) -> dict[str, Any]:
    image = sample.image or b""
    return (
        {"image": image[: len(image) // 2]},
        {"image": b"<html>404</html>"},
        {"image": b""},
        {"image": None},
        {"caption": None},
        {"caption": " \t "},
    )[kind % 6]


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a regular member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path: Path, samples: Iterable[Sample]) -> Path:
    """Writes samples as img2dataset does: image, .txt, .json."""
    with tarfile.open(path, "w") as tar:
        for s in samples:
            fields = {
                "key": s.key,
                **s.fields,
                **({"url": s.url} if s.url else {}),
                **({"uid": s.uid} if s.uid else {}),
            }
            members = {s.suffix: s.image, "txt": None if s.caption is None else s.caption.encode()}
            for suffix, data in [*members.items(), ("json", json.dumps(fields).encode())]:
                if data is not None:
                    add_member(tar, f"{s.key}.{suffix}", data)
    return path


def split(items: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """Consecutive parts of about equal length."""
    edges = np.linspace(0, len(items), parts + 1).astype(int)
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    """The items in another order."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def write_tars(folder: Path, samples: Sequence[Sample], shards: int) -> str:
    """Writes the samples into shards, and returns the path that names them all."""
    folder.mkdir(parents=True)
    for n, part in enumerate(split(samples, shards)):
        write_tar(folder / f"{n:05d}.tar", part)
    return f"{folder}/{{00000..{shards - 1:05d}}}.tar"


def make_rows(clean: int = 3000, seed: int = 0) -> pa.Table:
    """Rows of text: url, text, score (with ties, nulls and NaN), width, height; repeated, own-uid and bad rows."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    drawn = rng.choice(WORDS, size=(clean, 6), p=weights / weights.sum())
    texts: list[str | None] = [" ".join(row[: 2 + i % 5]) + f" {i % 97}" for i, row in enumerate(drawn.tolist())]
    urls: list[str | None] = [f"https://example.com/{i}" for i in range(clean)]
    scores: list[float | None] = np.round(rng.random(clean), 2).tolist()
    uids: list[str | None] = [None] * clean
    few = clean // 20
    for i in range(few):
        texts += [texts[i], f"red dog {i}", f"blue cat {i}", texts[2 * i], None if i % 2 else "  "]
        urls += [urls[i], f"https://own.example/{i}", f"https://own.example/{i}", None, f"https://bad.example/{i}"]
        scores += [scores[i], 0.9, 0.95, 0.5, None if i % 3 else float("nan")]
        uids += [None, f"{i:032x}", f"{i:032x}", None, None]
    sides = np.arange(len(texts)) % 640
    return pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "url": pa.array(urls, pa.string()),
            "text": pa.array(texts, pa.string()),
            "clip_score": pa.array(scores, pa.float32()),
            "original_width": sides + 100,
            "original_height": sides[::-1] + 100,
            "note": [f"row {i}" for i in range(len(texts))],
        }
    )


def write_parquets(folder: Path, table: pa.Table, files: int, group: int = 1000) -> str:
    """Writes the rows into files of row groups of `group` rows, and returns the path that names them all."""
    folder.mkdir(parents=True)
    for n, rows in enumerate(split(range(len(table)), files)):
        pq.write_table(table.slice(rows[0], len(rows)), folder / f"{n:05d}.parquet", row_group_size=group)
    return f"{folder}/{{00000..{files - 1:05d}}}.parquet"


def write_metadata(folder: Path, entries: Sequence[str] = METADATA) -> str:
    """Writes a metadata list."""
    path = folder / "metadata.json"
    path.write_text(json.dumps(list(entries)))
    return str(path)


# ---------------------------------------------------------------- runs
@dataclass(frozen=True)
class Ran:
    """A finished run."""

    folder: Path

    @property
    def run(self) -> dict[str, Any]:
        """run.json."""
        return dict(json.loads((self.folder / "run.json").read_text()))

    @property
    def counts(self) -> dict[str, int]:
        """Rows by rule, and `kept`; without what dropped none."""
        return {name: rows for name, rows in self.run["counts"].items() if rows}

    @property
    def kept(self) -> bytes:
        """The bytes of uids.npy."""
        return (self.folder / "uids.npy").read_bytes()

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of all units, or a file of the run that is a table."""
        if (self.folder / f"{name}.parquet").exists():
            return pq.read_table(self.folder / f"{name}.parquet", columns=columns)
        files = sorted((self.folder / "tables" / name).glob("*.parquet"))
        return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])

    @property
    def verdicts(self) -> Counter[tuple[str, str | None, str | None]]:
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
    def reasons(self) -> dict[tuple[str, str | None], str]:
        """failures.parquet: (file name, key) → reason."""
        rows = self.table("failures").to_pylist()
        return {(Path(row["shard"]).name, row["key"]): row["reason"] for row in rows}

    @property
    def outcomes(self) -> dict[tuple[str, str | None], str]:
        """(file name, key) → the rule that dropped the sample, its reason where it could not be read, or `kept`."""
        decisions, samples = self.table("decisions"), self.table("samples", ["shard", "key", "status"])
        columns = (samples["shard"], samples["key"], samples["status"], decisions["rule"])
        return {
            (Path(shard).name, key): status if status != "ok" else rule or KEPT
            for shard, key, status, rule in zip(*(column.to_pylist() for column in columns), strict=True)
        }

    @property
    def members(self) -> list[tuple[str, bytes]]:
        """Name and content of every member of every shard, in order."""
        found = []
        for path in sorted(self.folder.glob("shards/*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None, member.name
                    found.append((member.name, content.read()))
        return found


def recipe_of(path: str | Sequence[str], form: str = "webdataset", **sections: Any) -> Recipe:
    """A recipe with one source named `pool`; damage is allowed unless a limit is given."""
    limits = {"max_failed": 1.0, "max_failed_files": 1.0}
    source = {"name": "pool", "format": form, "path": path, **sections.pop("source", {})}
    return parse_recipe({"input": [source], **limits, **sections})


def run_beam(
    recipe: Recipe,
    out: Path,
    options: Sequence[str] = (),
    n_buckets: int = 4,
    reuse: Path | None = None,
    here: bool = True,
    retry: bool = False,
) -> Ran:
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


def measure(context: RunContext, unit: Unit) -> list[str]:
    """Measures a unit of a run."""
    return measure_unit(MeasureSettings.of(context), unit, context.unit_tables(unit))


def watch_measuring(patched: pytest.MonkeyPatch) -> list[str]:
    """The input files that are opened to be measured, from now on; those of which columns alone are read as `columns of FILE`."""
    seen: list[str] = []

    def reading(settings: Any, source: Any, part: Any) -> Any:
        seen.append(f"columns of {Path(part.path).name}")
        return read_supplied(settings, source, part)

    def measuring(settings: Any, source: Any, part: Any, *others: Any, **options: Any) -> Any:
        seen.append(Path(part.path).name)
        return measure_part(settings, source, part, *others, **options)

    patched.setattr("curate.measure.unit.measure_part", measuring)
    patched.setattr("curate.measure.unit.read_supplied", reading)
    return seen


def match(context: RunContext, unit: Unit) -> None:
    """Matches a measured unit of a run."""
    match_unit(MatchSettings.of(context), context.unit_tables(unit))


def measure_and_match(context: RunContext, units: Sequence[Unit], metadata: pa.Table | None) -> None:
    """Measures units of a run that nothing claimed, and matches them where there is metadata."""
    if metadata is not None:
        context.store.write_parquet(METADATA_FILE, metadata)
    for unit in units:
        measure(context, unit)
        if metadata is not None:
            match(context, unit)


def run_local(recipe: Recipe, out: Path, reuse: Path | None = None, retry: bool = False, content: bool = False) -> Ran:
    """The same run without Beam: each step over all units of this process, one after the other."""
    prepared = prepare(recipe, str(out), str(reuse) if reuse else None, content, retry=retry)
    assert not prepared.finished
    claim_folder(prepared)
    context, units = prepared.context, prepared.plan.units
    build(InProcessUnits(units, context), context, units, n_buckets=1)
    context.store.delete("tmp")
    return Ran(out)


def decide_in_process(settings: DecideSettings, context: RunContext, units: Sequence[Unit]) -> InProcessUnits:
    """Takes measured units through rules, deduplication and later rules."""
    states = InProcessUnits(units, context)
    apply_rules(states, settings)
    deduplicate(states, settings)
    apply_later_rules(states, settings)
    return states


# ---------------------------------------------------------------- what holds of every run
def conserved(run: Ran) -> None:
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


def loads(run: Ran) -> dict[str, dict[str, bytes]]:
    """The samples of the shards by key, read by tarfile; checks that names are harmless, unique and together."""
    samples: dict[str, dict[str, bytes]] = {}
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
def last_of_each_kind(names: Sequence[str]) -> list[int]:
    """The places of the last name of each kind, in order.

    Names that differ in numbers alone are of one kind; where the same name comes again, that is another.
    """
    kinds = {(kind_of(name), names[:place].count(name)): place for place, name in enumerate(names)}
    return sorted(kinds.values())


def kind_of(name: str) -> str:
    """A file's name without its numbers."""
    return re.sub(r"[0-9a-f]{32}|\d+", "*", name)


def files_of(folder: Path) -> dict[str, str]:
    """Every file below a folder, by relative path: its sha256."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def lasting_files(folder: Path) -> dict[str, str]:
    """The files that law 2 lists: all but those that hold times, and what workers said."""
    files = files_of(folder).items()
    return {p: h for p, h in files if p not in VARYING and not p.endswith("_stats.json") and not p.startswith("logs/")}
