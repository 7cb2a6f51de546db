"""report.html: what curation did to a pool, on one page that needs no network; one script of ours sorts and filters.

In: the folder of a finished run, local or any fsspec URL. Out: the page, in the run's folder, where the manifest lists
it, or elsewhere. Whatever the pool, the page stays below MOST_BYTES: every list is cut, and thumbnails share a budget.
Untrusted texts are escaped by the template and cleaned by `text.clean`; the page's policy allows styles, data images
and, by its digest, page.js.
"""

from base64 import b64encode
from collections import defaultdict
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
from curate.ask.library import find_query, report_sql
from curate.ask.opened import OpenRun, connected
from curate.ask.report import losses
from curate.ask.report.blocks import Block, Card, Figure, Figures, Gallery, Section, Table, Tables, Tiles
from curate.ask.report.charts import Bin, compare_bins
from curate.ask.report.distributions import distributions_section
from curate.ask.report.entries import entries_section
from curate.ask.report.galleries import galleries_section
from curate.ask.report.languages import languages_section
from curate.ask.report.provenance import provenance_section, time_section
from curate.ask.report.text import SHORT, clean, count, counts, names, number, percent
from curate.base.errors import RecipeError, RunError
from curate.base.ids import own_uid
from curate.base.stages import KEPT, POOL
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
        what = "was changed while its report was written; write it again once the change is complete"
        raise RunError(f"{run.folder.url}: {what}")


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
        values = [[*names(row, "key"), clean(row["a"]), clean(row["b"])] for row in settings]
        yield Table(("setting", "A", "B"), values, words=("setting", "A", "B"), title="Settings that differ")
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
        [row["side"], *names(row, "rule", "source"), clean(row["caption"]), row["uid"]]
        for batch in changed_samples(diff.a.url, diff.b.url, _SAMPLES)  # by uid, which is a hash
        for row in batch.to_pylist()
    ]
    heads, note = ("side", "dropped by", "source", "caption", "uid"), "curate diff A B --by sample lists all."
    yield Table(heads, samples, words=heads, title="Some of the samples", note=note)


def _changes(name: str, title: str, table: pa.Table, note: str) -> Table:
    """Return the rows of CHANGES that changed, of the funnel those that are not 0 in both."""
    columns = ("a", "b", "lost", "gained") if name == "rule" else ("lost", "gained")
    rows = [row for row in table.to_pylist() if any(row[column] for column in columns)]
    if name != "rule" and len(rows) > _MOST:
        note = f"{note} The first {_MOST} of {count(len(rows))} that changed.".strip()
        rows = rows[:_MOST]
    cells = []
    for row in rows:
        missing = "" if row["name"] in (POOL, KEPT) else "–"
        numbers = [missing if row[side] is None else count(row[side]) for side in ("a", "b", "lost", "gained")]
        cells.append(["unknown" if row["name"] is None else clean(row["name"], SHORT), *numbers])
    return Table((name, "A", "B", "lost", "gained"), cells, words=(name,), title=title, note=note)


def captions_section(run: OpenRun) -> Section | None:
    """Return the section of synthetic captions; None where none were written."""
    if not run.rows("FROM captions LIMIT 1"):
        return None
    text = (
        "Models wrote synthetic captions for kept samples, and quality filters (gates) checked each. A caption that "
        "fails a gate is not published; the original always is."
    )
    return Section("captions", "Captions", [text, _gates(run), *_lengths(run), _side_by_side(run), *_work(run)])


def _gates(run: OpenRun) -> Table:
    order = "kind, style, gate <> 'passed', texts DESC, gate"
    rows = run.rows(f"FROM {find_query('caption_gates').table} ORDER BY {order} LIMIT 100")
    cells = [[*names(row, "kind", "style", "gate"), count(row["texts"]), percent(row["share"], 1)] for row in rows]
    heads = ("kind", "style", "result", "captions", "share of its style")
    note = "A caption may fail several gates, so the shares of a style may sum to more than 100 %."
    return Table(heads, cells, words=heads[:3], title="Quality filters", note=note)


def _lengths(run: OpenRun) -> list[Block]:
    """Return charts of words per caption that passed, by kind, and of the originals of the same samples."""
    rows = run.rows(report_sql("caption_words"), longest=_LONGEST)
    lengths: dict[str, dict[int, int]] = defaultdict(dict)
    for row in rows:
        lengths[row["kind"]][row["words"]] = row["n"]
    original = lengths.pop("original", {})
    figures = []
    for kind, written in list(lengths.items())[:MOST]:
        bins = [
            Bin(f"{n} and more" if n == _LONGEST else str(n), n, n + 1, original.get(n, 0), written.get(n, 0))
            for n in range(max([*original, *written]) + 1)
        ]
        name = clean(kind, SHORT)
        title = f"Words per caption: originals and {name}"
        figures.append(Figure(name, *compare_bins(bins, {"title": "words"}, title, sets=("originals", "synthetic"))))
    legend = (("pool", "originals"), ("kept", "synthetic, passed"))
    return [Figures(figures, title="Lengths", legend=legend)] if figures else []


def _side_by_side(run: OpenRun) -> Gallery:
    """Return originals with the synthetic captions of their samples, chosen by a hash of the uid."""
    rows = run.rows(report_sql("captions_side_by_side"), samples=SAMPLES)
    cards = []
    for uid, of_uid in groupby(rows, itemgetter("uid")):
        texts = list(of_uid)[:TEXTS]
        lines = [("original", clean(texts[0]["caption"]))]
        for text in texts:
            result = "passed" if text["gate"] == "passed" else f"failed {', '.join(text['failed'] or [])}"
            score = "" if text["clip_score"] is None else f", score {number(text['clip_score'])}"
            result = result if text["gate"] else f"no text: {text['status']}"
            label = clean(f"{text['kind']} {text['style'] or ''}: {result}{score}", SHORT)
            lines.append((label, clean(text["error"] if text["text"] is None else text["text"])))
        cards.append(Card((), lines, (), clean(uid, 32)))
    note = "Each original with the synthetic captions of its sample, and the result of the gates for each."
    return Gallery("Side by side", cards, note=note)


def _work(run: OpenRun) -> list[Block]:
    heads = "kind, model, captions, requested in this run, no answer, passed, tokens in, tokens out"
    heads += ", engine, tokens/s, cost"
    cells = []
    for row in run.rows("SELECT * FROM caption_work ORDER BY ALL LIMIT 40"):
        seconds, tokens = row["seconds"], row["tokens_in"] + row["tokens_out"]
        speed = f"{tokens / seconds:,.0f}" if seconds and tokens else "–"
        cost = "–" if row["cost"] is None else f"{row['cost']:,.2f}"
        numbers = counts(row, "requests", "sent", "failed", "passed", "tokens_in", "tokens_out")
        cells.append([*names(row, "kind", "model"), *numbers, format_seconds(seconds), speed, cost])
    table = Table(heads.split(", "), cells, words=("kind", "model"), title="Requests, tokens and time")
    return [table] if cells else []
