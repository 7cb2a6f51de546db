"""Draws articles as PMC has them, in today's layout and in older ones, and reads them naively: what rows they give.

`ARTICLES` has each shape of figure that JATS allows, `DAMAGED` what must fail. `naive_rows` goes by ElementTree and the
definitions alone; `biomedica_rows` by the rules of BIOMEDICA's code (MIT, read at c5bbea9b), which start at the files.
"""

import gzip
import hashlib
import io
import json
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.kit import encode, picture

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"'
DOCTYPE = '<!DOCTYPE article PUBLIC "-//NLM//DTD Journal Archiving and Interchange DTD v2.3 20070202//EN" "archivearticle.dtd">\n'
CC = "http://creativecommons.org/licenses/{}/4.0/"


@dataclass
class Drawn:
    """An article: its XML, the names of its media, and what PMC's metadata say of it."""

    number: int
    body: str
    media: Sequence[str] = ()
    license: str | None = "by"
    version: int = 1
    meta: str = ""  # more of article-meta
    attributes: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None  # in place of the XML

    @property
    def pmcid(self):
        """PMC101."""
        return f"PMC{self.number}"

    @property
    def name(self):
        """PMC101.1."""
        return f"{self.pmcid}.{self.version}"

    @property
    def xml(self):
        """The article's XML."""
        if self.raw is not None:
            return self.raw
        license_ = f'<license xlink:href="{CC.format(self.license)}"><license-p>Open.</license-p></license>'
        permissions = (
            f"<permissions><copyright-year>2020</copyright-year>{license_ if self.license else ''}</permissions>"
        )
        return f"""<?xml version="1.0" encoding="UTF-8"?>\n{DOCTYPE}<article {XLINK} article-type="research-article" {self.attributes}>
<front><journal-meta><journal-id journal-id-type="nlm-ta">J Draw</journal-id><journal-title-group>
<journal-title>Journal of Drawing</journal-title></journal-title-group></journal-meta>
<article-meta><article-id pub-id-type="pmid">{self.number + 900}</article-id>
<article-id pub-id-type="pmc">{self.number}</article-id><article-id pub-id-type="doi">10.1/{self.number}</article-id>
<title-group><article-title>On drawing <italic>number</italic> {self.number}</article-title></title-group>
<pub-date pub-type="ppub"><month>3</month><year>2021</year></pub-date>
<pub-date pub-type="epub"><day>{self.number % 28 + 1}</day><month>2</month><year>2020</year></pub-date>{self.meta}
{permissions}<kwd-group><kwd>line</kwd><kwd>circle</kwd></kwd-group></article-meta></front>
{self.body}</article>""".encode()

    def image(self, name):
        """The bytes of one of its media."""
        seed = int(hashlib.sha256(f"{self.number} {name.lower().rpartition('.')[0]}".encode()).hexdigest()[:6], 16)
        forms = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "tif": "TIFF"}
        suffix = name.lower().rpartition(".")[2]
        return encode(picture(seed), forms[suffix]) if suffix in forms else b"no image: " + name.encode()


def fig(name, caption, *hrefs, more="", label="Figure 1"):
    """A figure with graphics."""
    graphics = "".join(f'<graphic xlink:href="{href}"/>' for href in hrefs)
    return f'<fig id="{name}"><label>{label}</label><caption>{caption}</caption>{graphics}{more}</fig>'


