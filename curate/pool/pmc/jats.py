"""Parses an article's XML (JATS): its figures with captions, the paragraphs that mention them, and article metadata.

The XML is untrusted: the parser resolves no entity, loads no DTD, and uses no network. Size, depth, and the number of
figures are limited. A graphic belongs to a figure if its nearest ancestor in `_OWNERS` is that `fig` or `fig-group`.
The graphics in one `alternatives` count as one. A figure without a caption, label, or permissions takes its group's.
"""

import re
from calendar import month_name
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from html.entities import html5
from itertools import groupby, islice
from typing import Any

from curate.base.wording import one_line

MAX_XML = 1 << 26  # bytes
_MAX_GRAPHICS = 4096  # in all figures of an article
_MAX_CONTEXT, _MAX_PARAGRAPHS = 1 << 15, 256  # characters and number of the paragraphs that mention a figure
_MAX_BOLD = 1000  # bold texts per caption
# Characters, for example in a title. Captions may have twice as many: a later check finds those that are too long
_MAX_TEXT = 10_000
_MAX_WORD = 500  # in an id or a name
_OWNERS = {
    "fig", "fig-group", "caption", "table-wrap", "disp-formula", "inline-formula", "chem-struct-wrap", "boxed-text",
    "supplementary-material", "permissions", "bio", "fn",
}  # fmt: skip
# Their text is not part of the paragraph that contains them
_FLOATS = frozenset({"fig", "fig-group", "table-wrap", "boxed-text", "supplementary-material", "tex-math"})
_NOT_CAPTION = frozenset({"title", "label", "tex-math", "fig", "fig-group"})  # a caption may contain figures
_BLOCKS = {"p", "title", "sec", "break", "list", "list-item", "label", "disp-formula", "disp-quote", "tr", "td", "th"}
# order of preference; others: 1
_PUBLISHED = {"epub": 0, "pub electronic": 0, "collection": 2, "pmc-release": 3, "nihms-submitted": 3}
_MONTHS = {name[:3].lower(): number for number, name in enumerate(month_name)}
_CC = re.compile(r"creativecommons\.org/(?:licen[sc]es/(by(?:-nc)?(?:-(?:sa|nd))?)\b|publicdomain/(zero|mark))", re.I)
_CC_WORDS = re.compile(
    r"creative commons attribution((?:[\s-]+(?:non[\s-]?commercial|share[\s-]?alike|no[\s-]?deriv\w*))*)", re.I
)
_CC0_WORDS = re.compile(r"\bCC0\b|creative commons public domain", re.I)
_LETTERS = re.compile(r"[A-Za-z](?:\s*(?:,|;|&|/|-|–|—|\band\b|\bto\b)+\s*[A-Za-z])*")
_IN_BRACKETS = re.compile(rf"\(\s*({_LETTERS.pattern})\s*\)")
_RANGE = re.compile(r"([A-Za-z])\s*(?:-|–|—|\bto\b)\s*([A-Za-z])\b")

_SAFE: dict[str, Any] = {  # parser options
    "resolve_entities": False, "load_dtd": False, "dtd_validation": False, "attribute_defaults": False,
    "no_network": True, "huge_tree": False, "recover": False, "remove_comments": True, "remove_pis": True,
}  # fmt: skip

