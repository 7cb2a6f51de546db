"""Law 3 for several attempts at the same work: the first complete file wins, and all answer from the files in place.

Engines start a second attempt if the first is slow, or if its worker seems dead.
"""

import hashlib
import itertools
import json
import tarfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.base import registry
from curate.base.errors import TransientError
from curate.captions.settings import CaptionSettings
from curate.captions.unit import caption_unit
from curate.decide import apply_rules
from curate.decide.decide_rows import decide_rows
from curate.decide.settings import DecideSettings
from curate.download.rates import read_downloads
from curate.match.unit import MatchSettings, match_unit
from curate.measure import unit as unit_module
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.pool.plan import Unit
from curate.pool.urls.format import make_shard
from curate.run.context import RunContext
from curate.run.in_process import InProcessUnits
from curate.signals import registry as signal_registry
from curate.store.validity import valid_digest
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit
from tests.kit import llm_server as servers
from tests.kit import noise
from tests.kit.llm_server import FaultServer
from tests.kit.url_lists import recipe as urls_recipe
from tests.kit.url_lists import write_list
from tests.kit.web import Web, running
from tests.laws.attempts import attempt_both, twice

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    monkeypatch.setattr(signal_registry, "KINDS", (*signal_registry.KINDS, noise.KIND))
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def recipe(folder, rows=60, **sections):
    path = kit.write_parquets(folder / "pool", kit.make_rows(rows), 3)
    sections = {"measure": {"noise": {}, "language": {}}, "rules": {"best": {"top": 0.5, "of": "noisy"}}} | sections
    return kit.recipe_of(path, "parquet", match={"metadata": kit.write_metadata(folder)}, **sections)


# ---------------------------------------------------------------- two attempts at one unit, file by file
@dataclass
class Prepared:
    """A unit of a run that has begun."""

    context: RunContext
    unit: Unit

    def measure_and_count(self):
        """The answers of a pass over the unit: unreadable files, verdicts, and the histogram of a top rule."""
        with self.context.open_tables(self.unit) as tables:
            unread = measure_unit(MeasureSettings.of(self.context), self.unit, tables)
            match_unit(MatchSettings.of(self.context), tables)
            return unread, *self.count(tables)

    def count(self, tables):
        settings = DecideSettings.of(self.context)
        state = apply_rules.start_unit(tables, self.unit, settings)
        values = apply_rules.top_values(tables, state, settings, 0)
        matches = tables.read("matches", ["entry_ids"])["entry_ids"].to_pylist()
        return tables.key("scores"), state.verdicts.tobytes(), repr(values), matches

    def check(self):
        store = self.context.store
        assert all(valid_digest(store, name) for name in store.files("tables"))
        paths = (store.path(f"tables/{name}/{self.unit.name}.parquet") for name in ("samples", "scores", "matches"))
        assert len({repr(pq.read_table(path)["uid"].to_pylist()) for path in paths}) == 1


def prepared_for(recipe, out):
    prepared = prepare(recipe, str(out))
    claim_folder(prepared)
    return Prepared(prepared.context, prepared.plan.units[0])


