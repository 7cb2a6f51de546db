"""Explain a sample's decision: its rules, entries and draw, duplicates, captions and files.

In: a run folder and a uid, URL or key. Out: a Page of every row of the pool that has it, since each may repeat there.
The page of the run that a row came from follows; it is also searched for samples that it did not keep.
"""

from collections.abc import Iterator
from typing import Any

from curate.ask.explain_decision import entry_lines, rule_lines, verdict
from curate.ask.explain_duplicates import duplicate_lines
from curate.ask.explain_parts import AT, NO, VALUE, YES, fetch, marked, origin, show
from curate.ask.page import Line, Page, heading, line, named
from curate.ask.query import connected, find_run
from curate.base import ids, schema
from curate.base.errors import CurateError, RecipeError, RunError
from curate.base.wording import escape, one_line
from curate.captions.gates.gate import PASSED
from curate.decide.rules.rules import check_rules, rule_values
from curate.recipe.deciding import Top
from curate.store.facts import RunFacts, read_facts
from curate.store.forgotten import Record
from curate.store.items import hash_url

# Columns that rules do not see.
_UNSEEN = ("unit", "row", "offset", "status", "error", *schema.DECISIONS.names[len(schema.ALIGNED) :])
_UNSEEN += (schema.REPEATS.name, schema.DUPLICATE_COSINE.name)
_ROWS = 20  # rows that are shown of one key, URL or uid


def explain_sample(url: str, sample: str) -> Page:
    """Return everything that the run knows of a sample: a uid, or a URL or key exactly as in the pool.

    Raises:
        RecipeError: there is no run, or `sample` is neither 32 hex digits nor a URL or key of the pool.
        RunError: the run is not finished, or no row has this uid.
    """
    return Page(tuple(_explain(url, sample, frozenset())))


def _explain(url: str, sample: str, later: frozenset[str]) -> list[Line]:
    """Return the lines of a sample; `later` are the runs whose stages before are being explained."""
    folder = find_run(url)
    run, record = read_facts(folder), Record.read(folder)
    with connected(url) as connection:
        try:
            kind, name, places = _find(connection, record, url, sample)
        except CurateError as error:
            before = [(source, *_input_run(run, source, sample, later | {url})) for source in run.input_runs or ()]
            if not any(is_known for _, _, is_known in before):
                more = "".join(f"; source {source!r}: {shown[0]}" for source, shown, _ in before)
                raise type(error)(f"{error}{more}") from None
            lines = [line((f"{sample}: not in this pool", "bold"), "; in the runs that are its inputs:")]
            return lines + [each for source, shown, _ in before for each in _stage_before(run, source, shown)]
        rows = fetch(connection, f"SELECT * FROM verdicts {AT} ORDER BY unit, row", places=places[:_ROWS])
        seen = rows.select([column for column in rows.column_names if column not in _UNSEEN])
        expressed = {rule.name: rule.expression if rule.sql or rule.dedup else None for rule in run.rules}
        specs = {rule.name: expressed[rule.name] or Top.model_validate(rule.best) for rule in run.rules}
        rules = check_rules(specs, seen.schema)
        lines = [line((f"{kind} ", "dim"), (name, "bold"))]
        if len(places) > 1:
            more = f"{_counts(connection, places)}{'' if len(places) <= _ROWS else f'; the first {_ROWS} follow'}"
            lines.append(line(f"{len(places):,} rows of the pool have this {kind}: {more}"))
        for row, values in zip(rows.to_pylist(), rule_values(rules, seen), strict=True):
            uid = row["uid"]
            lines.append(line())
            if kind != "uid":
                lines.append(line(("uid ", "dim"), (uid, "bold")) if uid else line(("no uid", "dim")))
            lines += [*verdict(connection, run, row, record.time_of(uid) if uid else None), *_sample(row)]
            if row["rule"] == schema.FORGOTTEN:  # nothing else is left of it
                continue
            lines += [*rule_lines(run, rules, row, values), *entry_lines(connection, run, row)]
            lines += [*duplicate_lines(connection, run, row), *_captions(connection, row)]
            lines += [*_published(connection, row), *_measured(row)]
            if uid and row["source"] in (run.input_runs or {}):
                lines += _stage_before(run, row["source"], _input_run(run, row["source"], uid, later | {url})[0])
    return lines


def _input_run(run: RunFacts, source: str, sample: str, later: frozenset[str]) -> tuple[list[Line], bool]:
    """Return what the run that is a source says of a sample, or why nothing, and whether it knows the sample."""
    url = _path_of(run, source)
    try:
        if url in later:
            raise RunError(f"{url}: is its own input")
        lines = _explain(url, sample, later)
        if run.input_runs and read_facts(find_run(url)).identity != run.input_runs[source].identity:
            lines.insert(0, line(("the folder now holds another run; what follows is about that one", "yellow")))
        return lines, True
    except (CurateError, OSError) as error:
        return [line(f"it cannot be explained: {one_line(error)}", hang=2)], False


def _path_of(run: RunFacts, source: str) -> str:
    """Return the folder of the run that is a source."""
    settings = next(section for section in run.recipe["input"] if section["name"] == source)
    return str(settings.get("from") or settings["path"])


