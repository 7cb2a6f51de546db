"""SQL over a run, read-only: opens a run, and runs a query of the user or one of sql/*.sql.

In: a run folder, local or any fsspec URL, and SQL. Out: a Result (`curate.publish.output` prints it). Three barriers keep a query
in the run: only what parses as reading is accepted, down to the bodies of its CTEs (DuckDB accepts COPY there); the
connection has no access to files but the run's tables, as the manifest lists them; and its settings are locked.
"""

import difflib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb

from curate.errors import RecipeError, RunError
from curate.job import RUN_FILE
from curate.publish.manifest import MANIFEST, SUCCESS, how_to_go_on, read_manifest
from curate.publish.output import Result, escape
from curate.publish.statistics import STATISTICS, TABLES, Layout, create_views, quote, sql_folder, table_files
from curate.shards.commit import Folder

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][-+]?\d+)?\Z")
_PARAM = re.compile(r"(\w+)(?:\s*=\s*('[^']*'|\S+))?\s+(\S.*)\Z")
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+|\([^()]*\)\s*)?", re.IGNORECASE)
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# Table functions that make rows of their arguments or describe the catalog. None of them reads a file.
_FUNCTIONS = {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "histogram"}
_FUNCTIONS |= {"histogram_values", "duckdb_tables", "duckdb_views", "duckdb_columns", "duckdb_functions"}
_FUNCTIONS |= {"duckdb_types", "duckdb_keywords", "pragma_table_info", "pragma_show"}


@dataclass(frozen=True)
class Param:
    """A parameter of a named query. A required one has no default and is text."""

    name: str
    default: object
    help: str
    required: bool


@dataclass(frozen=True)
class NamedQuery:
    """A file of sql/: its question in one line, its parameters, its columns (name → meaning) and its SQL."""

    name: str
    summary: str
    params: tuple[Param, ...]
    columns: dict[str, str]
    sql: str


