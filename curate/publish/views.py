"""The views over a run's large tables: for curate's own connections, and as views.sql in the run folder for any client.

In: the tables that have files, the columns of `scores`, and the paths of files as SQL. Out: statements that create the
views in LARGE, then `scored`, `measured`, `verdicts`, `published`, and the views in sql/views.sql. A table that a run
does not have becomes an empty view with the same columns, so that every query works on every run.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import pyarrow as pa

from curate.base import schema, stages
from curate.base.numeric.sides import SQL as SIDES
from curate.emit.output_format import OutputFormat
from curate.recipe.files import shipped_folder
from curate.store.layout import MANIFEST_FILE, RETRIES_FILE, VIEWS_FILE
from curate.store.store import RunStore

_ALIGNED = pa.schema(schema.ALIGNED)  # columns of tables whose other columns depend on the recipe
LARGE: dict[str, pa.Schema] = {
    name: getattr(schema, name.upper(), _ALIGNED)
    for name in (*sorted(stages.TABLES, key="members".__eq__), "manifest", "retries")  # in the order of views.sql
}
_TYPES: dict[pa.DataType, str] = {pa.bool_(): "BOOLEAN", pa.string(): "VARCHAR"}
_TYPES |= {pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.uint64(): "UBIGINT"}
_TYPES |= {pa.float32(): "FLOAT", pa.float64(): "DOUBLE"}
_VARYING = {"scores", "related", "derived", "matches"}  # tables whose columns depend on the recipe
PUBLISHED = pa.schema([("shard", pa.string()), ("key", pa.string()), ("uid", pa.string())])

# The host in a URL, in lower case, without user and port; empty if there is none.
_HOST = r"lower(regexp_extract(url, '://(?:[^/?#]*@)?(\[[^/?#\]]*\]?|[^/?#:]*)', 1))"
_VERDICTS = "SELECT m.*, d.* EXCLUDE (unit, row, uid) FROM measured m JOIN decisions d USING (unit, row)"
_RUN = "coalesce(rtrim(getvariable('run'), '/') || '/', '')"


def table_files(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the files of each large table that has some, from the paths of a run's files."""
    by_table: dict[str, list[str]] = {}
    for name in names:
        top, _, rest = name.partition("/")
        if top == "tables" and rest.endswith(".parquet") and rest.count("/") == 1:
            by_table.setdefault(rest.partition("/")[0], []).append(name)
        elif top == "shards" and rest.endswith(".parquet"):
            by_table.setdefault("published", []).append(name)
        elif name == RETRIES_FILE:
            by_table["retries"] = [name]
    return {table: tuple(sorted(files)) for table, files in by_table.items() if table in LARGE or table == "published"}


def create_views(connection: Any, files: Mapping[str, tuple[str, ...]], kind: OutputFormat) -> None:
    """Create the views over files, given as absolute paths or URLs by table.

    The files must exist, because views are bound.
    """
    lists = {name: f"[{', '.join(map(quote, paths))}]" for name, paths in files.items()}
    columns = {}
    for table in _VARYING & files.keys():
        described = connection.execute(f"DESCRIBE {_scan(f'[{quote(files[table][0])}]')}").fetchall()
        columns[table] = [name for name, *_ in described]
    for statement in _statements("VIEW", lists, columns, kind):
        connection.execute(statement)


def write_views(folder: RunStore, paths: Iterable[str], kind: OutputFormat) -> None:
    """Write views.sql into a run folder, for these tables, and for shards in this format.

    The manifest may follow later.
    """
    paths = sorted(paths)
    by_table = table_files(paths)
    lists = {"manifest": f"[{_RUN} || {quote(MANIFEST_FILE)}]"}
    variables = []
    for table in by_table:
        pattern = {"published": "shards/%.parquet", "retries": RETRIES_FILE}.get(table, f"tables/{table}/%.parquet")
        listed = f"SELECT list({_RUN} || path ORDER BY path) FROM read_parquet({lists['manifest']})"
        variables.append(f"SET VARIABLE {table}_files = ({listed} WHERE path LIKE {quote(pattern)})")
        lists[table] = f"getvariable('{table}_files')"
    columns = {table: folder.schema(by_table[table][0]).names for table in _VARYING & by_table.keys()}
    statements = [*variables, *_statements("OR REPLACE TEMP VIEW", lists, columns, kind)]
    head = resources.files("curate.publish").joinpath("views_head.sql").read_text("utf-8")  # reports a missing run
    folder.write_bytes(VIEWS_FILE, (head + "".join(f"{statement};\n" for statement in statements)).encode())


