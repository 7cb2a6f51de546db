"""Law 3 under damage: what a kill or a bad disk left is detected, reported and recomputed.

Every kind of file is damaged in a published run and in one that was stopped; the rerun ends with the bytes of an undisturbed
run, and computes nothing again that was intact.
"""

import itertools
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate.ask.explain import explain_sample
from curate.ask.query import asking
from curate.ask.report.page import write_report
from curate.ask.verify import verify_run
from curate.base import process
from curate.base.errors import CurateError
from curate.llm.cache import AnswerCache
from curate.llm.recorded import RecordedEngine
from curate.recipe.recipe import Recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit import llm_server as servers
from tests.kit import precomputed
from tests.kit.llm_server import FaultServer

pytestmark = pytest.mark.thorough


def flip(share):
    """Return a function that flips a bit at this share of a file."""

    def flipped(data):
        changed = bytearray(data)
        changed[min(len(data) - 1, int(len(data) * share))] ^= 16
        return bytes(changed)

    return flipped


DAMAGES = {
    "gone": lambda data: None, "head": flip(0.0), "middle": flip(0.5), "footer": flip(0.97), "end": flip(1.0),
    "halved": lambda data: data[: len(data) // 2], "zeroed": lambda data: bytes(len(data)),
    "emptied": lambda data: b"",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A recipe and two runs: one `published`, one `stopped` before its manifest. Tests must not change them."""

    recipe: Recipe
    published: Path
    stopped: Path


class Stopped(BaseException):
    """Stands for the end of the process."""


def stop(*arguments):
    raise Stopped


def run_to(recipe, folder):
    published = kit.run_local(recipe, folder / "published").folder
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr("curate.publish.describe.write_manifest", stop)
        kit.run_local(recipe, folder / "stopped")
    return Case(recipe, published, folder / "stopped")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images, every step but embeddings; captions from recorded answers."""
    folder = tmp_path_factory.mktemp("images")
    path = kit.write_tars(folder / "tars", kit.make_samples(24), 3)
    sections = {
        "match": {"metadata": kit.write_metadata(folder)}, "measure": {"language": {}, "image": {"phash": True}},
        "rules": {"words": "words > 2"}, "dedup": {"by": ["uid", "sha256", "phash"]}, "balance": {"t": 12},
        "output": {"rows_per_shard": 6},
    }  # fmt: skip

    def recipe(engine):
        captions = {"engines": {"llm": engine}, "rewrite": {"engine": "llm", "styles": ["human"], "batch": 4}}
        return kit.recipe_of(path, captions=captions, **sections)

    with FaultServer() as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr(servers, "echo", lambda prompt: f" a view of {prompt.rstrip().splitlines()[-1][:-3]}")
        answered = recipe({"openai": {"base_url": server.base_url, "model": "tiny-llm"}})
        kit.run_local(answered, folder / "answered")
    return run_to(recipe({"recorded": {"path": str(folder / "answered"), "model": "tiny-llm"}}), folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Text with embeddings, and clusters of them."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(3):
        precomputed.write_file(folder / "pool", number, rows=20)
    measure = {"embeddings": {**precomputed.OPTIONS, "keep": True}, "language": {}}
    relate = {"clusters": {"topic": {"of": precomputed.OPTIONS["name"], "k": 3, "rounds": 2}}}
    return run_to(precomputed.recipe(folder / "pool", measure=measure, relate=relate), folder)


# ---------------------------------------------------------------- what is damaged
def kinds_of(folder):
    """Return the last file of each kind, by kind. Numbers of units and shards do not count."""
    kinds = {re.sub(r"[0-9a-f]{32}|\d{5,}(-\d{5})?", "*", name): name for name in kit.files_of(folder)}
    return dict(sorted(kinds.items(), key=lambda kind_and_name: kind_and_name[1]))


def damage(folder, name, how):
    changed = DAMAGES[how]((folder / name).read_bytes())
    (folder / name).unlink()
    if changed is not None:
        (folder / name).write_bytes(changed)


def inodes(folder):
    """Return the inode of each table and shard, without merged tables, because each run merges them again."""
    return {
        name: (folder / name).stat().st_ino
        for name in kit.files_of(folder)
        if name.startswith(("tables/", "shards/")) and name != "shards/sizes.json" and "-" not in name
    }


def made_with(name):
    """Return a pattern of the files that curate writes together with this file."""
    name = described_by(name)
    unit = re.sub(r"\D", "", name.rpartition("/")[2].partition(".")[0])[:5]
    if name.startswith("shards/") and unit:
        return rf"shards/{unit}[._].*"
    if re.search("tables/(answers|captions)/", name):
        return rf"tables/(answers|captions)/{unit}[._].*"
    return re.escape(name)


def described_by(name):
    """Return the file that a digest describes; of other files, the file itself."""
    return re.sub(r"^parts/digests/", "", name)


def check_as_new(folder, case):
    assert kit.lasting_files(folder) == kit.lasting_files(case.published)
    assert set(kit.files_of(folder)) == set(kit.files_of(case.published))
    assert verify_run(str(folder))[1] == []


def check_kept(before, folder, name):
    """Check that only files that are written together with this one were computed again."""
    after = inodes(folder)
    again = [path for path, inode in before.items() if after.get(path, inode) != inode]
    assert all(re.fullmatch(made_with(name), path) for path in again), again


def read_all(folder, uid):
    """Readers of a damaged folder succeed, or raise one of our errors."""

    def query(text):
        with asking(str(folder), text) as result:
            list(result.rows)

    for read in (
        *(lambda text=text: query(text) for text in ("funnel", "FROM verdicts", "FROM published")),
        lambda: explain_sample(str(folder), uid),
        lambda: write_report(str(folder), str(folder.parent / "page.html"), None),
    ):
        try:
            read()
        except (CurateError, OSError) as error:
            assert getattr(error, "exit_status", 1) == 1 or "not a run folder" in str(error), error


# ---------------------------------------------------------------- each file
def check_stopped(case, name, how, out, caplog):
    """A stopped run continues as if nothing had happened, and logs the damage."""
    shutil.copytree(case.stopped, out)
    before = inodes(out)
    damage(out, name, how)
    kit.run_local(case.recipe, out)
    check_as_new(out, case)
    check_kept(before, out, name)
    of = described_by(name)
    is_checked = of.startswith(("tables/", "shards/0")) or name == "run.json"
    if is_checked and (name != of or name == "run.json" or how != "gone"):  # a file that is not there yet is no damage
        assert of in caplog.text


def check_published(case, name, how, out, caplog):
    """`verify` finds it, and readers fail only with a message. A rerun as `verify` advises gives the same bytes."""
    shutil.copytree(case.published, out)
    before = inodes(out)
    damage(out, name, how)
    try:
        faults = verify_run(str(out))[1]
    except CurateError as error:
        faults = [str(error)]
    assert len(faults) == 1 and name in faults[0], faults
    read_all(out, kit.Ran(case.published).table("decisions", ["uid"])["uid"].drop_null()[3].as_py())
    if prepare(case.recipe, str(out)).finished:
        assert how not in ("gone", "halved", "emptied")
        (out / name).unlink()  # as `verify` says
    kit.run_local(case.recipe, out)
    check_as_new(out, case)
    if name != "manifest.parquet":  # nothing else says what was written
        check_kept(before, out, name)
    assert name in caplog.text or name == "_SUCCESS"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "state", "damages"),
    [(check_stopped, "stopped", [*DAMAGES]), (check_published, "published", [*DAMAGES][::-1])],
)
def test_each_kind_of_file(check, state, damages, images, texts, tmp_path, caplog):
    """Each file has the next damage; all checks that fail are reported at once."""
    failed, seen = [], set()
    for case in (images, texts):
        files, hows = getattr(case, state), itertools.cycle(damages)
        for kind, name in kinds_of(files).items():
            how = next(hows) if (files / name).stat().st_size else "gone"
            if kind in seen:
                continue
            seen.add(kind)
            out = tmp_path / f"{len(seen)}"  # curate logs some damage once a folder
            caplog.clear()
            try:
                check(case, name, how, out, caplog)
            except Exception as error:
                failed.append(f"{name} {how}: {type(error).__name__}: {str(error)[:400]}")
            shutil.rmtree(out)
    assert len(seen) > 20 and not failed, "\n".join(failed)


# ---------------------------------------------------------------- what else a folder holds
def test_a_damaged_manifest_and_missing_digests_are_told_once(texts, tmp_path, caplog):
    out = Path(shutil.copytree(texts.published, tmp_path / "published"))
    damage(out, "manifest.parquet", "halved")
    kit.run_local(texts.recipe, out)
    check_as_new(out, texts)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) <= 4 and all("manifest.parquet" in text or "every other such file" in text for text in told), told
    caplog.clear()
    out = Path(shutil.copytree(texts.stopped, tmp_path / "stopped"))
    shutil.rmtree(out / "parts")  # as of a version that kept no digests
    damage(out, "tables/samples/00000.parquet", "halved")
    kit.run_local(texts.recipe, out)
    check_as_new(out, texts)
    assert "every other such file" in caplog.text


