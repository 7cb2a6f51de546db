"""The contract of kinds from other packages, for each of the 11 kinds: runs use it, and errors name its package.

Tests of what only one kind has are in its folder.
"""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.base import registry
from curate.base.errors import CurateError, RecipeError
from curate.base.foreign import naming_packages
from curate.recipe.recipe import load_recipe
from tests import kit
from tests.kit.commands import run_command
from tests.kit.packages import installed, lay_out_groups
from tests.recipe.reference import PAGES, entries, reference_pages

pytestmark = pytest.mark.thorough

# A package of all kinds. A line `FAULT KEY` is where the kind with this key fails in a test.
CODE = '''
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.plugins import (
    Answer, Batch, CaptionKind, Choice, Column, Engine, EngineKind, EngineOptions, ExactSums, FileColumns, Fold, Gate,
    InputFormat, InputPart, InputSample, KeyPass, OnKept, Option, OutputFormat, PipelineEngine, PlannedSource, Relation,
    Request, Section, Selection, SelectionWords, SignalKind, Statistic, TextSignal, list_files,
)

# ---- a signal: the length of captions
class Length(Section):
    """The length of a caption."""

def identify(name, section, known):
    # FAULT length
    return "length 1"

def build(name, section, built):
    lengths = lambda captions: [pc.utf8_length(captions)]
    return [TextSignal(name, (pa.field(name, pa.int32()),), built.identities[name], compute=lengths)]

# ---- an input format: a caption a line
class Lines(InputFormat):
    key = "lines"

    def plan(self, source, embeddings, content):
        files = list_files(source.paths, source.storage)
        parts = tuple(InputPart(file.path, file.size, file.fingerprint) for file in files)
        return PlannedSource(parts, (FileColumns(False, pa.schema([("caption", pa.string())])),))

    def lines(self, part):
        return open(part.path).read().splitlines()

    def read(self, source, part, scores, output):
        # FAULT lines
        yield Batch({"caption": pa.array(self.lines(part))})

    def reread(self, source, part, rows):
        texts = self.lines(part)
        return iter([InputSample([], {"caption": texts[place]}) for place in rows.places])

# ---- a deduplication pass: the first letters of a caption
class Opening(KeyPass):
    def keys(self, tables):
        # FAULT opening
        captions = tables.read("samples", ["caption"])["caption"].combine_chunks()
        return pc.utf8_slice_codeunits(pc.utf8_lower(captions), 0, 5)

# ---- a selection: by a probability
class WeightedSection(Section):
    """Draws by a probability."""

    column: str

@dataclass(frozen=True)
class WeightedChoice(Choice):
    column: str

    def inclusion(self, rows):
        return np.clip(rows.read([self.column])[self.column].to_numpy(), 0, 1)

class Weighted(Selection):
    key, section, meaning = "weighted", WeightedSection, "not drawn by its weight"

    def choose(self, units, section, run, counts):
        # FAULT weighted
        return units.get("Weighted", WeightedChoice, section.column)

    def words(self, outcome):
        return SelectionWords(card="drawn by weight")

# ---- a relation: the number of rows
class Twins(OnKept):
    """How many rows there are."""

    gives = (Column("related", "NAME", "int64", "How many rows there are."),)

def count(rows):
    yield {"rows": len(rows.images)}

def save(reading, counts):
    return reading.save(counts=np.array([counts["rows"]]))

class TwinsRelation(Relation):
    key, section = "twins", Twins

    def columns(self, name, section):
        return (pa.field(name, pa.int64()),)

    def fit(self, asking, section):
        merge = Fold(lambda a, b: {"rows": a.get("rows", 0) + b.get("rows", 0)})
        return asking.get("save", save, asking.ask("count", count, combine=merge))

    def apply(self, model, section, rows):
        # FAULT twins
        return [pa.array([int(model["counts"][0])] * len(rows.images), pa.int64())]

# ---- a statistic: the share of a sum
class Share(Statistic):
    key = "share"

    def fit(self, values):
        # FAULT share
        return ExactSums.of(values)

    def parameters(self, sums):
        return {"sum": sums.mean * sums.rows}

    def apply(self, values, parameters):
        return values / parameters["sum"]

# ---- a caption engine
class Parrot(EngineOptions):
    """Repeats."""

    def open(self):
        # FAULT parrot
        return ParrotEngine()

class ParrotEngine(Engine):
    model = "parrot"

    def check(self):
        pass

    def answers(self, requests):
        yield from enumerate(Answer("a bird says a thing") for _ in requests)

# ---- a kind of captions
class Squawk(CaptionKind):
    """Something loud."""

    key, kind, relation = "squawk", "squawk", "rewritten"
    styles: tuple[str, ...] = ("loud",)

    def load_template(self):
        return SimpleNamespace(version="1", text="say {caption}")

    def drafts(self, rows, seed):
        # FAULT squawk
        for uid, caption in zip(rows["uid"].to_pylist(), rows["caption"].to_pylist()):
            yield 1, Request(uid, self.kind, "loud", 0, prompt=f"say {caption}")

# ---- a gate: fails nothing
class Calm(Gate):
    key, summary, option = "calm", "nothing", Option("calm", float, Field(0.5, description="No use.", examples=[0.3]))

    def check(self, candidates, option):
        # FAULT calm
        return np.zeros(len(candidates.texts), bool)

# ---- an output format: a line a sample
class Plain(OutputFormat):
    """A line for each sample."""

    key, suffix, media_type, file_set = "plain", "txt", "text/plain", ("lines", "a line a sample")

    def accepts(self, has_images):
        return True

    def write(self, settings, shard, repeated, stats):
        # FAULT plain
        slices = ((part, settings.tables(part.unit)) for part in shard.slices)
        rows = pa.concat_tables(settings.kept_rows(part, tables, ["uid", "caption"]) for part, tables in slices)
        settings.store.write_bytes(f"{shard.stem}.txt", "\\n".join(rows["caption"].to_pylist()).encode())
        return rows

    def card_lines(self, shards):
        return [f"- {shards} files of lines."]

# ---- an engine
class Shed(PipelineEngine):
    key, runner = "shed", "FnApiRunner"

    def check_workers(self, context, units, report):
        # FAULT shed
        report("in the shed")

LENGTH = SignalKind("length", Length, identify, build)
OPENING, PARROT = Opening("opening"), EngineKind("parrot", Parrot)
LINES, WEIGHTED, TWINS, SHARE, CALM, PLAIN = Lines(), Weighted(), TwinsRelation(), Share(), Calm(), Plain()
'''
ENGINE, REWRITE = {"engines": {"bird": {"parrot": {}}}}, {"rewrite": {"engine": "bird", "styles": ["human"]}}
EMBEDDINGS = {"embeddings": {"name": "l14", "image": "l14_img", "text": "l14_txt", "keep": True}}
UNKNOWN = "unknown key; it may be a {} of a package that is not installed"
# By group of entry points: what messages call such a kind, and its class; the key and the object of the one here; the
# sections that use it; and what a recipe says without the package.
KINDS = {
    "signals": ("signal", "SignalKind", "length", "LENGTH", {"measure": {"length": {}}}, UNKNOWN),
    "formats": ("input format", "InputFormat", "lines", "LINES", {"input": {"format": "lines", "path": "captions.txt"}},
     "no {} is named 'lines'"),
    "passes": ("deduplication key", "KeyPass or NearnessKind", "opening", "OPENING", {"dedup": {"by": ["opening"]}},
     "no {} is named 'opening'"),
    "selections": ("selection", "Selection", "weighted", "WEIGHTED", {"weighted": {"column": "weight"}}, UNKNOWN),
    "relations": ("relation", "Relation", "twins", "TWINS",
     {"measure": EMBEDDINGS, "relate": {"twins": {"alike": {"of": "l14"}}}}, UNKNOWN),
    "statistics": ("statistic", "Statistic", "share", "SHARE", {"derive": {"part": "share(weight)"}},
     "name share does not exist"),
    "caption_engines": ("caption engine", "EngineKind", "parrot", "PARROT", {"captions": ENGINE | REWRITE}, UNKNOWN),
    "caption_kinds": ("kind of captions", "CaptionKind", "squawk", "Squawk",
     {"captions": ENGINE | {"squawk": {"engine": "bird"}}}, UNKNOWN),
    "gates": ("gate", "Gate", "calm", "CALM", {"captions": ENGINE | REWRITE | {"gates": {"calm": 0.3}}}, UNKNOWN),
    "outputs": ("output format", "OutputFormat", "plain", "PLAIN", {"output": {"format": "plain"}},
     "no {} is named 'plain'"),
    "engines": ("engine", "", "shed", "Shed", {}, "no runner 'shed'"),
}  # fmt: skip


