"""Articles: rows equal those of a naive reader in any layout; whatever cannot be used is a row with a reason."""

import gzip
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import RecipeError
from curate.pool.formats.input_format import PartRows
from curate.pool.pmc import articles as listing
from curate.pool.pmc import packages
from curate.pool.pmc.format import COLUMNS, PmcInput, PmcSource, article_rows, license_group
from curate.pool.pmc.jats import count_letters, find_license, read_article
from curate.read.listing import expand_braces
from tests.kit.articles import (
    ARTICLES,
    DAMAGED,
    HIGHEST,
    Drawn,
    biomedica_rows,
    fig,
    naive_rows,
    write_archives,
    write_folders,
    write_inventory,
)

KIND = PmcInput()
MISFITS = {"no_image", "no_caption"}


def source_of(path, **more):
    return PmcSource.model_validate({"name": "pmc", "format": "pmc", "path": str(path), **more})


def batches(source):
    parts = KIND.plan(source, (), False).parts
    return [batch for part in parts for batch in KIND.read(source, part, COLUMNS, None)]


def rows_of(source):
    """Each row's key, caption, status, columns, and image."""
    rows = []
    for batch in batches(source):
        assert batch.faults and batch.images
        columns = {name: batch.columns[name].to_pylist() for name in ("key", "caption")}
        columns |= {name: column.to_pylist() for name, column in batch.scores.items()}
        columns |= {"status": batch.faults[0].to_pylist(), "error": batch.faults[1].to_pylist()}
        columns["image"] = list(batch.images(np.ones(len(columns["key"]), bool)))
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


def test_rows_equal_those_of_a_naive_reader(tmp_path):
    rows = rows_of(source_of(write_folders(tmp_path, [*ARTICLES, UNLIKE])))
    expected = [row | {"article": article} for article in [*HIGHEST, UNLIKE] for row in naive_rows(article)]
    assert len(expected) == 30
    for row, naive in zip(rows, expected, strict=True):
        article, name = naive.pop("article"), naive.pop("file")
        assert {column: row[column] for column in naive} == naive
        assert row["image"] == (article.image(name) if name else None)
        assert row["status"] == ("ok" if name else "no_image")
    assert [row["error"] for row in rows if row["error"]] == ["no file of the article is named 'd106-g002'"]


def test_columns_of_an_article(tmp_path):
    row = rows_of(source_of(write_folders(tmp_path, ARTICLES[:1])))[0]
    assert row.pop("image")
    assert row == {
        "key": "PMC101-0", "status": "ok", "error": None, "pmcid": "PMC101", "version": 1, "pmid": "1001",
        "doi": "10.1/101", "figure_id": "f1", "label": "Figure 1", "position": 0, "graphics": 1, "panels": 2,
        "href": "d101-g001", "caption": "Lines. (A) A long line; (B) a short one.", "caption_title": "Lines.",
        "caption_text": "(A) A long line; (B) a short one.",
        "context": "As Fig. 1 shows, lines are long.\n\nBoth are in Figs. 1, 2, ét al.",
        "article_title": "On drawing number 101", "journal": "Journal of Drawing", "date": row["date"],
        "date_precision": "day", "license": "CC BY", "license_group": "comm", "third_party_permission": None,
        "article_type": "research-article", "keywords": "line; circle", "retracted": False, "manuscript": False,
    }  # fmt: skip
    assert row["date"].isoformat() == "2020-02-18"


def test_licenses_are_those_of_the_figure(tmp_path):
    rows = rows_of(source_of(write_folders(tmp_path, ARTICLES)))
    licenses = {row["key"]: (row["license"], row["license_group"], row["third_party_permission"]) for row in rows}
    assert licenses["PMC105-0"] == (None, "other", "© 1999 Another Press")
    assert licenses["PMC105-1"] == ("CC BY", "comm", None)
    assert licenses["PMC105-2"] == ("CC BY-NC", "noncomm", "© 1999 Another Press")
    assert licenses["PMC102-0"][:2] == ("CC BY-NC-ND", "noncomm")
    assert licenses["PMC109-0"] == ("CC BY", "comm", None)
    assert licenses["PMC106-0"] == (None, "other", None)
    groups = [license_group(code) for code in ("CC0", "CC BY-ND", "CC PDM", "TDM", None)]
    assert groups == ["comm", "comm", *["other"] * 3]