def _stage_before(run: RunFacts, source: str, shown: list[Line]) -> list[Line]:
    """Return what a run that is a source says, under a heading."""
    url = _path_of(run, source)
    return [line(), heading("stage before", f"source {source}, run {url}"), *shown]


def _find(connection: Any, record: Record, url: str, sample: str) -> tuple[str, str, list[dict[str, int]]]:
    """Return what the text is (uid, url or key), its spelling in the pool, and the places of the rows that have it."""
    uid = ids.own_uid(sample.strip())
    kinds = {"uid": uid, "url": sample, "key": sample}
    for kind, name in kinds.items():
        sql = f"SELECT unit, row FROM samples WHERE {kind} = $name ORDER BY unit, row"
        places = fetch(connection, sql, name=name).to_pylist() if name else []
        if name and places:
            return kind, name, places
    total = connection.execute("SELECT rows FROM funnel WHERE kind = 'pool'").fetchall()[0][0]
    if uid:
        raise RunError(f"{url}: none of its {total:,} rows has uid {uid}")
    if taken := record.time_of(hash_url(sample.encode()).hex(), "url"):
        raise RunError(
            f"{url}: this URL was removed on request on {taken:%Y-%m-%d}; only the uids of such rows remain; "
            f"to list them: curate sql {url} \"SELECT uid, unit, row FROM decisions WHERE rule = 'forgotten'\""
        )
    raise RecipeError(
        f"{url}: none of its {total:,} rows has the URL or key {escape(sample)!r} (a uid has 32 hex digits); "
        f"to find one: curate sql {url} \"SELECT uid, key, url FROM samples WHERE caption LIKE '%…%'\""
    )


def _counts(connection: Any, places: list[dict[str, int]]) -> str:
    """Return how many rows of these places are kept, and how many each rule dropped."""
    what = "coalesce('dropped by ' || rule, 'kept') AS what"
    sql = f"SELECT count(*) AS rows, {what} FROM decisions {AT} GROUP BY rule ORDER BY rule NULLS FIRST"
    counts = fetch(connection, sql, places=places).to_pylist()
    return ", ".join(f"{count['rows']:,} {count['what']}" for count in counts)


def _sample(row: dict[str, Any]) -> Iterator[Line]:
    """Yield where the row came from, its caption and its URL."""
    yield named("source", 7, origin(row), (f"  (unit {row['unit']}, row {row['row']})", "dim"))
    yield from (named(name, 7, show(row[name])) for name in ("caption", "url") if row[name] is not None)


def _captions(connection: Any, row: dict[str, Any]) -> Iterator[Line]:
    """Yield its synthetic captions with the results of the gates, and its regions."""
    if not row["kept"]:
        return
    columns = "kind, style, text, gate, failed, status, error"
    sql = f"SELECT {columns} FROM captions WHERE uid = $uid ORDER BY kind, style, ordinal"
    captions = connection.execute(sql, {"uid": row["uid"]}).fetchall()
    if captions:
        yield from (line(), heading("captions", "synthetic, with the results of the gates"))
    margin = max((len(f"{kind} {style}") for kind, style, *_ in captions), default=0) + 2
    for kind, style, text, gate, failed, status, error in captions:
        verdict = f"failed {', '.join(failed or [])}" if gate else f"no caption: {status} ({error})"
        mark = YES if gate == PASSED else NO
        shown = "" if text is None else f": {show(text)}"
        yield marked(mark, f"{kind} {style}", margin, (PASSED if gate == PASSED else verdict, mark[1]), shown)
    sql = "SELECT regions, error FROM regions WHERE uid = $uid"
    for regions, error in connection.execute(sql, {"uid": row["uid"]}).fetchall():
        shown = ", ".join(f"{region['phrase']} ({region['score']:.2f})" for region in regions or ())
        yield from (line(), heading("regions"), line(f"  {shown or error or 'none'}", hang=2))


def _published(connection: Any, row: dict[str, Any]) -> Iterator[Line]:
    """Yield its shard, and its files there."""
    if not row["kept"]:
        return
    sql = "SELECT suffix FROM members WHERE unit = $unit AND row = $row"
    members = connection.execute(sql, {"unit": row["unit"], "row": row["row"]}).fetchall()
    image = "jpg" if row["format"] == "jpeg" else row["format"]
    suffixes = sorted({*(members[0][0] if members else [image]), "json", "txt"} - {None})
    sql = "SELECT shard, key FROM published WHERE uid = $uid ORDER BY ALL"
    yield from (line(), heading("published"))
    for shard, key in connection.execute(sql, {"uid": row["uid"]}).fetchall():
        files = "" if key is None else f": {', '.join(f'{key}.{suffix}' for suffix in suffixes)}"
        yield line(f"  {shard}{files}", hang=4)


def _measured(row: dict[str, Any]) -> Iterator[Line]:
    """Yield all measured values, by their SQL names."""
    hidden = {*_UNSEEN, "uid", "source", "shard", "key", "caption", "url"}
    shown = {name: value for name, value in row.items() if name not in hidden and value is not None}
    if shown:
        yield from (line(), heading("measured"))
    margin = min(max(map(len, shown), default=0), VALUE)
    yield from (named(name, margin, show(value)) for name, value in shown.items())
