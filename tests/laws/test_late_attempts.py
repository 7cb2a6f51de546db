"""Law 3 where several attempts are at the same work, as an engine makes them that speculates or takes a worker for dead: the first
complete file wins, and what attempts answer follows from the files that are there, not from their own.
"""

import hashlib
import itertools
import json
import os
import random
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.base import ids, registry
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
from curate.publish import publish as publishing_steps
from curate.recipe.section import Section
from curate.run.context import RunContext
from curate.run.in_process import InProcessUnits
from curate.signals import registry as signal_registry
from curate.signals.signal import SignalKind, TextSignal
from curate.store.store import RunStore
from curate.store.validity import valid_digest
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from pipelines.steps import functions
from tests import kit
from tests.kit import llm_server as servers
from tests.kit.llm_server import FaultServer
from tests.kit.web import Web, running
from tests.pool.urls.lists import recipe as urls_recipe
from tests.pool.urls.lists import write_list

pytestmark = pytest.mark.thorough

NOISE = 1e-6


class Noise(Section):
    """A signal that differs by some 1e-6 whenever it is computed, as models do: column `noisy`."""


def noisy(captions):
    noise = np.frombuffer(os.urandom(8 * len(captions)), np.uint64) / 2**64 * NOISE
    values = [text and ids.hash64(text) / 2**64 + more for text, more in zip(captions.to_pylist(), noise, strict=True)]
    return [pa.array(values, pa.float64())]


NOISY = TextSignal("noise", (pa.field("noisy", pa.float64()),), "1", compute=noisy)
KIND = SignalKind("noise", Noise, lambda name, section, known: None, lambda name, section, built: [NOISY])


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    monkeypatch.setattr(signal_registry, "KINDS", (*signal_registry.KINDS, KIND))
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def recipe(folder, rows=60, **sections):
    path = kit.write_parquets(folder / "pool", kit.make_rows(rows), 3)
    sections = {"measure": {"noise": {}, "language": {}}, "rules": {"best": {"top": 0.5, "of": "noisy"}}} | sections
    return kit.recipe_of(path, "parquet", match={"metadata": kit.write_metadata(folder)}, **sections)


# ---------------------------------------------------------------- two attempts at one unit, file by file
@dataclass
class Turns:
    """Two attempts of which one puts its files into place at a time: first `a` so many, then `b` so many, then `a` the others."""

    before: tuple[int, int]
    done: dict[str, int] = field(default_factory=lambda: {"a": 0, "b": 0})
    ended: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def may(self, name):
        a, b = self.before
        if name == "a":
            return self.done["a"] < a or self.done["b"] >= b or "b" in self.ended
        return (self.done["a"] >= a and (self.done["b"] < b or "a" in self.ended)) or "a" in self.ended

    def wait(self, name):
        with self.changed:
            assert self.changed.wait_for(lambda: self.may(name), 300)

    def count(self, name, ended=False):
        with self.changed:
            self.done[name] += 1
            self.ended |= {name} if ended else set()
            self.changed.notify_all()


def attempt_both(work, before):
    """What two attempts give that put their files into place in turns; what one raises is what it gives."""
    turns, put, place, found = Turns(before), RunStore._put, RunStore._commit_once, {}

    def in_turn(method):
        def putting(*arguments, **options):
            name = threading.current_thread().name
            turns.wait(name)
            try:
                return method(*arguments, **options)
            finally:
                turns.count(name)

        return putting

    def run():
        name = threading.current_thread().name
        try:
            found[name] = work()
        except Exception as error:
            found[name] = error
        turns.count(name, ended=True)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunStore, "_put", in_turn(put))
        patched.setattr(RunStore, "_commit_once", in_turn(place))
        both = [threading.Thread(target=run, name=name) for name in ("a", "b")]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(600)
    return [found["a"], found["b"]]


@dataclass
class Prepared:
    context: RunContext
    units: list[Unit]

    def measure_and_count(self, unit):
        """What a pass over a unit answers: what could not be read, verdicts, and the histogram of a top rule."""
        with self.context.open_tables(unit) as tables:
            unread = measure_unit(MeasureSettings.of(self.context), unit, tables)
            match_unit(MatchSettings.of(self.context), tables)
            return unread, *self.count(tables, unit)

    def count(self, tables, unit):
        settings = DecideSettings.of(self.context)
        state = apply_rules.start_unit(tables, unit, settings)
        values = apply_rules.top_values(tables, state, settings, 0)
        matches = tables.read("matches", ["entry_ids"])["entry_ids"].to_pylist()
        return tables.key("scores"), state.verdicts.tobytes(), repr(values), matches

    def check(self, unit):
        store = self.context.store
        for name in store.files("tables"):
            assert valid_digest(store, name), name
        uids = {
            repr(pq.read_table(store.path(f"tables/{name}/{unit.name}.parquet"))["uid"].to_pylist())
            for name in ("samples", "scores", "matches")
        }
        assert len(uids) == 1


