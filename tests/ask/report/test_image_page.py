"""Pages of a query's rows with images, histograms, and what notebooks show."""

import hashlib
import json
import re
from html import escape

import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from curate import Run
from curate.ask.output import table_html
from curate.ask.report import galleries, image_page
from curate.base.errors import RecipeError
from tests.kit.pools import encode
from tests.kit.written_runs import EVIL, sample, uid, verdict, write_units


def test_a_page_of_the_rows_of_a_query(run, cli, tmp_path):
    out = tmp_path / "page.html"
    query = "SELECT uid, words, caption FROM kept ORDER BY uid LIMIT 7"
    assert cli("sql", str(run), query, "--images", "-o", str(out)).status == 0
    page = out.read_text()
    with Run(run) as opened:
        uids = opened.sql(query)["uid"].to_pylist()
        assert opened.look(query).text == page and "<h2>7 rows</h2>" in page
        assert "<h2>1 row</h2>" in opened.look("SELECT uid FROM kept LIMIT 1").text
        has_images = opened.facts["pool"]["images"]
        many = "SELECT uid FROM samples CROSS JOIN range(20) WHERE uid IS NOT NULL"
        total, long = opened.sql(many).num_rows, opened.look(many).text
    places = [page.index(f'<div class="foot"><code class="uid" title="{uid}">{uid}</code>') for uid in uids]
    assert places == sorted(places) and len(places) == page.count("<dt>words</dt>") == 7
    assert page.count("data:image/jpeg;base64,") == (7 if has_images else 0)
    assert "<dt>characters</dt>" in page and "<dt>caption</dt>" not in page and "http-equiv" in page
    assert f"<h2>300 of {total:,} rows</h2>" in long and long.count('class="uid"') == 300
    absent = ("SELECT $u AS UID, 1 AS n", "--param", "u=nothing", "--images", "-o", str(out))
    assert cli("sql", str(run), *absent).status == 0 and "no row of this run has the uid" in out.read_text()


