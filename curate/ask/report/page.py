"""report.html: what curation did to a pool, on one page that needs no network; one script of ours sorts and filters.

In: the folder of a finished run, local or any fsspec URL. Out: the page, in the run's folder, where the manifest lists
it, or elsewhere. Whatever the pool, the page stays below MOST_BYTES: every list is cut, and thumbnails share a budget.
Untrusted texts are escaped by the template and cleaned by `text.clean`; the page's policy allows styles, data images
and, by its digest, page.js.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from operator import itemgetter

import fsspec
import jinja2
import pyarrow as pa

from curate.ask.diff import Diff, changed_samples, diff_runs
from curate.ask.opened import OpenRun, connected
from curate.ask.report import losses
from curate.ask.report.blocks import Block, Card, Figure, Figures, Gallery, Section, Table, Tables, Tiles
from curate.ask.report.charts import compare_counts
from curate.ask.report.distributions import distributions_section
from curate.ask.report.entries import entries_section, languages_section
from curate.ask.report.galleries import galleries_section
from curate.ask.report.provenance import provenance_section, time_section
from curate.ask.report.text import SHORT, clean, count, percent
from curate.base.errors import RecipeError, RunError
from curate.base.ids import own_uid
from curate.base.wording import format_bytes, format_seconds
from curate.store.facts import read_facts
from curate.store.layout import REPORT_FILE, SUCCESS_FILE
from curate.store.lock import locked
from curate.store.manifest import Lines, digest_file, read_manifest, write_manifest

MOST_BYTES = 5_000_000
_TEMPLATES = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_TEMPLATES.tests["uid"] = lambda text: own_uid(text) == text
_parse = cache(_TEMPLATES.from_string)
_MOST = 20  # rows of a table
_SAMPLES = 12  # of each side
SAMPLES = 8  # originals that are shown
TEXTS = 6  # synthetic captions of each
MOST = 40
_LONGEST = 60  # words, above which all lengths count together


def write_report(
    url: str, out: str | None = None, against: str | None = None, language: str | None = None
) -> tuple[str, int]:
    """Write the report of a run, perhaps compared with another, and return its path and its size in bytes.

    `language` is that of entries which is shown in detail; None: the largest but that of reference.

    It goes to `out`, a file, local or remote, or into the run's folder, where it replaces an older one.

    Raises:
        RecipeError: there is no run, no entry is of the language, or `out` cannot be written.
        RunError: the run is not finished, or was changed meanwhile: the page could show samples that were taken out.
    """
    with connected(url) as run:
        page = render_page(run, diff_runs(against, url) if against else None, language).encode()
    if out is not None:
        _check_unchanged(run)
        try:
            fs, path = fsspec.core.url_to_fs(out)  # which makes no folders, as `fsspec.open` would
            with fs.open(path, "wb") as file:
                file.write(page)
        except (OSError, ValueError, ImportError) as error:
            raise RecipeError(f"--out {out}: cannot be written: {error}") from None
        return out, len(page)
    folder = run.folder
    with locked(folder, "report"):
        _check_unchanged(run)
        # The page first: a reader of the manifest finds what it lists, this one or the one before.
        folder.write_bytes(REPORT_FILE, page)
        lines = [line for line in read_manifest(folder) if line.path != REPORT_FILE]
        write_manifest(folder, Lines([*lines, digest_file(folder, REPORT_FILE)]))
    return f"{url.rstrip('/')}/{REPORT_FILE}", len(page)


def _check_unchanged(run: OpenRun) -> None:
    if not run.folder.exists(SUCCESS_FILE) or read_facts(run.folder) != run.facts:
        problem = "was changed while its report was written; write it again once the change is complete"
        raise RunError(f"{run.folder.url}: {problem}")


def render_page(run: OpenRun, against: Diff | None = None, language: str | None = None) -> str:
    """Return the page as HTML; `against` is a comparison with another run. Sections that do not apply are left out."""
    sections = (
        losses.funnel_section(run),
        losses.downloads_section(run),
        changes_section(against) if against else None,
        distributions_section(run),
        entries_section(run),
        languages_section(run, language),
        losses.composition_section(run),
        captions_section(run),
        losses.duplicates_section(run),
        losses.failures_section(run),
        galleries_section(run),
        time_section(run),
        provenance_section(run),
    )
    facts = run.facts
    pool, kept, failed = (run.counts.get(name, 0) for name in ("pool", "kept", "failed"))
    lead = f"{count(kept)} of {count(pool)} {'image-text pairs' if facts.pool.images else 'texts'} kept"
    lead += f" ({percent(kept, pool)})"
    drops = [line for line in run.funnel if line["kind"] == "drop" and line["rows"] and line["rule"] != "failed"]
    if drops:
        most = max(drops, key=lambda line: line["rows"])
        lead += f"; {clean(most['rule'], SHORT)} drops the most ({percent(most['rows'], pool)} of the pool)"
    if failed:
        lead += f"; {count(failed)} could not be used ({percent(failed, pool)})"
    tiles = [
        ("in the pool", count(pool)),
        ("kept", count(kept)),
        ("dropped", count(pool - kept - failed)),
        ("failed", count(failed)),
        ("source" if len(facts.sources) == 1 else "sources", count(len(facts.sources))),
        ("shard" if facts.content.shards == 1 else "shards", count(facts.content.shards)),
        ("size of the shards", format_bytes(facts.content.bytes)),
    ]
    by_language = next((f" of {clean(name, SHORT)}" for name in facts.t_by_language or ()), "")
    tiles += [(f"t, samples per entry{by_language}", count(facts.t))] if facts.t is not None else []
    return render_sections("Curation report", run, f"{lead}.", [s for s in sections if s is not None], tiles)


def render_sections(
    kind: str, run: OpenRun, lead: str, sections: Sequence[Section], tiles: Sequence[tuple[str, str]] = ()
) -> str:
    """Return a page of these sections as HTML, under what kind of page it is, the run's name, a sentence and tiles."""
    package = files("curate.ask.report")
    template = _parse(package.joinpath("page.html").read_text("utf-8"))
    style, script = (package.joinpath(name).read_text("utf-8") for name in ("style.css", "page.js"))
    fixed = {"style": style, "script": script, "script_digest": b64encode(sha256(script.encode()).digest()).decode()}
    title = clean(run.facts.name, SHORT)
    return template.render(kind=kind, title=title, lead=lead, tiles=tiles, sections=sections, **fixed)


