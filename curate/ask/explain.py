"""Explain a sample's decision: its rules, entries and draw, duplicates, captions and files.

In: a run folder and a uid, URL, key or path. Out: a Page of every row of the pool that has it: each may repeat. The
page of the run that a row came from follows; it is also searched for samples that it did not keep. Draws of single
entries are computed again.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from os.path import splitext
from typing import Any

import numpy as np

from curate.ask.opened import OpenRun, connected
from curate.ask.output import Line, Page, Part, columns, line, named, pad, section
from curate.ask.query import find_run
from curate.ask.rule_results import (
    AT,
    FAILED,
    NOT_REACHED,
    PASSED,
    UNSEEN,
    Position,
    RuleResult,
    at_positions,
    evaluate_rows,
    show_value,
)
from curate.base import ids, schema, stages
from curate.base.errors import CurateError, RecipeError, RunError
from curate.base.wording import one_line, pluralise
from curate.decide.draw.inclusion import entry_draws
from curate.store.facts import RunFacts, read_facts
from curate.store.forgotten import Record
from curate.store.items import hash_url

_ROWS = 20  # rows that are shown of one key, URL or uid
_ENTRIES = 100  # entries that are shown
_LISTED = 10  # other rows that are listed
_YES, _NO, _OPEN = ("✓ ", "green"), ("✗ ", "bold red"), ("– ", "dim")


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
            kind, name, positions = _find(run, record, url, sample)
        except CurateError as error:
            sources = facts.input_runs or ()
            before = [(source, *_stage_before(facts, source, sample, later | {url})) for source in sources]
            if not any(is_known for *_, is_known in before):
                earlier = "".join(f"; source {source!r}: {shown[-1]}" for source, shown, _ in before)
                raise type(error)(f"{error}{earlier}") from None
            lines = [line((f"{sample}: not in this pool", "bold"), "; in the runs that are its inputs:")]
            return lines + [each for _, shown, _ in before for each in shown]
        lines = [line((f"{kind} ", "dim"), (name, "bold"))]
        if len(positions) > 1:
            counted = run.report("count_verdicts", positions=at_positions(positions))
            counts = ", ".join(f"{row['rows']:,} {row['verdict']}" for row in counted)
            cut = "" if len(positions) <= _ROWS else f"; the first {_ROWS} follow"
            lines.append(line(f"{len(positions):,} rows of the pool have this {kind}: {counts}{cut}"))
        for row, results in evaluate_rows(run, positions[:_ROWS]):
            uid = row["uid"]
            lines.append(line())
            if kind != "uid":
                lines.append(line(("uid ", "dim"), (uid, "bold")) if uid else line(("no uid", "dim")))
            lines += [_verdict(run, row, record.time_of(uid) if uid else None), *_sample_lines(row)]
            if row["rule"] == stages.FORGOTTEN:  # nothing else is left of it
                continue
            lines += [*_rule_lines(row, results), *_entry_lines(run, row)]
            lines += [*_duplicate_lines(run, row), *_text_lines(run, row)]
            if row["kept"]:
                lines += [*_caption_lines(run, row), *_published_lines(run, row)]
            lines += _measured_lines(row)
            if uid and row["source"] in (facts.input_runs or {}):
                lines += _stage_before(facts, row["source"], uid, later | {url})[0]
    return lines


def _stage_before(facts: RunFacts, source: str, sample: str, later: frozenset[str]) -> tuple[list[Line], bool]:
    """Return what the run that is a source says of a sample, or why nothing, and whether it knows the sample."""
    settings = next(section for section in facts.recipe["input"] if section["name"] == source)
    url = str(settings.get("from") or settings["path"])
    title = section("stage before", f"source {source}, run {url}")
    try:
        if url in later:
            raise RunError(f"{url}: is its own input")
        shown = _explain(url, sample, later)
        if facts.input_runs and read_facts(find_run(url)).identity != facts.input_runs[source].identity:
            title.append(line(("the folder now holds another run; what follows is about that one", "yellow")))
        return title + shown, True
    except (CurateError, OSError) as error:
        return [*title, line(f"it cannot be explained: {one_line(error)}", hang=2)], False


def _find(run: OpenRun, record: Record, url: str, sample: str) -> tuple[str, str, list[Position]]:
    """Return what the text is (uid, url, key or file), its spelling, and the positions of the rows that have it."""
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
        reason = f"this URL was removed on request on {removed:%Y-%m-%d}; only the uids of such rows remain"
        sql = "SELECT uid, unit, row FROM decisions WHERE rule = 'forgotten'"
        raise RunError(f'{url}: {reason}; to list them: curate sql {url} "{sql}"')
    reason = f"none of its {total:,} rows has the URL, file or key {sample!r} (a uid has 32 hex digits)"
    sql = "SELECT uid, key, url FROM samples WHERE caption LIKE '%…%'"
    raise RecipeError(f'{url}: {reason}; to find one: curate sql {url} "{sql}"')


# ---- sections


def _marked(mark: tuple[str, str], name: str, margin: int, *value: Part) -> Line:
    return line("  ", mark, (pad(name, margin), "cyan"), *value, hang=margin + 4)


def _verdict(run: OpenRun, row: dict[str, Any], forgotten: datetime | None) -> Line:
    """Return whether a row is kept, and why; `forgotten`: when it was."""
    reason = explain_verdict(run, row, forgotten)
    if row["kept"]:
        return line(("verdict: kept", "bold green"), reason)
    became = row["rule"] if row["rule"] in (stages.FAILED, stages.FORGOTTEN) else _became(row)
    return line((f"verdict: {became}", "bold red"), f", {reason}", hang=9)


def explain_verdict(run: OpenRun, row: dict[str, Any], forgotten: datetime | None = None) -> str:
    """Return why a row is kept, empty where no step after the rules chose it, or dropped; `forgotten`: when it was."""
    rule, status, error = row["rule"], row["status"], row["error"]
    failure = f"{status} ({schema.SAMPLE_REASONS.get(status, 'unknown reason')}){f': {error}' if error else ''}"
    is_missing = status in schema.MISSING_REASONS
    if is_missing:
        for download in run.report("attempts", unit=row["unit"], row=row["row"]):
            failure += f" ({pluralise(download['attempts'], 'attempt')}, the last at {download['last']} UTC)"
    facts = {
        "failure": f"{'not downloaded' if is_missing and row['sha256'] is None else 'could not be read'}: {failure}",
        "date": f", {forgotten:%Y-%m-%d}" if forgotten else "",
        "duplicate_of": row["duplicate_of"],
        "draw": show_value(row["draw"]),
        "probability": "none: it is not by chance" if (p := row["probability"]) is None else show_value(p),
    }
    words = run.facts.selection
    if words:
        facts |= {"value": show_value(row.get(words.of)), "meaning": words.meaning}
    if row["kept"]:
        reason = words.kept.format(**facts) if words and row["draw"] is not None else ""
        reason += f"; {pluralise(row['repeats'], 'time')} in uids.npy" if row.get("repeats") is not None else ""
        if (earlier := row.get(schema.INPUT_PROBABILITY)) is not None and row["probability"] is not None:
            reason += f"; probability of both stages {show_value(earlier * row['probability'])}"
        return reason
    template = words.dropped if words and rule == words.key else stages.VERDICT.get(rule, stages.OF_RULES).reason
    return template.format(**facts)


def _sample_lines(row: dict[str, Any]) -> Iterator[Line]:
    yield named("source", 7, _origin(row), (f"  (unit {row['unit']}, row {row['row']})", "dim"))
    yield from (named(name, 7, show_value(row[name])) for name in ("caption", "url") if row[name] is not None)


def _origin(row: dict[str, Any]) -> str:
    file = " ".join(str(part) for part in (row["shard"], row["key"]) if part is not None)
    return f"{row['source']}: {file}" if file else str(row["source"])


def _became(row: dict[str, Any]) -> str:
    return "kept" if row["kept"] else f"dropped by {row['rule']}"


def _rule_lines(row: dict[str, Any], results: list[RuleResult]) -> Iterator[Line]:
    """Yield each rule with its result, and the values of the columns that it reads."""
    if not results:
        return
    yield from section("rules", "in order; the first one that it fails drops the sample")
    margin = max(len(result.name) for result in results) + 2
    marks = {PASSED: _YES, FAILED: _NO, NOT_REACHED: _OPEN}
    for result in results:
        is_known = row["status"] == schema.OK and not result.is_dedup
        would = f", would {'pass' if result.passes else 'fail'}" if is_known else ""
        word = {PASSED: "", FAILED: "fails here: ", NOT_REACHED: f"not reached{would}: "}[result.state]
        shown = ", ".join(f"{name} = {value}" for name, value in result.values.items())
        null = "; NULL fails" if result.passes is None and row["status"] == schema.OK else ""
        values = (f"  [{shown}{null}]" if shown else "", "cyan")
        yield _marked(marks[result.state], result.name, margin, (word, marks[result.state][1]), result.text, values)


def _entry_lines(run: OpenRun, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the entries that the caption matches, the rarest first, since those decide, with the draw of each."""
    facts = run.facts
    if not facts.recipe.get("match") or row["status"] != schema.OK:
        return
    entries = run.report("row_entries", unit=row["unit"], row=row["row"])
    drawn = row["draw"] is not None and facts.selection is not None and facts.selection.by_entries
    note = "; one draw u/p below 1 is enough" if drawn else ""
    is_of_another = (facts.recipe.get("balance") or {}).get("counts")  # then they follow from p = t / max(count, t)
    note += f"; given are the counts of {is_of_another}" if is_of_another else ""
    yield from section("entries", f"{len(entries)} matched{note}" if entries else "none matched")
    if not entries:
        return
    table: list[dict[str, Part]] = []
    ts = [(facts.t_by_language or {}).get(entry["language"], facts.t or 1) for entry in entries]
    for entry, t in zip(entries, ts, strict=True):
        cells: dict[str, Part] = {"": "", "entry": show_value(entry["entry"])}
        if facts.t_by_language:
            cells |= {"language": show_value(entry["language"]), "t": f"{t:,}"}
        cells |= {"in pool": f"{entry['pool']:,}", "at balance": f"{entry['survivors']:,}"}
        if is_of_another:
            cells["given"] = f"{t / entry['p']:,.0f}" if entry["p"] < 1 else f"at most {t:,}"
        table.append({**cells, "p": f"{entry['p']:.4g}"})
    if drawn:
        # The draw u/p of each entry; `decisions` has the smallest. The counts may be those of another run.
        counts = None if is_of_another else np.array([entry["survivors"] for entry in entries], np.int64)
        names, p = [entry["entry"] for entry in entries], np.array([entry["p"] for entry in entries])
        limits, earlier = np.array(ts, np.int64), row.get(schema.INPUT_PROBABILITY)
        draws = entry_draws(str(row["uid"]), names, p, counts, limits, facts.seed, earlier)
        for cells, draw, entry in zip(table, draws, entries, strict=True):
            smallest = ("← smallest", "dim") if draw == min(draws) else ""
            cells |= {
                "": _YES if draw < 1 else _NO,
                "u": f"{draw * entry['p']:.4g}",
                "u/p": f"{draw:.4g}",
                " ": smallest,
            }
    head: list[Part] = [(title, "dim") for title in table[0]]
    numbers = range(3 if facts.t_by_language else 2, len(head))
    yield from columns([head, *(list(cells.values()) for cells in table[:_ENTRIES])], right=numbers)
    if len(entries) > _ENTRIES:
        yield line(f"  and {len(entries) - _ENTRIES} more")


