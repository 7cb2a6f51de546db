"""Rows of an article: a graphic of a figure, with its caption and what the article is.

What PMC's metadata say of an article comes before what its XML says.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.base.schema import OK, define
from curate.pool.pmc.jats import Figure, read_article
from curate.pool.pmc.packages import ArticleFault, Package, parse_name
from curate.read.text import MAX_CHARACTERS

_TEXT, _BOOL, _NUMBER = pa.string(), pa.bool_(), pa.int32()
COLUMNS = define(
    pmcid=_TEXT,
    version=_NUMBER,  # of the article
    pmid=_TEXT,
    doi=_TEXT,
    figure_id=_TEXT,
    label=_TEXT,  # such as "Figure 1"
    position=_NUMBER,  # of the graphic among those of the article's figures, from 0
    graphics=_NUMBER,  # of its figure
    panels=_NUMBER,  # of its figure: the letters that its caption names, or its graphics where these are more
    href=_TEXT,  # the graphic's name in the XML
    caption_title=_TEXT,
    caption_text=_TEXT,  # without the title
    context=_TEXT,  # the paragraphs that name the figure, an empty line between two
    article_title=_TEXT,
    journal=_TEXT,
    date=pa.date32(),  # of publication, electronically where that is said
    date_precision=_TEXT,  # year, month or day
    license=_TEXT,  # of the figure, as a code of PMC: that in its own permissions, without such the article's
    license_group=_TEXT,  # comm, noncomm or other, as BIOMEDICA groups them
    third_party_permission=_TEXT,  # the figure's own permissions, where they are not of the article's license
    article_type=_TEXT,
    keywords=_TEXT,
    retracted=_BOOL,
    manuscript=_BOOL,
)
# Without context, keywords and the like, which are stored where a rule names them
ALWAYS = ("pmcid", "license", "license_group", "panels")
_GROUPS = dict.fromkeys(("CC0", "CC BY", "CC BY-SA", "CC BY-ND"), "comm")
_GROUPS |= dict.fromkeys(("CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND"), "noncomm")
_OF_METADATA = {
    "pmcid": ("pmcid", str), "version": ("version", int), "pmid": ("pmid", str), "doi": ("doi", str),
    "license": ("license_code", str), "retracted": ("is_retracted", bool), "manuscript": ("is_manuscript", bool),
}  # fmt: skip
# How PMCIDs and codes are written, whatever the metadata have: PMC13901, CC BY-NC
_SPELLINGS = {
    "pmcid": lambda text: f"PMC{text.upper().removeprefix('PMC')}",
    "license": lambda text: re.sub(r"^CC[\s-]+", "CC ", text.upper()),
}


@dataclass(frozen=True, slots=True)
class GraphicRow:
    """A row: a graphic, or an article that cannot be used."""

    columns: dict[str, Any] = field(default_factory=dict)  # `COLUMNS`; empty of an article
    caption: str | None = None
    file: str | None = None  # its name in the package
    status: str = OK
    error: str | None = None


@dataclass(frozen=True)
class ArticleRows:
    """The rows of an article, in the order of its graphics."""

    rows: list[GraphicRow]
    counts: Counter[str] = field(default_factory=Counter)  # see `Batch.links`


def license_group(code: str | None) -> str:
    """Return BIOMEDICA's group of a license: what commerce may use, what others may, and all else."""
    return _GROUPS.get(code or "", "other")


def article_rows(package: Package, caption: str) -> ArticleRows:
    """Return the rows of an article, whose captions are of that kind. Raises ArticleFault where it is damaged."""
    try:
        article = read_article(package.xml)
    except ValueError as error:
        raise ArticleFault("damaged_article", str(error)) from None
    facts = article.facts | _metadata_facts(package.metadata)
    if (parsed := parse_name(package.name)) and (facts["pmcid"] or parsed[0]) == parsed[0]:
        facts |= {"pmcid": parsed[0], "version": facts["version"] or parsed[1] or None}
    rows: list[GraphicRow] = []
    counts: Counter[str] = Counter()
    for figure in article.figures:
        counts["no_graphic"] += not figure.graphics
        text = make_caption(figure, facts["article_title"], caption)
        for hrefs in figure.graphics:
            name = package.find(hrefs)
            missing = f"no file of the article is named {' or '.join(map(repr, hrefs))[:200]}"
            fault = (OK, None) if name else ("no_image", missing)
            rows.append(GraphicRow(_columns(facts, figure, len(rows), hrefs), text, name, *fault))
    counts.update({"no_figure": article.elsewhere, "rows": len(rows), "pages": 1})
    counts["images"] = article.elsewhere + len(rows)
    return ArticleRows(rows, counts)


def make_caption(figure: Figure, article_title: str | None, kind: str) -> str | None:
    """Return the caption of a figure; None where it has none, whatever else there is."""
    caption = " ".join(filter(None, (figure.caption_title, figure.caption_text)))
    if not caption:
        return None
    if kind == "title+caption" and article_title:
        return f"{article_title}{'' if article_title[-1] in '.?!' else '.'} {caption}"
    for paragraph in figure.context if kind == "caption+context" else ():
        if len(caption) + 1 + len(paragraph) <= MAX_CHARACTERS:
            caption = f"{caption} {paragraph}"
    return caption


def _columns(facts: Mapping[str, Any], figure: Figure, position: int, hrefs: tuple[str, ...]) -> dict[str, Any]:
    code = facts["license"]
    is_own = figure.permission is not None and (figure.license is None or figure.license != code)
    code = figure.license if is_own else code
    of_figure = {
        "figure_id": figure.figure_id,
        "label": figure.label,
        "position": position,
        "graphics": len(figure.graphics),
        "panels": max(figure.letters, len(figure.graphics)),
        "href": hrefs[0][:500] if hrefs else None,
        "caption_title": figure.caption_title,
        "caption_text": figure.caption_text,
        "context": "\n\n".join(figure.context) or None,
        "license": code,
        "license_group": license_group(code),
        "third_party_permission": figure.permission if is_own else None,
    }
    values = {**facts, **of_figure}
    return {name: values[name] for name in COLUMNS.names}


def _metadata_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, (key, kind) in _OF_METADATA.items():
        value = metadata.get(key)
        if kind is bool:
            facts |= {name: value} if isinstance(value, bool) else {}
        elif isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            text = str(value).strip()[:200]
            if kind is str:
                facts[name] = _SPELLINGS[name](text) if name in _SPELLINGS else text
            elif text.isdecimal() and len(text) < 6:
                facts[name] = int(text)
    return facts
