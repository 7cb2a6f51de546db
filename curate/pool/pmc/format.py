"""Reads articles from PubMed Central. A row is a graphic of a figure, with the figure's caption.

A part is a range of consecutive articles. What cannot be used becomes a failed row: an article with `no_article` or
`damaged_article`, a graphic without a file with `no_image`. Column `offset` encodes the article's position in its part
and the graphic's position in the article.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.base import ids
from curate.base.numeric.arrays import Mask
from curate.base.process import read_ahead
from curate.base.schema import OK, define
from curate.base.wording import pluralize
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles
from curate.pool.formats.input_format import Batches, InputPart, InputSample, PartRows, PlannedSource
from curate.pool.pmc import packages
from curate.pool.pmc.articles import list_articles, make_parts
from curate.pool.pmc.jats import Figure, read_article
from curate.pool.pmc.packages import ARCHIVES, XML, parse_name
from curate.read.field_types import count_columns
from curate.read.listing import expand_braces, list_folder
from curate.read.text import MAX_CHARACTERS
from curate.recipe.section import UserPath
from curate.recipe.source import Source

_GRAPHICS = 1 << 16  # the maximum per article


_TEXT, _BOOL, _NUMBER = pa.string(), pa.bool_(), pa.int32()
COLUMNS = define(
    pmcid=_TEXT,
    version=_NUMBER,  # the article's
    pmid=_TEXT,
    doi=_TEXT,
    figure_id=_TEXT,
    label=_TEXT,  # such as "Figure 1"
    position=_NUMBER,  # of the graphic among all graphics of the article's figures, from 0
    graphics=_NUMBER,  # in its figure
    panels=_NUMBER,  # in its figure: letters in the caption, or graphics if there are more
    href=_TEXT,  # the graphic's name in the XML
    caption_title=_TEXT,
    caption_text=_TEXT,  # without the title
    context=_TEXT,  # paragraphs that mention the figure, separated by empty lines
    article_title=_TEXT,
    journal=_TEXT,
    date=pa.date32(),  # of publication, electronic if stated
    date_precision=_TEXT,  # year, month, or day
    license=_TEXT,  # a PMC code: from the figure's own permissions, else the article's
    license_group=_TEXT,  # comm, noncomm, or other, as in BIOMEDICA
    third_party_permission=_TEXT,  # the figure's own permissions, if they differ from the article's license
    article_type=_TEXT,
    keywords=_TEXT,
    retracted=_BOOL,
    manuscript=_BOOL,
)
# Other columns, such as context and keywords, are stored only if a rule names them
ALWAYS = ("pmcid", "license", "license_group", "panels")
_GROUPS = dict.fromkeys(("CC0", "CC BY", "CC BY-SA", "CC BY-ND"), "comm")
_GROUPS |= dict.fromkeys(("CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND"), "noncomm")
_OF_METADATA = {
    "pmcid": ("pmcid", str), "version": ("version", int), "pmid": ("pmid", str), "doi": ("doi", str),
    "license": ("license_code", str), "retracted": ("is_retracted", bool), "manuscript": ("is_manuscript", bool),
}  # fmt: skip
# Canonical spelling of PMCIDs and license codes: PMC13901, CC BY-NC
_SPELLINGS = {
    "pmcid": lambda text: f"PMC{text.upper().removeprefix('PMC')}",
    "license": lambda text: re.sub(r"^CC[\s-]+", "CC ", text.upper()),
}


@dataclass(frozen=True, slots=True)
class GraphicRow:
    """A row: a graphic, or an article that cannot be used."""

    key: str = ""  # `PMC10009416-3`; for an article its name
    columns: dict[str, Any] = field(default_factory=dict)  # `COLUMNS`; empty for an article
    caption: str | None = None
    file: str | None = None  # its name in the package
    status: str = OK
    error: str | None = None
    package: packages.Package | None = None

    def read(self) -> bytes | None:
        return self.package.read(self.file) if self.package and self.file else None


@dataclass(frozen=True)
class ArticleRows:
    """The rows of an article, in the order of its graphics."""

    rows: list[GraphicRow]
    counts: Counter[str] = field(default_factory=Counter)  # see `Batch.links`


def license_group(code: str | None) -> str:
    """Return BIOMEDICA's license group: commercial use, noncommercial use, or other."""
    return _GROUPS.get(code or "", "other")


