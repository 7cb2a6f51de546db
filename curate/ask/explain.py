"""Explain a sample's decision: its rules, entries and draw, duplicates, captions and files.

In: a run folder and a uid, URL, key or path. Out: a Page of every row of the pool that has it: each may repeat. The
page of the run that a row came from follows; it is also searched for samples that it did not keep.
"""

from os.path import splitext

from curate.ask import explain_sections as sections
from curate.ask.opened import OpenRun, connected
from curate.ask.output import Line, Page, heading, line
from curate.ask.query import find_run
from curate.ask.rule_results import AT, evaluate_rows
from curate.base import ids, stages
from curate.base.errors import CurateError, RecipeError, RunError
from curate.base.wording import one_line
from curate.store.facts import RunFacts, read_facts
from curate.store.forgotten import Record
from curate.store.items import hash_url

_ROWS = 20  # rows that are shown of one key, URL or uid


def explain_sample(url: str, sample: str) -> Page:
    """Return everything that the run knows of a sample: a uid, or a URL, key or (end of a) path of a file.

    Raises:
        RecipeError: there is no run, or `sample` is neither 32 hex digits nor a URL, key or file of the pool.
        RunError: the run is not finished, or no row has this uid.
    """
    return Page(tuple(_explain(url, sample, frozenset())))


def _explain(url: str, sample: str, later: frozenset[str]) -> list[Line]:
    """Return the lines of a sample; `later` are the runs whose stages before are being explained."""
    with connected(url) as run:
        facts, record = run.facts, Record.read(run.folder)
        try:
            kind, name, places = _find(run, record, url, sample)
        except CurateError as error:
            sources = facts.input_runs or ()
            before = [(source, *_stage_before(facts, source, sample, later | {url})) for source in sources]
            if not any(is_known for *_, is_known in before):
                more = "".join(f"; source {source!r}: {shown[-1]}" for source, shown, _ in before)
                raise type(error)(f"{error}{more}") from None
            lines = [line((f"{sample}: not in this pool", "bold"), "; in the runs that are its inputs:")]
            return lines + [each for _, shown, _ in before for each in shown]
        lines = [line((f"{kind} ", "dim"), (name, "bold"))]
        if len(places) > 1:
            what = "coalesce('dropped by ' || rule, 'kept') AS what"
            grouped = "GROUP BY rule ORDER BY rule NULLS FIRST"
            sql = f"SELECT count(*) AS rows, {what} FROM decisions {AT} {grouped}"
            counts = ", ".join(f"{count['rows']:,} {count['what']}" for count in run.rows(sql, places=places))
            more = "" if len(places) <= _ROWS else f"; the first {_ROWS} follow"
            lines.append(line(f"{len(places):,} rows of the pool have this {kind}: {counts}{more}"))
        for row, results in evaluate_rows(run, places[:_ROWS]):
            uid = row["uid"]
            lines.append(line())
            if kind != "uid":
                lines.append(line(("uid ", "dim"), (uid, "bold")) if uid else line(("no uid", "dim")))
            lines += [sections.verdict(run, row, record.time_of(uid) if uid else None), *sections.sample_lines(row)]
            if row["rule"] == stages.FORGOTTEN:  # nothing else is left of it
                continue
            lines += [*sections.rule_lines(row, results), *sections.entry_lines(run, row)]
            lines += [*sections.duplicate_lines(run, row), *sections.text_lines(run, row)]
            if row["kept"]:
                lines += [*sections.caption_lines(run, row), *sections.published_lines(run, row)]
            lines += sections.measured_lines(row)
            if uid and row["source"] in (facts.input_runs or {}):
                lines += _stage_before(facts, row["source"], uid, later | {url})[0]
    return lines


def _stage_before(facts: RunFacts, source: str, sample: str, later: frozenset[str]) -> tuple[list[Line], bool]:
    """Return what the run that is a source says of a sample, or why nothing, and whether it knows the sample."""
    settings = next(section for section in facts.recipe["input"] if section["name"] == source)
    url = str(settings.get("from") or settings["path"])
    title = [line(), heading("stage before", f"source {source}, run {url}")]
    try:
        if url in later:
            raise RunError(f"{url}: is its own input")
        shown = _explain(url, sample, later)
        if facts.input_runs and read_facts(find_run(url)).identity != facts.input_runs[source].identity:
            title.append(line(("the folder now holds another run; what follows is about that one", "yellow")))
        return title + shown, True
    except (CurateError, OSError) as error:
        return [*title, line(f"it cannot be explained: {one_line(error)}", hang=2)], False


def _find(run: OpenRun, record: Record, url: str, sample: str) -> tuple[str, str, list[dict[str, int]]]:
    """Return what the text is (uid, url, key or file), its spelling, and the places of the rows that have it."""
    uid = ids.own_uid(sample.strip())
    names = ("uid", uid), ("url", sample), ("key", sample), ("key", splitext(sample)[0]), ("file", sample.lstrip("./"))
    for kind, name in names:
        condition = "ends_with('/' || shard, '/' || $name)" if kind == "file" else f"{kind} = $name"
        sql = f"SELECT unit, row FROM samples WHERE {condition} ORDER BY unit, row"
        if name and (places := run.rows(sql, name=name)):
            return kind, name, places
    total = run.counts[stages.POOL]
    if uid:
        raise RunError(f"{url}: none of its {total:,} rows has uid {uid}")
    if taken := record.time_of(hash_url(sample.encode()).hex(), "url"):
        what = f"this URL was removed on request on {taken:%Y-%m-%d}; only the uids of such rows remain"
        how = f"to list them: curate sql {url} \"SELECT uid, unit, row FROM decisions WHERE rule = 'forgotten'\""
        raise RunError(f"{url}: {what}; {how}")
    what = f"none of its {total:,} rows has the URL, file or key {sample!r} (a uid has 32 hex digits)"
    how = f"to find one: curate sql {url} \"SELECT uid, key, url FROM samples WHERE caption LIKE '%…%'\""
    raise RecipeError(f"{url}: {what}; {how}")
