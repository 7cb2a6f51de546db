"""Page views by mode, and broken lines."""

import gzip

import pytest

from curate.base.errors import RunError
from curate.match.building import counts
from curate.match.building.counts import count_views
from curate.match.building.wikis import Mode

LINES = [
    *("de Haus 3 0", "de.m Haus 4 0", "de.b Haus 5 0", "de.m.b Haus 6 0", "de Köln_(Stadt) 60 0", "de Datei:a 9 0"),
    *("en Dog 49 0", "en Cat 50 0", "en.m Dog 500 0", "fr Chat 9 0", "zh-yue 貓 7 0", '"" x 1 0', "de.mw x 5 0"),
    *("de a b c 1", "de x ten 0", "de Null 0 0", "de y -1 0", "de short", ""),
]


def count(tmp_path, mode, data=None):
    path = tmp_path / "pageviews-20260101-000000.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode() + b"\n") if data is None else data)
    counted, broken = count_views(str(path), {"de", "en", "zh_yue"}, mode)
    return {wiki: {row["title"]: row["views"] for row in table.to_pylist()} for wiki, table in counted.items()}, broken


def test_modes(tmp_path):
    city = {"Köln (Stadt)": 60}
    corrected, broken = count(tmp_path, Mode.corrected)
    assert corrected == {"de": {"Haus": 7, **city}, "en": {"Cat": 50}, "zh_yue": {"貓": 7}}
    assert broken == 4  # not counting lines of other projects
    worldwide, _ = count(tmp_path, Mode.worldwide)
    assert worldwide == {"de": {"Haus": 18, **city}, "en": {"Cat": 50}, "zh_yue": {"貓": 7}}
    assert count(tmp_path, Mode.reference)[0] == {"de": city, "en": {"Cat": 50}}


def test_titles_that_are_not_utf8_are_broken(tmp_path):
    data = gzip.compress("de ö 5 0\n".encode() + b'de \xff 5 0\nde b"c 1 0\n')
    assert count(tmp_path, Mode.corrected, data) == ({"de": {"ö": 5, 'b"c': 1}}, 1)
    data = gzip.compress("de ö 5 0\nde short\n".encode() + b"de \xff 5 0\nde \xff 5\n\xff\n" + b"de c 1 0\n" * 3)
    assert count(tmp_path, Mode.corrected, data) == ({"de": {"ö": 5, "c": 3}}, 4)


def test_a_line_without_end(tmp_path, monkeypatch):
    """A line of 2.5 GB once took 7 GB. It is refused wherever it begins within a block."""
    monkeypatch.setattr(counts, "_BLOCK", 1000)
    monkeypatch.setattr(counts, "_LONGEST", 100)
    for before in (b"", b"de Haus 3 0\n" * 80, b"de Haus 3 0\n" * 83, b"de Haus 3 0\n" * 200):
        for after in (b"", b" 3 0\nde Hund 4 0\n"):
            with pytest.raises(RunError, match=r"000000\.gz: has a line of more than 100 bytes; accepted: hourly"):
                count(tmp_path, Mode.corrected, gzip.compress(before + b"de " + b"x" * 5000 + after))
    assert count(tmp_path, Mode.corrected, gzip.compress(b"de Haus 3 0\n" * 1000)) == ({"de": {"Haus": 3000}}, 0)


def test_a_cut_file_is_said_and_an_empty_one_has_none(tmp_path):
    assert count(tmp_path, Mode.corrected, gzip.compress(b"")) == ({}, 0)
    assert count(tmp_path, Mode.corrected, gzip.compress(b"\n\n")) == ({}, 0)
    daily = gzip.compress(b"de.wikipedia Haus 1 desktop 5 A5\nde.wikipedia Hund 2 mobile 5 B5\n")
    with pytest.raises(RunError, match="2 of its lines do not consist of project, title, views, and bytes"):
        count(tmp_path, Mode.corrected, daily)
    data = gzip.compress("".join(f"de T{i} {i} 0\n" for i in range(5000)).encode())
    for damaged in (data[:-20], data[: len(data) // 2], b"no gzip"):
        with pytest.raises(RunError, match=r"pageviews-20260101-000000\.gz: damaged or cut off: .*download it again"):
            count(tmp_path, Mode.corrected, damaged)
