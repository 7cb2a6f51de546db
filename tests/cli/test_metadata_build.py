"""`curate metadata build`: what it prints, and what it says of bad input."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.match.metadata import read_metadata
from tests.kit.wikis import write_all

pytestmark = pytest.mark.thorough


def test_a_build_and_its_report(tmp_path, cli):
    write_all(tmp_path)
    out = str(tmp_path / "out/m.parquet")
    paths = ["--wiki", str(tmp_path), "--views", str(tmp_path / "views"), "--wordnet", str(tmp_path / "wordnets")]
    done = cli("metadata", "build", *paths, "--language", "de,ja", "--pmi", "4", "--out", out)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("de  ") and "entries, from 4" in lines[0]
    assert any(line.startswith("  unigram") and "; the cap of 12 cut 1" in line for line in lines)
    assert (
        "the most frequent 10 % of the different words, at most 251,465; it takes 2,514,650 different words"
        in " ".join(done.out.split())
    )
    assert any(line.startswith("  title") and "views" in line for line in lines)
    assert any("never match" in line and "'St. Louis'" in line for line in lines)
    assert any(
        "broken lines of page views were left out: 4 in" in line and "and in 2 more files" in line for line in lines
    )
    assert lines[-1] == f"wrote {out}: {_entries(done.out)} entries, and {tmp_path}/out/m.report.json"
    shown = cli("metadata", "show", out, "--find", "Haus")
    assert shown.status == 0 and "'Haus'" in shown.out
    again = cli("metadata", "build", *paths[:2], "--language", "ja", "--out", out)
    assert again.out.count("no pair reaches PMI 30; most would be") == 1
    assert again.err == f"skipped 2 files whose names contain no language, such as {out}\n"


def _entries(text):
    return f"{sum(int(line.split('  ')[1].split()[0].replace(',', '')) for line in text.splitlines() if line[:2] in ('de', 'ja')):,}"


def test_bad_input(tmp_path, cli):
    write_all(tmp_path)
    dump = next(tmp_path.glob("de*.bz2"))
    whole = dump.read_bytes()
    out = tmp_path / "m.parquet"

    def build(*more):
        done = cli("metadata", "build", "--wiki", str(dump), "--out", str(out), *more)
        assert not out.exists() and not done.out
        return done.status, done.err

    dump.write_bytes(whole[: len(whole) // 2])
    status, text = build()
    assert (
        status == 1
        and text.startswith(f"curate: {dump}: is cut off in the bzip2 stream at byte")
        and text.count("\n") == 1
    )
    dump.write_bytes(whole[:600] + b"\0\0" + whole[602:])
    status, text = build()
    assert status == 1 and text.startswith(f"curate: {dump}: damaged in the bzip2 stream at byte")
    dump.write_bytes(whole)
    assert build("--language", "deutsch")[0] == 2
    assert build("--language", "de ja")[1].startswith("curate: --language ja: no file of --wiki")
    assert build("--pmi", "nan")[1] == "curate: --pmi nan: accepted: a finite number, such as 25\n"
    assert build("--out", str(tmp_path))[1].startswith(
        f"curate: --out {tmp_path}: is a folder; accepted: the name of a"
    )
    assert "of its lines are not project" in build("--views", str(dump))[1]
    assert build("--language", "ja")[1].startswith(
        "curate: --language ja: no file of --wiki or --wordnet is of it; there are some of: de"
    )
    hour = next((tmp_path / "views").glob("*"))
    hour.write_bytes(hour.read_bytes()[:-30])
    status, text = build("--views", str(tmp_path / "views"))
    assert status == 1 and f"curate: {hour}: damaged or cut off" in text
    assert build("--", "--nonsense=1")[0] == 2


def test_many_wikis_of_a_language_and_a_list_of_english(tmp_path, cli):
    for wiki in ("ab", "ace", "ady", "simple", "tum"):
        (tmp_path / f"20260101.{wiki}").mkdir()
        pq.write_table(pa.table({"text": ["easy dog"] * 9}), tmp_path / f"20260101.{wiki}/a.parquet")
    (tmp_path / "metadata.json").write_text('["dog", "hot dog"]')
    out = str(tmp_path / "out/m.parquet")
    done = cli("metadata", "build", "--wiki", str(tmp_path), "--english", str(tmp_path / "metadata.json"), "--out", out)
    lines = done.out.splitlines()
    assert lines[0] == "en  2 entries, as listed"
    assert lines[1].startswith("other  100 entries, from 45 pages of ")
    assert lines[2] == "  number   500  of 500 in 5 wikis, some more than once"
    assert read_metadata(out, mode="corrected")[0]["language"].value_counts().to_pylist() == [
        {"values": "en", "counts": 2},
        {"values": "other", "counts": 100},
    ]