def lay_out_all(folder, code=CODE):
    """Lay the package out, with this code."""
    groups = {group: {key: f"curate_toolbox:{name}"} for group, (_, _, key, name, _, _) in KINDS.items()}
    return lay_out_groups(folder, "curate-toolbox", groups, "0.1", curate_toolbox=code)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return lay_out_all(tmp_path_factory.mktemp("site"))


@pytest.fixture
def recipe(group, tmp_path):
    """A recipe that uses the kind, and its pool."""
    embeddings = pa.array(np.eye(8, dtype=np.float16).tolist(), pa.list_(pa.float16(), 8))
    columns = {"caption": [f"{i} red dogs" for i in range(8)], "weight": [1.0] * 8}
    pq.write_table(pa.table(columns | {"l14_img": embeddings, "l14_txt": embeddings}), tmp_path / "pool.parquet")
    (tmp_path / "captions.txt").write_text("a red dog\na blue cat")
    sections = KINDS[group][4]
    source = {"format": "parquet", "path": "pool.parquet", "columns": {"scores": ["weight"]}}
    sections = sections | {"input": {"name": "pool"} | sections.get("input", source), "max_failed": 1.0}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections))
    return str(tmp_path / "r.yaml")


def run(group, recipe, out):
    """Run the recipe in this process; raise the error that ends it."""
    if group != "engines":
        with naming_packages():
            kit.run_local(load_recipe(recipe), out)
    elif (done := run_command("run", recipe, "--out", str(out), "--", "--runner=shed")).status:
        raise CurateError(done.err)


