"""report.html: what curation did to a pool, on one page that needs no network; one script of ours sorts and filters.

In: the folder of a finished run, local or any fsspec URL. Out: the page, in the run's folder, where the manifest lists
it, or elsewhere. Whatever the pool, the page stays below MOST_BYTES: every list is cut, and thumbnails share a budget.
Untrusted texts are escaped by the template and cleaned by `text.clean`; the page's policy allows styles, data images
and, by its digest, page.js.
"""

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

import fsspec
import jinja2

from curate.ask.diff import Diff, diff_runs
from curate.ask.opened import OpenRun, connected
from curate.ask.report import losses
from curate.ask.report.blocks import Section
from curate.ask.report.captions import captions_section
from curate.ask.report.changes import changes_section
from curate.ask.report.distributions import distributions_section
from curate.ask.report.entries import entries_section
from curate.ask.report.galleries import galleries_section
from curate.ask.report.languages import languages_section
from curate.ask.report.provenance import provenance_section, time_section
from curate.ask.report.text import SHORT, clean, count, percent
from curate.base.errors import RecipeError, RunError
from curate.base.ids import own_uid
from curate.base.wording import format_bytes
from curate.store.facts import read_facts
from curate.store.layout import REPORT_FILE, SUCCESS_FILE
from curate.store.lock import locked
from curate.store.manifest import Lines, digest_file, read_manifest, write_manifest

MOST_BYTES = 5_000_000
_TEMPLATES = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_TEMPLATES.tests["uid"] = lambda text: own_uid(text) == text
_parse = cache(_TEMPLATES.from_string)


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
        lead += f"; most were dropped by {clean(most['rule'], SHORT)} ({percent(most['rows'], pool)} of the pool)"
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
