"""report.html: its facts agree with the run, it refers to nothing outside, and its size is bounded."""

import base64
import hashlib
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest

from curate.ask.diff import changed_samples
from curate.ask.opened import connected
from curate.ask.report import galleries
from curate.ask.report.blocks import Bar, Table
from curate.ask.report.page import MOST_BYTES, render_page, write_report
from curate.ask.report.sections import duplicates_section, time_section
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
from tests.ask.pages import write_hostile
from tests.kit.html_page import Page
from tests.kit.once import made_once
from tests.kit.written_runs import RUN, sample, uid, verdict, write_a, write_b, write_bare, write_small, write_units


def page_of(url):
    with connected(url) as run:
        return Page(render_page(run))


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


# ---- facts


def test_what_came_of_urls(tmp_path, small):
    """Of sources that download; the name of a host is untrusted."""
    reasons = ("http_503", "http_404")
    rows = [
        (sample(f"w{i}", "a", url=f"http://h{i}<b>/", status=reason, sha256=None), verdict("failed"), [], None)
        for i, reason in enumerate(reasons)
    ]
    rows.append((sample("w2", "a b c"), verdict(), [], None))
    failures = [
        {"unit": 0, "row": row, "shard": "s", "key": f"w{row}", "reason": reason, "attempts": 3, "may_pass": row == 0}
        for row, reason in enumerate(reasons)
    ]
    run = RUN | {"recipe": {"input": [{"name": "photos", "format": "urls", "path": "list.parquet"}]}}
    page = page_of(write_units(str(tmp_path), [rows], run, failures=failures).url)
    harmless(page)
    assert "1 of 3 URLs" in page.text and "1 of them may succeed" in page.text and "h1<b>" in page.text
    assert 'id="downloads"' in page.html and 'id="downloads"' not in page_of(small).html


def test_sections(small):
    page = page_of(small)
    harmless(page)
    assert "4 of 12 image-text pairs kept" in page.text
    ids = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert ids == [
        "funnel", "distributions", "entries", "composition", "captions", "duplicates", "failures", "samples", "time",
        "provenance",
    ]  # fmt: skip
    assert [attributes["href"] for name, attributes in page.elements if name == "a"] == [f"#{i}" for i in ids]
    assert all(text in page.text for text in ("begins with <html>", "at least 0.25", uid("b2"), "key a3"))
    labels = [a["aria-label"] for n, a in page.elements if n == "svg"]
    assert any("clip_score" in label for label in labels) and any("by rank" in label for label in labels)
    assert "<title>0.4" in page.html  # tooltips of bins


def test_kinds_of_duplicates_are_sorted_by_frequency(tmp_path):
    rows = [(sample("a", "a cat"), verdict(), [0], 0.5)]
    rows += [(sample("a", "a cat", key=f"copy{i}"), verdict("duplicate", of="a"), [0], 0.5) for i in range(2)]
    rows += [(sample(f"n{i}", "near", phash=i), verdict("duplicate", of="a"), [0], 0.5) for i in range(3)]
    rows += [(sample("s", "same image", sha256="a".rjust(64, "0")), verdict("duplicate", of="a"), [0], 0.5)]
    with connected(write_units(str(tmp_path), [rows]).url) as run:
        kinds = duplicates_section(run).facts["kinds"]
    assert [(row["match"], row["dropped"]) for row in kinds] == [
        ("near-duplicate", 3),
        ("same uid", 2),
        ("same image bytes", 1),
    ]


@pytest.mark.parametrize("rows", [("one",), (), ("two words here",), ("one", "two words here", "three words here")])
def test_runs_without_images_scores_match_and_captions(rows, tmp_path):
    write_bare(str(tmp_path), rows)
    page = page_of(str(tmp_path))
    harmless(page)
    assert {"funnel", "samples", "provenance"} <= {a["id"] for n, a in page.elements if n == "section"}
    assert "img" not in page.names()


# ---- untrusted texts


def test_hostile_texts_are_inert_and_bounded(hostile):
    harmless(hostile)
    assert len(hostile.html.encode()) < 1_500_000
    assert "<script>document" in hostile.text  # as text
    controls = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
    assert not re.search(controls, hostile.html)
    assert "\\u202eright to left" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text and "49" not in hostile.text.split()
    assert "x" * 600 not in hostile.html and "\u0301" * 600 not in hostile.html


@pytest.mark.thorough
def test_it_stays_small_whatever_the_run_holds(tmp_path):
    """300 rules that drop, 300 sources, huge captions and entries."""
    names = [f"rule_{i}_{'<' * 90}" for i in range(300)]
    sql = f"words > 2 AND '{'&' * 3000}' <> ''"
    rules = [{"name": name, "sql": sql, "top": None, "of": None, "threshold": None} for name in names]
    long = {"url": "<" * 5000, "key": "k" * 900}
    rows = [
        (sample(f"r{i}", "<&" * 4000, f"s{i}{'&' * 300}", **long, language=f"l{i % 300}", width=i, words=i % 90),
         verdict(names[i]), [0], i / 9)
        for i in range(300)
    ]  # fmt: skip
    rows += [(sample(f"k{i}", "<&" * 4000), verdict(None, 1.0, 0.0), [0], 0.5) for i in range(20)]
    entries = [(i, "<" * 5000, "w", "en", 3, 3, 0.5, 1.0, i % 3) for i in range(400)]
    write_units(str(tmp_path), [rows], RUN | {"rules": rules, "recipe": RUN["recipe"] | {"rules": names * 3}}, entries)
    path, size = write_report(str(tmp_path))
    assert size == Path(path).stat().st_size < MOST_BYTES // 2
    page = Page(Path(path).read_text())
    harmless(page)
    assert re.search(r"^10\d more steps$", page.text, re.MULTILINE) and "271 steps" in page.text


