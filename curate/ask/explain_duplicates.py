"""A section of an explanation: a duplicate's representative and how the two are joined, or what a row represents."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from curate.ask.explain_parts import AT, fetch, origin, show
from curate.ask.page import Line, heading, line, named
from curate.base import schema
from curate.base.wording import pluralise
from curate.store.facts import RunFacts

_DUPLICATES = 10  # duplicates that are shown


def duplicate_lines(connection: Any, run: RunFacts, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the representative of a duplicate, or the duplicates of a representative."""
    if row["rule"] == schema.DUPLICATE:
        came = "kept OR rule IN (FROM later_rules) OR rule = 'forgotten'"
        sql = f"SELECT * FROM verdicts WHERE uid = $uid AND ({came}) ORDER BY unit, row LIMIT 1"
        yield from (line(), heading("duplicates"), named("representative", 14, row["duplicate_of"]))
        for other in fetch(connection, sql, uid=row["duplicate_of"]).to_pylist():
            verdict = "kept" if other["kept"] else f"dropped by {other['rule']}"
            yield named("", 14, f"{verdict}: {show(other['caption'])}", (f"  ({origin(other)})", "dim"))
            facts = {
                "joined": _joined(connection, run, row, other),
                "match": "; ".join(_compare(connection, row, other)),
                "url": other["url"],
            }
            yield from (named(name, 14, show(text)) for name, text in facts.items() if text)
    elif row["kept"] or (run.selection and row["rule"] == run.selection.key) or row["rule"] in _later_rules(run):
        sql = "SELECT * FROM verdicts WHERE duplicate_of = $uid ORDER BY unit, row"
        duplicates = fetch(connection, sql, uid=row["uid"])
        if len(duplicates):
            yield from (line(), heading("duplicates", f"represents {pluralise(len(duplicates), 'other row')}"))
        for other in duplicates.slice(0, _DUPLICATES).to_pylist():
            yield named(other["uid"], 32, show(other["caption"]), (f"  ({origin(other)})", "dim"))
        if len(duplicates) > _DUPLICATES:
            yield line(f"  and {len(duplicates) - _DUPLICATES:,} more")


def _joined(connection: Any, run: RunFacts, row: dict[str, Any], other: dict[str, Any]) -> str:
    """Return which pass by nearness dropped a duplicate, and through which row of its group; empty where a key did."""
    near = [by for by in (run.recipe.get("dedup") or {}).get("by") or () if isinstance(by, dict)]
    if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is not None:
        by = _pass([pass_ for pass_ in near if "embedding" in pass_], "embedding")
        return f"by {by}: {cosine:.4f} is the cosine to the nearest of the rows that its embedding was compared with"
    if any(row[name] is not None and row[name] == other[name] for name in ("uid", "sha256", "phash")):
        return ""
    by_hash = [pass_ for pass_ in near if "phash" in pass_]
    most = max((pass_["phash"]["distance"] for pass_ in by_hash), default=0)
    if row["phash"] is None or not by_hash:
        return "through other rows of its group"
    if other["phash"] is not None and (row["phash"] ^ other["phash"]).bit_count() <= most:
        return f"by {_pass(by_hash, 'phash')}"
    sql = (
        "SELECT uid, bit_count(xor(phash, $phash::UBIGINT)) AS bits FROM verdicts WHERE duplicate_of = $group "
        "AND bits <= $most AND (unit, row) <> ($unit, $row) "
        "ORDER BY bit_count(xor(phash, $other::UBIGINT)), bits, uid LIMIT 1"
    )
    hashes = {"phash": row["phash"], "other": other["phash"]}
    places = {"unit": row["unit"], "row": row["row"], "group": other["uid"], "most": most}
    for link in fetch(connection, sql, **hashes, **places).to_pylist():
        return f"by {_pass(by_hash, 'phash')}, through {link['uid']} of its group: {link['bits']} of 64 bits differ"
    return "through other rows of its group"


def _pass(by: list[dict[str, Any]], kind: str) -> str:
    """Return a pass as the recipe has it; its kind alone where there are several, since which one is not recorded."""
    return str(by[0]).replace("'", "") if len(by) == 1 else kind


def _compare(connection: Any, row: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield what two rows have in common, and how near they are, but for the cosine that joined them."""
    joined = "" if (cosine := row.get(schema.DUPLICATE_COSINE.name)) is None else f"{cosine:.4f}"
    same = [name for name in ("uid", "sha256", "url") if row[name] is not None and row[name] == other[name]]
    yield from (f"same {'image' if name == 'sha256' else 'URL' if name == 'url' else name}" for name in same)
    if "sha256" in same:
        return
    if row["phash"] is not None and other["phash"] is not None:
        yield f"{(row['phash'] ^ other['phash']).bit_count()} of 64 bits of phash differ"
    places = [{"unit": of["unit"], "row": of["row"]} for of in (row, other)]
    table = fetch(connection, f"SELECT * FROM embeddings {AT}", places=places)
    for name in table.column_names:
        if name.rpartition("_")[2] == "image" and len(table) == 2:
            a, b = (np.asarray(vector, float) for vector in table[name].to_pylist())
            lengths = np.linalg.norm(a) * np.linalg.norm(b)
            if lengths and (cosine := f"{a @ b / lengths:.4f}") != joined:
                yield f"{cosine} is the cosine of {name} embeddings"


def _later_rules(run: RunFacts) -> list[str]:
    """Return the rules that come after deduplication."""
    place = next((place for place, fact in enumerate(run.rules) if fact.dedup), len(run.rules))
    return [fact.name for fact in run.rules[place + 1 :]]
