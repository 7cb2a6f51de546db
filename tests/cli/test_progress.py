"""Progress of runs, samples, and downloads, on a terminal and as lines."""

import io
import re
import sys

import pyarrow as pa
import pytest

from curate.cli import common, progress
from curate.cli.progress import describe_downloads, show_progress, show_sample
from curate.download.rates import log_download, read_downloads
from curate.store.checkpoints import MEASURED, Checkpoints
from curate.store.facts import DownloadFacts, RunFacts, write_facts
from curate.store.lock import clear_tmp
from curate.store.store import RunStore
from tests.kit.waiting import wait_until
from tests.kit.written_runs import BARE

FACTS = DownloadFacts(urls=10, came=6, bytes=6000, began=100.0, ended=103.5, reasons={"dns": 3, "timeout": 1})


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def folder(tmp_path):
    return RunStore(str(tmp_path))


def test_bars_on_a_terminal(folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with show_progress(folder, 7, 40):
        folder.write_bytes("tables/samples/00000.parquet", b"")
        log_download(folder, "a", FACTS)
        wait_until(
            lambda: all(text in terminal.getvalue() for text in ("1/7", "10/40", "60.0% downloaded", "dns 30.0%"))
        )
    assert "measure" in terminal.getvalue()


def test_the_last_line_counts_all_files(folder, capsys):
    """Unit 1 counts once, although its table is also in a file of two units, as while units are compacted."""
    with show_progress(folder, 7):
        for name in ("tables/samples/00000-00001.parquet", "tables/samples/00001.parquet", "shards/00000_stats.json"):
            folder.write_bytes(name, b"")
    assert capsys.readouterr().err.endswith("measure 2/7 units  decide 0/7 units  emit 1 shard\n")


@pytest.mark.parametrize("show", [show_progress, show_sample])
def test_a_line_is_printed_once(folder, capsys, monkeypatch, show):
    reads, count_done = [], progress.count_done
    monkeypatch.setattr(progress, "count_done", lambda *of: reads.append(of) or count_done(*of))
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.01)
    for unit in range(2):
        folder.write_bytes(f"tables/samples/0000{unit}.parquet", b"")
        with show(folder, 2):
            before = len(reads)
            wait_until(lambda before=before: len(reads) > before + 50)
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"measure {unit + 1}/2 units")


def test_within_a_unit_images_are_counted(folder, capsys):
    steps = [pa.table({"n": list(range(512))})] * 3
    for units, expected in ((2, "measure 0/2 units (1,536 images)"), (1, "measure 1/1 units")):
        with show_progress(folder, units):
            work = Checkpoints(folder, MEASURED, 0, f"key {units}")
            assert len(work.complete("a tar", steps[0].schema, lambda first: steps)) == 1536
        last = capsys.readouterr().err.splitlines()[-1]  # on a busy machine, another line comes before
        assert last == f"{expected}  decide 0/{units} units  emit 0 shards"
        folder.write_bytes("tables/samples/00000.parquet", b"")


def test_what_is_slow_says_what_it_does(monkeypatch, capsys):
    monkeypatch.setattr(common, "SLOW", 600)
    with common.say_if_slow("planning"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(common, "SLOW", 0.01)
    with common.say_if_slow("planning"):
        wait_until(lambda: "planning" in capsys.readouterr().err)


def test_rates_are_those_of_the_run(folder):
    assert read_downloads(folder)[0] is None
    other = DownloadFacts(urls=10, came=7, bytes=900, began=102.0, ended=105.0, reasons={"timeout": 3})
    for shard, facts in (("a", FACTS), ("b", other), ("a", FACTS)):  # one by two workers
        log_download(folder, shard, facts)
    found = read_downloads(folder)[0]
    assert list(found.reasons.items()) == [("timeout", 4), ("dns", 3)]
    assert (found.urls, found.came, found.bytes, found.seconds) == (20, 13, 6900, 5.0)
    text = describe_downloads(found, 2.6, 300)
    assert text == "65.0% downloaded, 3 images/s, 300 B/s; timeout 20.0%, dns 15.0%"


@pytest.mark.parametrize("finished", [False, True])
def test_the_last_line_counts_all_downloads(folder, finished, capsys, monkeypatch):
    """The line counts downloads directly after a refresh too. A finished run has them only in run.json."""
    monkeypatch.setattr(progress, "_BETWEEN", 1000.0)
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.05)
    log_download(folder, "a", FACTS)
    with show_progress(folder, 7, 20):
        wait_until(lambda: "download 10/20 URLs" in capsys.readouterr().err)
        log_download(folder, "b", FACTS)
        if finished:
            write_facts(folder, RunFacts.model_validate(BARE).changed(downloads=read_downloads(folder)[0]))
            clear_tmp(folder)
            folder.write_bytes("_SUCCESS", b"")
    shown = r"download 20/20 URLs: 60\.0% downloaded, [\d,]+ images/s, .*B/s; dns 30\.0%, timeout 10\.0%   measure .*"
    assert re.fullmatch(shown, capsys.readouterr().err.splitlines()[-1])