@pytest.mark.parametrize("group", KINDS)
def test_a_run_uses_it_and_names_the_package(group, site, recipe, tmp_path):
    with installed(site):
        run(group, recipe, tmp_path / "run")
    packages = json.loads((tmp_path / "run/run.json").read_text())["packages"]
    assert packages.get("curate-toolbox") == (None if group == "engines" else "0.1")
    if group not in ("engines", "selections"):  # later commands use neither
        done = run_command("whatif", str(tmp_path / "run"), "--set", "rules.x=words > 1")
        assert done.status == 2 and "this run used package curate-toolbox 0.1, which is not installed" in done.err


@pytest.mark.parametrize("group", KINDS)
def test_an_error_in_its_code_names_kind_package_and_line(group, recipe, tmp_path):
    label, _, key, *_ = KINDS[group]
    code = CODE.replace(f"# FAULT {key}\n", "1 / 0\n")
    line = 1 + [text.strip() for text in code.splitlines()].index("1 / 0")
    with installed(lay_out_all(tmp_path / "site", code)), pytest.raises(CurateError) as caught:
        run(group, recipe, tmp_path / "run")
    before, others = ("", ".*") if group == "caption_engines" else ("^(.*: )?", "")  # that is a named tuple
    where = rf"package curate-toolbox 0\.1: ZeroDivisionError: division by zero at curate_toolbox.py:{line} in "
    assert re.search(rf"{before}{label} '{key}'{others} of {where}", str(caught.value))


@pytest.mark.parametrize("group", KINDS)
def test_without_the_package_the_recipe_is_refused(group, recipe, tmp_path):
    with pytest.raises(CurateError) as caught:
        run(group, recipe, tmp_path / "run")
    assert KINDS[group][5].format(KINDS[group][0]) in str(caught.value)


def test_what_is_no_such_kind_is_refused(tmp_path):
    names = {name for _, _, _, name, _, _ in KINDS.values()}
    with installed(lay_out_all(tmp_path, "".join(f"{name} = 1\n" for name in names))):
        for group, (label, interface, key, name, _, _) in KINDS.items():
            kinds = next(known for known in registry._REGISTRIES if known.group == f"curate.{group}")
            accepted = (
                f"curate_toolbox:{name} is 1; accepted: a kind ({interface}) with the entry point's name as its key"
            )
            with pytest.raises(
                RecipeError, match=rf"{label}.* '{key}' of package curate-toolbox 0\.1: {re.escape(accepted)}"
            ):
                kinds.find(key)


@pytest.mark.parametrize("group", ["passes"])
def test_what_cannot_be_loaded_stops_only_recipes_that_use_it(group, recipe, tmp_path, caplog):
    text = "package curate-toolbox 0.1: curate_toolbox:{} cannot be loaded: KeyError: 3 at curate_toolbox.py:1"
    with installed(lay_out_all(tmp_path / "site", "raise KeyError(3)")):
        done = run_command("run", recipe, "--out", str(tmp_path / "a"))
        assert done.status == 2 and text.format("OPENING") in done.err
        done = run_command("run", recipe, "--out", str(tmp_path / "b"), "--set", "dedup.by=[uid]")
        assert done.status == 0 and f"warning: signal 'length' of {text.format('LENGTH')}" in caplog.text


def test_the_reference_leaves_its_keys_out(site):
    entries.cache_clear()
    with installed(site):
        assert reference_pages() == {page.name: page.read_text("utf-8") for page in PAGES}
    entries.cache_clear()