DATES = [  # (elements, date, precision)
    ('<pub-date pub-type="epub"><year>2019</year></pub-date>', "2019-01-01", "year"),
    ('<pub-date pub-type="epub"><month>Sept.</month><year>2019</year></pub-date>', "2019-09-01", "month"),
    ('<pub-date pub-type="ppub"><season>Spring</season><year>2018</year></pub-date>', "2018-01-01", "year"),
    ('<pub-date pub-type="epub"><day>31</day><month>2</month><year>2019</year></pub-date>', "2019-02-01", "month"),
    ('<pub-date date-type="pub" publication-format="electronic" iso-8601-date="2019-04-05"/>', "2019-04-05", "day"),
    (
        '<pub-date pub-type="collection"><year>2017</year></pub-date>'
        '<pub-date pub-type="ppub"><month>5</month><year>2018</year></pub-date>', "2018-05-01", "month",
    ),
    ('<pub-date pub-type="epub"><year>soon</year></pub-date>', None, None), ("", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("dates", "day", "precision"), DATES)
def test_dates_of_publication(dates, day, precision):
    article = f"<article><front><article-meta>{dates}</article-meta></front></article>"
    facts = read_article(article.encode()).facts
    assert (facts["date"] and facts["date"].isoformat(), facts["date_precision"]) == (day, precision)


def test_what_xml_says_where_metadata_do_not():
    ids = '<article-id pub-id-type="pmcid-ver">PMC7.3</article-id><article-id pub-id-type="manuscript">NIHMS1</article-id>'
    related = '<related-article related-article-type="retraction-forward"/>'
    xml = f"<article><front><article-meta>{ids}{related}</article-meta></front>{fig('f', '<p>x</p>', 'a')}</article>"
    xml = xml.replace("<article>", '<article xmlns:xlink="http://www.w3.org/1999/xlink">')
    names = ("pmcid", "version", "retracted", "manuscript")

    def facts(metadata):
        package = packages.Package("PMC1.1", xml.encode(), metadata, {}, lambda _: b"")
        return tuple(article_rows(package, "caption").rows[0].columns[name] for name in names)

    assert facts({}) == ("PMC7", 3, True, True)
    assert facts({"pmcid": "7", "version": 4, "is_retracted": False}) == ("PMC7", 4, False, True)


LICENSES = {
    "http://creativecommons.org/licenses/by/2.0": "CC BY",
    "https://creativecommons.org/licenses/by-nc-sa/3.0/igo/": "CC BY-NC-SA",
    "https://creativecommons.org/publicdomain/zero/1.0/": "CC0",
    "https://creativecommons.org/publicdomain/mark/1.0/": "CC PDM",
    "under the Creative Commons Attribution License, which": "CC BY",
    "the Creative Commons Attribution Non-Commercial No Derivatives license": "CC BY-NC-ND",
    "the terms of the Creative Commons Public Domain declaration": "CC0",
    "All rights reserved.": None,
}


def test_codes_of_licenses():
    assert {text: find_license(["", text]) for text in LICENSES} == LICENSES


PANELS = [  # (caption, its bold texts, panels)
    ("(A) one (B) two (C) three", (), 3), ("(a, b) two; (c-e) three", (), 5), ("(A and B) two", (), 2),
    ("(A) alone", (), 0), ("(B) and (C), but no first", (), 0), ("An (a) priori (i) view (ii)", (), 0),
    ("lines", ("A", "B.", "c–d"), 4), ("", ("Note", "A-Z"), 26),
]  # fmt: skip


def test_panels_are_letters_and_at_least_the_graphics(tmp_path):
    assert [count_letters(caption, bold) for caption, bold, _ in PANELS] == [case[2] for case in PANELS]
    rows = rows_of(source_of(write_folders(tmp_path, ARTICLES)))
    panels = {row["key"]: row["panels"] for row in rows}
    assert (panels["PMC104-0"], panels["PMC103-2"], panels["PMC101-1"]) == (3, 3, 1)


def test_captions(tmp_path):
    folder = write_folders(tmp_path, ARTICLES)
    titled, in_context = (rows_of(source_of(folder, caption=kind)) for kind in ("title+caption", "caption+context"))
    assert titled[0]["caption"] == "On drawing number 101. Lines. (A) A long line; (B) a short one."
    assert in_context[0]["caption"].endswith(
        "a short one. As Fig. 1 shows, lines are long. Both are in Figs. 1, 2, ét al."
    )
    assert [row["caption"] for row in titled if row["key"] == "PMC106-2"] == [None]


def test_older_layouts_have_the_same_rows(tmp_path):
    today = rows_of(source_of(write_folders(tmp_path / "today", HIGHEST, with_metadata=False)))
    versions = {article.pmcid: article.version for article in HIGHEST}  # which the folder's name has
    assert [row["version"] for row in today] == [versions[row["pmcid"]] for row in today] and 2 in versions.values()
    archives = rows_of(source_of(write_archives(tmp_path / "archives", HIGHEST)))
    for row in [*today, *archives]:
        row.pop("version")
    assert sorted(archives, key=lambda row: row["key"]) == sorted(today, key=lambda row: row["key"])
    flat = tmp_path / "flat"  # XML of several articles in one folder, as tools put it
    flat.mkdir()
    for article in HIGHEST:
        (flat / f"d{article.number}.nxml").write_bytes(article.xml)
        for name in article.media:
            (flat / name).write_bytes(article.image(name))
    rows = rows_of(source_of(flat))
    assert [row["caption"] for row in rows] == [row["caption"] for row in today]
    assert [row["image"] for row in rows] == [row["image"] for row in today]


def test_lists_name_articles(tmp_path):
    folder = write_folders(tmp_path / "my bucket", [*ARTICLES, *DAMAGED])
    gone = Drawn(300, "<body/>")
    path = write_inventory(tmp_path / "inventory.csv.gz", [gone, *reversed(ARTICLES)])
    rows = rows_of(source_of(path, prefix=f"{folder}/"))
    assert [row["key"] for row in rows[:-1]] == [row["key"] for article in HIGHEST for row in naive_rows(article)]
    assert (rows[-1]["key"], rows[-1]["status"]) == ("PMC300.1", "no_article")
    (tmp_path / "few.txt").write_text("PMC102.1\nPMC104.1\n")
    few = rows_of(source_of(tmp_path / "few.txt", prefix=str(folder)))
    assert {row["pmcid"] for row in few} == {"PMC102", "PMC104"}


def test_what_is_damaged_is_a_row(tmp_path):
    folder = write_folders(tmp_path / "a", [ARTICLES[0], *DAMAGED], with_metadata=False)
    (folder / "PMC300.1").mkdir()
    (folder / "PMC300.1/PMC300.1.pdf").write_bytes(b"%PDF")
    rows = rows_of(source_of(folder))
    assert [(row["key"], row["status"]) for row in rows[2:]] == [
        *((article.name, "damaged_article") for article in DAMAGED), ("PMC300.1", "no_article")
    ]  # fmt: skip
    errors = " ".join(row["error"] for row in rows[2:])
    for part in ("declares entities", "depth", "its root <html>", "PMC300.1.xml"):
        assert part in errors
    assert Path("/etc/hostname").read_text().strip() not in errors
    archives = write_archives(tmp_path / "b", [ARTICLES[0], *DAMAGED])
    cut = next(archives.rglob("PMC101.tar.gz"))
    cut.write_bytes(cut.read_bytes()[:-2000])
    (archives / "PMC400.tar.gz").write_bytes(b"no gzip")
    rows = rows_of(source_of(archives))
    assert {(row["key"], row["status"]) for row in rows} == {
        (name, "damaged_article") for name in ("PMC101", "PMC400", *(article.pmcid for article in DAMAGED))
    }


def test_some_rows_are_read_again(tmp_path):
    for folder in (write_folders(tmp_path / "a", HIGHEST), write_archives(tmp_path / "b", HIGHEST)):
        source = source_of(folder)
        rows = rows_of(source)
        start = 0
        for part in KIND.plan(source, (), False).parts:
            (batch,) = KIND.read(source, part, COLUMNS, None)
            count = len(batch.columns["key"])
            places = np.array([at for at in range(0, count, 2) if rows[start + at]["image"]], np.int64)
            wanted = [rows[start + at] for at in places.tolist()]
            samples = pa.table({"offset": batch.columns["offset"].take(pa.array(places))})
            again = list(KIND.reread(source, part, PartRows(places, samples)))
            assert [sample.members[0][1] for sample in again] == [row["image"] for row in wanted]
            fields = [{name: row[name] for name in COLUMNS.names if row[name] is not None} for row in wanted]
            assert json.loads(json.dumps([dict(sample.fields) for sample in again])) == json.loads(
                json.dumps(fields, default=str)
            )
            shards = KIND.shards(source, part, samples).to_pylist()
            for place, shard in zip(places.tolist(), shards, strict=True):  # as galleries ask
                alone = PartRows(places[:1], samples.slice(places.tolist().index(place), 1))
                (image,) = KIND.reread_images(source, type(part)(shard, 0, ""), alone)
                assert image == rows[start + place]["image"]
            start += count


def test_parts_hold_consecutive_articles(tmp_path, monkeypatch):
    source = source_of(write_folders(tmp_path, HIGHEST))
    rows = rows_of(source)
    for size in (1, 10_000, 1 << 30):
        monkeypatch.setattr(listing, "PART_BYTES", (size, size))
        parts = KIND.plan(source, (), False).parts
        assert len(parts) == {1: len(HIGHEST), 1 << 30: 1}.get(size, len(parts))
        assert rows_of(source) == rows
        assert KIND.describe(parts) == "10 articles"
        paths = [path for part in parts for path in expand_braces(part.path)]
        assert paths == [f"{tmp_path}/{article.name}" for article in HIGHEST]


def test_a_part_changes_with_any_of_its_files(tmp_path):
    folder = write_folders(tmp_path, HIGHEST)
    source = source_of(folder)

    def look():
        parts = KIND.plan(source, (), False).parts
        return {part.path: (part.fingerprint, KIND.state(part.path, {})) for part in parts}

    before = look()
    os.utime(folder / "PMC101.1/d101-g001.jpg", ns=(1, 1))
    after = look()
    (changed,) = (path for path in before if "PMC101.1" in path or "101.1" in path)
    assert [path for path in before if before[path] != after[path]] == [changed]
    assert before[changed][0] != after[changed][0] and before[changed][1] != after[changed][1]
    os.utime(folder / "metadata/PMC102.1.json", ns=(1, 1))
    assert [path for path in before if look()[path][0] != after[path][0]] == [
        path for path in before if "102.1" in path
    ]


def test_refused_sources_of_articles(tmp_path, monkeypatch):
    folder, listed = write_folders(tmp_path / "a", ARTICLES[:1]), write_inventory(tmp_path / "i.csv.gz", ARTICLES)
    monkeypatch.setattr(listing, "_MAX_SHARED", 1)
    for name in ("empty", "flat"):
        (tmp_path / name).mkdir()
    for name, content in {
        "none.txt": b"nothing", "empty/readme.md": b"nothing", "bad.csv.gz": b"no gzip", "flat/a.nxml": ARTICLES[0].xml,
        "flat/b.nxml": ARTICLES[0].xml,
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    write_folders(tmp_path / "a,b", ARTICLES[:1])
    two = source_of(listed, prefix="s3://x/").model_copy(update={"path": (str(listed), str(folder))})
    for source, message in (
        (source_of(listed), "a list needs a `prefix`"),
        (source_of(listed, prefix="https://pmc.example/"), "curate cannot list its prefix"),
        (two, "a list among other paths"),
        (source_of(tmp_path / "none.txt", prefix=str(folder)), "it names no article; accepted: lines with a name"),
        (source_of(tmp_path / "empty"), "no article"), (source_of(tmp_path / "bad.csv.gz", prefix="x/"), "cannot be read"),
        (source_of(tmp_path / "flat"), "2 articles in one folder; accepted: at most"), (source_of(tmp_path / "a,b"), "a brace or a comma"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=message):
            batches(source)
    write_archives(folder, [Drawn(101, "<body/>"), Drawn(500, "<body/>"), Drawn(500, "<body/>", version=2)])
    paths = {path for part in KIND.plan(source_of(folder), (), False).parts for path in expand_braces(part.path)}
    assert paths == {str(folder / "PMC101.1"), str(folder / "02/PMC500.tar.gz")}
    write_archives(folder / "again", [Drawn(500, "<body/>")])
    with pytest.raises(RecipeError, match=r"PMC500\.tar\.gz: this article is also in .*; accepted"):
        batches(source_of(folder))


def test_limits(tmp_path, monkeypatch):
    many = Drawn(1, f"<body>{fig('f', '<p>x</p>', *['a'] * 5000)}</body>")
    with pytest.raises(ValueError, match="5,000 graphics"):
        read_article(many.xml)
    monkeypatch.setattr(packages, "MAX_XML", 10)
    monkeypatch.setattr(packages, "_MAX_UNPACKED", 1000)
    for write, limit in ((write_folders, "10"), (write_archives, "that")):
        rows = rows_of(source_of(write(tmp_path / limit, HIGHEST)))
        assert {(row["status"], row["error"].partition("bytes")[2]) for row in rows} == {
            ("damaged_article", f"; accepted: at most {limit}")
        }


UNLIKE = Drawn(
    111,
    f"""<body><p>Of <xref ref-type="fig" rid="f1"/> and <xref ref-type="fig" rid="f2"/></p><p>By <xref rid="f2">2</xref></p>
    <p>Spelt <xref ref-type="fig" rid="f.3"/></p>{fig("f1", "<p>one</p>", "d111a")}{fig("f2", "<p>two</p>", "d111b")}
    {fig("f-3", "<p>three</p>", "d111c")}{fig("f4", "<p>four</p>", "d111d")}{fig("f5", "<p>the same image</p>", "d111d")}
    {fig("f6", "<p>six</p>", more='<p><graphic xlink:href="d111e"/></p>')}
    <boxed-text><caption><p>A box</p></caption><graphic xlink:href="d111f"/></boxed-text>
    <supplementary-material><caption><p>More</p></caption><graphic xlink:href="d111g"/></supplementary-material></body>""",
    [f"d111{letter}.jpg" for letter in "abcdefg"],
)
# Images that only BIOMEDICA or only curate takes, as the page of this format explains
DIFFERENCES = {
    ("PMC101", "d101.g002.JPG"), ("PMC102", "d102-g001.jpg"), ("PMC102", "d102-g002.webp"), ("PMC102", "d102-g003.jpg"),
    ("PMC102", "d102-g004.jpg"), ("PMC103", "d103-g001a.jpg"), ("PMC104", "d104c.png"), ("PMC106", "d106-t001.jpg"),
    ("PMC106", "d106-g005.mp4"), ("PMC107", "d107-g001.jpg"), ("PMC107", "d107-r001.jpg"), ("PMC106", None),
    ("PMC106", "d106-g004.jpg"), ("PMC111", "d111e.jpg"), ("PMC111", "d111f.jpg"), ("PMC111", "d111g.jpg"),
}  # fmt: skip
CONTEXTS = {  # images with another context
    ("PMC101", "d101-g001.jpg"), ("PMC103", "d103-g001b.jpg"), ("PMC111", "d111b.jpg"), ("PMC111", "d111c.jpg"),
    ("PMC109", "d109.jpg"), ("PMC104", "d104b.jpg"),
}  # fmt: skip


def test_differences_from_biomedica(tmp_path):
    ours, articles = {}, [*HIGHEST, UNLIKE]
    files = [(article.pmcid, row["file"]) for article in articles for row in naive_rows(article)]
    for name, row in zip(files, rows_of(source_of(write_folders(tmp_path, articles))), strict=True):
        ours.setdefault(name, row)  # if an image is in two figures, BIOMEDICA has the first, and curate has two rows
    theirs = {(article.pmcid, name): rest for article in articles for name, *rest in biomedica_rows(article)}
    assert ours.keys() ^ theirs.keys() == DIFFERENCES
    for name in ours.keys() & theirs.keys():
        caption, contexts = theirs[name]
        assert " ".join(caption.split()).replace(".(", ". (") == (ours[name]["caption"] or "")
        same = [" ".join(text.split()) for text in contexts] == (ours[name]["context"] or "").split("\n\n")
        assert (same or not (contexts or ours[name]["context"])) != (name in CONTEXTS), name


def _mutate(chance, xml):
    """Replace elements, their names, attributes, or texts."""
    words = [b"", b"f1 f2", b"../../etc/passwd", b"-1", b"9" * 30, b"(a-z)", b"&nbsp;&foo;", b"\xe2\x80\xae" * 99]
    names = b"fig fig-group graphic alternatives caption table-wrap xref p title year".split()
    how = chance.randrange(4)
    if how == 0:
        tags = re.findall(rb"</?[a-z][^<>]*>", xml)
        return xml.replace(chance.choice(tags), chance.choice([b"", *tags]), 1)
    if how == 1:
        return re.sub(rb"(</?)%b(?=[ />])" % chance.choice(names), rb"\1" + chance.choice(names), xml)
    pattern, form = ((rb'="[^"]*"', b'="%b"'), (rb">[^<>]+<", b">%b<"))[how - 2]
    return re.sub(pattern, lambda match: match[0] if chance.random() < 0.8 else form % chance.choice(words), xml)


def test_what_a_group_has_is_read_once():
    """Forty times as many figures in a group take hardly longer; 4,000 with a caption of 30 MB once took hours."""
    contents = [
        b"<caption><p>" + b"<bold>(a)</bold> word " * 10_000 + b"</p></caption>",
        b"<permissions><p>" + b"a <italic>word</italic> " * 10_000 + b"</p></permissions>",
        b"<p>a <xref rid='group'/></p>" * 10_000,  # paragraphs that name the group
    ]

    def seconds(figures, content):
        inner = b"".join(b"<fig><graphic href='%d.jpg'/></fig>" % number for number in range(figures))
        began = time.process_time()
        body = b"<article><body><fig-group id='group'>" + inner + content + b"</fig-group></body></article>"
        article = read_article(body)
        assert len({figure.caption_text for figure in article.figures}) == 1 and len(article.figures) == figures
        return time.process_time() - began

    for content in contents:
        seconds(1, content)
        assert seconds(400, content) < 15 * seconds(10, content)


def test_figures_in_captions_of_figures():
    """A caption contains neither the figures in it nor their captions, at any depth."""
    inner = b"<bold>(b)</bold> inner"
    for number in range(80):
        inner = b"<fig><caption><p>%d</p>%b</caption><graphic href='%d.jpg'/></fig>" % (number, inner, number)
    figures = read_article(b"<article><body>" + inner + b"</body></article>").figures
    assert [figure.caption_text for figure in figures] == [*map(str, range(79, 0, -1)), "0 (b) inner"]


@pytest.mark.thorough
def test_any_xml_gives_rows_or_a_reason():
    chance = random.Random(3)
    outcomes = Counter()
    for _ in range(2000):
        xml = chance.choice(HIGHEST).xml
        for _ in range(chance.randrange(1, 4)):
            xml = _mutate(chance, xml)
        values = [None, True, 1, -3, 1e9, "2", "x" * 300, [1]]
        metadata = {key: chance.choice(values) for key in ("pmcid", "version", "license_code", "is_retracted")}
        package = packages.Package("PMC1.1", xml, metadata, {"a.jpg": "a.jpg"}, lambda _: b"")
        try:
            rows = article_rows(package, chance.choice(["caption", "title+caption", "caption+context"]))
        except packages.ArticleError as fault:
            outcomes[fault.reason] += 1
        else:
            columns = [row.columns for row in rows.rows]
            assert pa.Table.from_pylist(columns, schema=COLUMNS).num_rows == rows.counts["rows"]
            outcomes["ok"] += 1
    assert min(outcomes[reason] for reason in ("ok", "damaged_article")) > 400 and len(outcomes) == 2


@pytest.mark.thorough
def test_any_archive_gives_rows_or_a_reason(tmp_path):
    chance = random.Random(4)
    whole = next(write_archives(tmp_path, HIGHEST[:1]).rglob("*.gz")).read_bytes()
    path = tmp_path / "PMC101.tar.gz"
    for at in range(300):
        data = bytearray(gzip.decompress(whole) if at % 2 else whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.choice([len(data), chance.randrange(len(data))])]
        path.write_bytes(gzip.compress(data, 1) if at % 2 else data)
        try:
            article_rows(packages.open_package(str(path), {}), "caption")
        except packages.ArticleError as fault:
            assert fault.reason in ("damaged_article", "no_article")