# At each file of a unit (scores, samples, matches, and the end), either attempt comes first.
TURNS = list(itertools.product(range(4), (1, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("older", ["nothing", "stale"])
def test_whatever_the_order_answers_are_of_the_files_that_are_there(older, tmp_path):
    asked = recipe(tmp_path)
    for number, turns in enumerate(TURNS):
        run = prepared_for(asked, tmp_path / f"{number}")
        if older == "stale":
            run.measure_and_count()
            for table in ("scores", "samples"):
                damage(run.context.store, f"tables/{table}/{run.unit.name}.parquet")
            run.context.store.delete("tmp")
        answers = attempt_both(run.measure_and_count, turns)
        with run.context.open_tables(run.unit) as tables:
            stored = ([], *run.count(tables))
        assert answers == [stored, stored], turns
        run.check()


def damage(store, name):
    data = bytearray(store.read_bytes(name))
    data[len(data) // 2] ^= 16
    Path(store.path(name)).unlink()
    Path(store.path(name)).write_bytes(data)


def test_an_attempt_that_could_not_read_a_file(tmp_path, monkeypatch):
    """Tables have the rows of one attempt. The other one agrees or fails, and a third continues from the files."""
    asked, read = recipe(tmp_path, max_failed_files=1.0), unit_module.measure_part

    def measure_part(settings, source, part, *rest):
        is_blind = threading.current_thread().name == "b"
        return read(settings, source, replace(part, fault=("unreadable", "a timeout")) if is_blind else part, *rest)

    monkeypatch.setattr(unit_module, "measure_part", measure_part)
    first = set()
    for number, turns in enumerate(TURNS):
        run = prepared_for(asked, tmp_path / f"{number}")
        answers = attempt_both(run.measure_and_count, turns)
        errors = [one for one in answers if isinstance(one, Exception)]
        assert all(isinstance(one, TransientError) for one in errors) and len(errors) < 2, (turns, answers)
        with run.context.open_tables(run.unit) as tables:
            stored = run.count(tables)
        assert all(one[1:] == stored for one in answers if one not in errors), turns
        again = run.measure_and_count()  # the engine tries it again
        assert all(one == again for one in answers if one not in errors)
        run.check()
        first.add("b" if again[0] else "a")
    assert first == {"a", "b"}


# ---------------------------------------------------------------- captions
@pytest.mark.parametrize("starts", [1, 2])
def test_texts_are_of_the_answers_that_are_there(starts, tmp_path, monkeypatch):
    """The engine never answers the same twice, and sometimes not at all.

    With two starts, the first run seemed dead, but continues during the second.
    """
    count = itertools.count()
    path = kit.write_parquets(tmp_path / "pool", kit.make_rows(12), 1)
    with FaultServer() as server:
        monkeypatch.setattr(servers, "echo", lambda prompt: f"answer {next(count)} of a quiet lake")
        server.always = lambda handler: handler.answer() if next(count) % 7 else handler.reply(400, b"no")
        captions = {
            "engines": {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}},
            "rewrite": {"engine": "llm", "styles": ["human"], "batch": 4},
        }
        asked = kit.recipe_of(path, "parquet", captions=captions, max_failed=1.0)
        for number, turns in enumerate(itertools.product((0, 2, 8), (1, 9))):
            prepared = prepare(asked, str(tmp_path / f"{number}"))
            claim_folder(prepared)
            context, [unit] = prepared.context, prepared.plan.units
            kit.measure(context, unit)
            units = InProcessUnits([unit], context)
            decide_rows(units, DecideSettings.of(context), units.ask("Unread", lambda *_: []))
            settings, store = CaptionSettings.of(context), context.store

            def start():
                store.write_bytes("tmp/begun", b"")  # noqa: B023 (in its turn)
                claim_folder(prepared)  # noqa: B023

            def attempt():
                if starts == 2 and threading.current_thread().name == "b":
                    start()
                return caption_unit(settings, unit, context.open_tables(unit), None)  # noqa: B023

            answers = attempt_both(attempt, turns)
            errors = [one for one in answers if isinstance(one, Exception)]
            if starts == 2 and errors:
                assert all(isinstance(one, TransientError | OSError) for one in errors), (turns, answers)
                if errors[-1] is answers[1]:
                    start()
                answers = [caption_unit(settings, unit, context.open_tables(unit), None)] * 2
            run = kit.Ran(tmp_path / f"{number}")
            texts = {row["uid"]: row["answer"] for row in run.table("answers", ["uid", "answer"]).to_pylist()}
            made = {row["uid"]: row["text"] for row in run.table("captions", ["uid", "text"]).to_pylist()}
            assert made == {uid: text and text.strip() for uid, text in texts.items()} and any(made.values())
            assert answers[1] == caption_unit(settings, unit, context.unit_tables(unit), None)
            assert starts == 2 or answers[0] == answers[1]
            assert all(valid_digest(store, name) for name in store.files("tables/captions"))


# ---------------------------------------------------------------- downloads
class Changing(dict[str, bytes]):
    """Images that are different at each request, and sometimes missing."""

    count = itertools.count()

    def get(self, name, default=None):
        number = next(self.count)
        return kit.encode(kit.picture(number % 200, 64)) if number % 5 else None


@pytest.mark.parametrize("by_runs", [1, 2])
def test_a_shard_is_of_one_download(by_runs, tmp_path):
    """Two attempts of one run, or two runs that share a store, download it."""
    pytest.importorskip("img2dataset")
    web = Web({}, 4)
    web.images = Changing()
    with running(web):
        path = write_list(tmp_path / "list.parquet", [web.url(f"image/{i}", i % 4) for i in range(8)])
        for number, turns in enumerate([(0, 1), (0, 9), (1, 1), (1, 9), (9, 1)]):
            store = tmp_path / f"store{number}"
            asked = urls_recipe(path, {"store": str(store)} if by_runs == 2 else {})
            runs = [prepare(asked, str(tmp_path / f"{number}-{one}")) for one in range(by_runs)]
            run = itertools.cycle(runs)

            def download():
                one = next(run)  # noqa: B023
                return make_shard(one.context.sources[0], one.plan.units[0].parts[0])

            answers = attempt_both(download, turns)
            assert answers[0] == answers[1]
            assert isinstance(answers[0], int), answers
            check_shard(store if by_runs == 2 else tmp_path / f"{number}-0/pool")
            logged = [read_downloads(one.context.store)[0] for one in runs]
            assert len({repr(facts) for facts in logged}) == 1 and logged[0] is not None


def check_shard(folder):
    """Check that the shard's tar, Parquet file, and statistics come from one download, and that nothing else exists."""
    [tar], [sidecar], [statistics] = (list(folder.glob(f"*{ending}")) for ending in (".tar", ".parquet", "_stats.json"))
    with tarfile.open(tar) as file:
        images = {one.name.partition(".")[0]: file.extractfile(one).read() for one in file if one.name.endswith("jpg")}
    rows = [row for row in pq.read_table(sidecar).to_pylist() if row["status"] == "success"]
    digests = {key: hashlib.sha256(image).hexdigest() for key, image in images.items()}
    assert digests == {row["key"]: row["sha256"] for row in rows}
    facts = json.loads(statistics.read_text())
    assert (facts["successes"], facts["bytes"]) == (len(images), sum(map(len, images.values())))
    assert not [path for path in (folder / "tmp").rglob("*") if path.is_file()]


# ---------------------------------------------------------------- whole runs
def test_a_run_of_which_everything_is_done_twice(tmp_path):
    asked = recipe(tmp_path, 300, dedup={"by": ["uid"]}, balance={"t": 12}, output={"rows_per_shard": 30})
    with twice():
        run = kit.run_beam(asked, tmp_path / "run")
    assert verify_run(str(run.folder))[1] == []
    noise.follows_from_scores(run)
    assert not list(run.folder.glob("tmp/*"))