# ---- thumbnails


def pool(path, shards, order=None):
    samples = kit.make_samples(60)
    where = kit.write_tars(path / "tars", samples if order is None else kit.shuffled(samples, order), shards)
    return kit.recipe_of(where, max_failed=1.0, seed=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A run of `pool`, with its tars beside it; do not change it."""
    return made_once(tmp_path_factory, "report", lambda folder: kit.run_local(pool(folder, 3), folder / "run"))[0]


def cards(page):
    return re.findall(r'<article class="card">.*?</article>', page.html, re.DOTALL)


def pictures(page):
    return [attributes["src"] for name, attributes in page.elements if name == "img"]


@pytest.mark.thorough
def test_galleries_do_not_depend_on_shards(photos, tmp_path, monkeypatch):
    kit.run_local(pool(tmp_path, 7, order=1), tmp_path / "run")
    first = page_of(str(photos / "run"))
    harmless(first)
    assert len(pictures(first)) > 20
    assert cards(first) == cards(page_of(str(tmp_path / "run"))) == cards(page_of(str(photos / "run")))
    monkeypatch.setattr(galleries, "BUDGET", 20_000)
    few = page_of(str(photos / "run"))
    assert 0 < sum(map(len, pictures(few))) <= 20_000 and "size limit is reached" in few.text


@pytest.mark.thorough
def test_inputs_that_are_gone_or_changed(photos, tmp_path):
    """Pictures of kept samples come from the published shards."""
    url, tars = str(tmp_path / "run"), tmp_path / "tars"
    kit.run_local(pool(tmp_path, 3), tmp_path / "run")
    whole, kept = page_of(url), re.compile(r"<h3>Kept.*?<h3>", re.DOTALL)
    for content, word in ((None, "no longer exists"), (b"\xff", "has changed"), (b"short", "has changed")):
        for tar in sorted((photos / "tars").glob("*.tar")):
            size = tar.stat().st_size if content == b"\xff" else 1
            (tars / tar.name).write_bytes(content * size) if content else (tars / tar.name).unlink()
        page = page_of(url)
        harmless(page)
        assert f"the input {word}" in page.text
        assert kept.findall(page.html) == kept.findall(whole.html)
        assert 0 < len(pictures(page)) < len(pictures(whole))
    for shard in (tmp_path / "run/shards").glob("*.tar"):
        shard.unlink()
    assert pictures(page_of(url)) == []


def test_images_of_parquet_pools(tmp_path):
    samples = [s for s in kit.make_samples(24) if s.image and s.caption]
    table = pa.table({"text": [s.caption for s in samples], "image": [s.image for s in samples]})
    kit.curate(tmp_path, table, max_failed=1.0)
    assert len(pictures(page_of(str(tmp_path / "run")))) > 8


# ---- where it goes


def test_the_manifest_lists_it_and_a_rerun_replaces_it(photos, tmp_path, capsys):
    folder = shutil.copytree(photos / "run", tmp_path / "run")
    url, path = str(folder), folder / REPORT_FILE
    report(url)
    assert capsys.readouterr().out.startswith(f"{url}/report.html: ")
    first = path.read_bytes()
    assert verify_run(url)[1] == []
    path.write_text("something else")
    assert verify_run(url)[1] != []
    report(url)
    assert path.read_bytes() == first and verify_run(url)[1] == []
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
def test_a_page_elsewhere(small, tmp_path):
    before, out = RunStore(small).files(), tmp_path / "page.html"
    assert write_report(small, str(out)) == (str(out), out.stat().st_size)
    assert RunStore(small).files() == before
    for path in (tmp_path / "none/page.html", out / "below"):
        with pytest.raises(RecipeError, match=r"--out .*: cannot be written"):
            write_report(small, str(path))
    assert not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match="no such folder"):
        write_report(str(tmp_path / "nothing"))
    write_small(str(tmp_path / "run")).delete(SUCCESS_FILE)
    with pytest.raises(RunError, match="not finished"):
        write_report(str(tmp_path / "run"))


def test_times_of_the_steps(tmp_path):
    folder = write_small(str(tmp_path))
    with connected(folder.url) as run:
        table = Table.of(time_section(run).facts["steps"])
    assert [row[0] for row in table.rows] == ["measure", "caption"]
    parts = [float(row[4].text.removesuffix("%")) for row in table.rows if isinstance(row[4], Bar)]
    assert sum(parts) == pytest.approx(100, abs=0.3)


@pytest.mark.thorough
def test_what_a_remote_run_gained_and_lost(tmp_path):
    a, b = write_a(f"{tmp_path}/a"), write_b(f"memory://{tmp_path}/b")
    write_report(b, against=a)
    data = RunStore(b).read_bytes(REPORT_FILE)
    page = Page(data.decode())
    harmless(page)
    assert "Compared with small" in page.text and "balance.t" in page.text and "keeps 4 samples" in page.text
    assert all(name in page.text for batch in changed_samples(a, b) for name in batch["uid"].to_pylist())
    assert {line.path: line.bytes for line in read_manifest(RunStore(b))}[REPORT_FILE] == len(data)
    write_report(b)
    assert "Compared with" not in Page(RunStore(b).read_bytes(REPORT_FILE).decode()).text
