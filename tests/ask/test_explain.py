"""Explanations of a sample's decision: facts in each section, the ways to name a sample, and refusals."""

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


def lines(url, name):
    return [" ".join(line.split()) for line in str(explain_sample(url, uid(name))).splitlines()]


def section(shown, title):
    """The lines below a heading."""
    begin = next(place for place, line in enumerate(shown) if line.split(" ")[0] == title) + 1
    return shown[begin : [*shown, ""].index("", begin)]


def change_rows(folder, table, change):
    path = f"tables/{table}/00000.parquet"
    rows = folder.read_parquet(path)
    folder.write_parquet(path, pa.Table.from_pylist([row | change(row) for row in rows.to_pylist()], rows.schema))


def test_how_similar_a_duplicate_is(tmp_path):
    """`b` joins by its hash, `c` through `b`, and `e` through rows that are unknown."""
    phashes = {"a": 0b0, "b": 0b11, "c": 0b1111, "d": 0b1111, "e": 0xFF00}
    copied = verdict("duplicate", of="a")
    rows = [(sample(name, f"{name} cat", phash=phash), copied, [0], 0.5) for name, phash in phashes.items()]
    rows[0] = (rows[0][0], verdict(), [0], 0.5)
    rows.append((sample("f", "cats", phash=None, sha256=None), copied, [0], 0.5))
    folder = write_units(str(tmp_path), [rows])
    assert "match 2 of 64 bits of phash differ" in lines(folder.url, "b")
    assert section(lines(folder.url, "f"), "duplicates")[2:-1] == ["joined through other rows of its group"]
    vectors = pa.array([[1, 0], [0.6, 0.8], *[[0, 0]] * 4], pa.list_(pa.float16(), 2))
    places = {"unit": pa.array([0] * 6, pa.int32()), "row": pa.array(range(6), pa.int32())}
    embeddings = pa.table(places | {"uid": [uid(name) for name in "abcdef"], "big_image": vectors, "big_text": vectors})
    folder.write_parquet("tables/embeddings/00000.parquet", embeddings)
    recipe = RUN["recipe"] | {"dedup": {"by": ["uid", {"phash": {"distance": 2}}]}}
    finish(folder, RUN | {"recipe": recipe})
    shown = {name: section(lines(folder.url, name), "duplicates")[2:-1] for name in "bce"}
    joined = "joined by {phash: {distance: 2}}"
    assert shown["b"] == [joined, "match 2 of 64 bits of phash differ; 0.6002 is the cosine of big_image embeddings"]
    assert shown["c"] == [
        f"{joined}, through {uid('b')} in its group: 2 of 64 bits differ", "match 4 of 64 bits of phash differ",
    ]  # fmt: skip
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
    undrawn = section(lines(small, "a5"), "entries")  # a duplicate: it did not reach balancing
    assert undrawn == ["entry in pool at balance p", "cat 7 4 0.5"]


def test_counts_of_another_run_are_shown(tmp_path):
    """They decide the draws: t / p, if p is below 1."""
    recipe = RUN["recipe"] | {"balance": {"t": 2, "counts": "/runs/whole"}}
    entries = [(*entry[:6], 0.25, *entry[7:]) if entry[1] == "cat" else entry for entry in ENTRIES]
    url = write_units(f"{tmp_path}/run", SMALL, RUN | {"recipe": recipe}, entries).url
    assert section(lines(url, "a5"), "entries") == ["entry in pool at balance given p", "cat 7 4 8 0.25"]
    shown = section(lines(url, "a1"), "entries")
    assert shown[0] == "entry in pool at balance given p u u/p"
    assert shown[1].startswith("✓ red 2 1 at most 2 1 ") and shown[2].split()[1:6] == ["cat", "7", "4", "8", "0.25"]


def test_unreadable_and_forgotten_samples(tmp_path):
    folder = write_small(str(tmp_path))
    for name in ("samples", "decisions"):  # a source with its own uids knows the uid of what it cannot read
        change_rows(folder, name, lambda row: {"uid": row["uid"] or uid("a3")})
    change_rows(folder, "decisions", lambda row: {"rule": "forgotten"} if row["uid"] == uid("a4") else {})
    shown = lines(str(tmp_path), "a3")
    assert shown[2].startswith("verdict: failed, could not be read: truncated_image (")
    assert shown[2].endswith(": ends at byte 100") and "– words not reached: words > 2 [words = 4]" in shown
    shown = lines(str(tmp_path), "a4")
    assert shown[2] == "verdict: forgotten, removed on request"
    assert not any(line.startswith(("rules", "entries", "measured")) for line in shown)


def test_a_rule_fails_on_null(tmp_path):
    folder = write_bare(str(tmp_path))
    run = folder.read_json("run.json")
    run["rules"] = [{"name": "words", "sql": "width > 10"}, {"name": "long", "sql": "characters >= 3"}]
    folder.write_json("run.json", run)
    shown = lines(str(tmp_path), "c0")
    assert "✗ words fails here: width > 10 [width = NULL; NULL fails]" in shown
    assert "– long not reached, would pass: characters >= 3 [characters = 3]" in shown


def test_a_sample_is_found_by_uid_url_or_key(small, capsys):
    page = str(explain_sample(small, uid("a6")))
    assert str(explain_sample(small, f" {uid('a6').upper()} ")) == page
    assert "\x1b" not in page and "\u202e" not in page and "\\x1b[31mred\\x1b[0m <script>\\u202eafter" in page
    assert str(explain_sample(small, "a6.jpg")) == str(explain_sample(small, "a6"))
    for kind, name in (("url", "http://x/a6"), ("key", "a6")):
        shown = str(explain_sample(small, name))
        assert shown.startswith(f"{kind} {name}\n\nuid {uid('a6')}\nverdict: ")
        assert shown.partition("verdict")[2] == page.partition("verdict")[2]
    assert str(explain_sample(small, "a3")).startswith("key a3\n\nno uid\nverdict: failed, could not be read: ")
    explain(small, uid("a6"))
    assert capsys.readouterr().out == page


def test_rows_of_one_key_are_shown_one_after_another(tmp_path):
    rows = [(sample(f"{place:x}", "[red]¦[/] \\", key="same"), verdict("side"), [0], 0.5) for place in range(25)]
    shown = str(explain_sample(write_units(str(tmp_path), [rows]).url, "same")).splitlines()
    assert shown[1] == "25 rows of the pool have this key: 25 dropped by side; the first 20 follow"
    assert len([row for row in shown if row.startswith("verdict")]) == 20
    assert shown.count("  caption  [red]¦[/] \\") == 20, "a caption is no markup"


def test_what_no_row_has(small):
    for name, spelled in (("zz", "zz"), ("", ""), ("\x1b[2J\u202e&amp;", r"\x1b[2J\u202e&amp;")):
        with pytest.raises(RecipeError) as refused:
            explain_sample(small, name)
        assert f"none of its 12 rows has the URL, file or key '{spelled}' (a uid has 32 hex" in str(refused.value)
    with pytest.raises(RunError, match=f"none of its 12 rows has uid {uid('ff')}"):
        explain_sample(small, uid("ff"))