@pytest.mark.slow
def test_batches_of_answers(images, tmp_path, caplog, monkeypatch):
    """Of an interrupted unit, intact batches are not requested again."""
    out, added, threads = tmp_path / "out", AnswerCache.add, process.threads

    def add(self, *batch):
        if len(list(out.glob("parts/answers/*/*.parquet"))) < 2:
            added(self, *batch)
            self.flush()
        if len(list(out.glob("parts/answers/*/*.parquet"))) == 2:
            raise Stopped

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as one, pytest.raises(Stopped):
        patched.setattr(process, "threads", lambda name: one if name == "unit" else threads(name))
        patched.setattr(AnswerCache, "add", add)
        kit.run_local(images.recipe, out)
    first, _ = sorted(str(path.relative_to(out)) for path in out.glob("parts/answers/*/*.parquet"))
    damage(out, first, "middle")
    requested, answers = [], RecordedEngine.answers

    def counted(self, requests):
        requested.extend(request.uid for request in requests)
        return answers(self, requests)

    with monkeypatch.context() as patched:
        patched.setattr(RecordedEngine, "answers", counted)
        kit.run_local(images.recipe, out)
    check_as_new(out, images)
    assert len(requested) == kit.Ran(images.published).table("answers").num_rows - 4
    assert first in caplog.text