def test_a_named_query_has_a_page_of_its_name(small, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for query, name in (("near-duplicates", "near_duplicates"), ("duplicate_pairs;", "duplicate_pairs")):
        assert cli("sql", small, query, "--images").out.startswith(f"wrote {name}.html: ")
    shown = [cli("sql", small, "SELECT uid FROM kept LIMIT 1", "--images").out for _ in range(2)]
    assert [text.split(":")[0] for text in shown] == ["wrote images.html", "replaced images.html"]
    names = ["duplicate_pairs.html", "images.html", "near_duplicates.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_rows_without_a_uid_say_so(finished):
    with Run(finished["tars"][0]) as opened:
        failed = opened.sql("SELECT count(*) AS n FROM dropped WHERE rule = 'failed' AND uid IS NULL")["n"][0].as_py()
        page = opened.look("dropped", rule="failed", limit=1000).text
        assert failed and page.count("so it has no uid and no picture") == failed
        assert "no row of this run has the uid" not in page and page.count("<dt>key</dt>") >= failed


def test_refusals(run, cli):
    kept = ["SELECT uid FROM kept"]
    for arguments, part in (
        (["SELECT words FROM kept", "--images"], "the query yields no uid; it yields words; accepted: "),
        (["--images"], ""), ([*kept, "--out", "page.html"], "--out names the page of --images"),
        ([*kept, "--images", "--fiftyone", "a"], "accepted: one of them"),
    ):  # fmt: skip
        done = cli("sql", str(run), *arguments)
        assert (done.status, done.out) == (2, "") and part in done.err
    with Run(run) as opened:
        with pytest.raises(RecipeError, match=r"^the query yields no uid; it yields words; accepted"):
            opened.look("SELECT words FROM kept")
        with pytest.raises(RecipeError, match=r"plot: no histogram of 'wrods'; accepted: .*words"):
            opened.plot("wrods")


def test_texts_are_escaped(opened):
    page = opened.look("SELECT uid, caption AS said FROM samples WHERE uid IS NOT NULL")
    assert "<script>" in EVIL and page.text.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;" in page.text
    shown = table_html(opened.samples(columns=["caption"]))
    assert "<script>" not in shown and "&lt;script&gt;" in shown


@pytest.fixture
def opened(small):
    with Run(small) as opened:
        yield opened


def test_cards_have_no_empty_lines(opened):
    columns = "uid, NULL AS nothing, rule, kept, words, 0.5 AS half, 'NaN'::FLOAT AS odd"
    page = opened.look(f"SELECT {columns} FROM verdicts WHERE rule = 'aligned'").text
    assert "nothing" not in page.partition("<article")[2].partition("</article>")[0]
    assert '<dt>half</dt><dd data-value="0.5">' in page and "<dt>odd</dt><dd><bdi>nan</bdi>" in page
    assert page.count("<dt>rule</dt>") == page.count("<dt>kept</dt>") == 0  # the verdict has them
    assert page.count("<dt>words</dt>") == 1 and 'data-rule="aligned"' in page
    assert 'data-rule="other"' in opened.look("SELECT uid, 'other' AS rule FROM kept").text


def test_groups_of_duplicates_have_all_pictures_side_by_side(tmp_path, monkeypatch):
    """Fourteen in one group; two rows with one uid are two pictures; the page counts what exceeds its limit."""
    rows = [(sample("a", "a cat"), verdict("balance", 0.5, 1.5), [0], 0.5)]
    rows += [(sample(f"b{i:02}", "a cat!", phash=i), verdict("duplicate", of="a"), [0], 0.5) for i in range(13)]
    rows += [(sample("a", "a cat", key="copy"), verdict("duplicate", of="a"), [0], 0.5)]

    def originals(_, rows):
        return {(0, row["row"]): encode(Image.new("RGB", (20, 20), (16 * row["row"], 0, 0))) for row in rows}

    monkeypatch.setattr(galleries, "read_originals", originals)
    write_units(f"{tmp_path}/run", [rows])
    with Run(tmp_path / "run") as opened:

        def cards(query, **params):
            label = r'</div><span class="label">([^<]+)</span>'
            articles = opened.look(query, **params).text.split("<article")[1:]
            return [(re.findall(r'src="(data:[^"]+)"', card), re.findall(label, card)) for card in articles]

        [(pictures, labels)] = cards("near_duplicates")
        assert len(set(pictures)) == 14 and labels == ["representative, dropped by balance"] + 13 * ["duplicate"]
        [(group, _)] = cards("duplicates")
        assert len(set(group)) == 15 and group[:14] == pictures
        pairs = cards("duplicate_pairs", limit=None)
        assert len(pairs) == 14 and {len(set(pictures)) for pictures, _ in pairs} == {2}
        assert {tuple(labels) for _, labels in pairs} == {("duplicate", "representative, dropped by balance")}
        assert {representative for (_, representative), _ in pairs} == {pictures[0]}
        assert {dropped for (dropped, _), _ in pairs} == set(group[1:])
        assert cards("SELECT uid FROM kept") == [] and cards("SELECT $u AS uid", u=uid("b01")) == [([pictures[2]], [])]
        monkeypatch.setattr(image_page, "_PICTURES", 5)
        page = opened.look("near_duplicates").text
    assert page.count("data:image") == 5 and "the first 5 of 14" in page


def test_histograms(opened):
    assert opened.plot().text.count("<figure") > 1
    one = opened.plot("words")
    assert str(one).startswith("HtmlPage(") and one.text.count("<figure") == 1 and "<svg" in one.text
    frame = one._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts" srcdoc=') and "<figure" not in frame


def test_histograms_are_saved_as_pictures(opened, tmp_path):
    """As one chart of all, in colors that need no page; pages of rows are saved as HTML only."""
    plot, page = opened.plot("words", "characters"), opened.look("SELECT uid FROM kept")
    for name in ("a.svg", "b.PNG", "c.html"):
        plot.save(f"{tmp_path}/{name}")
    svg = (tmp_path / "a.svg").read_text()
    assert svg.startswith("<svg") and "var(" not in svg and "#0069b3" in svg
    assert all(f">{text}</text>" in svg for text in ("words", "characters"))
    with Image.open(tmp_path / "b.PNG") as image:
        assert image.format == "PNG" and image.width > 1.5 * image.height
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert (tmp_path / "c.html").read_text() == plot.text
    for shown, name, accepted in (
        (plot, "plot.pdf", ".html, .svg or .png"),
        (page, "a.png", ".html"),
        (page, "a.SVG", ".html"),
    ):
        with pytest.raises(RecipeError, match=rf"{name}: cannot write \.\w+; accepted: .* in {accepted}$"):
            shown.save(f"{tmp_path}/{name}")
    assert len(list(tmp_path.iterdir())) == 3


def test_notebooks_show_tables(finished):
    """In the formatters that IPython uses."""
    run = finished["tars"][0]
    shell = InteractiveShell.instance()
    try:
        with Run(run) as opened:
            shown, _ = shell.display_formatter.format(opened.samples(limit=60, columns=["uid", "words"]))
            assert shown["text/html"].count("<tr>") == 51 and "60 rows, the first 50 shown" in shown["text/html"]
            answers = [opened.whatif({"rules.words": "words > 4"}), opened.diff(run)]
            for answer, names in zip(answers, (("funnel", "sources", "facts"), ("rules", "sources")), strict=True):
                html = shell.display_formatter.format(answer)[0]["text/html"]
                assert all(f"<b>{name}</b><table>" in html for name in names) and "settings" not in html
                assert html.startswith(f"<p>{escape(repr(answer))}</p>") and "<td>words</td>" in html
            assert re.fullmatch(r"rules.words=words > 4: \d+ rows expected ± \d+", repr(answers[0]))
            assert "<iframe" in shell.display_formatter.format(opened.plot("words"))[0]["text/html"]
    finally:
        shell.display_formatter.formatters["text/html"].pop(pa.Table)
        InteractiveShell.clear_instance()


def test_a_folder_that_fiftyone_opens(finished, cli, tmp_path):
    """samples.json beside data/ is FiftyOneDataset's plain form; its own importer read such folders (1.22)."""
    run_folder, out = str(finished["tars"][0]), tmp_path / "out"
    query = "SELECT uid, words, rule, kept, 0.5::DECIMAL(3, 1) AS d, 1 AS tags FROM samples JOIN decisions USING (uid) ORDER BY uid"
    done = cli("sql", run_folder, query, "--fiftyone", str(out))
    assert done.status == 0 and f"to {out}" in done.out and "fo.types.FiftyOneDataset" in done.out
    samples = json.loads((out / "samples.json").read_text())["samples"]
    with Run(run_folder) as opened:
        rows = {row["uid"]: row for row in opened.samples("uid IS NOT NULL AND status = 'ok'").to_pylist()}
    assert len(samples) == len(rows) > 20
    for entry in samples:
        row, image = rows[entry["uid"]], (out / entry["filepath"]).read_bytes()
        assert hashlib.sha256(image).hexdigest() == row["sha256"]
        assert entry["tags"] == [row["rule"] or "kept"] and entry["caption"] == row["caption"]
        assert (entry["d"], entry["tags_"], entry["kept"]) == (0.5, 1, row["kept"])
    assert cli("sql", run_folder, query, "--fiftyone", str(out)).status == 2  # it is not empty
    assert cli("sql", run_folder, "SELECT words FROM kept", "--fiftyone", str(tmp_path / "b")).status == 2
    texts = cli("sql", str(finished["texts"][0]), "SELECT uid FROM kept", "--fiftyone", str(tmp_path / "b"))
    assert texts.status == 2 and "has no images" in texts.err and not (tmp_path / "b").exists()