_Hrefs = tuple[str, ...]  # of a graphic and its alternatives
_Paragraphs = dict[str, dict[int, str]]  # paragraphs by figure id, then by position in the article
_Reader = Callable[[Any, str], dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A figure: its caption, the paragraphs that mention it, and its graphics."""

    figure_id: str | None
    context: tuple[str, ...]  # paragraphs that mention it
    graphics: tuple[_Hrefs, ...]
    label: str | None = None
    caption_title: str | None = None
    caption_text: str | None = None  # without the title
    permission: str | None = None  # text of its own permissions
    license: str | None = None  # the license code in its own permissions
    letters: int = 0  # panels that its caption names: see `count_letters`


@dataclass(frozen=True)
class Article:
    """The content of an article's XML."""

    facts: dict[str, Any] = field(default_factory=dict)  # columns pmcid … manuscript of `format.COLUMNS`, if stated
    figures: tuple[Figure, ...] = ()
    elsewhere: int = 0  # graphics outside figures


def read_article(xml: bytes) -> Article:
    """Return the article. Raises ValueError if the XML is damaged, unsafe, or too large, or contains no article."""
    root = _parse(xml)
    articles = list(islice(root.iter("{*}article"), 2))
    if len(articles) != 1:
        raise ValueError(f"its root <{_name(root)[:50]}> has no <article>, or several; accepted: one <article>")
    article = articles[0]
    nodes = list(article.iter("{*}fig", "{*}fig-group"))
    graphics: dict[Any, list[_Hrefs]] = {}
    elsewhere = 0
    for _, group in groupby(article.iter("{*}graphic"), _alternatives):  # in order, alternatives together
        first, *others = group
        owner = next((node for node in first.iterancestors() if _name(node) in _OWNERS), None)
        if owner is not None and _name(owner) in ("fig", "fig-group"):
            graphics.setdefault(owner, []).append(tuple(filter(None, map(_href, [first, *others]))))
        else:
            elsewhere += 1
    if (count := sum(map(len, graphics.values()))) > _MAX_GRAPHICS:
        raise ValueError(f"it has {count:,} graphics in figures; accepted: at most {_MAX_GRAPHICS:,}")
    paragraphs = _paragraphs(article, {node.get("id") for node in nodes} - {None})
    # A group with graphics of its own is a figure; otherwise it contains figures
    shown = (node for node in nodes if node in graphics or _name(node) == "fig")
    read = cache(_read_part)
    figures = tuple(_figure(node, paragraphs, tuple(graphics.get(node, ())), read) for node in shown)
    return Article(_facts(article), figures, elsewhere)


def count_letters(caption: str, bold: tuple[str, ...] = ()) -> int:
    """Return how many panels a caption names: the letters from A on, without a gap, each in parentheses or in bold.

    `(A)`, `(a, b)`, and `(A–C)` name letters, and so does bold text with one letter or several.
    """
    letters: set[str] = set()
    bold_ones = (text.strip(" .,:;()") for text in bold)
    for names in [*(m[1] for m in _IN_BRACKETS.finditer(caption)), *filter(_LETTERS.fullmatch, bold_ones)]:
        lower = names.lower()
        letters |= {word for word in re.split(r"[^a-z]+", lower) if len(word) == 1}
        for first, last in _RANGE.findall(lower):
            letters |= {chr(code) for code in range(ord(first), ord(last) + 1)}
    count = next(n for n in range(27) if chr(ord("a") + n) not in letters)
    return count if count > 1 else 0


def find_license(texts: list[str]) -> str | None:
    """Return the license code that a text names, as PMC writes it: `CC BY-NC`, `CC0`; None if it names none."""
    for text in texts:
        if match := _CC.search(text):
            return f"CC {match[1].upper()}" if match[1] else "CC0" if match[2].lower() == "zero" else "CC PDM"
    for text in texts:
        if match := _CC_WORDS.search(text):
            words = re.sub(r"[^a-z]", "", match[1].lower())
            conditions = (("noncommercial", "-NC"), ("sharealike", "-SA"), ("noderiv", "-ND"))
            return "CC BY" + "".join(code for word, code in conditions if word in words)
        if _CC0_WORDS.search(text):
            return "CC0"
    return None


def _parse(xml: bytes) -> Any:
    from lxml import etree

    if len(xml) > MAX_XML:
        raise ValueError(f"the XML has {len(xml):,} bytes; accepted: at most {MAX_XML:,}")
    try:
        root = etree.fromstring(xml, etree.XMLParser(**_SAFE))
    except etree.XMLSyntaxError as error:
        raise ValueError(f"the XML is damaged: {one_line(error.msg, 200)}") from None
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and next(dtd.iterentities(), None) is not None:
        raise ValueError("the XML declares entities; accepted: XML without entities")
    return root


def _name(node: Any) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _href(node: Any) -> str:
    return next((value for name, value in node.attrib.items() if name.rpartition("}")[2] == "href"), "").strip()


def _child(node: Any, path: str) -> Any:
    return None if node is None else node.find("/".join(f"{{*}}{name}" for name in path.split("/")))


def _text(node: Any, but: frozenset[str] = frozenset()) -> str | None:
    """Return an element's text with single spaces, without the elements to skip; None if nothing is left."""
    return None if node is None else " ".join("".join(_pieces(node, but)).split()) or None


def _pieces(node: Any, but: frozenset[str]) -> Iterator[str]:
    yield node.text or ""
    for child in node:
        name = _name(child)
        if not name:  # an unresolved entity: use its name if HTML defines it
            yield html5.get(str(child.text).lstrip("&"), "")
        elif name not in but:
            space = " " if name in _BLOCKS else ""
            yield space
            yield from _pieces(child, but)
            yield space
        yield child.tail or ""


def _alternatives(graphic: Any) -> Any:
    return parent if _name(parent := graphic.getparent()) == "alternatives" else graphic


def _paragraphs(article: Any, ids: set[str]) -> _Paragraphs:
    """Return for each figure the paragraphs that mention it, by position in the article. Captions are ignored."""
    texts: dict[Any, tuple[int, str | None]] = {}
    by_figure: dict[str, dict[int, str]] = {}
    for xref in article.iter("{*}xref"):
        named = ids.intersection((xref.get("rid") or "").split())
        if not named:
            continue
        paragraph = next(xref.iterancestors("{*}p"), None)
        if paragraph is None or next(xref.iterancestors("{*}caption", "{*}fig"), None) is not None:
            continue
        if paragraph not in texts:
            texts[paragraph] = len(texts), _text(paragraph, _FLOATS)
        number, text = texts[paragraph]
        for figure in named if text else ():
            if len(naming := by_figure.setdefault(figure, {})) < _MAX_PARAGRAPHS:
                naming[number] = str(text)
    return by_figure


def _figure(node: Any, paragraphs: _Paragraphs, graphics: tuple[_Hrefs, ...], read: _Reader) -> Figure:
    group = next(node.iterancestors("{*}fig-group"), None)
    ids = [name for name in (node.get("id"), None if group is None else group.get("id")) if name]
    by_number = {number: text for name in ids for number, text in paragraphs.get(name, {}).items()}
    context: list[str] = []
    remaining = _MAX_CONTEXT
    for _, paragraph in sorted(by_number.items()):
        remaining -= len(paragraph)
        if remaining >= 0:
            context.append(paragraph)
    parts: dict[str, Any] = {}
    for name in ("label", "caption", "permissions"):
        parts |= read(node, name) or read(group, name)
    return Figure(_short(node.get("id"), _MAX_WORD), tuple(context), graphics, **parts)


def _read_part(node: Any, name: str) -> dict[str, Any]:
    part = _child(node, name)
    if part is None:
        return {}
    if name == "label":
        return {"label": _short(_text(part), _MAX_WORD)}
    if name == "permissions":
        return {"permission": _short(_text(part)), "license": _license(part)}
    title, text = _text(_child(part, "title")), _text(part, _NOT_CAPTION)
    nodes = islice(part.iter("{*}bold"), _MAX_BOLD)
    bold = tuple(filter(None, (_text(node) for node in nodes if next(node.iterancestors("{*}bold"), None) is None)))
    return {
        "caption_title": _short(title, 2 * _MAX_TEXT),
        "caption_text": _short(text, 2 * _MAX_TEXT),
        "letters": count_letters(f"{title or ''} {text or ''}", bold),
    }


def _short(text: str | None, limit: int = _MAX_TEXT) -> str | None:
    return text and text[:limit]


def _license(permissions: Any) -> str | None:
    nodes = [] if permissions is None else [node for node in permissions.iter() if _name(node)]
    values = [value for node in nodes for value in (*node.attrib.values(), node.text or "")]
    return find_license([*map(str, values), _text(permissions) or ""])


def _facts(article: Any) -> dict[str, Any]:
    meta, journal = _child(article, "front/article-meta"), _child(article, "front/journal-meta")
    if meta is None:
        meta = article.makeelement("article-meta")
    ids: dict[str, str] = {}
    for node in meta.iterchildren("{*}article-id"):
        ids.setdefault(str(node.get("pub-id-type")), (_text(node) or "")[:_MAX_WORD])
    related = [node.get("related-article-type") for node in meta.iter("{*}related-article")]
    keywords = dict.fromkeys(filter(None, map(_text, meta.iterfind("{*}kwd-group//{*}kwd"))))
    stated = ids.get("pmcid-ver", ids.get("pmcid", ids.get("pmc", "")))
    pmcid, _, version = stated.upper().removeprefix("PMC").partition(".")
    published, precision = _published(meta)
    names = ("journal-title-group/journal-title", "journal-title", "journal-id")
    return {
        "pmcid": f"PMC{pmcid}" if pmcid.isdecimal() else None,
        "version": int(version) if version.isdecimal() and len(version) < 6 else None,
        "pmid": ids.get("pmid") or None,
        "doi": ids.get("doi") or None,
        "article_title": _short(_text(_child(meta, "title-group/article-title"), frozenset({"fn", "xref"}))),
        "journal": _short(next(filter(None, (_text(_child(journal, name)) for name in names)), None)),
        "date": published,
        "date_precision": precision,
        "license": _license(_child(meta, "permissions")) or _license(_child(meta, "copyright-statement")),
        "article_type": _short(article.get("article-type")),
        "keywords": _short("; ".join(keywords)) or None,
        "retracted": True if "retraction-forward" in related else None,
        "manuscript": True if "manuscript" in ids else None,
    }


def _published(meta: Any) -> tuple[date | None, str | None]:
    """Return the publication date, electronic if stated, and its precision: year, month, or day."""

    def rank(node: Any) -> int:
        kind = node.get("pub-type") or f"{node.get('date-type')} {node.get('publication-format')}"
        return _PUBLISHED.get(kind, 1)

    for node in sorted(meta.iterfind("{*}pub-date"), key=rank):
        parts = [_text(_child(node, name)) or "" for name in ("year", "month", "day")]
        if not parts[0]:
            parts = [*(node.get("iso-8601-date") or "").split("-"), "", ""][:3]
        parts[1] = str(_MONTHS.get(parts[1][:3].lower(), parts[1]))
        numbers = [int(text) if text.isdecimal() and len(text) < 5 else 0 for text in parts]
        for precision, used in (("day", 3), ("month", 2), ("year", 1)):
            with suppress(ValueError):
                return date(*[*numbers[:used], 1, 1][:3]), precision
    return None, None