PERMISSIONS = "<permissions><copyright-statement>© 1999 Another Press</copyright-statement>{}</permissions>"
ARTICLES = [
    Drawn(
        101,
        f"""<body><sec><p>As <xref ref-type="fig" rid="f1">Fig. 1</xref> shows, lines are long.</p>
        <p>Both <italic>are in <xref ref-type="fig" rid="f1 f2">Figs. 1, 2</xref></italic>, &#233;t al.</p>
        {fig("f1", "<title>Lines.</title><p>(A) A long line; (B)  a <bold>short</bold> one.</p>", "d101-g001")}
        {fig("f2", "<p>A circle of 10<sup>3</sup> points, not <xref ref-type='fig' rid='f1'>1</xref></p>", "d101.g002", label="Figure 2")}</sec></body>""",
        ["d101-g001.jpg", "d101-g001.gif", "d101.g002.JPG", "d101-s001.xlsx"],
    ),
    Drawn(
        102,
        f"""<body><p>See <xref ref-type="fig" rid="F2">2</xref>.</p>
        {fig("F1", "<p>With a suffix</p>", "D102-G001.jpg")}
        {fig("F2", "<p>As webp</p>", "images/d102-g002.webp", label="Fig. 2")}
        {fig("F3", "<p>Printed as TIFF, shown as JPEG</p>", "d102-g003.tif", label="Fig. 3")}
        <fig id="F4"><label>Fig. 4</label><caption><p>One image, two forms</p></caption><alternatives>
        <graphic specific-use="print" xlink:href="d102-g004.eps"/><graphic specific-use="web" xlink:href="d102-g004.jpg"/>
        </alternatives></fig></body>""",
        ["d102-g001.jpg", "d102-g002.webp", "d102-g003.jpg", "d102-g004.jpg", "d102-g004.eps"],
        license="by-nc-nd",
    ),
    Drawn(
        103,
        f"""<body><p>Of <xref ref-type="fig" rid="g1">all of them</xref>,</p><p>see <xref ref-type="fig" rid="s2">b</xref>.</p>
        <fig-group id="g1"><label>Figure 1</label><caption><title>A group.</title><p>Of two</p></caption>
        <fig id="s1"><graphic xlink:href="d103-g001a"/></fig>
        {fig("s2", "<p>with its own words</p>", "d103-g001b", label="b")}</fig-group>
        <fig-group id="g2"><caption><p>Graphics of a group: <bold>A–C</bold></p></caption>
        <graphic xlink:href="d103-g002a"/><graphic xlink:href="d103-g002b"/></fig-group></body>""",
        ["d103-g001a.jpg", "d103-g001b.jpg", "d103-g002a.jpg", "d103-g002b.jpg"],
        license="by-sa",
    ),
    Drawn(
        104,
        f"""<body><p>Three images are in <xref ref-type="fig" rid="f1"/>, <xref rid="f1" ref-type="fig">again</xref>.</p>
        <p>{fig("f1", "<p><bold>a</bold>, one <bold>b,</bold> two</p>", "d104a", "d104b", "d104c")} The figure is in it.</p>
        </body>""",
        ["d104a.jpg", "d104b.jpg", "d104c.png"],
        license="by-nc-sa",
        metadata={"is_retracted": True},
    ),
    Drawn(
        105,
        f"""<body>{fig("f1", "<p>Lent by another press</p>", "d105-1", more=PERMISSIONS.format(""))}
        {fig("f2", "<p>Of the same license</p>", "d105-2", more=PERMISSIONS.format(f'<license xlink:href="{CC.format("by")}"/>'))}
        {fig("f3", "<p>Lent for others</p>", "d105-3", more=PERMISSIONS.format(f'<license xlink:href="{CC.format("by-nc")}"/>'))}
        </body>""",
        ["d105-1.jpg", "d105-2.jpg", "d105-3.jpg"],
    ),
    Drawn(
        106,
        f"""<body><disp-formula id="e1"><graphic xlink:href="d106-e001"/></disp-formula>
        <table-wrap id="t1"><caption><p>A table</p></caption><graphic xlink:href="d106-t001"/></table-wrap>
        {fig("f1", "<p>A film, without an image</p>", more='<media xlink:href="d106-m1.mp4"/>')}
        {fig("f2", "<p>Nobody has its file</p>", "d106-g002")}
        {fig("f3", '<p>Where <disp-formula><graphic xlink:href="d106-e002"/></disp-formula> holds</p>', "d106-g003")}
        {fig("f4", "", "d106-g004")}{fig("f5", "<p>What its file is, is no image</p>", "d106-g005.mp4")}</body>""",
        ["d106-e001.jpg", "d106-t001.jpg", "d106-e002.jpg", "d106-g003.jpg", "d106-g004.jpg", "d106-g005.mp4"],
        license=None,
    ),
    Drawn(
        107,
        f"""<body><p>At the end: <xref ref-type="fig" rid="f1">1</xref></p>
        <p>Reprinted <xref ref-type="table" rid="f1">there</xref></p></body>
        <floats-group>{fig("f1", "<title>Floating</title>", "d107-g001")}</floats-group>
        <sub-article article-type="reply"><body>{fig("r1", "<p>Of the reply</p>", "d107-r001")}</body></sub-article>""",
        ["d107-g001.jpg", "d107-r001.jpg"],
        attributes='xmlns="https://jats.nlm.nih.gov/ns/archiving/1.4/"',
        meta='<article-id pub-id-type="pmcid-ver">PMC107.1</article-id>',
    ),
    Drawn(108, f"<body>{fig('f1', '<p>The first version</p>', 'd108')}</body>", ["d108.jpg"]),
    Drawn(108, f"<body>{fig('f1', '<p>The second version</p>', 'd108')}</body>", ["d108.jpg"], version=2),
    Drawn(
        109,
        f"""<body><p>In <xref rid="f1" ref-type="fig"/> and <table-wrap><table><tr><td>no cell of it</td></tr></table>
        </table-wrap> &#945; &alpha;</p>{fig("f1", "<p>Of 2007</p>", "d109")}</body>""",
        ["d109.jpg"],
        license=None,
        meta="<copyright-statement>Under the Creative Commons Attribution License</copyright-statement>",
    ),
    Drawn(110, "<body><p>Nothing to see</p></body>"),
]
RULES = {
    "licensed": "license_group <> 'other'", "not_lent": "third_party_permission IS NULL",
    "not_retracted": "retracted IS NOT TRUE", "size": "min_side > 20",
}  # fmt: skip
HIGHEST = list({article.pmcid: article for article in ARTICLES}.values())
ENTITIES = "<!DOCTYPE article [{}]><article><body><p>{}</p></body></article>"
BOMB = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
DAMAGED = [
    Drawn(201, "", raw=b"<article><body><fig>"),
    Drawn(202, "", raw=ENTITIES.format(f'<!ENTITY a "lol">{BOMB}', "&i;").encode()),
    Drawn(203, "", raw=ENTITIES.format('<!ENTITY a SYSTEM "file:///etc/hostname">', "&a;").encode()),
    Drawn(204, "", raw=b"<article>" + b"<sec>" * 300 + b"</sec>" * 300 + b"</article>"),
    Drawn(205, "", raw=b"<html>Not here</html>"),
    Drawn(206, "", raw=b""),
    Drawn(207, "", raw=b"\xff\xfe\x00junk"),
    Drawn(208, "", raw=ENTITIES.format(f'<!ENTITY a "lol">{BOMB}', "").replace("<body>", '<body id="&i;">').encode()),
    Drawn(209, "", raw=b"<pmc-articleset><article/><article/></pmc-articleset>"),
]


