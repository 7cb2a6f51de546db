"""Explains one sample: the decision, and why: its rules, entries and draw, duplicates, captions and files.

In: a run folder and a uid, URL or key. Out: a Page of every row of the pool that has it, since each may repeat there. Of rows
that came from another run, the page of that run follows; it is also asked for samples that it did not keep.
Rules are evaluated again over the row, so that those after the first failed one can be shown too, and so are draws of
single entries.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from curate import ids, schema
from curate.ask.page import Line, Page, Part, columns, heading, line, named
from curate.ask.query import connected, find_run
from curate.captions.gates.gates import PASSED
from curate.decide import balance
from curate.decide.rules import Rule, check_rules, rule_values
from curate.errors import CurateError, RecipeError, RunError
from curate.recipe.deciding import Top
from curate.store.facts import RunFacts, read_facts
from curate.store.forgotten import Record
from curate.store.items import hash_url
from curate.wording import escape, one_line, pluralise

# Columns that rules do not see.
_UNSEEN = (
    "unit",
    "row",
    "offset",
    "status",
    "error",
    *schema.DECISIONS.names[len(schema.ALIGNED) :],
    schema.REPEATS.name,
    schema.DUPLICATE_COSINE.name,
)
_AT = "SEMI JOIN (SELECT unnest($places, recursive := true)) USING (unit, row)"  # rows at `places`
_ROWS = 20  # rows that are shown of one key, URL or uid
_TEXT = 300  # characters of a caption or URL that are shown
_VALUE = 40  # characters of a value that are shown with a rule
_ENTRIES = 100  # entries that are shown
_DUPLICATES = 10  # duplicates that are shown
_YES, _NO, _OPEN = ("✓ ", "green"), ("✗ ", "bold red"), ("– ", "dim")


def explain_sample(url: str, sample: str) -> Page:
    """Return everything that the run knows of a sample; `str` makes it plain text, without control characters but newlines.

    The sample is a uid, or a URL or key exactly as in the pool: samples that could not be read may have no uid.

    Raises:
        RecipeError: there is no run, or `sample` is neither 32 hex digits nor a URL or key of the pool.
        RunError: the run is not finished, or no row has this uid.
    """
    return Page(tuple(_explain(url, sample, frozenset())))


def _explain(url: str, sample: str, asked: frozenset[str]) -> list[Line]:
    """Return the lines of a sample; `asked` are the runs that it was asked for from."""
    folder = find_run(url)
    run, record = read_facts(folder), Record.read(folder)
    with connected(url) as connection:
        try:
            kind, name, places = _find(connection, record, url, sample)
        except CurateError as error:
            before = [(source, *_input_run(run, source, sample, asked | {url})) for source in run.input_runs or ()]
            if not any(found for _, _, found in before):
                more = "".join(f"; source {source!r}: {shown[0]}" for source, shown, _ in before)
                raise type(error)(f"{error}{more}") from None
            lines = [line((f"{sample}: not in this pool", "bold"), "; in the runs that are its inputs:")]
            return lines + [each for source, shown, _ in before for each in _stage_before(run, source, shown)]
        rows = _fetch(connection, f"SELECT * FROM verdicts {_AT} ORDER BY unit, row", places=places[:_ROWS])
        seen = rows.select([column for column in rows.column_names if column not in _UNSEEN])
        specs = {
            rule.name: rule.expression if rule.sql or rule.dedup else Top.model_validate(rule.best)
            for rule in run.rules
        }
        rules = check_rules(specs, seen.schema)
        lines = [line((f"{kind} ", "dim"), (name, "bold"))]
        if len(places) > 1:
            more = "" if len(places) <= _ROWS else f"; the first {_ROWS} follow"
            lines.append(
                line(f"{len(places):,} rows of the pool have this {kind}: {_counts(connection, places)}{more}")
            )
        for row, values in zip(rows.to_pylist(), rule_values(rules, seen), strict=True):
            uid = row["uid"]
            lines.append(line())
            if kind != "uid":
                lines.append(line(("uid ", "dim"), (uid, "bold")) if uid else line(("no uid", "dim")))
            lines += [*_verdict(connection, run, row, record.time_of(uid) if uid else None), *_sample(row)]
            if row["rule"] == schema.FORGOTTEN:  # nothing else is left of it
                continue
            lines += [
                *_rules(run, rules, row, values),
                *_entries(connection, run, row),
                *_duplicates(connection, run, row),
            ]
            lines += [*_captions(connection, row), *_published(connection, row), *_measured(row)]
            if uid and row["source"] in (run.input_runs or {}):
                lines += _stage_before(run, row["source"], _input_run(run, row["source"], uid, asked | {url})[0])
    return lines


def _input_run(run: RunFacts, source: str, sample: str, asked: frozenset[str]) -> tuple[list[Line], bool]:
    """Return what the run that is a source says of a sample, or why it says nothing, and whether it knows the sample."""
    url = _path_of(run, source)
    try:
        if url in asked:
            raise RunError(f"{url}: is its own input")
        lines = _explain(url, sample, asked)
        if run.input_runs and read_facts(find_run(url)).identity != run.input_runs[source].identity:
            lines.insert(0, line(("the folder now holds another run; what follows is about that one", "yellow")))
        return lines, True
    except (CurateError, OSError) as error:
        return [line(f"it cannot be explained: {one_line(error)}", hang=2)], False


def _path_of(run: RunFacts, source: str) -> str:
    """Return the folder of the run that is a source."""
    found = next(one for one in run.recipe["input"] if one["name"] == source)
    return str(found.get("from") or found["path"])


def _stage_before(run: RunFacts, source: str, shown: list[Line]) -> list[Line]:
    """Return what a run that is a source says, under a heading."""
    url = _path_of(run, source)
    return [line(), heading("stage before", f"source {source}, run {url}"), *shown]


def _find(connection: Any, record: Record, url: str, sample: str) -> tuple[str, str, list[dict[str, int]]]:
    """Return what the text is (uid, url or key), its spelling in the pool, and the places of the rows that have it."""
    own = ids.own_uid(sample.strip())
    kinds = {"uid": own, "url": sample, "key": sample}
    for kind, name in kinds.items():
        sql = f"SELECT unit, row FROM samples WHERE {kind} = $name ORDER BY unit, row"
        places = _fetch(connection, sql, name=name).to_pylist() if name else []
        if name and places:
            return kind, name, places
    total = connection.execute("SELECT rows FROM funnel WHERE kind = 'pool'").fetchall()[0][0]
    if own:
        raise RunError(f"{url}: none of its {total:,} rows has uid {own}")
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
    sql = f"SELECT count(*) AS rows, {what} FROM decisions {_AT} GROUP BY rule ORDER BY rule NULLS FIRST"
    return ", ".join(f"{one['rows']:,} {one['what']}" for one in _fetch(connection, sql, places=places).to_pylist())


def _fetch(connection: Any, sql: str, **params: object) -> pa.Table:
    return connection.sql(sql, params=params).to_arrow_table()


def _verdict(connection: Any, run: RunFacts, row: dict[str, Any], forgotten: datetime | None) -> Iterator[Line]:
    rule, status, error = row["rule"], row["status"], row["error"]
    failure = f"{status} ({schema.SAMPLE_REASONS.get(status, 'unknown reason')}){f': {error}' if error else ''}"
    facts = {
        "failure": failure + (_attempts(connection, row) if status in schema.MISSING_REASONS else ""),
        "date": f", {forgotten:%Y-%m-%d}" if forgotten else "",
        "duplicate_of": row["duplicate_of"],
        "draw": _show(row["draw"]),
        "probability": _show(row["probability"]),
        "sample": f"{run.kept:,} rows that `sample` drew of {run.kept + run.counts.get(schema.SAMPLE, 0):,} at random",
    }
    if row["kept"]:
        why = "" if row["draw"] is None else f": {schema.STAGE[schema.KEPT].reason.format(**facts)}"
        why = f": among the {facts['sample']}" if run.recipe.get("sample") else why
        why += f"; {pluralise(row['repeats'], 'time')} in uids.npy" if row.get("repeats") is not None else ""
        if (earlier := row.get(schema.INPUT_PROBABILITY)) is not None and row["probability"] is not None:
            why += f"; probability of both stages {_show(earlier * row['probability'])}"
        yield line(("verdict: kept", "bold green"), why)
        return
    stage = schema.STAGE.get(rule, next(stage for stage in schema.STAGES if stage.name == schema.RULES))
    yield line((f"verdict: dropped by {rule}", "bold red"), f", {stage.reason.format(**facts)}", hang=9)


def _attempts(connection: Any, row: dict[str, Any]) -> str:
    """Return how often the run tried to download a row, and when last; empty where it did not."""
    sql = "SELECT attempts, attempted FROM failures WHERE unit = $unit AND row = $row AND attempted IS NOT NULL"
    found = _fetch(connection, sql, unit=row["unit"], row=row["row"]).to_pylist()
    return "".join(
        f" ({pluralise(one['attempts'], 'attempt')}, the last at {one['attempted']:%Y-%m-%d %H:%M:%S} UTC)"
        for one in found
    )


def _sample(row: dict[str, Any]) -> Iterator[Line]:
    """Yield where the row came from, its caption and its URL."""
    yield named("source", 7, _origin(row), (f"  (unit {row['unit']}, row {row['row']})", "dim"))
    yield from (named(name, 7, _show(row[name])) for name in ("caption", "url") if row[name] is not None)


def _origin(row: dict[str, Any]) -> str:
    place = " ".join(str(part) for part in (row["shard"], row["key"]) if part is not None)
    return f"{row['source']}: {place}" if place else str(row["source"])


def _rules(run: RunFacts, rules: list[Rule], row: dict[str, Any], values: dict[str, bool | None]) -> Iterator[Line]:
    """Yield each rule with its result, and the values of the columns that it reads."""
    if not rules:
        return
    names = [rule.name for rule in rules]
    # How many rules the row passed: all, unless one dropped it, or deduplication among them, or it could not be read.
    place = next((place for place, fact in enumerate(run.rules) if fact.dedup), len(names))
    ended = {schema.FAILED: -1, **dict.fromkeys((schema.UNMATCHED, schema.CONTAMINATED, schema.DUPLICATE), place)}
    ended |= {name: position for position, name in enumerate(names)}
    passed = ended.get(row["rule"], len(names))
    yield from (line(), heading("rules", "in order; the first one that it fails drops the sample"))
    margin = max(map(len, names)) + 2
    for position, (rule, fact) in enumerate(zip(rules, run.rules, strict=True)):
        if isinstance(rule.spec, Top):
            value, *group = (row[name] for name in rule.columns)
            threshold = fact.threshold_of(*group)
            passes = None if value is None else threshold is not None and value >= threshold
            reached = "which no row reached" if threshold is None else f"threshold {fact.show(threshold)}"
            text = f"{fact.expression}, {reached}"
        elif fact.dedup:
            passes = row["rule"] != schema.DUPLICATE
            text = "no duplicate" if position < passed else row["rule"] if position == passed else "deduplication"
        else:
            passes, text = values[rule.name], " ".join(rule.spec.split())
        readable = row["status"] == schema.OK
        would = (
            f"not reached, would {'pass' if passes else 'fail'}: " if readable and not fact.dedup else "not reached: "
        )
        word = "" if position < passed else "fails here: " if position == passed else would
        mark = _YES if position < passed else _NO if position == passed else _OPEN
        cells = {name: _show(row[name], _VALUE) for name in rule.columns}
        if isinstance(rule.spec, Top) and row[rule.columns[0]] is not None:
            cells[rule.columns[0]] = fact.show(row[rule.columns[0]])  # beside the threshold, which it may equal
        shown = ", ".join(f"{name} = {value}" for name, value in cells.items())
        null = "; NULL fails" if passes is None and readable else ""
        yield _marked(mark, rule.name, margin, (word, mark[1]), text, (f"  [{shown}{null}]" if shown else "", "cyan"))


def _entries(connection: Any, run: RunFacts, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the entries that the caption matches, the rarest first, since those decide, with the draw of each."""
    if not run.recipe.get("match") or row["status"] != schema.OK:
        return
    found = connection.execute(
        "SELECT e.entry, e.pool, e.survivors, e.probability FROM entries e JOIN "
        "(SELECT unnest(entry_ids) AS entry_id FROM matches WHERE unit = $unit AND row = $row) USING (entry_id) "
        "ORDER BY e.probability DESC, e.survivors, e.entry",
        {"unit": row["unit"], "row": row["row"]},
    ).fetchall()
    drawn = row["draw"] is not None and run.t is not None
    more = "; one draw u/p below 1 is enough" if drawn else ""
    yield from (line(), heading("entries", f"{len(found)} matched{more}" if found else "none matched"))
    if not found:
        return
    head: list[Part] = [(name, "dim") for name in ("", "entry", "in pool", "at balance", "p")]
    table: list[list[Part]] = [["", _show(name), f"{pool:,}", f"{left:,}", f"{p:.4g}"] for name, pool, left, p in found]
    if drawn:
        draws = _draws(run, str(row["uid"]), found, row.get(schema.INPUT_PROBABILITY))
        head += [("u", "dim"), ("u/p", "dim"), ""]
        for cells, draw, (*_, p) in zip(table, draws, found, strict=True):
            cells[0] = _YES if draw < 1 else _NO
            cells += [f"{draw * p:.4g}", f"{draw:.4g}", ("← smallest", "dim") if draw == min(draws) else ""]
    yield from columns([head, *table[:_ENTRIES]], right=range(2, 7))
    if len(found) > _ENTRIES:
        yield line(f"  and {len(found) - _ENTRIES} more")


