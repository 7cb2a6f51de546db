"""Why a sample is in or out, in words: every way to end, shown once."""

from pathlib import Path

import pytest

from curate.cli.sql import explain
from curate.errors import RecipeError, RunError
from curate.publish.explain import explain_sample
from tests.publish.runs import uid, write_bare, write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("small"))
    write_small(url)
    return url


def lines(url: str, name: str) -> list[str]:
    return [" ".join(line.split()) for line in explain_sample(url, uid(name)).splitlines()]


def test_kept_and_its_double(small: str) -> None:
    told = lines(small, "a1")
    assert told[:2] == [f"uid {uid('a1')}", "2 rows of the pool have this uid"]
    first, second = told[: told.index("verdict: kept") + 2], told[told.index("verdict: kept") + 2 :]
    assert "unit 0, row 0, source photos: photos.tar a1" in first
    assert "words passed: words > 2 [words = 3]" in first
    assert "aligned passed: top 0.9 of clip_score, which is from 0.25 on [clip_score = 0.5]" in first
    assert "red: 2 rows of the pool, 1 before balancing, p 1 (tail: always drawn)" in first
    assert "cat: 7 rows of the pool, 4 before balancing, p 0.5 (head: thinned)" in first
    assert "duplicates: stands for 2 other rows" in first
    assert first[-1] == "published: shards/00000.tar, key a1"
    assert "unit 1, row 4, source web: web.tar b5" in second
    assert second[-1] == f"verdict: dropped by duplicate, a duplicate of {uid('a1')}"


def test_dropped_by_a_rule(small: str) -> None:
    told = lines(small, "a4")
    assert "words passed: words > 2 [words = 4]" in told
    assert "side FAILED HERE: least(width, height) >= 200 [width = 100, height = 80]" in told
    assert any(line.startswith("aligned not reached (would pass): top 0.9") for line in told)
    assert told[-1] == "verdict: dropped by side, the first rule that it fails"
    assert not any(line.startswith("published") for line in told)


def test_dropped_by_a_top_rule(small: str) -> None:
    assert "aligned FAILED HERE: top 0.9 of clip_score, which is from 0.25 on [clip_score = 0.125]" in lines(
        small, "b4"
    )


def test_drawn_and_not_drawn(small: str) -> None:
    assert "balance: probability 0.5, draw 0.9 (below 1: kept)" in lines(small, "b6")
    told = lines(small, "b2")
    assert "balance: probability 0.5, draw 1.7 (not below 1: dropped)" in told
    assert told[-1] == "verdict: dropped by balance, not drawn"


def test_unmatched(small: str) -> None:
    told = lines(small, "b1")
    assert "entries: none matches" in told
    assert told[-1] == "verdict: dropped by unmatched, no entry of the metadata occurs in its caption"


def test_unreadable(tmp_path: Path) -> None:
    folder = write_small(str(tmp_path))
    for name in ("samples", "decisions"):  # a source that brings uids knows the uid of what it cannot read
        table = folder.read_parquet(f"tables/{name}/00000.parquet")
        rows = [row | {"uid": row["uid"] or uid("a3")} for row in table.to_pylist()]
        folder.write_parquet(f"tables/{name}/00000.parquet", table.from_pylist(rows, schema=table.schema))
    told = lines(str(tmp_path), "a3")
    assert told[-1].startswith("verdict: dropped by failed, could not be read: truncated_image (the image ends")
    assert told[-1].endswith(": ends at byte 100")
    assert "words not reached: words > 2 [words = 4]" in told


def test_an_imageless_run(tmp_path: Path) -> None:
    write_bare(str(tmp_path))
    told = lines(str(tmp_path), "c1")
    assert told[-2:] == ["verdict: kept", "published: shards/00000.parquet"]
    assert not any(line.startswith("entries") for line in told)


def test_null_fails_and_is_said(tmp_path: Path) -> None:
    folder = write_bare(str(tmp_path))
    run = folder.read_json("run.json")
    run["rules"] = [{"name": "words", "sql": "width > 10"}, {"name": "long", "sql": "characters >= 3"}]
    folder.write_json("run.json", run)
    told = lines(str(tmp_path), "c0")
    assert "words FAILED HERE: width > 10 [width = NULL; NULL fails]" in told
    assert "long not reached (would pass): characters >= 3 [characters = 3]" in told


def test_control_characters_are_escaped(small: str) -> None:
    text = explain_sample(small, uid("a6"))
    assert "\x1b" not in text and "\u202e" not in text
    assert "caption \\x1b[31mred\\x1b[0m <script>\\u202eafter" in text


def test_which_uids_are_accepted(small: str) -> None:
    assert explain_sample(small, f" {uid('a1').upper()} ") == explain_sample(small, uid("a1"))
    with pytest.raises(RecipeError, match="32 hex digits"):
        explain_sample(small, "a1")
    with pytest.raises(RunError, match=f"none of its 12 rows has uid {uid('ff')}"):
        explain_sample(small, uid("ff"))


def test_the_command(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain(small, uid("a1"))
    assert "verdict: kept" in capsys.readouterr().out
