"""Explain a sample's decision: its rules, entries and draw, duplicates, captions and files.

In: a run folder and a uid, URL, key or path. Out: a Page with every row of the pool that has it, since each can repeat.
If the pool is itself a run, that run's explanation follows; it is also searched for samples that it did not keep. The
draws of single entries are recomputed.
"""

from collections.abc import Iterator
from datetime import datetime
from os.path import splitext
from typing import Any

import numpy as np

from curate.ask.opened import OpenRun, connected
from curate.ask.output import Line, Page, line
from curate.ask.query import find_run
from curate.ask.rule_results import AT, UNSEEN, Position, at_positions, evaluate_rows, show_value
from curate.ask.text_pages import render_page
from curate.base import ids, schema, stages
from curate.base.compiling import interpreting
from curate.base.errors import CurateError, RecipeError, RunError
from curate.base.wording import one_line, pluralize
from curate.decide.draw.inclusion import entry_draws
from curate.store.facts import RunFacts, read_facts
from curate.store.forgotten import Record
from curate.store.items import hash_url

_ROWS = 20  # rows shown for one key, URL or uid


def explain_sample(url: str, sample: str) -> Page:
    """Return everything that the run knows about a sample: a uid, URL, key, or the (end of the) path of a file.

    Raises:
        RecipeError: there is no run, or `sample` is neither 32 hex digits nor a URL, key or file in the pool.
        RunError: the run is not finished, or no row has this uid.
    """
    return Page(tuple(_explain(url, sample, frozenset())))


def _explain(url: str, sample: str, later: frozenset[str]) -> list[Line]:
    """Return the lines for a sample; `later` are the runs downstream of this one, already explained."""
    with connected(url) as run:
        facts, record = run.facts, Record.read(run.folder)
        try:
            kind, name, positions = _find(run, record, url, sample)
        except CurateError as error:
            sources = facts.input_runs or ()
            before = [(source, *_stage_before(facts, source, sample, later | {url})) for source in sources]
            if not any(is_known for *_, is_known in before):
                earlier = "".join(f"; source {source!r}: {shown[-1]}" for source, shown, _ in before)
                raise type(error)(f"{error}{earlier}") from None
            lines = [line((f"{sample}: not in this pool", "bold"), "; its input runs say:")]
            return lines + [each for _, shown, _ in before for each in shown]
        lines = [line((f"{kind} ", "dim"), (name, "bold"))]
        if len(positions) > 1:
            counted = run.report("count_verdicts", positions=at_positions(positions))
            counts = ", ".join(f"{row['rows']:,} {row['verdict']}" for row in counted)
            cut = "" if len(positions) <= _ROWS else f"; the first {_ROWS} follow"
            lines.append(line(f"{len(positions):,} rows of the pool have this {kind}: {counts}{cut}"))
        for row, results in evaluate_rows(run, positions[:_ROWS]):
            uid = row["uid"]
            reason = explain_verdict(run, row, record.time_of(uid) if uid else None)
            decided = {"row": row, "results": results, "reason": reason, "is_by_uid": kind == "uid"}
            page = render_page("explain", show=show_value, **decided, **_entries(run, row), **_others(run, row))
            lines += page.lines
            if row["rule"] != stages.FORGOTTEN and uid and row["source"] in (facts.input_runs or {}):
                lines += _stage_before(facts, row["source"], uid, later | {url})[0]
    return lines


def _stage_before(facts: RunFacts, source: str, sample: str, later: frozenset[str]) -> tuple[list[Line], bool]:
    """Return the explanation from the run that is a source, or why there is none, and whether it has the sample."""
    settings = next(section for section in facts.recipe["input"] if section["name"] == source)
    url = str(settings.get("from") or settings["path"])
    title = [line(), line(("stage before", "bold"), (f"  source {source}, run {url}", "dim"))]
    try:
        if url in later:
            raise RunError(f"{url}: is its own input")
        shown = _explain(url, sample, later)
        if facts.input_runs and read_facts(find_run(url)).identity != facts.input_runs[source].identity:
            title.append(line(("the folder now contains another run; the text below describes that one", "yellow")))
        return title + shown, True
    except (CurateError, OSError) as error:
        return [*title, line(f"curate cannot explain this stage: {one_line(error)}", hang=2)], False