def _draws(run: RunFacts, uid: str, found: list[tuple[str, int, int, float]], earlier: float | None) -> list[float]:
    """Return u/p of each entry alone: the draw in `decisions` is the smallest. `earlier` is as `balance.draw` has it."""
    assert run.t is not None  # of a run that balances
    alone = pa.array([[place] for place in range(len(found))], pa.list_(pa.int32()))
    counts = np.array([survivors for _, _, survivors, _ in found], np.int64)
    probabilities = np.array([p for *_, p in found])
    if (run.recipe.get("balance") or {}).get("counts"):  # of another run: p = t / max(count, t)
        counts = np.rint(run.t / probabilities).astype(np.int64)
    limits = balance.limits_of(probabilities, counts)
    keys = ids.entry_keys(pa.array([entry for entry, *_ in found], pa.string()))
    uids = pa.array([uid] * len(found), pa.string())
    before = None if earlier is None else np.full(len(found), earlier, np.float64)
    return [float(draw) for draw in balance.draw(uids, alone, counts, limits, keys, run.seed, before)]


def _compare(connection: Any, row: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield what two rows have in common, and how near they are, but for the cosine that joined them."""
    joined = "" if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is None else f"{cosine:.4f}"
    same = [name for name in ("uid", "sha256", "url") if row[name] is not None and row[name] == other[name]]
    yield from (f"same {'image' if name == 'sha256' else 'URL' if name == 'url' else name}" for name in same)
    if "sha256" in same:
        return
    if row["phash"] is not None and other["phash"] is not None:
        yield f"{(row['phash'] ^ other['phash']).bit_count()} of 64 bits of phash differ"
    places = [{"unit": one["unit"], "row": one["row"]} for one in (row, other)]
    table = _fetch(connection, f"SELECT * FROM embeddings {_AT}", places=places)
    for name in table.column_names:
        if name.rpartition("_")[2] == "image" and len(table) == 2:
            one, two = (np.asarray(vector, float) for vector in table[name].to_pylist())
            lengths = np.linalg.norm(one) * np.linalg.norm(two)
            if lengths and (cosine := f"{one @ two / lengths:.4f}") != joined:
                yield f"{cosine} is the cosine of {name} embeddings"


def _joined(connection: Any, run: RunFacts, row: dict[str, Any], other: dict[str, Any]) -> str:
    """Return which pass by nearness dropped a duplicate, and by which row of its group; empty where a key did."""
    near = [by for by in (run.recipe.get("dedup") or {}).get("by") or () if isinstance(by, dict)]
    if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is not None:
        by = _pass([one for one in near if "embedding" in one], "embedding")
        return f"by {by}: {cosine:.4f} is the cosine to the nearest of the rows that its embedding was compared with"
    if any(row[name] is not None and row[name] == other[name] for name in ("uid", "sha256", "phash")):
        return ""
    by_hash = [one for one in near if "phash" in one]
    most = max((one["phash"]["distance"] for one in by_hash), default=0)
    if row["phash"] is None or not by_hash:
        return "through other rows of its group"
    if other["phash"] is not None and (row["phash"] ^ other["phash"]).bit_count() <= most:
        return f"by {_pass(by_hash, 'phash')}"
    sql = (
        "SELECT uid, bit_count(xor(phash, $phash::UBIGINT)) AS bits FROM verdicts WHERE $group IN (uid, duplicate_of) "
        "AND bits <= $most AND (unit, row) <> ($unit, $row) "
        "ORDER BY bit_count(xor(phash, $other::UBIGINT)), bits, uid LIMIT 1"
    )
    hashes = {"phash": row["phash"], "other": other["phash"]}
    places = {"unit": row["unit"], "row": row["row"], "group": other["uid"], "most": most}
    for one in _fetch(connection, sql, **hashes, **places).to_pylist():
        return f"by {_pass(by_hash, 'phash')}, through {one['uid']} of its group: {one['bits']} of 64 bits differ"
    return "through other rows of its group"


def _pass(by: list[dict[str, Any]], kind: str) -> str:
    """Return a pass as a recipe has it; its kind alone where there are several, for which one it was is not recorded."""
    return str(by[0]).replace("'", "") if len(by) == 1 else kind


def _later_rules(run: RunFacts) -> list[str]:
    """Return the rules that come after deduplication."""
    place = next((place for place, fact in enumerate(run.rules) if fact.dedup), len(run.rules))
    return [fact.name for fact in run.rules[place + 1 :]]


def _duplicates(connection: Any, run: RunFacts, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the representative of a duplicate, or the duplicates of a representative."""
    if row["rule"] == schema.DUPLICATE:
        sql = "SELECT * FROM verdicts WHERE uid = $uid AND rule IS DISTINCT FROM 'duplicate' ORDER BY unit, row LIMIT 1"
        yield from (line(), heading("duplicates"), named("representative", 14, row["duplicate_of"]))
        for other in _fetch(connection, sql, uid=row["duplicate_of"]).to_pylist():
            verdict = "kept" if other["kept"] else f"dropped by {other['rule']}"
            yield named("", 14, f"{verdict}: {_show(other['caption'])}", (f"  ({_origin(other)})", "dim"))
            joined = _joined(connection, run, row, other)
            match = "; ".join(_compare(connection, row, other))
            yield from (named(name, 14, text) for name, text in (("joined", joined), ("match", match)) if text)
    elif row["kept"] or row["rule"] in (schema.BALANCE, schema.SAMPLE, *_later_rules(run)):
        sql = "SELECT * FROM verdicts WHERE duplicate_of = $uid ORDER BY unit, row"
        duplicates = _fetch(connection, sql, uid=row["uid"])
        if len(duplicates):
            yield from (line(), heading("duplicates", f"represents {pluralise(len(duplicates), 'other row')}"))
        for other in duplicates.slice(0, _DUPLICATES).to_pylist():
            yield named(other["uid"], 32, _show(other["caption"]), (f"  ({_origin(other)})", "dim"))
        if len(duplicates) > _DUPLICATES:
            yield line(f"  and {len(duplicates) - _DUPLICATES:,} more")


def _captions(connection: Any, row: dict[str, Any]) -> Iterator[Line]:
    """Yield its synthetic captions with the results of the gates, and its regions."""
    if not row["kept"]:
        return
    sql = "SELECT kind, style, text, gate, failed, status, error FROM captions WHERE uid = $uid ORDER BY kind, style, ordinal"
    found = connection.execute(sql, {"uid": row["uid"]}).fetchall()
    if found:
        yield from (line(), heading("captions", "synthetic, with the results of the gates"))
    margin = max((len(f"{kind} {style}") for kind, style, *_ in found), default=0) + 2
    for kind, style, text, gate, failed, status, error in found:
        verdict = f"failed {', '.join(failed or [])}" if gate else f"no caption: {status} ({error})"
        mark = _YES if gate == PASSED else _NO
        shown = "" if text is None else f": {_show(text)}"
        yield _marked(mark, f"{kind} {style}", margin, (PASSED if gate == PASSED else verdict, mark[1]), shown)
    sql = "SELECT regions, error FROM regions WHERE uid = $uid"
    for regions, error in connection.execute(sql, {"uid": row["uid"]}).fetchall():
        shown = ", ".join(f"{region['phrase']} ({region['score']:.2f})" for region in regions or ())
        yield from (line(), heading("regions"), line(f"  {shown or error or 'none'}", hang=2))


def _published(connection: Any, row: dict[str, Any]) -> Iterator[Line]:
    """Yield its shard, and its files there."""
    if not row["kept"]:
        return
    sql = "SELECT suffix FROM members WHERE unit = $unit AND row = $row"
    found = connection.execute(sql, {"unit": row["unit"], "row": row["row"]}).fetchall()
    image = "jpg" if row["format"] == "jpeg" else row["format"]
    suffixes = sorted({*(found[0][0] if found else [image]), "json", "txt"} - {None})
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
    margin = min(max(map(len, shown), default=0), _VALUE)
    yield from (named(name, margin, _show(value)) for name, value in shown.items())


def _marked(mark: tuple[str, str], name: str, margin: int, *value: Part) -> Line:
    """Return a line `mark name  value`."""
    shown = named("", margin, *value)
    text = line("  ", mark, (name, "cyan")).text
    text.pad_right(max(0, margin + 4 - text.cell_len))
    return Line(text.append_text(shown.text[margin + 4 :]), shown.hang)


def _show(value: object, most: int = _TEXT) -> str:
    text = "NULL" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