# ---------------------------------------------------------------- layouts
def write_folders(folder, articles, with_metadata=True):
    """Today's layout: a folder for each version, and the metadata of all in one folder too."""
    for article in articles:
        place = folder / article.name
        place.mkdir(parents=True)
        (place / f"{article.name}.xml").write_bytes(article.xml)
        (place / f"{article.name}.txt").write_text("plain text")
        for name in article.media:
            (place / name).write_bytes(article.image(name))
        if with_metadata:
            text = json.dumps(metadata_of(article))
            (folder / "metadata").mkdir(exist_ok=True)
            (folder / "metadata" / f"{article.name}.json").write_text(text)
            if article.number % 2:
                (place / f"{article.name}.json").write_text(text)
    return folder


def metadata_of(article):
    """The json of an article."""
    return {
        "pmcid": article.pmcid,
        "version": article.version,
        "pmid": article.number + 900,
        "doi": f"10.1/{article.number}",
        "title": f"On drawing number {article.number}",
        "is_pmc_openaccess": True,
        "is_manuscript": False,
        "is_historical_ocr": False,
        "is_retracted": False,
        "license_code": f"CC {article.license.upper()}" if article.license else None,
        "media_urls": [f"s3://pmc-oa-opendata/{article.name}/{name}?md5=0" for name in article.media],
    } | article.metadata


def write_archives(folder, articles):
    """The older layout: a tar.gz for each article, in folders of any names."""
    for article in articles:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            members = {f"d{article.number}.nxml": article.xml} | {name: article.image(name) for name in article.media}
            for name, data in members.items():
                member = tarfile.TarInfo(f"{article.pmcid}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        place = folder / f"{article.number % 3:02x}" / f"{article.pmcid}.tar.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(file.getvalue(), mtime=0))
    return folder


def write_inventory(path, articles):
    """PMC's daily list of all metadata."""
    lines = [
        f'"pmc-oa-opendata","metadata/{article.name}.json","2026-01-08T11:47:59.000Z","{article.number:032x}"\n'
        for article in articles
    ]
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    return path


