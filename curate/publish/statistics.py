"""stats.duckdb: a run's small tables, and views over its large ones, for any DuckDB client.

In: a run folder with its tables, failures.parquet, entries.parquet and shards. Out, as tables: `failures`, `reasons` (what
they mean), `entries`, `rules`, `run` (key, value), `drops` (source, rule, rows), `funnel` (position, kind, rule, rows),
`sources`, `drift` and `caption_work`. As views, by paths relative to the run folder: `samples`, `scores`, `matches`,
`decisions`, `members`, `answers`, `captions`, `published`, `manifest`, and what sql/views.sql builds on them. A table that a run does not have is an empty view with
the same columns, so that every query works on every run.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import curate
from curate import schema
from curate.errors import ConservationError
from curate.publish.drifts import DRIFT
from curate.shards.commit import Folder

STATISTICS = "stats.duckdb"
TABLES = ("failures", "reasons", "entries", "rules", "run", "drops", "funnel", "sources", "drift", "caption_work")

LARGE = {
    "samples": schema.SAMPLES,
    "scores": pa.schema(schema.ALIGNED),
    "embeddings": pa.schema(schema.ALIGNED),
    "matches": schema.MATCHES,
    "decisions": schema.DECISIONS,
    "answers": schema.ANSWERS,
    "captions": schema.CAPTIONS,
    "regions": schema.REGIONS,
    "members": schema.MEMBERS,
    "manifest": schema.MANIFEST,
}
PUBLISHED = pa.schema([("shard", pa.string()), ("key", pa.string()), ("uid", pa.string())])
_READERS = 8  # files read at once: what hides the latency of an object store


@dataclass(frozen=True)
class Layout:
    """Where the large tables' files are: a glob or paths for each view; `tars` where shards are tars with sidecars."""

    files: Mapping[str, tuple[str, ...]]
    tars: bool


def sql_folder() -> Path:
    """The folder of views.sql and the named queries: inside an installed package, else at the top of the checkout."""
    package = Path(curate.__file__).parent
    return package / "sql" if (package / "sql").is_dir() else package.parent / "sql"