def article_rows(package: packages.Package, caption: str) -> ArticleRows:
    """Return an article's rows with this kind of caption. Raises ArticleError if the article is damaged."""
    try:
        article = read_article(package.xml)
    except ValueError as error:
        raise packages.ArticleError("damaged_article", str(error)) from None
    facts = article.facts | _metadata_facts(package.metadata)
    if (parsed := parse_name(package.name)) and (facts["pmcid"] or parsed[0]) == parsed[0]:
        facts |= {"pmcid": parsed[0], "version": facts["version"] or parsed[1] or None}
    rows: list[GraphicRow] = []
    counts: Counter[str] = Counter()
    files = replace(package, xml=b"")  # the XML may be large
    for figure in article.figures:
        counts["no_graphic"] += not figure.graphics
        text = make_caption(figure, facts["article_title"], caption)
        for hrefs in figure.graphics:
            name = package.find(hrefs)
            missing = f"no file of the article is named {' or '.join(map(repr, hrefs))[:200]}"
            status, problem = (OK, None) if name else ("no_image", missing)
            key, columns = f"{facts['pmcid'] or package.name}-{len(rows)}", _columns(facts, figure, len(rows), hrefs)
            rows.append(GraphicRow(key, columns, text, name, status, problem, files))
    counts.update({"no_figure": article.elsewhere, "rows": len(rows), "pages": 1})
    counts["images"] = article.elsewhere + len(rows)
    return ArticleRows(rows, counts)


def make_caption(figure: Figure, article_title: str | None, kind: str) -> str | None:
    """Return a figure's caption of this kind (see `PmcSource.caption`), or None if it has none."""
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
    values = {
        **facts,
        **vars(figure),
        "position": position,
        "graphics": len(figure.graphics),
        "panels": max(figure.letters, len(figure.graphics)),
        "href": hrefs[0][:500] if hrefs else None,
        "context": "\n\n".join(figure.context) or None,
        "license": code,
        "license_group": license_group(code),
        "third_party_permission": figure.permission if is_own else None,
    }
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


class PmcSource(Source):
    """PubMed Central articles: the graphics of figures, with captions, context, license, and data about the article.

    Needs `pip install '.[pmc]'`. `path` is one of these:

    - a folder or bucket with a subfolder for each article. The subfolder has the article's XML, such as
      `PMC10009416.1/PMC10009416.1.xml`, and its media.
    - a folder of the older archives `PMC….tar.gz`
    - a list of articles, such as PMC's daily inventory

    If an article has several versions, curate reads the highest one. `curate sql RUN links` counts what curate skips:
    figures without a graphic, and graphics outside of figures.
    """

    example: ClassVar[Any] = {"name": "pmc", "format": "pmc", "path": "pmc/"}
    neutral_fields = frozenset({"prefix"})

    prefix: UserPath = Field("", examples=["s3://pmc-oa-opendata/"])
    """If `path` is a list (`.csv`, `.csv.gz`, or `.txt`): the folder or bucket with the listed articles."""
    caption: Literal["caption", "title+caption", "caption+context"] = Field("caption", examples=["title+caption"])
    """`caption`: the figure's caption. `title+caption`: the article's title, then the figure's caption.
    `caption+context`: the figure's caption, then paragraphs about the figure."""


