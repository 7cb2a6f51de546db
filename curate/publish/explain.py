"""Explains one sample: what was measured, what each rule says of it, its entries and draw, and where it was published.

In: a run folder and a uid. Out: plain text; every place in the pool that has the uid is shown, since a uid may repeat
there. The verdict is the ledger's; the rules are evaluated again over the sample's row, so that those after the first
failed one can be shown too.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate import ids, schema
from curate.captions.gates import PASSED
from curate.decide.rules import Rule, check_rules, rule_values
from curate.errors import RecipeError, RunError
from curate.forget.record import Record
from curate.publish.output import escape
from curate.publish.query import find_run, open_run
from curate.recipe import Top

_LEDGER = (schema.FAILED, schema.UNMATCHED, schema.CONTAMINATED, schema.DUPLICATE, schema.BALANCE, schema.FORGOTTEN)
_UNSEEN = ("unit", "row", "offset", "status", "error")  # columns that rules do not see
_TEXT = 300  # characters of a caption or URL that are shown
_ENTRIES = 100  # entries that are shown


def explain_sample(url: str, uid: str) -> str:
    """Everything that the run knows of a sample, as plain text without control characters but newlines.

    Raises:
        RecipeError: `uid` is not 32 hex digits, or there is no run.
        RunError: the run is not finished, or no row has this uid.
    """
    known = ids.own_uid(uid.strip())
    if known is None:
        raise RecipeError(f"{escape(uid)!r} is not a uid; accepted: 32 hex digits")
    folder = find_run(url)
    run, record = folder.read_json("run.json"), Record.read(folder)
    connection = open_run(url)
    try:
        rows = _fetch(connection, "SELECT * FROM measured WHERE uid = $uid ORDER BY unit, row", uid=known)
        ledger = _fetch(connection, "SELECT * FROM decisions WHERE uid = $uid ORDER BY unit, row", uid=known)
        if not len(rows):
            total = connection.execute("SELECT rows FROM funnel WHERE kind = 'pool'").fetchall()[0][0]
            raise RunError(f"{url}: none of its {total:,} rows has uid {known}")
        columns = rows.select([name for name in rows.column_names if name not in _UNSEEN])
        rules = check_rules({rule["name"]: _spec(rule) for rule in run["rules"]}, columns.schema)
        verdicts = rule_values(rules, columns)
        lines = [f"uid {known}"]
        if len(rows) > 1:
            lines.append(f"{len(rows)} rows of the pool have this uid")
        for row, decision, values in zip(rows.to_pylist(), ledger.to_pylist(), verdicts, strict=True):
            if decision["rule"] == schema.FORGOTTEN:
                time = record.time_of(known)
                lines += [
                    "",
                    next(_sample(row)),
                    f"verdict: taken out on request{f', {time:%Y-%m-%d}' if time else ''}",
                ]
                continue
            lines += ["", *_sample(row), *_rules(run, rules, row, decision["rule"], values)]
            lines += _entries(connection, run, row)
            lines += [*_decision(connection, row, decision), *_captions(connection, decision)]
            lines += [*_published(connection, decision)]
    finally:
        connection.close()
    return "\n".join(escape(line) for line in lines) + "\n"


def _spec(rule: dict[str, Any]) -> str | Top:
    return str(rule["sql"]) if rule.get("sql") else Top(top=rule["top"], of=rule["of"])


def _fetch(connection: Any, sql: str, **params: object) -> pa.Table:
    return connection.sql(sql, params=params).to_arrow_table()


def _sample(row: dict[str, Any]) -> Iterator[str]:
    """Where the row came from, and what was measured."""
    place = " ".join(str(part) for part in (row["shard"], row["key"]) if part is not None)
    yield f"unit {row['unit']}, row {row['row']}, source {row['source']}{f': {place}' if place else ''}"
    hidden = {*_UNSEEN, "uid", "source", "shard", "key"}
    yield from (
        f"  {name:<16} {_show(value)}" for name, value in row.items() if name not in hidden and value is not None
    )


def _rules(
    run: dict[str, Any], rules: list[Rule], row: dict[str, Any], dropped_by: str | None, values: dict[str, bool | None]
) -> Iterator[str]:
    """Each rule with its verdict, and the values of the columns that it reads."""
    if not rules:
        return
    names = [rule.name for rule in rules]
    ended = _ended(names, dropped_by)
    yield "rules"
    margin = max(map(len, names))
    thresholds = {rule["name"]: rule.get("threshold") for rule in run["rules"]}
    for position, rule in enumerate(rules):
        threshold = thresholds[rule.name]
        if isinstance(rule.spec, Top):
            value = row[rule.columns[0]]
            passes = None if value is None else threshold is not None and value >= threshold
            text = f"top {rule.spec.top} of {rule.spec.of}, which is from {_show(threshold)} on"
        else:
            passes, text = values[rule.name], " ".join(rule.spec.split())
        would = "would pass" if passes else "would fail"
        verdict = "passed" if position < ended else "FAILED HERE" if position == ended else f"not reached ({would})"
        if row["status"] != schema.OK:
            verdict = "not reached"
        shown = ", ".join(f"{name} = {_show(row[name])}" for name in rule.columns)
        null = "; NULL fails" if passes is None and row["status"] == schema.OK else ""
        yield f"  {rule.name:<{margin}}  {verdict}: {text}{f'  [{shown}{null}]' if shown else ''}"


def _ended(names: list[str], rule: str | None) -> int:
    """How many rules the row passed: all, but where one of them dropped it or it could not be read."""
    if rule in _LEDGER or rule is None:
        return -1 if rule == schema.FAILED else len(names)
    return names.index(rule) if rule in names else len(names)


def _entries(connection: Any, run: dict[str, Any], row: dict[str, Any]) -> Iterator[str]:
    """The entries that the caption matches, the rarest first, since those decide."""
    if not run["recipe"].get("match"):
        return
    found = connection.execute(
        "SELECT e.entry, e.pool, e.survivors, e.probability FROM entries e JOIN "
        "(SELECT unnest(entry_ids) AS entry_id FROM matches WHERE unit = $unit AND row = $row) USING (entry_id) "
        "ORDER BY e.probability DESC, e.survivors, e.entry",
        {"unit": row["unit"], "row": row["row"]},
    ).fetchall()
    yield f"entries: {len(found)} match" if found else "entries: none matches"
    for entry, pool, survivors, p in found[:_ENTRIES]:
        place = "tail: always drawn" if p >= 1 else "head: thinned"
        yield f"  {_show(entry)}: {pool:,} rows of the pool, {survivors:,} before balancing, p {p:.6g} ({place})"
    if len(found) > _ENTRIES:
        yield f"  and {len(found) - _ENTRIES} more"


def _decision(connection: Any, row: dict[str, Any], decision: dict[str, Any]) -> Iterator[str]:
    """The draw, duplicates and the verdict."""
    rule, draw = decision["rule"], decision["draw"]
    if draw is not None:
        outcome = "below 1: kept" if draw < 1 else "not below 1: dropped"
        yield f"balance: probability {decision['probability']:.6g}, draw {draw:.6g} ({outcome})"
    sql = "SELECT count(*) FROM decisions WHERE duplicate_of = $uid"
    twins = connection.execute(sql, {"uid": decision["uid"]}).fetchall()[0][0]
    if twins and (decision["kept"] or rule == schema.BALANCE):
        yield f"duplicates: stands for {twins:,} other row{'' if twins == 1 else 's'}"
    if decision["kept"]:
        yield "verdict: kept"
        return
    status, error = row["status"], row["error"]
    meaning = schema.SAMPLE_REASONS.get(status, "no further word")
    why = {
        schema.FAILED: f"could not be read: {status} ({meaning}){f': {error}' if error else ''}",
        schema.UNMATCHED: "no entry of the metadata occurs in its caption",
        schema.CONTAMINATED: f"near an image of the evaluation set: {escape(str(decision['duplicate_of']))}",
        schema.DUPLICATE: f"a duplicate of {decision['duplicate_of']}",
        schema.BALANCE: "not drawn",
    }
    yield f"verdict: dropped by {rule}, {why.get(rule, 'the first rule that it fails')}"


def _captions(connection: Any, decision: dict[str, Any]) -> Iterator[str]:
    """The texts that were written for it, with what the gates said, and the regions that were found."""
    if not decision["kept"]:
        return
    sql = "SELECT kind, style, text, gate, failed, status, error FROM captions WHERE uid = $uid ORDER BY kind, style, ordinal"
    found = connection.execute(sql, {"uid": decision["uid"]}).fetchall()
    if found:
        yield "captions"
    for kind, style, text, gate, failed, status, error in found:
        verdict = gate if gate == PASSED else f"failed {', '.join(failed)}" if gate else f"no text: {status} ({error})"
        yield f"  {kind} {style}, {verdict}{'' if text is None else f': {_show(text)}'}"
    sql = "SELECT regions, error FROM regions WHERE uid = $uid"
    for regions, error in connection.execute(sql, {"uid": decision["uid"]}).fetchall():
        named = ", ".join(f"{region['phrase']} ({region['score']:.2f})" for region in regions or ())
        yield f"regions: {named or error or 'none'}"


def _published(connection: Any, decision: dict[str, Any]) -> Iterator[str]:
    """In which shard, and under which key."""
    if not decision["kept"]:
        return
    sql = "SELECT shard, key FROM published WHERE uid = $uid ORDER BY ALL"
    found = connection.execute(sql, {"uid": decision["uid"]})
    for shard, key in found.fetchall():
        yield f"published: {shard}{'' if key is None else f', key {key}'}"


def _show(value: object) -> str:
    text = "NULL" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}… ({len(text):,} characters)"
