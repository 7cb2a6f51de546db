"""Why a sample is in or out, in words: every way to end, shown once."""

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.explain import explain_sample
from curate.base.errors import RecipeError, RunError
from curate.base.ids import entry_keys
from curate.cli.finished import explain
from curate.decide.draw import inclusion
from tests.kit.written_runs import (
    ENTRIES,
    RUN,
    SMALL,
    finish,
    run_query,
    sample,
    uid,
    verdict,
    write_bare,
    write_small,
    write_units,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("small"))
    write_small(url)
    return url


def lines(url, name):
    return [" ".join(line.split()) for line in str(explain_sample(url, uid(name))).splitlines()]


def section(shown, title):
    """The lines below a heading."""
    begin = next(place for place, line in enumerate(shown) if line.split(" ")[0] == title) + 1
    return shown[begin : [*shown, ""].index("", begin)]


def test_kept_and_its_double(small):
    shown = lines(small, "a1")
    assert shown[:4] == [
        f"uid {uid('a1')}",
        "2 rows of the pool have this uid: 1 kept, 1 dropped by duplicate",
        "",
        shown[3],
    ]
    second = next(place for place, line in enumerate(shown) if line.startswith("verdict: dropped"))
    first, other = shown[3:second], shown[second:]
    assert first[:4] == [
        "verdict: kept: its draw u/p = 0 is below 1 (probability 1)",
        "source photos: photos.tar a1 (unit 0, row 0)",
        "caption a red cat",
        "url http://x/a1",
    ]
    assert section(first, "rules") == [
        "✓ words words > 2 [words = 3]",
        "✓ side least(width, height) >= 200 [width = 640, height = 480]",
        "✓ aligned top 0.9 of clip_score, threshold 0.25 [clip_score = 0.5]",
    ]
    assert section(first, "duplicates") == [
        f"{uid('a5')} a cat again and now (photos: photos.tar a5)",
        f"{uid('a1')} a red cat (web: web.tar b5)",
    ]
    assert section(first, "published") == ["shards/00000.tar: a1.jpg, a1.json, a1.txt"]
    assert "bytes 1000" in section(first, "measured")
    assert other[0] == f"verdict: dropped by duplicate, a duplicate of {uid('a1')}"
    assert section(other, "duplicates") == [
        f"representative {uid('a1')}",
        "kept: a red cat (photos: photos.tar a1)",
        "match same uid; same image; same URL",
        "url http://x/a1",
    ]
    assert not any(line.startswith("published") for line in other)


def test_how_near_a_duplicate_is(tmp_path):
    rows = [
        (sample("a", "a cat", phash=0b1111), verdict(), [0], 0.5),
        (sample("b", "one cat", phash=0b1001), verdict("duplicate", of="a"), [0], 0.5),
        (sample("c", "cats", phash=None, sha256=None), verdict("duplicate", of="a"), [0], 0.5),
    ]
    folder = write_units(str(tmp_path), [rows])
    assert section(lines(folder.url, "b"), "duplicates")[3] == "match 2 of 64 bits of phash differ"
    assert section(lines(folder.url, "c"), "duplicates")[2:-1] == ["joined through other rows of its group"]
    table = pa.table(
        {
            "unit": pa.array([0, 0, 0], pa.int32()),
            "row": pa.array([0, 1, 2], pa.int32()),
            "uid": [uid(name) for name in "abc"],
            "big_image": pa.array([[1, 0], [0.6, 0.8], [0, 0]], pa.list_(pa.float16(), 2)),
            "big_text": pa.array([[1, 0], [0.6, 0.8], [0, 0]], pa.list_(pa.float16(), 2)),
        }
    )
    folder.write_parquet("tables/embeddings/00000.parquet", table)
    finish(folder, RUN)
    shown = section(lines(folder.url, "b"), "duplicates")[3]
    assert shown == "match 2 of 64 bits of phash differ; 0.6002 is the cosine of big_image embeddings"
    assert section(lines(folder.url, "c"), "duplicates")[2:-1] == ["joined through other rows of its group"]