def _find(run: OpenRun, record: Record, url: str, sample: str) -> tuple[str, str, list[Position]]:
    """Return the kind of the text (uid, url, key or file), its spelling, and the positions of the rows that have it."""
    uid = ids.own_uid(sample.strip())
    names = ("uid", uid), ("url", sample), ("key", sample), ("key", splitext(sample)[0]), ("file", sample.lstrip("./"))
    for kind, name in names:
        condition = "ends_with('/' || shard, '/' || $name)" if kind == "file" else f"{kind} = $name"
        sql = f"SELECT unit, row FROM samples WHERE {condition} ORDER BY unit, row"
        if name and (rows := run.rows(sql, name=name)):
            return kind, name, [(row["unit"], row["row"]) for row in rows]
    total = run.counts[stages.POOL]
    if uid:
        raise RunError(f"{url}: none of its {total:,} rows has uid {uid}")
    if removed := record.time_of(hash_url(sample.encode()).hex(), "url"):
        reason = f"`curate forget` removed this URL on {removed:%Y-%m-%d}; the run keeps only the uids of removed rows"
        sql = "SELECT uid, unit, row FROM decisions WHERE rule = 'forgotten'"
        raise RunError(f'{url}: {reason}; to list these: curate sql {url} "{sql}"')
    reason = f"none of its {total:,} rows has the URL, file or key {sample!r} (a uid has 32 hex digits)"
    sql = "SELECT uid, key, url FROM samples WHERE caption LIKE '%…%'"
    raise RecipeError(f'{url}: {reason}; to find one: curate sql {url} "{sql}"')


def explain_verdict(run: OpenRun, row: dict[str, Any], forgotten: datetime | None = None) -> str:
    """Return why a row is kept (empty if no step after the rules chose it) or dropped; `forgotten`: when that was."""
    rule, status, error = row["rule"], row["status"], row["error"]
    failure = f"{status} ({schema.SAMPLE_REASONS.get(status, 'unknown reason')}){f': {error}' if error else ''}"
    is_missing = status in schema.MISSING_REASONS
    if is_missing:
        for download in run.report("attempts", unit=row["unit"], row=row["row"]):
            failure += f" ({pluralize(download['attempts'], 'attempt')}, the last at {download['last']} UTC)"
    facts = {
        "failure": f"{'not downloaded' if is_missing and row['sha256'] is None else 'could not be read'}: {failure}",
        "date": f", {forgotten:%Y-%m-%d}" if forgotten else "",
        "duplicate_of": row["duplicate_of"],
        "draw": show_value(row["draw"]),
        "probability": "none: the choice is not random" if (p := row["probability"]) is None else show_value(p),
    }
    words = run.facts.selection
    if words:
        facts |= {"value": show_value(row.get(words.of)), "meaning": words.meaning}
    if row["kept"]:
        reason = words.kept.format(**facts) if words and row["draw"] is not None else ""
        reason += f"; {pluralize(row['repeats'], 'time')} in uids.npy" if row.get("repeats") is not None else ""
        if (earlier := row.get(schema.INPUT_PROBABILITY)) is not None and row["probability"] is not None:
            reason += f"; probability of both stages {show_value(earlier * row['probability'])}"
        return reason
    template = words.dropped if words and rule == words.key else stages.VERDICT.get(rule, stages.OF_RULES).reason
    return template.format(**facts)