# ---------------------------------------------------------------- a naive reader
def naive_rows(article):
    """The rows of an article with these of their columns."""
    root = ET.fromstring(re.sub(rb' xmlns="[^"]*"', b"", article.xml).replace(b"&alpha;", "α".encode()))
    parents = {child: parent for parent in root.iter() for child in parent}

    def up(node):
        return [parents[node], *up(parents[node])] if node in parents else []

    def text(node, *but):
        if node is None:
            return None

        def pieces(inner):
            spaced = " " if inner.tag in ("p", "title", "label", "disp-formula") else ""
            within = "" if inner.tag in but else (inner.text or "") + "".join(map(pieces, inner))
            return f"{spaced}{within}{spaced}{inner.tail or ''}"

        return " ".join(((node.text or "") + "".join(map(pieces, node))).split()) or None

    holders = ("fig", "fig-group", "caption", "table-wrap", "disp-formula")
    position = 0
    for figure in (node for node in root.iter() if node.tag in ("fig", "fig-group")):
        group = next((node for node in up(figure) if node.tag == "fig-group"), None)
        around = [node for node in (figure, group) if node is not None]
        found = {tag: next((n for a in around if (n := a.find(tag)) is not None), None) for tag in ("label", "caption")}
        caption = found["caption"]
        graphics = []
        seen = []
        for node in figure.iter("graphic"):
            if next(above for above in up(node) if above.tag in holders) is figure:
                href = node.get("{http://www.w3.org/1999/xlink}href", "")
                if parents[node].tag == "alternatives" and parents[node] in seen:
                    graphics[-1].append(href)
                else:
                    graphics.append([href])
                    seen.append(parents[node])
        names = {node.get("id") for node in around}
        paragraphs = {}
        for paragraph in root.iter("p"):
            if any(node.tag in ("caption", "fig") for node in up(paragraph)):
                continue
            xrefs = [x for x in paragraph.iter("xref") if next(n for n in up(x) if n.tag == "p") is paragraph]
            if any(names & set(xref.get("rid", "").split()) for xref in xrefs):
                paragraphs[text(paragraph, "fig", "fig-group", "table-wrap") or ""] = None
        title = None if caption is None else text(caption.find("title"))
        rest = None if caption is None else text(caption, "title")
        for hrefs in graphics:
            yield {
                "key": f"{article.pmcid}-{position}",
                "caption": " ".join(filter(None, (title, rest))) or None,
                "figure_id": figure.get("id"),
                "label": text(found["label"]),
                "position": position,
                "graphics": len(graphics),
                "href": hrefs[0],
                "caption_title": title,
                "caption_text": rest,
                "context": "\n\n".join(paragraphs) or None,
                "file": _file_of(article, hrefs),
            }
            position += 1


def _file_of(article, hrefs):
    images = [name for name in article.media if re.search(r"\.(jpg|png|gif|webp|tif)$", name, re.I)]
    for href in (href.split("/")[-1].lower() for href in hrefs):
        for wanted in (href, re.sub(r"\.(tif|eps|jpg)$", "", href)):
            for ending in ("", ".jpg", ".png", ".webp", ".gif"):
                for name in images:
                    if name.lower() == wanted + ending:
                        return name
    return next((name for href in hrefs for name in article.media if name == href), None)


# ---------------------------------------------------------------- BIOMEDICA's rules
def biomedica_rows(article):
    """File name, caption and context of each image that BIOMEDICA takes of an article.

    In paragraphs of its context the tags of references stay, and what follows each is there twice; here they are plain.
    """
    root = ET.fromstring(article.xml.replace(b"&alpha;", "α".encode()))
    parents = {child: parent for parent in root.iter() for child in parent}
    href = "{http://www.w3.org/1999/xlink}href"

    def name_of(node, attribute):
        return node.get(attribute, "").strip().replace("-", ".")

    first = {}
    for figure in root.iter("fig"):
        graphic = figure.find(".//graphic")
        if name_of(figure, "id") and graphic is not None:
            first[name_of(figure, "id")] = graphic.get(href, "").split("/")[-1]
    contexts = {}
    for xref in root.findall(".//xref[@ref-type='fig']"):
        name, paragraph = name_of(xref, "rid"), parents[xref]
        if name in first and paragraph.tag == "p":
            contexts.setdefault(first[name], {})["".join(paragraph.itertext())] = None
            for other in paragraph.iter("xref"):  # it writes file names over ids: other figures are not named then
                if other.get("ref-type") == "fig":
                    other.set("rid", first.get(name_of(other, "rid"), other.get("rid", "")))
    for name in article.media:
        if name.endswith(".jpg"):
            stem = name[: -len(".jpg")]
            graphic = next((node for node in root.iter("graphic") if node.get(href) == stem), None)
            caption = None if graphic is None else parents[graphic].find(".//caption")
            text = "" if caption is None else "".join(caption.itertext()).strip()
            if text:
                yield name, text, list(contexts.get(stem, {}))