def test_the_chain_of_a_duplicate(tmp_path):
    """Of a pass by hashes the row in between is named; `d` is its copy, and no nearer to the representative."""
    rows = [
        (sample("a", "a cat", phash=0), verdict(), [0], 0.5),
        (sample("b", "one cat", phash=0b11), verdict("duplicate", of="a"), [0], 0.5),
        (sample("c", "cats", phash=0b1111), verdict("duplicate", of="a"), [0], 0.5),
        (sample("d", "cats", phash=0b1111), verdict("duplicate", of="a"), [0], 0.5),
        (sample("e", "far", phash=0xFF00), verdict("duplicate", of="a"), [0], 0.5),
    ]
    folder = write_units(str(tmp_path), [rows])
    recipe = RUN["recipe"] | {"dedup": {"by": ["uid", {"phash": {"distance": 2}}]}}
    finish(folder, RUN | {"recipe": recipe})
    shown = {name: section(lines(folder.url, name), "duplicates")[2:-1] for name in "bce"}
    assert shown["b"] == ["joined by {phash: {distance: 2}}", "match 2 of 64 bits of phash differ"]
    assert shown["c"] == [
        f"joined by {{phash: {{distance: 2}}}}, through {uid('b')} of its group: 2 of 64 bits differ",
        "match 4 of 64 bits of phash differ",
    ]
    assert shown["e"] == ["joined through other rows of its group", "match 8 of 64 bits of phash differ"]


def test_entries_and_their_draws(small):
    shown = section(lines(small, "a1"), "entries")
    assert shown[0] == "entry in pool at balance p u u/p"
    assert shown[1].startswith("✓ red 2 1 1 ") and shown[2].split()[1:5] == ["cat", "7", "4", "0.5"]
    ledger = run_query(small, "SELECT survivors FROM entries WHERE entry = 'cat'").rows[0][0]
    drawn = inclusion.draw(
        pa.array([uid("a1")]), pa.array([[0]], pa.list_(pa.int32())), np.array([ledger]), np.array([2]),
        entry_keys(pa.array(["cat"])), 7,
    )[0]  # fmt: skip
    assert shown[2].split()[0] == ("✓" if drawn < 1 else "✗")
    assert [float(number) for number in shown[2].split()[5:7]] == pytest.approx([drawn / 2, drawn], rel=1e-3)
    assert sum("← smallest" in line for line in shown) == 1
    undrawn = section(lines(small, "a5"), "entries")  # a duplicate: it did not come to balancing
    assert undrawn == ["entry in pool at balance p", "cat 7 4 0.5"]


def test_given_counts_are_shown(tmp_path):
    """Those of another run, by which rows are drawn: t / p where p is below 1."""
    recipe = RUN["recipe"] | {"balance": {"t": 2, "counts": "/runs/whole"}}
    entries = [(*entry[:6], 0.25, *entry[7:]) if entry[1] == "cat" else entry for entry in ENTRIES]
    url = write_units(f"{tmp_path}/run", SMALL, RUN | {"recipe": recipe}, entries).url
    [heading] = [line for line in lines(url, "a5") if line.startswith("entries")]
    assert heading.endswith("given are the counts of /runs/whole")
    assert section(lines(url, "a5"), "entries") == ["entry in pool at balance given p", "cat 7 4 8 0.25"]
    shown = section(lines(url, "a1"), "entries")
    assert shown[0] == "entry in pool at balance given p u u/p"
    assert shown[1].startswith("✓ red 2 1 at most 2 1 ") and shown[2].split()[1:6] == ["cat", "7", "4", "8", "0.25"]


def test_dropped_by_a_rule(small):
    shown = lines(small, "a4")
    assert shown[2] == "verdict: dropped by side, the first rule that it fails"
    assert section(shown, "rules") == [
        "✓ words words > 2 [words = 4]",
        "✗ side fails here: least(width, height) >= 200 [width = 100, height = 80]",
        "– aligned not reached, would pass: top 0.9 of clip_score, threshold 0.25 [clip_score = 0.4]",
    ]
    assert not any(line.startswith("published") for line in shown)


def test_dropped_by_a_top_rule(small):
    assert "✗ aligned fails here: top 0.9 of clip_score, threshold 0.25 [clip_score = 0.125]" in lines(small, "b4")


def test_drawn_and_not_drawn(small):
    assert "verdict: kept: its draw u/p = 0.9 is below 1 (probability 0.5)" in lines(small, "b6")
    assert "verdict: dropped by balance, its draw u/p = 1.7 is not below 1 (probability 0.5)" in lines(small, "b2")


def test_unmatched(small):
    shown = lines(small, "b1")
    assert "entries none matched" in shown
    assert shown[2] == "verdict: dropped by unmatched, no entry of the metadata occurs in its caption"


