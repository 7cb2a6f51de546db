"""`curate metadata import`, `show`, and `build`."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema
from tests.cli.shared import changes, flat, refusal
from tests.kit.wikis import write_all

COUNTS = {"read": "8", "empty": "1", "punctuation": "1", "duplicates": "1", "entries": "5", "never": "1"}


@pytest.mark.parametrize("form", ["text", "json", "json.gz"])
def test_import_and_show(cli, pool, tmp_path, form):
    path = pool / "entries.txt"
    if form != "text":
        data = json.dumps(path.read_text().split("\n")[:-1]).encode()
        path = tmp_path / f"metadata.{form}"
        path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    out = tmp_path / "entries.parquet"
    done = cli("metadata", "import", str(path), "--out", str(out), "--source", "mine", "--language", "de")
    assert (done.status, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines() if line.split()]
    assert {words[0]: next(filter(str.isdigit, words)) for words in lines if words[0] in COUNTS} == COUNTS
    table = pq.read_table(out)
    assert table.schema.remove_metadata() == schema.METADATA
    assert table["entry"].to_pylist() == ["cat", "dog", "photo", "St. Louis", "of"]
    assert table["entry_id"].to_pylist() == [0, 1, 2, 6, 7]
    assert set(table["source"].to_pylist()) == {"mine"} and set(table["language"].to_pylist()) == {"de"}
    done = cli("metadata", "show", str(out), "--find", "o", "--limit", "2")
    assert [line.split() for line in done.out.splitlines()[-2:]] == [["1", "'dog'"], ["2", "'photo'"]]
    assert cli("metadata", "show", str(out), "--find", "kitten").out.endswith("\nno entry contains 'kitten'\n")
    if form == "text":  # the imported table is the same to a run
        plans = [cli("plan", str(pool / "texts.yaml"), *more) for more in ([], changes(f"match.metadata={out}"))]
        kept = [[line for line in done.out.splitlines() if "kept" in line] for done in plans]
        assert kept[0] == kept[1] and kept[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["import", "none.txt"], ["none.txt", "no such file", "JSON list"]),
        (["import", "pool.parquet"], ["pool.parquet", "entry_id"]), (["import", "tars/00.tar"], ["tars/00.tar"]),
        (["import", "."], ["."]), (["import", "entries.txt", "--out", "tars"], ["tars", "cannot be written"]),
        (["import", "entries.txt", "--out", "/proc/nothing/x.parquet"], ["/proc/nothing/x.parquet", "cannot be written"]),
        (["import", "entries.txt", "--out", "nothing://x"], ["nothing"]),
        (["show", "none.txt"], ["none.txt", "no such file"]), (["show", "nothing://x"], ["nothing"]),
    ],
)  # fmt: skip
def test_refusals(cli, pool, monkeypatch, arguments, parts):
    monkeypatch.chdir(pool)
    message = refusal(cli("metadata", *arguments))
    assert not [part for part in parts if part not in message], message


def test_entries_of_several_languages(cli, tmp_path):
    """The same entry of two languages stays twice, and one language is shown; what never matches depends on the mode."""

    def write(name, **columns):
        ids = pa.array(range(len(columns["entry"])), pa.int32())
        pq.write_table(pa.table({"entry_id": ids, "source": ["s"] * len(ids), **columns}), tmp_path / name)
        return str(tmp_path / name)

    path = write("a", entry=["dog", "cat", "dog", "Hund", "dog"], language=["en", "en", "de", "de", "de"])
    done = cli("metadata", "show", path, "--language", "de")
    assert [line.split() for line in done.out.splitlines()[-2:]] == [["2", "de", "'dog'"], ["3", "de", "'Hund'"]]
    assert ["entries", "4", "2", "en,", "2", "de"] in [line.split() for line in done.out.splitlines()]
    assert "has no entry in it" in cli("metadata", "show", path, "--language", "fr").err
    path = write("b", entry=["St. Louis", "cat", "你好。犬", "Dr. No"], language=["en", "en", "zh", "de"])
    for more, part in (
        ([], "match them (1 en, 1 zh, 1 de): 'St. "),
        (["--mode", "worldwide"], "match them (1 en, 1 de)"),
    ):
        assert part in flat(cli("metadata", "show", path, *more).out)


@pytest.mark.thorough
def test_build(tmp_path, cli):
    write_all(tmp_path)
    out = str(tmp_path / "out/m.parquet")
    paths = ["--wiki", str(tmp_path), "--views", str(tmp_path / "views"), "--wordnet", str(tmp_path / "wordnets")]
    done = cli("metadata", "build", *paths, "--language", "de,ja", "--pmi", "4", "--out", out)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    counts = [int(line.split()[1].replace(",", "")) for line in lines if line[:2] in ("de", "ja")]
    assert lines[-1] == f"wrote {out}: {sum(counts):,} entries, and {tmp_path}/out/m.report.json"
    for start, part in (
        ("  unigram", "; the cap of 12 cut 1"),
        ("  title", "views"),
        ("", "'St. Louis'"),
        ("", "page views: 4 in"),
    ):
        assert any(line.startswith(start) and part in line for line in lines), (part, done.out)
    assert "'Haus'" in cli("metadata", "show", out, "--find", "Haus").out
    again = cli("metadata", "build", *paths[:2], "--language", "ja", "--out", out)
    assert again.out.count("no pair of words reaches PMI 30") == 1 and again.err.startswith("skipped 2 files")


@pytest.mark.thorough
def test_bad_input_of_build(tmp_path, cli):
    write_all(tmp_path)
    dump, hour, out = next(tmp_path.glob("de*.bz2")), next((tmp_path / "views").glob("*")), tmp_path / "m.parquet"
    whole = dump.read_bytes()

    def refused(status, part, *more):
        done = cli("metadata", "build", "--wiki", str(dump), "--out", str(out), *more)
        assert done.status == status and part in done.err and not done.out and not out.exists(), done

    dump.write_bytes(whole[: len(whole) // 2])
    refused(1, f"curate: {dump}: is cut off in the bzip2 stream at byte")
    dump.write_bytes(whole)
    hour.write_bytes(hour.read_bytes()[:-30])
    refused(1, f"curate: {hour}: damaged or cut off", "--views", str(tmp_path / "views"))
    refused(1, "of its lines do not consist of project", "--views", str(dump))
    refused(2, "deutsch", "--language", "deutsch")
    refused(2, "--language ja: no file of --wiki or --wordnet is in this language", "--language", "de ja")
    refused(2, "--pmi nan: accepted: a finite number", "--pmi", "nan")
    refused(2, f"--out {tmp_path}: is a folder", "--out", str(tmp_path))
    refused(2, "nonsense", "--", "--nonsense=1")