def quote(text: str) -> str:
    """Return the text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Return the name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _statements(view: str, files: Mapping[str, str], columns: Mapping[str, list[str]], kind: OutputFormat) -> list[str]:
    """Return a CREATE `view` statement for each view.

    `files` are SQL expressions for the list of each table's files; `columns` are the columns of _VARYING tables.
    """
    bodies = {name: _scan(files[name]) if name in files else _nothing(columns) for name, columns in LARGE.items()}
    bodies["samples"] = f"SELECT *, {_HOST} AS host FROM ({bodies['samples']})"
    bodies |= {"scored": _scored(columns.get("scores", ())), "measured": _measured(columns), "verdicts": _VERDICTS}
    bodies["published"] = _published(files["published"], kind) if "published" in files else _nothing(PUBLISHED)
    large = [f"CREATE {view} {name} AS {body}" for name, body in bodies.items()]
    text = (shipped_folder("sql") / "views.sql").read_text("utf-8").replace("CREATE VIEW", f"CREATE {view}")
    return [*large, *filter(None, (part.strip() for part in text.split(";\n")))]


def _scored(scores: Sequence[str]) -> str:
    """Return SQL for the scores, and for each model's CLIPScore (Hessel et al., 2021), 2.5·max(cosine, 0)."""
    models = [name.removesuffix("_truncated") for name in scores if name.endswith("_truncated")]
    columns = ["*"]
    for model in dict.fromkeys(["clip", *models]):
        if f"{model}_score" in scores and f"{model}score" not in scores:
            cosine, name = quote_name(f"{model}_score"), quote_name(f"{model}score")
            # greatest() ignores NULL, but a row without a score has no CLIPScore.
            columns.append(f"CASE WHEN {cosine} IS NOT NULL THEN 2.5 * greatest({cosine}, 0) END AS {name}")
    return f"SELECT {', '.join(columns)} FROM scores"


def _measured(columns: Mapping[str, list[str]]) -> str:
    """Return SQL for all samples with the columns that rules see: scores, CLIPScores, sides, and other tables.

    If the pool has a column with the same name, it hides the host, the columns of sides, or the language key in
    `matches`.
    """
    scores, joined = columns.get("scores", []), [name for name in ("related", "derived") if name in columns]
    names = {name.lower() for table in ("scores", *joined) for name in columns.get(table, ())}
    selected = ["s.* EXCLUDE (host)" if "host" in names else "s.*", "c.* EXCLUDE (unit, row, uid)"]
    score_names = {name.lower() for name in scores}
    selected += [f"{expression} AS {name}" for name, expression in SIDES.items() if name not in score_names]
    selected += [f"{name}.* EXCLUDE (unit, row, uid)" for name in joined]
    if schema.LANGUAGE_KEY.name in set(columns.get("matches", ())) - set(scores):
        selected.append(f"matches.{schema.LANGUAGE_KEY.name}")
        joined.append("matches")
    joins = "".join(f" LEFT JOIN {name} USING (unit, row)" for name in joined)
    return f"SELECT {', '.join(selected)} FROM samples s LEFT JOIN scored c USING (unit, row){joins}"


def _published(files: str, kind: OutputFormat) -> str:
    shard = "'shards/' || parse_filename(curate_shard_file)"
    if kind.suffix != "parquet":
        shard = f"replace({shard}, '.parquet', '.{kind.suffix}')"
    key = "key" if kind.has_members else "NULL::VARCHAR"
    named = _scan(files, ", filename = 'curate_shard_file'")
    return f"SELECT {shard} AS shard, {key} AS key, lower(uid::VARCHAR) AS uid FROM ({named})"


def _scan(files: str, option: str = "") -> str:
    return f"SELECT * FROM read_parquet({files}, hive_partitioning = false{option})"


def _nothing(columns: pa.Schema) -> str:
    named = (f"NULL::{sql_type(field.type)} AS {quote_name(field.name)}" for field in columns)
    return f"SELECT {', '.join(named)} LIMIT 0"


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's name for a type, without a connection, which would take most of the time to open a small run."""
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{field.name} {sql_type(field.type)}' for field in kind)})"
    if pa.types.is_fixed_size_list(kind):
        return f"{sql_type(kind.value_type)}[{kind.list_size}]"
    return f"{sql_type(kind.value_type)}[]" if pa.types.is_list(kind) else _TYPES[kind]