def prepared_for(recipe, out):
    prepared = prepare(recipe, str(out))
    claim_folder(prepared)
    return Prepared(prepared.context, list(prepared.plan.units))


PUTS = 4  # of a unit that is measured and matched: scores, samples, matches, and the end


@pytest.mark.slow
@pytest.mark.parametrize("older", ["nothing", "stale"])
def test_whatever_the_order_answers_are_of_the_files_that_are_there(older, tmp_path):
    """Both orders of ending, and at each file the one before the other."""
    asked = recipe(tmp_path)
    for number, before in enumerate(itertools.product(range(PUTS), range(1, PUTS + 1))):
        run = prepared_for(asked, tmp_path / f"{number}")
        unit = run.units[0]
        if older == "stale":
            run.measure_and_count(unit)
            for table in ("scores", "samples"):
                damage(run.context.store, f"tables/{table}/{unit.name}.parquet")
            run.context.store.delete("tmp")
        answers = attempt_both(lambda: run.measure_and_count(unit), before)  # noqa: B023
        with run.context.open_tables(unit) as tables:
            stored = ([], *run.count(tables, unit))
        assert answers == [stored, stored], before
        run.check(unit)


def damage(store, name):
    data = bytearray(store.read_bytes(name))
    data[len(data) // 2] ^= 16
    Path(store.path(name)).unlink()
    Path(store.path(name)).write_bytes(data)


def test_an_attempt_that_could_not_read_a_file(tmp_path, monkeypatch):
    """Tables have the rows of one attempt, or the attempt that finds others ends; the next one goes on from what is there."""
    asked, read = recipe(tmp_path, max_failed_files=1.0), unit_module.measure_part

    def measure_part(settings, source, part, *rest):
        is_blind = threading.current_thread().name == "b"
        return read(settings, source, replace(part, fault=("unreadable", "a timeout")) if is_blind else part, *rest)

    monkeypatch.setattr(unit_module, "measure_part", measure_part)
    first = set()
    for number, before in enumerate(itertools.product(range(PUTS), range(1, PUTS + 1))):
        run = prepared_for(asked, tmp_path / f"{number}")
        unit = run.units[0]
        answers = attempt_both(lambda: run.measure_and_count(unit), before)  # noqa: B023
        errors = [one for one in answers if isinstance(one, Exception)]
        assert all(isinstance(one, TransientError) for one in errors) and len(errors) < 2, (before, answers)
        with run.context.open_tables(unit) as tables:
            stored = run.count(tables, unit)
        for one in answers:
            assert isinstance(one, Exception) or one[1:] == stored, before
        again = run.measure_and_count(unit)  # what the engine tries again
        assert all(one == again for one in answers if one not in errors)
        run.check(unit)
        first.add("b" if again[0] else "a")
    assert first == {"a", "b"}


# ---------------------------------------------------------------- captions
@pytest.mark.parametrize("starts", [1, 2])
def test_texts_are_of_the_answers_that_are_there(starts, tmp_path, monkeypatch):
    """An engine that never answers the same twice, and sometimes not at all.

    Of two starts the first one was cut off, and goes on in the midst of the second.
    """
    count = itertools.count()
    rows = 12
    path = kit.write_parquets(tmp_path / "pool", kit.make_rows(rows), 1)
    orders = itertools.product(range(0, 9, 2), range(1, 10, 2))
    with FaultServer() as server:
        monkeypatch.setattr(servers, "echo", lambda prompt: f"answer {next(count)} of a quiet lake")
        server.always = lambda handler: handler.answer() if next(count) % 7 else handler.reply(400, b"no")
        captions = {
            "engines": {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}},
            "rewrite": {"engine": "llm", "styles": ["human"], "batch": 4},
        }
        asked = kit.recipe_of(path, "parquet", captions=captions, max_failed=1.0)
        first = kit.run_local(asked, tmp_path / "first")
        assert first.counts["kept"]
        for number, before in enumerate(orders):
            out = tmp_path / f"{number}"
            prepared = prepare(asked, str(out))
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

            answers = attempt_both(attempt, before)
            errors = [one for one in answers if isinstance(one, Exception)]
            if starts == 2 and errors:
                assert all(isinstance(one, TransientError | FileNotFoundError) for one in errors), (before, answers)
                if errors[-1] is answers[1]:
                    start()
                answers = [caption_unit(settings, unit, context.open_tables(unit), None)] * 2
            texts = dict(
                zip(
                    *map(pa.ChunkedArray.to_pylist, kit.Ran(out).table("answers", ["uid", "answer"]).columns),
                    strict=True,
                )
            )
            made = kit.Ran(out).table("captions", ["uid", "text"]).to_pylist()
            assert {row["uid"]: row["text"] for row in made} == {
                uid: text and text.strip() for uid, text in texts.items()
            }
            assert answers[1] == caption_unit(settings, unit, context.unit_tables(unit), None)
            assert starts == 2 or answers[0] == answers[1]
            assert all(valid_digest(store, name) for name in store.files("tables/captions"))