def open_run(url: str) -> Any:
    """A DuckDB connection that sees the run's tables and views, and nothing else. The caller closes it.

    Raises:
        RecipeError: there is no run.
        RunError: the run is not finished.
    """
    folder = find_run(url)
    names = [MANIFEST, *(line.path for line in read_manifest(folder))]
    files = {
        table: tuple(_location(folder, name) for name in found)
        for table, found in {**table_files(names), "manifest": (MANIFEST,)}.items()
    }
    connection = duckdb.connect(":memory:")
    try:
        spill = os.path.join(tempfile.gettempdir(), f"curate-{uuid.uuid4().hex}")
        connection.execute(f"SET python_enable_replacements = false; SET temp_directory = {quote(spill)}")
        connection.execute("SET TimeZone = 'UTC'")
        if not folder.is_local:
            connection.register_filesystem(folder.fs)
        _attach(connection, folder)
        create_views(connection, Layout(files, any(name.endswith(".tar") for name in names)))
        allowed = ", ".join(quote(path) for paths in files.values() for path in paths)
        connection.execute(f"SET allowed_paths = [{allowed}]")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    except duckdb.Error as error:
        connection.close()
        raise RunError(
            f"{url}: its tables cannot be opened: {_one_line(error)}; `curate verify {url}` says more"
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


def find_run(url: str) -> Folder:
    """The folder of a finished run. Raises RecipeError where there is none, RunError where it is not finished."""
    folder = Folder(url)
    names = folder.fs.ls(folder.root, detail=False) if folder.fs.isdir(folder.root) else None
    if names is None:
        raise RecipeError(f"{url}: no such folder; accepted: the folder of a run (the --out of `curate run`)")
    here = {str(name).rstrip("/").rpartition("/")[2] for name in names}
    if not here & {RUN_FILE, "tables", SUCCESS}:
        raise RecipeError(f"{url}: not a run folder (no {RUN_FILE}); accepted: the --out of a `curate run`")
    missing = [name for name in (SUCCESS, MANIFEST, STATISTICS) if name not in here]
    if missing:
        raise RunError(
            f"{url}: this run is not finished (no {', no '.join(missing)}), and only a finished one can be asked; "
            f"{how_to_go_on(folder, url)}"
        )
    return folder


@cache
def named_queries() -> tuple[NamedQuery, ...]:
    """The queries of sql/, by name."""
    paths = sorted(path for path in sql_folder().glob("*.sql") if path.stem != "views")
    return tuple(_parse_query(path.stem, path.read_text("utf-8")) for path in paths)


def run_query(url: str, text: str, params: Mapping[str, object] | None = None) -> Result:
    """Runs a named query, or SQL.

    Args:
        url: the run folder.
        text: the name of a query (one word), or one SQL statement that reads.
        params: name → value. For a named query text is read by the type of the default; for SQL, as a number where it
            looks like one ('quoted' it stays text).

    Raises:
        RecipeError: there is no such query, run or parameter; the SQL is wrong, or does not only read.
        RunError: the run is not finished, or the query ran out of memory or disk.
    """
    given = dict(params or {})
    word = text.strip().rstrip(";").strip()
    if re.fullmatch(r"[\w-]+", word):
        query = _find_query(word)
        text, given = query.sql, _fill(query, given)
    else:
        given = {name: _number(value) if isinstance(value, str) else value for name, value in given.items()}
    connection = open_run(url)
    try:
        return execute(connection, text, given)
    finally:
        connection.close()


def execute(connection: Any, sql: str, params: Mapping[str, object] | None = None) -> Result:
    """Runs one statement that reads, on a connection of `open_run`. Raises as `run_query` does."""
    try:
        statement = _check(connection, sql)
        known = set(statement.named_parameters)
        _check_params("the query", dict(params or {}), sorted(known), sorted(known))
        connection.execute(statement, dict(params or {}) or None)
        return Result(_unique([column[0] for column in connection.description]), connection.fetchall())
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise RunError(f"the query could not be finished: {_one_line(error)}") from None
    except duckdb.Error as error:
        raise RecipeError(f"SQL: {str(error).strip()}") from None


# ---- opening


def _attach(connection: Any, folder: Folder) -> None:
    """Makes the small tables of stats.duckdb visible; only tables: a view in it could be anybody's SQL."""
    with tempfile.TemporaryDirectory() as temporary:
        path = folder.path(STATISTICS)
        if not folder.is_local:
            path = f"{temporary}/{STATISTICS}"
            with folder.open(STATISTICS) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        connection.execute(f"ATTACH {quote(path)} AS stats (READ_ONLY)")
        found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'stats'").fetchall()
        missing = set(TABLES) - {name for (name,) in found}
        if missing:
            raise duckdb.CatalogException(f"{STATISTICS} has no table {', '.join(sorted(missing))}")
        for name in TABLES:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM stats.{name}")


def _location(folder: Folder, name: str) -> str:
    """The absolute path or URL of a file of the run. Raises RunError where it leads out of the folder."""
    if name.startswith("/") or ".." in name.split("/") or "*" in name:
        raise RunError(f"{folder.url}: its manifest lists {escape(name)!r}, which is not a path within the run")
    if not folder.is_local:
        return str(folder.fs.unstrip_protocol(folder.path(name)))
    root, path = os.path.realpath(folder.root), os.path.realpath(folder.path(name))
    if not path.startswith(f"{root}/"):
        raise RunError(f"{folder.url}: {escape(name)} is a link out of the run; links are not followed")
    return path


# ---- checking


def _check(connection: Any, sql: str) -> Any:
    """The one statement of `sql`. Raises RecipeError unless all it does is read."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise RecipeError(f"SQL: {len(statements)} statements; accepted: one")
    statement = statements[0]
    reading, kind = statement.query, _kind(statement)
    if kind == "EXPLAIN":
        reading = _EXPLAIN.sub("", reading, count=1)
    answer = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [reading]).fetchall()[0][0]
    tree = json.loads(answer)
    if tree["error"] or len(tree["statements"]) != 1:
        raise RecipeError(
            f"SQL: a run is read-only, and this is {kind}; accepted: SELECT, FROM, EXPLAIN, DESCRIBE, SHOW"
        )
    for part in _walk(tree):
        kind = str(part.get("type", ""))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise RecipeError(f"SQL: a run is read-only, and this holds {kind.partition('_')[0]}; accepted: SELECT")
        if kind == "TABLE_FUNCTION":
            name = str(part["function"].get("function_name", "")).lower()
            if name not in _FUNCTIONS:
                raise RecipeError(
                    f"SQL: the table function {name}() is not accepted; a query reads the run's tables and views "
                    f"(SHOW TABLES lists them); accepted functions: {', '.join(sorted(_FUNCTIONS))}"
                )
    return statement


def _kind(statement: Any) -> str:
    """What kind of statement it is, in words."""
    try:
        return str(statement.type).rpartition(".")[2].replace("_", " ")
    except ValueError:  # DuckDB's Python names some kinds only, and UPDATE EXTENSIONS is not among them
        return "another statement"


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _check_params(what: str, given: Mapping[str, object], known: Sequence[str], needed: Sequence[str]) -> None:
    accepted = f"parameters of {what}: {', '.join(known)}" if known else f"{what} has no parameters"
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise RecipeError(f"--param {name}: unknown; {f'did you mean {near[0]!r}? ' if near else ''}{accepted}")
    for name in needed:
        if name not in given:
            raise RecipeError(f"--param {name}=… is missing; {accepted}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# ---- named queries


def _parse_query(name: str, text: str) -> NamedQuery:
    lines = [line[2:].strip() for line in text.splitlines() if line.startswith("--")]
    params = []
    for line in lines:
        if line.startswith("param:"):
            match = _PARAM.match(line.removeprefix("param:").strip())
            assert match, f"{name}.sql: {line}"
            params.append(Param(match[1], _literal(match[2]), match[3], match[2] is None))
    pairs = [line.removeprefix("column:").split(None, 1) for line in lines if line.startswith("column:")]
    return NamedQuery(name, lines[0], tuple(params), dict(pairs), text)


def _literal(text: str | None) -> object:
    return None if text is None or text == "null" else _number(text)


def _number(text: str) -> object:
    """A number where the text is one as people write it; 'quoted' text without its quotes; else the text."""
    if match := _NUMBER.match(text):
        return float(text) if match[2] or match[3] else int(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text


def _find_query(word: str) -> NamedQuery:
    known = {query.name: query for query in named_queries()}
    name = word.lower().replace("-", "_")
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RecipeError(f'no query named {word!r}; {hint}queries: {", ".join(known)}; or give SQL, such as "FROM {word}"')


def _fill(query: NamedQuery, given: dict[str, object]) -> dict[str, object]:
    """The parameters with defaults, text read by the type of the default."""
    needed = [param.name for param in query.params if param.required]
    _check_params(query.name, given, [param.name for param in query.params], needed)
    filled = {}
    for param in query.params:
        value = given.get(param.name, param.default)
        if isinstance(value, str) and not param.required and not isinstance(param.default, str):
            value = None if value.lower() in ("null", "") else _number(value)
        if isinstance(param.default, int) and not isinstance(value, int | float | None):
            raise RecipeError(f"--param {param.name}={value}: needs a number, such as {param.default}")
        filled[param.name] = value
    return filled


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, later ones numbered where they repeat: a JSON object has each key once."""
    seen: dict[str, None] = {}
    for name in names:
        fresh, count = name, 0
        while fresh in seen:
            count += 1
            fresh = f"{name}_{count}"
        seen[fresh] = None
    return tuple(seen)