def test_unreadable(tmp_path):
    folder = write_small(str(tmp_path))
    for name in ("samples", "decisions"):  # a source that brings uids knows the uid of what it cannot read
        table = folder.read_parquet(f"tables/{name}/00000.parquet")
        rows = [row | {"uid": row["uid"] or uid("a3")} for row in table.to_pylist()]
        folder.write_parquet(f"tables/{name}/00000.parquet", table.from_pylist(rows, schema=table.schema))
    shown = lines(str(tmp_path), "a3")
    assert shown[2].startswith("verdict: failed, could not be read: truncated_image (the image ends")
    assert shown[2].endswith(": ends at byte 100")
    assert "– words not reached: words > 2 [words = 4]" in shown


def test_forgotten(tmp_path):
    folder = write_small(str(tmp_path))
    table = folder.read_parquet("tables/decisions/00000.parquet")
    rows = [row | {"rule": "forgotten"} if row["uid"] == uid("a4") else row for row in table.to_pylist()]
    folder.write_parquet("tables/decisions/00000.parquet", table.from_pylist(rows, schema=table.schema))
    shown = lines(str(tmp_path), "a4")
    assert shown[2] == "verdict: forgotten, removed on request"
    assert not any(line.startswith(("rules", "entries", "measured")) for line in shown)


def test_an_imageless_run(tmp_path):
    write_bare(str(tmp_path))
    shown = lines(str(tmp_path), "c1")
    assert shown[2] == "verdict: kept" and section(shown, "published") == ["shards/00000.parquet"]
    assert not any(line.startswith("entries") for line in shown)


def test_null_fails_and_is_shown(tmp_path):
    folder = write_bare(str(tmp_path))
    run = folder.read_json("run.json")
    run["rules"] = [{"name": "words", "sql": "width > 10"}, {"name": "long", "sql": "characters >= 3"}]
    folder.write_json("run.json", run)
    shown = lines(str(tmp_path), "c0")
    assert "✗ words fails here: width > 10 [width = NULL; NULL fails]" in shown
    assert "– long not reached, would pass: characters >= 3 [characters = 3]" in shown


def test_control_characters_are_escaped(small):
    text = str(explain_sample(small, uid("a6")))
    assert "\x1b" not in text and "\u202e" not in text
    assert "caption  caption \\x1b[31mred\\x1b[0m <script>\\u202eafter" in text


def test_a_sample_is_found_by_uid_url_or_key(small):
    page = str(explain_sample(small, uid("a1")))
    assert str(explain_sample(small, f" {uid('a1').upper()} ")) == page
    page = str(explain_sample(small, uid("a6")))
    assert str(explain_sample(small, "a6.jpg")) == str(explain_sample(small, "a6"))
    for kind, name in (("url", "http://x/a6"), ("key", "a6")):
        shown = str(explain_sample(small, name))
        assert shown.startswith(f"{kind} {name}\n\nuid {uid('a6')}\nverdict: ")
        assert shown.partition("verdict")[2] == page.partition("verdict")[2]


def test_a_sample_without_a_uid_is_found_by_its_key(small):
    sql = "SELECT key FROM samples WHERE uid IS NULL AND key IS NOT NULL"
    (key,) = next(iter(run_query(small, sql).rows))
    shown = str(explain_sample(small, key)).splitlines()
    assert shown[:3] == [f"key {key}", "", "no uid"]
    assert shown[3].startswith("verdict: failed, could not be read: ")


@pytest.mark.parametrize("name", ["zz", "", "https://example.com/none"])
def test_what_no_row_has(small, name):
    with pytest.raises(
        RecipeError, match=f"none of its 12 rows has the URL, file or key '{name}' \\(a uid has 32 hex digits\\)"
    ):
        explain_sample(small, name)


def test_what_no_row_has_is_spelled_once(small):
    with pytest.raises(RecipeError) as raised:
        explain_sample(small, "\x1b[2J\u202e&amp;")
    assert r"key '\x1b[2J\u202e&amp;' (a" in str(raised.value)


def test_a_uid_that_no_row_has(small):
    with pytest.raises(RunError, match=f"none of its 12 rows has uid {uid('ff')}"):
        explain_sample(small, uid("ff"))


def test_rows_of_one_key_are_shown_one_after_another(tmp_path):
    rows = [(sample(f"{place:x}", "a cat", key="same"), verdict("side"), [0], 0.5) for place in range(25)]
    shown = str(explain_sample(write_units(str(tmp_path), [rows]).url, "same")).splitlines()
    assert shown[1] == "25 rows of the pool have this key: 25 dropped by side; the first 20 follow"
    assert len([row for row in shown if row.startswith("verdict")]) == 20


def test_the_command(small, capsys):
    explain(small, uid("a1"))
    assert "verdict: kept" in capsys.readouterr().out