# ---------------------------------------------------------------- downloads
class Changing(dict[str, bytes]):
    """Images of which each is another one whenever it is asked for, and sometimes none."""

    count = itertools.count()

    def get(self, name, default=None):
        number = next(self.count)
        return kit.encode(kit.picture(number % 200, 64)) if number % 5 else None


@pytest.mark.parametrize("by_runs", [1, 2])
def test_a_shard_is_of_one_download(by_runs, tmp_path):
    """By two attempts of a run, or by two runs that share a store."""
    pytest.importorskip("img2dataset")
    web = Web({}, 4)
    web.images = Changing()
    with running(web):
        path = write_list(tmp_path / "list.parquet", [web.url(f"image/{i}", i % 4) for i in range(8)])
        for number, before in enumerate([(0, 1), (0, 9), (1, 1), (1, 9), (9, 1)]):
            store = tmp_path / f"store{number}"
            asked = urls_recipe(path, {"store": str(store)} if by_runs == 2 else {})
            runs = [prepare(asked, str(tmp_path / f"{number}-{one}")) for one in range(by_runs)]
            turn = itertools.cycle(runs)

            def download():
                run = next(turn)  # noqa: B023
                return make_shard(run.context.sources[0], run.plan.units[0].parts[0])

            answers = attempt_both(download, before)
            assert answers[0] == answers[1]
            assert isinstance(answers[0], int), answers
            check_shard(store if by_runs == 2 else tmp_path / f"{number}-0/pool")
            logged = [read_downloads(run.context.store)[0] for run in runs]
            assert len({repr(facts) for facts in logged}) == 1 and logged[0] is not None


def check_shard(folder):
    """That the tar, the Parquet file and the statistics of the one shard are of one download, and nothing else is there."""
    [tar], [sidecar], [statistics] = (list(folder.glob(f"*{ending}")) for ending in (".tar", ".parquet", "_stats.json"))
    with tarfile.open(tar) as file:
        members = [(one.name, one.size) for one in file]
        images = {
            name.partition(".")[0]: hashlib.sha256(file.extractfile(name).read()).hexdigest()
            for name, _ in members
            if name.endswith("jpg")
        }  # type: ignore[union-attr]
    rows = pq.read_table(sidecar).to_pylist()
    assert images == {row["key"]: row["sha256"] for row in rows if row["status"] == "success"}
    said = json.loads(statistics.read_text())
    assert said["successes"] == len(images) and said["bytes"] == sum(
        size for name, size in members if name.endswith("jpg")
    )
    assert not [path for path in (folder / "tmp").rglob("*") if path.is_file()]


# ---------------------------------------------------------------- whole runs
@contextmanager
def twice():
    """Every element of every step is worked on by two attempts at once; what one of them gives counts, now the one, now the other."""
    chosen, threads = random.Random(5), functions.threads
    publish = publishing_steps.publish

    def both(work):
        found = [None, None]

        def run(place):
            found[place] = work()

        attempts = [threading.Thread(target=run, args=(place,)) for place in range(2)]
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join()
        return found[chosen.randrange(2)]

    class Twice:
        def submit(self, function, *arguments):
            return threads("unit").submit(lambda: both(lambda: function(*arguments)))

    def publishing(*arguments):
        both(lambda: publish(*arguments))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(functions, "threads", lambda name: Twice())
        patched.setattr(publishing_steps, "publish", publishing)
        yield


def test_a_run_of_which_everything_is_done_twice(tmp_path):
    asked = recipe(tmp_path, 300, dedup={"by": ["uid"]}, balance={"t": 12}, output={"rows_per_shard": 30})
    with twice():
        run = kit.run_beam(asked, tmp_path / "run")
    assert verify_run(str(run.folder))[1] == []
    follows_from_scores(run)
    assert not list(run.folder.glob("tmp/*"))


def follows_from_scores(run):
    """That each verdict of the top rule is what the stored scores say."""
    scores = run.table("scores", ["noisy"])["noisy"].to_numpy()
    rules = run.table("decisions", ["rule"])["rule"].to_pylist()
    reached = ~np.isnan(scores)
    values = np.sort(scores[reached])[::-1]
    threshold = values[int(len(values) * 0.5)]
    [rule] = [one for one in run.run["rules"] if one["name"] == "best"]
    assert rule["threshold"] == threshold
    dropped = np.array([one == "best" for one in rules])
    assert (dropped[reached] == (scores[reached] < threshold)).all()
    assert json.dumps(run.counts)
