"""report.html: one page that shows a whole run. It needs no network, and its script sorts and filters cards.

In: the folder of a finished run, local or any fsspec URL. Out: the page, in the run folder, where the manifest lists
it, or elsewhere. The page's size is bounded for any pool: every list is cut, and thumbnails share a budget. The
template escapes untrusted texts, and `blocks.clean` cleans them; the page's content security policy allows styles,
data images and, by its digest, page.js.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from typing import Any

import fsspec

from curate.ask.diff import Diff, changed_samples, diff_runs
from curate.ask.opened import OpenRun, connected
from curate.ask.report import sections
from curate.ask.report.blocks import SHORT, TEMPLATES, Figure, Section, clean
from curate.ask.report.charts import count_integers, describe_bins, render_svg
from curate.ask.report.distributions import distributions_section
from curate.ask.report.galleries import galleries_section
from curate.base.errors import RecipeError, RunError, reraised
from curate.base.stages import FAILED, KEPT, POOL
from curate.base.wording import format_seconds
from curate.store.facts import read_facts
from curate.store.layout import REPORT_FILE, SUCCESS_FILE
from curate.store.lock import locked
from curate.store.manifest import Lines, digest_file, read_manifest, write_manifest

MOST_BYTES = 5_000_000
_MAX_ROWS = 20  # rows in a table
_SAMPLES = 12  # on each side
SAMPLES = 8  # originals shown
TEXTS = 6  # synthetic captions shown for each
MAX_FIGURES = 40
_LONGEST = 60  # words; longer captions share one bin


def write_report(
    url: str, out: str | None = None, against: str | None = None, language: str | None = None
) -> tuple[str, int]:
    """Write the report for a run, optionally compared with another run, and return its path and its size in bytes.

    `language`: the language of entries to show in detail; None: the largest except the reference language.

    The report goes to `out`, a local or remote file, or into the run folder, where it replaces an older one.

    Raises:
        RecipeError: there is no run, no entry has the language, or `out` cannot be written.
        RunError: the run is not finished, or has changed meanwhile: the page could show samples that were removed.
    """
    with connected(url) as run:
        page = render_page(run, diff_runs(against, url) if against else None, language).encode()
    if out is not None:
        _check_unchanged(run)
        with reraised(RecipeError, f"--out {out}: cannot be written", OSError, ValueError, ImportError):
            fs, path = fsspec.core.url_to_fs(out)  # unlike `fsspec.open`, it creates no folders
            with fs.open(path, "wb") as file:
                file.write(page)
        return out, len(page)
    folder = run.folder
    with locked(folder, "report"):
        _check_unchanged(run)
        # Write the page first, so that a reader of the manifest finds the file that it lists, old or new.
        folder.write_bytes(REPORT_FILE, page)
        lines = [line for line in read_manifest(folder) if line.path != REPORT_FILE]
        write_manifest(folder, Lines([*lines, digest_file(folder, REPORT_FILE)]))
    return f"{url.rstrip('/')}/{REPORT_FILE}", len(page)


def _check_unchanged(run: OpenRun) -> None:
    if not run.folder.exists(SUCCESS_FILE) or read_facts(run.folder) != run.facts:
        problem = "was changed while its report was written; write it again once the change is complete"
        raise RunError(f"{run.folder.url}: {problem}")


def render_page(run: OpenRun, against: Diff | None = None, language: str | None = None) -> str:
    """Return the page as HTML; `against` is a comparison with another run. Sections that do not apply are omitted."""
    candidates = (
        sections.funnel_section(run),
        sections.downloads_section(run),
        changes_section(against) if against else None,
        distributions_section(run),
        sections.entries_section(run),
        sections.languages_section(run, language),
        sections.composition_section(run),
        captions_section(run),
        sections.duplicates_section(run),
        sections.failures_section(run),
        galleries_section(run),
        sections.time_section(run),
        sections.provenance_section(run),
    )
    drops = [line for line in run.funnel if line["kind"] == "drop" and line["rows"] and line["rule"] != FAILED]
    totals = {name: run.counts.get(name, 0) for name in (POOL, KEPT, FAILED)}
    largest = max(drops, key=lambda line: line["rows"], default=None)
    shown = [section for section in candidates if section is not None]
    return render_sections("Curation report", run, shown, totals=totals | {"largest": largest})


def render_sections(
    kind: str, run: OpenRun, sections: Sequence[Section], lead: str = "", totals: Mapping[str, Any] | None = None
) -> str:
    """Return a page with these sections as HTML; the head has the kind of page, the run's name, a lead or totals."""
    package = files("curate.ask.report")
    template = TEMPLATES.get_template("page.html")
    style, script = (package.joinpath(name).read_text("utf-8") for name in ("style.css", "page.js"))
    fixed = {"style": style, "script": script, "script_digest": b64encode(sha256(script.encode()).digest()).decode()}
    title = clean(run.facts.name, SHORT)
    return template.render(kind=kind, title=title, lead=lead, totals=totals, run=run.facts, sections=sections, **fixed)


def changes_section(diff: Diff) -> Section:
    """Return the section that compares with another run: settings, and samples gained and lost."""
    other = diff.a.name if diff.a.name != diff.b.name else diff.a.url
    samples: list[dict[str, Any]] = []
    if not diff.is_same:
        for batch in changed_samples(diff.a.url, diff.b.url, _SAMPLES):  # in order of uid, a hash
            samples += batch.to_pylist()
    facts = {"diff": diff, "most": _MAX_ROWS, "samples": samples}
    return Section("changes", f"Compared with {clean(other, SHORT)}", facts)


def captions_section(run: OpenRun) -> Section | None:
    """Return the section on synthetic captions; None if there are none."""
    if not run.rows("FROM captions LIMIT 1"):
        return None
    work = [row | {"engine": format_seconds(row["engine"])} for row in run.report("caption_work")]
    facts = {"gates": run.report("caption_gates"), "lengths": _lengths(run), "work": work}
    facts["samples"] = run.report("captions_side_by_side", samples=SAMPLES, texts=TEXTS)
    return Section("captions", "Captions", facts)


def _lengths(run: OpenRun) -> list[Figure]:
    """Return charts of words per caption, by kind: captions that passed, and the originals of the same samples."""
    figures = []
    for kind, rows in groupby(run.report("caption_words", longest=_LONGEST), itemgetter("kind")):
        name = clean(kind, SHORT)
        spec, table = describe_bins(count_integers(list(rows), _LONGEST), "words", {}, ("originals", "synthetic"))
        figures.append(Figure(name, render_svg(spec, f"Words per caption: originals and {name}"), table))
    return figures[:MAX_FIGURES]