def _entries(run: OpenRun, row: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that the caption matches, each with its draw; the rarest first, since they decide."""
    facts = run.facts
    if not facts.recipe.get("match") or row["status"] != schema.OK:
        return {"entries": None}
    entries = run.report("row_entries", unit=row["unit"], row=row["row"])
    for entry in entries:
        entry["t"] = (facts.t_by_language or {}).get(entry["language"], facts.t or 1)
    is_drawn = row["draw"] is not None and facts.selection is not None and facts.selection.by_entries
    # If the counts are another run's, recover them from p = t / max(count, t).
    counts_of = (facts.recipe.get("balance") or {}).get("counts")
    if is_drawn and entries:  # the draw u/p of each entry; `decisions` has only the smallest
        columns = {name: np.array([entry[name] for entry in entries]) for name in ("p", "survivors", "t")}
        counts, earlier = None if counts_of else columns["survivors"], row.get(schema.INPUT_PROBABILITY)
        names = [entry["entry"] for entry in entries]
        with interpreting(True):  # for one row, loading compiled kernels takes longer
            draws = entry_draws(str(row["uid"]), names, columns["p"], counts, columns["t"], facts.seed, earlier)
        for entry, draw in zip(entries, draws, strict=True):
            entry["draw"] = draw
    return {"entries": entries, "is_drawn": is_drawn, "counts_of": counts_of, "t_by_language": facts.t_by_language}


def _others(run: OpenRun, row: dict[str, Any]) -> dict[str, Any]:
    """Return what other rows and tables have on a row: duplicates, texts of its image, captions, files, and values."""
    uid, at = row["uid"], {"unit": row["unit"], "row": row["row"]}
    near = [by for by in (run.facts.recipe.get("dedup") or {}).get("by") or () if isinstance(by, dict)]
    maximum = max((by["phash"]["distance"] for by in near if "phash" in by), default=-1)
    representatives, lists = [], []
    if row["rule"] == stages.DUPLICATE:
        for other in run.report("representative", uid=row["duplicate_of"]):
            hashes = {"phash": row["phash"], "other": other["phash"], "group": other["uid"], "most": maximum}
            links = run.report("phash_link", **at, **hashes)
            representatives.append(other | {"links": links, "match": "; ".join(_compare(run, row, other))})
    elif row["kept"] or {"rule": row["rule"]} in run.rows("FROM later_rules"):
        duplicates = run.rows("SELECT * FROM verdicts WHERE duplicate_of = $uid ORDER BY unit, row", uid=uid)
        lists.append(("duplicates", f"represents {pluralize(len(duplicates), 'other row')}", duplicates))
    one_per = str((run.facts.recipe.get("balance") or {}).get("one_per"))
    column = {"url": "url", "image": "sha256"}.get(one_per)
    if column and row[column] and (row["kept"] or row["rule"] in (stages.OTHER_TEXT, "balance")):
        sql = f"SELECT * FROM survivors WHERE {column} = $image AND uid <> $uid ORDER BY uid"
        texts = run.rows(sql, image=row[column], uid=uid)
        note = f"{pluralize(len(texts), 'other row')} with the same {one_per}; curate draws at most one of them all"
        lists.append(("texts", note, texts))
    hidden = {*UNSEEN, "uid", "source", "shard", "key", "caption", "url"}
    return {
        "near": near,
        "representatives": representatives,
        "lists": lists,
        "captions": run.report("row_captions", uid=uid) if row["kept"] else [],
        "regions": run.rows("SELECT regions, error FROM regions WHERE uid = $uid", uid=uid) if row["kept"] else [],
        "shards": run.report("row_published", uid=uid, **at) if row["kept"] else [],
        "measured": {name: value for name, value in row.items() if name not in hidden and value is not None},
    }


def _compare(run: OpenRun, row: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield what two rows share, and how similar they are, except for the cosine that joined them."""
    joined = "" if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is None else f"{cosine:.4f}"
    words = {"uid": "uid", "sha256": "image", "url": "URL"}
    same = [name for name in words if row[name] is not None and row[name] == other[name]]
    yield from (f"same {words[name]}" for name in same)
    if "sha256" in same:
        return
    if row["phash"] is not None and other["phash"] is not None:
        yield f"{(row['phash'] ^ other['phash']).bit_count()} of 64 bits of phash differ"
    positions = at_positions((each["unit"], each["row"]) for each in (row, other))
    table = run.table(f"SELECT * FROM embeddings {AT}", positions=positions)
    for name in table.column_names:
        if name.rpartition("_")[2] == "image" and len(table) == 2:
            a, b = (np.asarray(vector, float) for vector in table[name].to_pylist())
            lengths = np.linalg.norm(a) * np.linalg.norm(b)
            if lengths and (cosine := f"{a @ b / lengths:.4f}") != joined:
                yield f"{cosine} is the cosine of {name} embeddings"