class PmcInput(interface.InputFormat):
    """Graphics of figures, from articles in folders and archives."""

    key = "pmc"
    section = PmcSource

    def plan(self, source: PmcSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        interface.need_package(source, "lxml", "pmc")
        parts = tuple(make_parts(*list_articles(source, source.prefix, content)))
        nameable = tuple(name for name in COLUMNS.names if name not in ALWAYS)
        return PlannedSource(parts, (interface.FileColumns(True, COLUMNS, frozenset({"key"}), ALWAYS, nameable),))

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        names = [name for name in listed.ending(*ARCHIVES, *XML) if parse_name(name) or name.lower().endswith(XML[0])]
        return interface.Recognized({"path": listed.path}, len(listed.names), "biomedica") if names else None

    def read(self, source: PmcSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        articles = list(read_ahead(partial(_read_article, source), expand_braces(part.path)))
        rows = [row for article in articles for row in article.rows]
        offsets = [number * _GRAPHICS + graphic for number, a in enumerate(articles) for graphic in range(len(a.rows))]
        names = "caption", "key", "status", "error"
        texts = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in names}
        errors = texts.pop("status"), texts.pop("error")
        columns: dict[str, pa.Array] = {**texts, "offset": pa.array(offsets, pa.int64())}
        supplied = {f.name: pa.chunked_array([[row.columns.get(f.name) for row in rows]], f.type) for f in scores}

        def images(wanted: Mask) -> Iterator[bytes | None]:
            chosen = (row if is_wanted else None for row, is_wanted in zip(rows, wanted.tolist(), strict=True))
            return read_ahead(lambda row: None if row is None else row.read(), chosen)

        counts: Counter[str] = Counter()
        for article in articles:
            counts.update(article.counts)
        yield interface.Batch(columns, errors, images, supplied, fields=count_columns(COLUMNS, len(rows)), links=counts)

    def reread(self, source: PmcSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        for row, data in self._reread(source, part, rows):
            dates = {key: str(value) for key, value in row.columns.items() if isinstance(value, date)}
            fields = {key: value for key, value in row.columns.items() if value is not None} | dates
            yield InputSample([(str(row.file).rpartition(".")[2].lower(), data)], fields)

    def reread_images(self, source: PmcSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        return (data for _, data in self._reread(source, part, rows))

    def missing_column(self, source: PmcSource, name: str) -> str:
        return f"its columns: {', '.join(COLUMNS.names)}"

    def describe(self, parts: Sequence[InputPart]) -> str:
        return pluralize(sum(part.path.count(",") + 1 for part in parts), "article")

    def state(self, path: str, storage: dict[str, Any]) -> str:
        return ids.digest(list(read_ahead(partial(packages.package_state, storage=storage), expand_braces(path))))

    def example_file(self, source: Any, part: InputPart) -> str | None:
        path = expand_braces(part.path)[0]
        if path.lower().endswith((*ARCHIVES, *XML)):
            return path
        with suppress(FileNotFoundError):
            names = (file.path.rpartition("/")[2] for file in list_folder(path, source.storage))
            return next((f"{path}/{name}" for name in names), None)
        return None

    def shards(self, source: Any, part: InputPart, samples: pa.Table) -> pa.Array:
        paths = pa.array(expand_braces(part.path), pa.string())
        return paths.take(pa.array(samples["offset"].to_numpy() // _GRAPHICS))

    def _reread(self, source: PmcSource, part: InputPart, rows: PartRows) -> Iterator[tuple[GraphicRow, bytes]]:
        paths = expand_braces(part.path)
        numbers, graphics = np.divmod(rows.samples["offset"].to_numpy(), _GRAPHICS)
        if len(paths) == 1:  # a single article, as galleries request it
            numbers[:] = 0
        pairs = groupby(zip(numbers.tolist(), graphics.tolist(), strict=True), itemgetter(0))
        wanted = [(paths[number], [graphic for _, graphic in of_article]) for number, of_article in pairs]
        articles = read_ahead(partial(_read_article, source), [path for path, _ in wanted])

        def chosen_rows() -> Iterator[GraphicRow]:
            for (path, wanted_graphics), article in zip(wanted, articles, strict=True):
                for graphic in wanted_graphics:
                    row = article.rows[graphic] if graphic < len(article.rows) else GraphicRow()
                    if row.file is None:
                        raise OSError(f"{path}: graphic {graphic} no longer exists")
                    yield row

        return read_ahead(lambda row: (row, row.read() or b""), chosen_rows())


def _read_article(source: PmcSource, path: str) -> ArticleRows:
    try:
        return article_rows(packages.open_package(path, source.storage), source.caption)
    except packages.ArticleError as error:
        return ArticleRows([GraphicRow(packages.name_of(path), status=error.reason, error=str(error))])
