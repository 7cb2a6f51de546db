"""report.html: what it says agrees with the run, it refers to nothing outside, and whatever a run holds it stays small."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import fsspec
import pytest

from curate.ask.diff import changed_samples, diff_runs
from curate.ask.opened import connected
from curate.ask.report import galleries
from curate.ask.report.blocks import Bar, Table
from curate.ask.report.page import MOST_BYTES, render_page, write_report
from curate.ask.report.sections import funnel_table, time_section
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError, RunError
from curate.cli.finished import report
from curate.publish.audit import Audit
from curate.publish.describe import describe_run
from curate.store.facts import read_facts
from curate.store.layout import REPORT_FILE, SUCCESS_FILE
from curate.store.manifest import Lines, read_manifest
from curate.store.store import RunStore
from tests import kit
from tests.ask.pages import Page, write_hostile
from tests.ask.test_diff import write_a, write_b
from tests.kit.written_runs import RUN, sample, uid, verdict, write_bare, write_small, write_units


def page_of(url):
    with connected(url) as run:
        return Page(render_page(run))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("small"))
    write_small(url)
    return url


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("hostile"))
    write_hostile(url)
    return page_of(url)


def harmless(page):
    """Nothing in the page runs, refers or loads: elements and attributes of a short list, and no address but data."""
    forbidden = {"iframe", "object", "embed", "form", "base", "foreignobject", "use", "image", "animate", "set"}
    assert not page.names() & forbidden
    for name, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (name, attribute)
            if attribute in ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "background"):
                assert value and value.startswith(("#", "data:image/jpeg;base64,", "data:,")), (name, value)
            if attribute == "style":
                assert re.fullmatch(r"(--length:[\d.]+|max-width:[\d.]+px)", value or ""), value
    script = files("curate.ask.report").joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert [dict(a)["content"] for n, a in page.elements if n == "meta" and "http-equiv" in a] == [
        f"default-src 'none'; script-src 'sha256-{digest}'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]
    assert [a for n, a in page.elements if n == "script"] == [{}] and f"<script>{script}</script>" in page.html
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(", script)
    style = page.html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and len(style) > 1000


# ---- what it says


def test_what_came_of_urls(tmp_path, small):
    """Of sources that download; a host's name is a stranger's."""
    rows = [
        (sample(f"w{i}", "a", url=f"http://h{i}<b>/", status=reason, sha256=None), verdict("failed"), [], None)
        for i, reason in enumerate(("http_503", "http_404"))
    ]
    rows.append((sample("w2", "a b c"), verdict(), [], None))
    failures = [
        {"unit": 0, "row": row, "shard": "s", "key": f"w{row}", "reason": reason, "attempts": 3, "may_pass": row == 0}
        for row, reason in enumerate(("http_503", "http_404"))
    ]
    run = RUN | {"recipe": {"input": [{"name": "photos", "format": "urls", "path": "list.parquet"}]}}
    page = page_of(write_units(str(tmp_path), [rows], run, failures=failures).url)
    harmless(page)
    assert "1 of 3 URLs were downloaded (33.33 %). 2 were not; 1 of them may succeed on another attempt" in page.text
    assert "its host answered 503 Service Unavailable" in page.text and "h1<b>" in page.text
    assert 'id="downloads"' in page.html and 'id="downloads"' not in page_of(small).html


def test_the_funnel_sums(small):
    with connected(small) as run:
        table = funnel_table(run)
    rows = [[getattr(cell, "text", cell) for cell in row] for row in table.rows]
    assert [row[:2] for row in rows] == [
        ["pool", "12"], ["failed", "−1"], ["words", "−1"], ["side", "−1"], ["aligned", "−1"], ["unmatched", "−1"],
        ["duplicate", "−2"], ["balance", "−1"], ["kept", "4"],
    ]  # fmt: skip
    assert [row[3] for row in rows] == ["12", "11", "10", "9", "8", "7", "5", "4", "4"]
    parts = [row[2].split("\N{NO-BREAK SPACE}")[0] for row in rows[1:]]
    assert parts == ["8.33"] * 5 + ["16.67", "8.33", "33.33"]  # of the pool
    assert [row[5] for row in rows][2:5] == ["words > 2", "least(width, height) >= 200", "top 0.9 of clip_score"]


def test_it_tells_the_run(small):
    page = page_of(small)
    harmless(page)
    assert "4 of 12 image-text pairs kept (33.33\N{NO-BREAK SPACE}%)".replace("\N{NO-BREAK SPACE}", " ") in page.text
    ids = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert ids == [
        "funnel",
        "distributions",
        "entries",
        "composition",
        "captions",
        "duplicates",
        "failures",
        "samples",
        "time",
        "provenance",
    ]
    links = [attributes["href"] for name, attributes in page.elements if name == "a"]
    assert links == [f"#{i}" for i in ids]
    for text in (
        "begins with <html>",
        "Dropped by aligned: 1",
        "top 0.9 of clip_score: at least 0.25",
        "t = 2",
        uid("b2"),
        "key a3",  # one without a uid
    ):
        assert text in page.text
    labels = [a["aria-label"] for n, a in page.elements if n == "svg"]
    assert any("clip_score" in label for label in labels) and any("by rank" in label for label in labels)
    assert "<title>0.4" in page.html  # tooltips of bins


@pytest.mark.parametrize("rows", [("one",), (), ("two words here",), ("one", "two words here", "three words here")])
def test_runs_without_images_scores_match_and_captions(rows, tmp_path):
    write_bare(str(tmp_path), rows)
    page = page_of(str(tmp_path))
    harmless(page)
    assert {"funnel", "samples", "provenance"} <= {a["id"] for n, a in page.elements if n == "section"}
    assert "img" not in page.names()


def test_captions_are_shown_side_by_side(tmp_path):
    texts = [
        ("rewrite", "human", "a cat, and it is red", "passed", []),
        ("rewrite", "coco", "five dogs", "numbers", ["numbers", "entries"]),
    ]
    captions = [
        {"uid": uid("a1"), "kind": kind, "style": style, "ordinal": 0, "text": text, "gate": gate, "failed": failed, "status": "ok"}
        for kind, style, text, gate, failed in texts
    ]  # fmt: skip
    work = {"kind": "rewrite", "engine": "e", "model": "tiny", "requests": 2, "sent": 2, "failed": 0, "passed": 1, "replaced": 0, "tokens_in": 30, "tokens_out": 10, "seconds": 2.0, "cost": None}  # fmt: skip
    write_units(
        str(tmp_path),
        [[(sample("a1", "a red cat"), verdict(None, 1.0, 0.0), [0], 0.5)]],
        RUN | {"caption_work": [work]},
        captions=captions,
    )
    page = page_of(str(tmp_path))
    harmless(page)
    shown = page.text
    for text in (
        "a red cat",
        "a cat, and it is red",
        "five dogs",
        "rewrite coco: failed numbers, entries",
        "rewrite human: passed",
        "tokens/s",
        "20",
    ):
        assert text in shown
    assert any(
        a.get("aria-label") == "Words per caption: originals and rewrite" for n, a in page.elements if n == "svg"
    )


# ---- strangers


def test_hostile_texts_are_inert_and_bounded(hostile):
    harmless(hostile)
    assert len(hostile.html.encode()) < 1_500_000
    assert "<script>document" in hostile.text  # as text
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]", hostile.html
    )
    assert "\\u202eright to left" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text and "49" not in hostile.text.split()
    assert "x" * 600 not in hostile.html and "\u0301" * 600 not in hostile.html


@pytest.mark.thorough
def test_it_stays_small_whatever_the_run_holds(tmp_path):
    """600 rules that drop, 600 sources, huge captions and entries."""
    names = [f"rule_{i}_{'<' * 90}" for i in range(600)]
    rules = [
        {"name": name, "sql": f"words > 2 AND '{'&' * 3000}' <> ''", "top": None, "of": None, "threshold": None}
        for name in names
    ]
    rows = [
        (sample(f"r{i}", "<&" * 4000, f"s{i % 600}{'&' * 300}", url="<" * 5000, key="k" * 900, language=f"l{i % 300}", width=i, words=i % 90), verdict(names[i % 600]), [0], i / 9)
        for i in range(1800)
    ]  # fmt: skip
    rows += [(sample(f"k{i}", "<&" * 4000), verdict(None, 1.0, 0.0), [0], 0.5) for i in range(20)]
    entries = [(i, "<" * 5000, "w", "en", 3, 3, 0.5, 1.0, i % 3) for i in range(400)]
    write_units(str(tmp_path), [rows], RUN | {"rules": rules, "recipe": RUN["recipe"] | {"rules": names * 3}}, entries)
    path, size = write_report(str(tmp_path))
    assert size == Path(path).stat().st_size < MOST_BYTES // 2
    page = Page(Path(path).read_text())
    harmless(page)
    assert re.search(r"^40\d more steps$", page.text, re.MULTILINE)
    assert "570 steps that dropped few samples are left out." not in page.text and "571 steps" in page.text


# ---- thumbnails


def pool(path, shards, order=None):
    samples = kit.make_samples(60)
    where = kit.write_tars(path / "tars", samples if order is None else kit.shuffled(samples, order), shards)
    return kit.recipe_of(where, max_failed=1.0, seed=3)


def cards(page):
    return re.findall(r'<article class="card">.*?</article>', page.html, re.DOTALL)


def pictures(page):
    return sum(name == "img" for name, _ in page.elements)


@pytest.mark.thorough
def test_galleries_do_not_depend_on_sharding(tmp_path):
    kit.run_local(pool(tmp_path / "a", 3), tmp_path / "run_a")
    kit.run_local(pool(tmp_path / "b", 7, order=1), tmp_path / "run_b")
    a, b = page_of(str(tmp_path / "run_a")), page_of(str(tmp_path / "run_b"))
    harmless(a)
    assert pictures(a) > 20
    assert cards(a) == cards(b)
    assert cards(a) == cards(page_of(str(tmp_path / "run_a")))


@pytest.mark.thorough
def test_inputs_that_are_gone_or_changed(tmp_path):
    kit.run_local(pool(tmp_path, 3), tmp_path / "run")
    url = str(tmp_path / "run")
    whole = page_of(url)
    tars = sorted((tmp_path / "tars").glob("*.tar"))
    kept = re.compile(r"<h3>Kept.*?<h3>", re.DOTALL)
    sizes = [tar.stat().st_size for tar in tars]
    for content, word in ((None, "no longer exists"), ("whole", "has changed"), ("short", "has changed")):
        for tar, size in zip(tars, sizes, strict=True):
            tar.write_bytes(b"\xff" * size if content == "whole" else b"short") if content else tar.unlink()
        page = page_of(url)
        harmless(page)
        assert f"the input {word}" in page.text
        assert kept.findall(page.html) == kept.findall(whole.html)  # from the published shards
        assert 0 < pictures(page) < pictures(whole)
    for shard in (tmp_path / "run" / "shards").glob("*.tar"):
        shard.unlink()
    assert pictures(page_of(url)) == 0


def test_thumbnails_share_a_budget(tmp_path, monkeypatch):
    kit.run_local(pool(tmp_path, 1), tmp_path / "run")
    monkeypatch.setattr(galleries, "BUDGET", 20_000)
    page = page_of(str(tmp_path / "run"))
    data = [a["src"] for n, a in page.elements if n == "img"]
    assert 0 < sum(len(text or "") for text in data) <= 20_000
    assert "size limit is reached" in page.text


def test_images_of_parquet_pools(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    samples = [s for s in kit.make_samples(24) if s.image and s.caption]
    table = pa.table({"text": [s.caption for s in samples], "image": [s.image for s in samples]})
    pq.write_table(table, tmp_path / "pool.parquet", row_group_size=7)
    source = [{"name": "web", "format": "parquet", "path": str(tmp_path / "pool.parquet")}]
    kit.run_local(kit.recipe_of("", input=source, max_failed=1.0), tmp_path / "run")
    assert pictures(page_of(str(tmp_path / "run"))) > 8


# ---- where it goes


def test_the_manifest_lists_it_and_a_rerun_replaces_it(tmp_path, capsys):
    url = str(tmp_path / "run")
    kit.run_local(pool(tmp_path, 2), tmp_path / "run")
    report(url)
    assert capsys.readouterr().out.startswith(f"{url}/report.html: ")
    first = Path(f"{url}/{REPORT_FILE}").read_bytes()
    assert verify_run(url)[1] == []
    Path(f"{url}/{REPORT_FILE}").write_text("something else")
    assert verify_run(url)[1] != []
    report(url)
    assert Path(f"{url}/{REPORT_FILE}").read_bytes() == first
    assert verify_run(url)[1] == []
    lines = [line.path for line in read_manifest(RunStore(url))]
    assert lines == sorted(set(lines)) and REPORT_FILE in lines


def test_what_changes_a_run_removes_its_report(tmp_path):
    """It would go on showing what is not in the run any more."""
    folder = write_small(str(tmp_path))
    write_report(str(tmp_path))
    folder.write_json("shards/sizes.json", {})
    describe_run(folder, read_facts(folder).changed(recipe=RUN["recipe"] | {"input": []}), Lines(), Audit(), [], None)
    assert not folder.exists(REPORT_FILE) and folder.exists(SUCCESS_FILE)


@pytest.mark.thorough
def test_elsewhere(small, tmp_path):
    before = RunStore(small).files()
    path, size = write_report(small, str(tmp_path / "page.html"))
    assert path == str(tmp_path / "page.html") and (tmp_path / "page.html").stat().st_size == size
    assert RunStore(small).files() == before
    with pytest.raises(RecipeError, match=r"--out .*: cannot be written"):
        write_report(small, str(tmp_path / "none" / "page.html"))
    assert not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match=r"--out .*: cannot be written"):
        write_report(small, str(tmp_path / "page.html" / "below"))


def test_a_remote_run():
    url = "memory://report/run"
    write_small(url)
    write_report(url)
    page = fsspec.open(f"{url}/{REPORT_FILE}").open().read().decode()
    harmless(Page(page))
    listed = {line.path: line for line in read_manifest(RunStore(url))}
    assert listed[REPORT_FILE].bytes == len(page.encode())


def test_runs_that_are_none_or_not_finished(small, tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        write_report(str(tmp_path / "nothing"))
    write_small(str(tmp_path / "run"))
    (tmp_path / "run" / SUCCESS_FILE).unlink()
    with pytest.raises(RunError, match="not finished"):
        write_report(str(tmp_path / "run"))


def test_times_of_the_steps(tmp_path):
    kit.run_beam(pool(tmp_path, 2), tmp_path / "run")
    with connected(str(tmp_path / "run")) as run:
        section = time_section(run)
        assert section is not None and section.facts is not None
        table = Table.of(section.facts["steps"])
        assert [row[0] for row in table.rows][-2:] == ["decide", "emit"]
        parts = [float(row[4].text.split("\N{NO-BREAK SPACE}")[0]) for row in table.rows if isinstance(row[4], Bar)]
        assert sum(parts) == pytest.approx(100, abs=0.3)


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_what_another_run_gained_and_lost(protocol, tmp_path):
    a, b = write_a(f"{protocol}{tmp_path}/a"), write_b(f"{protocol}{tmp_path}/b")
    write_report(b, against=a)
    page = Page(RunStore(b).read_bytes(REPORT_FILE).decode())
    harmless(page)
    assert "Compared with small" in page.text and "balance.t" in page.text
    diff = diff_runs(a, b)
    assert f"keeps {diff.a.kept} samples" in page.text
    assert all(name in page.text for batch in changed_samples(a, b) for name in batch["uid"].to_pylist())
    write_report(b)
    assert "Compared with" not in Page(RunStore(b).read_bytes(REPORT_FILE).decode()).text