def changes_section(diff: Diff) -> Section:
    """Return the comparison with another run: settings, and samples gained and lost."""
    other = diff.a.name if diff.a.name != diff.b.name else diff.a.url
    return Section("changes", f"Compared with {clean(other, SHORT)}", list(_blocks(diff)))


def _blocks(diff: Diff) -> Iterable[Block]:
    first = f"A is {clean(diff.a.url)}, which keeps {count(diff.a.kept)} samples"
    second = f"B is this run, {clean(diff.b.url)}, which keeps {count(diff.b.kept)}"
    yield f"{first}; {second}. Lost: kept by A and not by B. Gained: kept by B and not by A."
    yield Tiles([("lost", count(diff.lost)), ("gained", count(diff.gained)), ("in both", count(diff.shared))])
    if settings := diff.settings.slice(0, _MOST).to_pylist():
        rows = [{"setting": row["key"], "A": row["a"], "B": row["b"]} for row in settings]
        yield Table.of(rows, "Settings that differ")
    if diff.is_same:
        return
    drops = "A and B: samples that the rule drops. Lost: dropped by it in B; gained: dropped by it in A."
    tables = (
        ("rule", "By rule", diff.rules, drops),
        ("entry", "By entry", diff.entries, "Kept samples that match the entry; the entries that changed most."),
        ("source", "By source", diff.sources, ""),
        ("language", "By language", diff.languages, ""),
    )
    yield Tables([_changes(name, title, table, note) for name, title, table, note in tables if len(table)])
    samples = [
        {"side": row["side"], "dropped by": row["rule"], **{name: row[name] for name in ("source", "caption", "uid")}}
        for batch in changed_samples(diff.a.url, diff.b.url, _SAMPLES)  # by uid, which is a hash
        for row in batch.to_pylist()
    ]
    yield Table.of(samples, "Some of the samples", "curate diff A B --by sample lists all.")


def _changes(name: str, title: str, table: pa.Table, note: str) -> Table:
    """Return the rows of CHANGES that changed, of the funnel those that are not 0 in both."""
    columns = ("a", "b", "lost", "gained") if name == "rule" else ("lost", "gained")
    rows = [row for row in table.to_pylist() if any(row[column] for column in columns)]
    if name != "rule" and len(rows) > _MOST:
        note = f"{note} The first {_MOST} of {count(len(rows))} that changed.".strip()
        rows = rows[:_MOST]
    heads = (name, "A", "B", "lost", "gained")
    shown = [dict(zip(heads, row.values(), strict=True)) for row in rows]
    return Table.of([row | {name: "unknown" if row[name] is None else row[name]} for row in shown], title, note)


def captions_section(run: OpenRun) -> Section | None:
    """Return the section of synthetic captions; None where none were written."""
    if not run.rows("FROM captions LIMIT 1"):
        return None
    text = (
        "Models wrote synthetic captions for kept samples, and quality filters (gates) checked each. A caption that "
        "fails a gate is not published; the original always is."
    )
    note = "A caption may fail several gates, so the shares of a style may sum to more than 100 %."
    gates = Table.of(run.report("caption_gates"), "Quality filters", note)
    work = [row | {"engine": format_seconds(row["engine"])} for row in run.report("caption_work")]
    tables = [Table.of(work, "Requests, tokens and time")] if work else []
    return Section("captions", "Captions", [text, gates, *_lengths(run), _side_by_side(run), *tables])


def _lengths(run: OpenRun) -> list[Block]:
    """Return charts of words per caption that passed, by kind, and of the originals of the same samples."""
    figures = []
    x, sets = {"title": "words"}, ("originals", "synthetic")
    for kind, rows in groupby(run.report("caption_words", longest=_LONGEST), itemgetter("kind")):
        name = clean(kind, SHORT)
        title = f"Words per caption: originals and {name}"
        figures.append(Figure(name, *compare_counts(list(rows), _LONGEST, x, title, sets=sets)))
    legend = (("pool", "originals"), ("kept", "synthetic, passed"))
    return [Figures(figures[:MOST], title="Lengths", legend=legend)] if figures else []


def _side_by_side(run: OpenRun) -> Gallery:
    cards = []
    for uid, of_uid in groupby(run.report("captions_side_by_side", samples=SAMPLES), itemgetter("uid")):
        captions = list(of_uid)[:TEXTS]
        texts = [("original", clean(captions[0]["caption"]))]
        texts += [(clean(row["label"], SHORT), clean(row["text"] or row["error"])) for row in captions]
        cards.append(Card((), texts, (), clean(uid, 32)))
    note = "Each original with the synthetic captions of its sample, and the result of the gates for each."
    return Gallery("Side by side", cards, note=note)