def table_files(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The files of each large table, from the paths of a run's files; a table without files is left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        top, _, rest = name.partition("/")
        if top == "tables" and rest.endswith(".parquet") and rest.count("/") == 1:
            found.setdefault(rest.partition("/")[0], []).append(name)
        elif top == "shards" and rest.endswith(".parquet"):
            found.setdefault("published", []).append(name)
    return {table: tuple(sorted(files)) for table, files in found.items() if table in LARGE or table == "published"}


def create_views(connection: Any, layout: Layout) -> None:
    """Creates the views over large tables, then those of sql/views.sql. The files must be there: views are bound."""
    for name, columns in LARGE.items():
        files = layout.files.get(name)
        connection.execute(f"CREATE VIEW {name} AS {_scan(files) if files else _nothing(connection, columns)}")
    _create_scored(connection)
    files = layout.files.get("published")
    if files:
        shard = "'shards/' || parse_filename(curate_shard_file)"
        shard, key = (f"replace({shard}, '.parquet', '.tar')", "key") if layout.tars else (shard, "NULL::VARCHAR")
        named = _scan(files, ", filename = 'curate_shard_file'")
        body = f"SELECT {shard} AS shard, {key} AS key, lower(uid::VARCHAR) AS uid FROM ({named})"
    else:
        body = _nothing(connection, PUBLISHED)
    connection.execute(f"CREATE VIEW published AS {body}")
    connection.execute((sql_folder() / "views.sql").read_text("utf-8"))


def _create_scored(connection: Any) -> None:
    """View `scored`: the scores, and CLIPScore (Hessel et al., 2021), 2.5·max(cosine, 0), of each model."""
    names = [name for name, *_ in connection.execute("DESCRIBE scores").fetchall()]
    models = [name.removesuffix("_truncated") for name in names if name.endswith("_truncated")]
    columns = [
        # greatest() passes over NULL, and a row without a score has no CLIPScore.
        f'CASE WHEN "{model}_score" IS NOT NULL THEN 2.5 * greatest("{model}_score", 0) END AS "{model}score"'
        for model in dict.fromkeys(["clip", *models])
        if f"{model}_score" in names and f"{model}score" not in names
    ]
    connection.execute(f"CREATE VIEW scored AS SELECT {', '.join(['*', *columns])} FROM scores")


def build_statistics(folder: Folder, run: dict[str, Any]) -> None:
    """Puts stats.duckdb into place.

    Args:
        folder: the run folder; its tables, failures, entries and shards stand, its manifest need not.
        run: what run.json holds.

    Raises:
        ConservationError: a row's rule is not one of the run's.
    """
    files = folder.files()
    layout = table_files(files)
    drops = _count_drops(folder, layout)
    with tempfile.TemporaryDirectory() as temporary:
        path = f"{temporary}/{STATISTICS}"
        connection = duckdb.connect(path)
        try:
            connection.execute(f"SET file_search_path = {quote(temporary)}; SET python_enable_replacements = false")
            for name, table in _small_tables(folder, run, drops, "entries.parquet" in files).items():
                connection.register("incoming", table)
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
                connection.unregister("incoming")
            create_views(connection, _stubs(folder, layout, temporary, any(name.endswith(".tar") for name in files)))
        finally:
            connection.close()
        with open(path, "rb") as source, folder.create(STATISTICS) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def quote(text: str) -> str:
    """The text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _scan(files: tuple[str, ...], option: str = "") -> str:
    return f"SELECT * FROM read_parquet([{', '.join(map(quote, files))}], hive_partitioning = false{option})"


def _nothing(connection: Any, columns: pa.Schema) -> str:
    """A query with these columns and no rows."""
    connection.register("incoming", columns.empty_table())
    types = connection.execute("DESCRIBE SELECT * FROM incoming").fetchall()
    connection.unregister("incoming")
    return "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind, *_ in types) + " LIMIT 0"


def _stubs(folder: Folder, files: dict[str, tuple[str, ...]], temporary: str, tars: bool) -> Layout:
    """Empty files that views can be bound on: the run may be remote, and its views are to be relative."""
    globs = {}
    for name, paths in files.items():
        with folder.open(paths[0]) as file:
            columns = pq.read_schema(file)
        globs[name] = (f"{os.path.dirname(paths[0])}/*.parquet",)
        os.makedirs(os.path.dirname(f"{temporary}/{paths[0]}"), exist_ok=True)
        pq.write_table(columns.empty_table(), f"{temporary}/{paths[0]}")
    pq.write_table(schema.MANIFEST.empty_table(), f"{temporary}/manifest.parquet")
    return Layout(globs | {"manifest": ("manifest.parquet",)}, tars)


def _count_drops(folder: Folder, files: dict[str, tuple[str, ...]]) -> Counter[tuple[str, str | None]]:
    """Rows by source and rule, None for kept; the two tables are row-aligned, so no join is needed."""

    def count(pair: tuple[str, str]) -> Counter[tuple[str, str | None]]:
        sources, decisions = folder.read_parquet(pair[0], ["source"]), folder.read_parquet(pair[1], ["kept", "rule"])
        rules = pc.if_else(decisions["kept"], pa.scalar(None, pa.string()), decisions["rule"])
        table = pa.table({"source": sources["source"], "rule": rules}).group_by(["source", "rule"], use_threads=False)
        counted = table.aggregate([([], "count_all")])
        return Counter({(row["source"], row["rule"]): row["count_all"] for row in counted.to_pylist()})

    total: Counter[tuple[str, str | None]] = Counter()
    with ThreadPoolExecutor(_READERS) as pool:
        for counts in pool.map(count, zip(files.get("samples", ()), files.get("decisions", ()), strict=True)):
            total.update(counts)
    return total


def _small_tables(
    folder: Folder, run: dict[str, Any], drops: Counter[tuple[str, str | None]], has_entries: bool
) -> dict[str, pa.Table]:
    return {
        "failures": folder.read_parquet("failures.parquet"),
        "reasons": _reasons(),
        "entries": folder.read_parquet("entries.parquet") if has_entries else schema.ENTRIES.empty_table(),
        "rules": _rules(run),
        "run": _facts(run),
        "drift": pa.Table.from_pylist(run.get("drift", []), DRIFT),
        "caption_work": pa.Table.from_pylist(run.get("caption_work", []), schema.CAPTION_WORK),
        "drops": pa.table(
            {
                "source": pa.array([source for source, rule in drops if rule is not None], pa.string()),
                "rule": pa.array([rule for _, rule in drops if rule is not None], pa.string()),
                "rows": pa.array([rows for (_, rule), rows in drops.items() if rule is not None], pa.int64()),
            }
        ).sort_by([("source", "ascending"), ("rule", "ascending")]),
        "funnel": _funnel(run, drops),
        "sources": _sources(run, drops),
    }


def _reasons() -> pa.Table:
    kinds = {"sample": schema.SAMPLE_REASONS, "file": schema.FILE_REASONS, "part of a file": schema.DAMAGE_REASONS}
    rows = [
        {"reason": reason, "kind": kind, "meaning": text}
        for kind, reasons in kinds.items()
        for reason, text in reasons.items()
    ]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("reason", "kind", "meaning")]))


def _rules(run: dict[str, Any]) -> pa.Table:
    rows = [
        {
            "position": position,
            "name": rule["name"],
            "expression": rule.get("sql") or f"top {rule['top']} of {rule['of']}",
            "threshold": None if rule.get("threshold") is None else float(rule["threshold"]),
        }
        for position, rule in enumerate(run["rules"], 1)
    ]
    columns = [
        ("position", pa.int32()),
        ("name", pa.string()),
        ("expression", pa.string()),
        ("threshold", pa.float64()),
    ]
    return pa.Table.from_pylist(rows, pa.schema(columns))


def _facts(run: dict[str, Any]) -> pa.Table:
    """run.json as keys and values: text as it is, all else as JSON."""
    rows = [
        {"key": key, "value": value if isinstance(value, str) or value is None else json.dumps(value)}
        for key, value in run.items()
    ]
    return pa.Table.from_pylist(rows, pa.schema([("key", pa.string()), ("value", pa.string())]))


def _funnel(run: dict[str, Any], drops: Counter[tuple[str, str | None]]) -> pa.Table:
    by_rule: Counter[str | None] = Counter()
    for (_, rule), count in drops.items():
        by_rule[rule] += count
    recipe = run["recipe"]
    used = {
        schema.UNMATCHED: recipe.get("match"),
        schema.CONTAMINATED: recipe.get("dedup", {}).get("against"),
        schema.BALANCE: recipe.get("balance"),
    }
    late = (schema.UNMATCHED, schema.CONTAMINATED, schema.DUPLICATE, schema.BALANCE)
    steps = [schema.FAILED, *([schema.FORGOTTEN] if by_rule[schema.FORGOTTEN] else [])]
    steps += [*(rule["name"] for rule in run["rules"])]
    steps += [name for name in late if by_rule[name] or used.get(name, True)]
    strange = sorted(str(name) for name in by_rule if name is not None and name not in steps)
    if strange:
        raise ConservationError(f"decisions name rules that the run does not have: {', '.join(strange)}")
    names = ["pool", *steps, "kept"]
    rows = [by_rule.total(), *(by_rule[name] for name in steps), by_rule[None]]
    return pa.table(
        {
            "position": pa.array(range(len(names)), pa.int32()),
            "kind": pa.array(["pool", *["drop"] * len(steps), "kept"]),
            "rule": pa.array(names),
            "rows": pa.array(rows, pa.int64()),
        }
    )


def _sources(run: dict[str, Any], drops: Counter[tuple[str, str | None]]) -> pa.Table:
    names = list(dict.fromkeys([*run["sources"], *sorted(source for source, _ in drops)]))
    rows = []
    for position, name in enumerate(names):
        counts = {rule: count for (source, rule), count in drops.items() if source == name}
        pool, failed, kept = sum(counts.values()), counts.get(schema.FAILED, 0), counts.get(None, 0)
        rows.append((position, name, pool, failed, pool - failed - kept, kept))
    numbers = [(name, pa.int64()) for name in ("pool", "failed", "dropped", "kept")]
    columns = pa.schema([("position", pa.int32()), ("source", pa.string()), *numbers])
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in rows], columns)