def _duplicate_lines(run: OpenRun, row: dict[str, Any]) -> Iterator[Line]:
    if row["rule"] == stages.DUPLICATE:
        yield from (*section("duplicates"), named("representative", 14, row["duplicate_of"]))
        for other in run.report("representative", uid=row["duplicate_of"]):
            yield named("", 14, f"{_became(other)}: {show_value(other['caption'])}", (f"  ({_origin(other)})", "dim"))
            facts = {"joined": _joined(run, row, other), "match": "; ".join(_compare(run, row, other))}
            facts["url"] = other["url"]
            yield from (named(name, 14, show_value(text)) for name, text in facts.items() if text)
    elif row["kept"] or {"rule": row["rule"]} in run.rows("FROM later_rules"):
        duplicates = run.rows("SELECT * FROM verdicts WHERE duplicate_of = $uid ORDER BY unit, row", uid=row["uid"])
        yield from _list_rows("duplicates", f"represents {pluralise(len(duplicates), 'other row')}", duplicates)


def _text_lines(run: OpenRun, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the other texts of a row's image, where one of them may be drawn."""
    one_per = str((run.facts.recipe.get("balance") or {}).get("one_per"))
    column = {"url": "url", "image": "sha256"}.get(one_per)
    if column is None or not row[column] or not (row["kept"] or row["rule"] in (stages.OTHER_TEXT, "balance")):
        return
    sql = f"SELECT * FROM survivors WHERE {column} = $image AND uid <> $uid ORDER BY uid"
    others = run.rows(sql, image=row[column], uid=row["uid"])
    yield from _list_rows(
        "texts", f"{pluralise(len(others), 'other row')} of its {one_per}; one of all may be drawn", others
    )


def _list_rows(title: str, note: str, rows: Sequence[dict[str, Any]]) -> Iterator[Line]:
    if not rows:
        return
    yield from section(title, note)
    for row in rows[:_LISTED]:
        became = "" if row["rule"] == stages.DUPLICATE else f"{_became(row)}: "
        yield named(row["uid"], 32, f"{became}{show_value(row['caption'])}", (f"  ({_origin(row)})", "dim"))
    if len(rows) > _LISTED:
        yield line(f"  and {len(rows) - _LISTED:,} more")


def _joined(run: OpenRun, row: dict[str, Any], other: dict[str, Any]) -> str:
    """Return which pass by nearness dropped a duplicate, and through which row of its group; empty where a key did."""
    near = [by for by in (run.facts.recipe.get("dedup") or {}).get("by") or () if isinstance(by, dict)]
    if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is not None:
        by = _pass([pass_ for pass_ in near if "embedding" in pass_], "embedding")
        return f"by {by}: {cosine:.4f} is the cosine to the nearest of the rows that its embedding was compared with"
    if any(row[name] is not None and row[name] == other[name] for name in ("uid", "sha256", "phash")):
        return ""
    by_hash = [pass_ for pass_ in near if "phash" in pass_]
    if row["phash"] is not None and by_hash:
        most = max(pass_["phash"]["distance"] for pass_ in by_hash)
        at = {"unit": row["unit"], "row": row["row"], "group": other["uid"], "most": most}
        for link in run.report("phash_link", phash=row["phash"], other=other["phash"], **at):
            through = f", through {link['uid']} of its group: {link['bits']} of 64 bits differ"
            return f"by {_pass(by_hash, 'phash')}{'' if link['uid'] == other['uid'] else through}"
    return "through other rows of its group"


def _pass(by: list[dict[str, Any]], kind: str) -> str:
    """Return a pass as the recipe has it; its kind alone where there are several, since which one is not recorded."""
    return str(by[0]).replace("'", "") if len(by) == 1 else kind


def _compare(run: OpenRun, row: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield what two rows have in common, and how near they are, but for the cosine that joined them."""
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


def _caption_lines(run: OpenRun, row: dict[str, Any]) -> Iterator[Line]:
    captions = run.report("row_captions", uid=row["uid"])
    if captions:
        yield from section("captions", "synthetic, with the results of the gates")
        margin = max(len(caption["name"]) for caption in captions) + 2
    for caption in captions:
        mark = _YES if caption["passed"] else _NO
        text = "" if caption["text"] is None else f": {show_value(caption['text'])}"
        yield _marked(mark, caption["name"], margin, (caption["result"], mark[1]), text)
    for regions in run.rows("SELECT regions, error FROM regions WHERE uid = $uid", uid=row["uid"]):
        shown = ", ".join(f"{region['phrase']} ({region['score']:.2f})" for region in regions["regions"] or ())
        yield from (*section("regions"), line(f"  {shown or regions['error'] or 'none'}", hang=2))


def _published_lines(run: OpenRun, row: dict[str, Any]) -> Iterator[Line]:
    yield from section("published")
    for published in run.report("row_published", unit=row["unit"], row=row["row"], uid=row["uid"]):
        files = ", ".join(f"{published['key']}.{suffix}" for suffix in published["suffixes"])
        yield line(f"  {published['shard']}{'' if published['key'] is None else f': {files}'}", hang=4)


def _measured_lines(row: dict[str, Any]) -> Iterator[Line]:
    hidden = {*UNSEEN, "uid", "source", "shard", "key", "caption", "url"}
    shown = {name: value for name, value in row.items() if name not in hidden and value is not None}
    if shown:
        yield from section("measured")
    margin = min(max(map(len, shown), default=0), 40)
    yield from (named(name, margin, show_value(value)) for name, value in shown.items())
