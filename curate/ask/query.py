"""Open a run for read-only SQL, and execute a user's query or a named one (`curate.ask.library`).

In: a run folder, local or any fsspec URL, and SQL. Out: a Result (`curate.ask.output` prints it). Three barriers keep a
query inside the run: every statement must parse as read-only, including the bodies of CTEs (where DuckDB accepts COPY);
the connection can read only the run's tables, as listed in the manifest; and its settings are locked.
"""

import glob
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from itertools import chain, count
from typing import Any

import duckdb
import pyarrow as pa

from curate.ask.library import check_params, fill_params, find_query, is_name, named_queries, read_number
from curate.ask.output import Result
from curate.base.errors import RecipeError, RunError
from curate.base.process import CORES, at_interrupt, temporary_folder
from curate.base.wording import escape, one_line, pluralize
from curate.emit.output_format import find_written
from curate.expressions.check import is_too_deep, parse_sql, walk_tree
from curate.publish.stats_duckdb import TABLES
from curate.publish.views import create_views, quote, table_files
from curate.store.facts import read_facts
from curate.store.layout import MANIFEST_FILE, RUN_FILE, STATISTICS_FILE, SUCCESS_FILE
from curate.store.manifest import how_to_go_on, no_run, read_manifest
from curate.store.store import RunStore
from curate.tar.byte_sources import errors_of

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+|\([^()]*\)\s*)?", re.IGNORECASE)
# DuckDB's messages for a file that is not Parquet, or is missing (it takes the path for a folder); an error inside a
# file is a plain `Error`.
_DAMAGE = re.compile(r"Failed to read file|No magic bytes|too small to be a Parquet|\.parquet/\*\*|Corrupt database")
_RUN = "curate_run"  # a variable of a connection: the folder that it sees
_BATCH = 2048  # rows fetched at once: DuckDB's vector size
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# DuckDB's messages for a missing table or column, which a named query may have.
_MISSING = re.compile(r'Table with name (\w+) does not exist|column (?:named )?"(\w+)"')
# Table functions that make rows from their arguments or describe the catalog, but read no file.
_FUNCTIONS = {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "histogram"}
_FUNCTIONS |= {"histogram_values", "duckdb_tables", "duckdb_views", "duckdb_columns", "duckdb_functions"}
_FUNCTIONS |= {"duckdb_types", "duckdb_keywords", "pragma_table_info", "pragma_show"}


def open_run(url: str) -> Any:
    """Return a DuckDB connection that sees only the run's tables and views. The caller closes it.

    Raises what `find_run` raises, and RunError if the tables are damaged.
    """
    folder = find_run(url)
    names = [MANIFEST_FILE, *(line.path for line in read_manifest(folder))]
    named = {**table_files(names), "manifest": (MANIFEST_FILE,)}
    connection = duckdb.connect(":memory:")
    with ExitStack() as stack:
        stack.callback(connection.close)
        files = {table: tuple(_locations(folder, paths)) for table, paths in named.items()}
        try:
            _open(connection, folder, files)
        except duckdb.Error as error:
            reason = one_line(str(error).partition("LINE 1:")[0])
            raise RunError(f"{url}: its tables cannot be opened: {reason}; see `curate verify {url}`") from None
        stack.pop_all()
    return connection


def _open(connection: Any, folder: RunStore, files: Mapping[str, tuple[str, ...]]) -> None:
    spill = os.path.join(tempfile.gettempdir(), f"curate-{uuid.uuid4().hex}")
    at_interrupt(partial(shutil.rmtree, spill, ignore_errors=True))
    connection.execute(f"SET python_enable_replacements = false; SET temp_directory = {quote(spill)}")
    connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{max(2, CORES // 4)}GB'")  # beyond it, DuckDB spills
    if not folder.is_local:
        connection.register_filesystem(folder.fs)
    _attach(connection, folder)
    # To DuckDB a path is a pattern, so `run[1]` would be read from `run1`; it checks permission for both forms.
    plain = {table: tuple(map(glob.escape, paths)) if folder.is_local else paths for table, paths in files.items()}
    create_views(connection, plain, find_written(read_facts(folder)))
    allowed = ", ".join(quote(path) for every in (files, plain) for paths in every.values() for path in paths)
    connection.execute(f"SET allowed_paths = [{allowed}]")
    connection.execute(f"SET VARIABLE {_RUN} = {quote(folder.url)}")
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")


def find_run(url: str) -> RunStore:
    """Return the folder of a finished run. Raises RecipeError if there is none, RunError if it is not finished."""
    folder = RunStore(url)
    with errors_of(url):
        names = folder.fs.ls(folder.root, detail=False) if folder.fs.isdir(folder.root) else ()
    here = {str(name).rstrip("/").rpartition("/")[2] for name in names}
    if not here & {RUN_FILE, "tables", SUCCESS_FILE}:
        raise no_run(folder, url)
    if missing := [name for name in (SUCCESS_FILE, MANIFEST_FILE, STATISTICS_FILE) if name not in here]:
        state = f"this run is not finished (no {', no '.join(missing)}), and only finished runs can be queried"
        raise RunError(f"{url}: {state}; {how_to_go_on(folder, url)}")
    return folder


@contextmanager
def asking(url: str, text: str, params: Mapping[str, object] | None = None) -> Iterator[Result]:
    """Execute a named query (one word), or one read-only SQL statement; rows are fetched lazily.

    Parameters of a named query are parsed by the type of the default; those of SQL become numbers if they look like
    numbers, unless 'quoted'.

    Raises:
        RecipeError: there is no such query, run or parameter; the SQL is wrong, or not read-only.
        RunError: the run is not finished, or the query ran out of memory or disk.
    """
    if is_name(text):
        find_query(text)  # fail before opening the run
    with open_run(url) as connection:
        yield answer(connection, text, params)


def answer(connection: Any, text: str, params: Mapping[str, object] | None = None) -> Result:
    """Execute a query like `asking`, on a connection from `open_run`. The next query invalidates its rows."""
    values = {k: v if is_name(text) or not isinstance(v, str) else read_number(v) for k, v in (params or {}).items()}
    sql, values = _resolve(connection, text, values)
    with _errors(sql, connection):
        statement = _check(connection, sql, values)
        _wait(connection, lambda: connection.execute(statement, values or None))
        names = _unique([column[0] for column in connection.description])
        kinds = [str(column[1]) for column in connection.description]
        # All digits of computed shares and means are noise; other numbers may be copied into a rule.
        exact = {
            name: kind == "FLOAT"
            for name, kind in zip(names, kinds, strict=True)
            if kind == "FLOAT" or not is_name(text) or name == "threshold"
        }
        first = _wait(connection, lambda: connection.fetchmany(_BATCH))
        limit, note = values.get("limit"), ""
        if is_name(text) and isinstance(limit, int) and limit <= len(first) < _BATCH:
            count_all = f"SELECT count(*) FROM {find_query(text).table}"
            [(total,)] = _wait(connection, lambda: connection.execute(count_all, values | {"limit": None}).fetchall())
            if total > len(first):
                note = f"the first {len(first):,} of {pluralize(total, 'row')}; --param limit={total} shows all"
        return Result(names, _fetch(connection, first), exact, note)


def _resolve(connection: Any, text: str, params: dict[str, object]) -> tuple[str, dict[str, object]]:
    if not is_name(text):
        return text, params
    query = find_query(text)
    with _errors():
        [(rules,)] = connection.execute("SELECT string_agg(expression, ' ' ORDER BY position) FROM rules").fetchall()
        steps = connection.execute("SELECT rule FROM funnel WHERE kind = 'drop' ORDER BY position").fetchall()

    def columns(view: str) -> dict[str, str]:
        return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {view}").fetchall()}

    return query.sql, fill_params(query, params, columns, rules or "", [rule for (rule,) in steps])


def fetch_arrow(connection: Any, text: str, params: Mapping[str, object] | None = None) -> pa.Table:
    """Execute a query like `answer`, and return an Arrow table, with 128-bit integers as int64 if they fit.

    SQL parameters keep their types.
    """
    sql, values = _resolve(connection, text, dict(params or {}))
    with _errors(sql, connection):
        statement = _check(connection, sql, values)
        relation = _wait(connection, lambda: connection.sql(statement, params=values or None))
        table = _wait(connection, relation.to_arrow_table)
    for index, kind in enumerate(relation.types):
        if str(kind) in ("HUGEINT", "UHUGEINT"):  # sums of integers, which are decimals in Arrow
            with suppress(pa.ArrowInvalid):
                table = table.set_column(index, table.column_names[index], table.column(index).cast(pa.int64()))
    renamed: pa.Table = table.rename_columns(list(_unique(table.column_names)))
    return renamed


def _fetch(connection: Any, batch: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield all rows; fetch the first batch at once, so that most errors occur before anything is printed."""
    while batch:
        yield from batch
        with _errors():
            batch = _wait(connection, lambda: connection.fetchmany(_BATCH)) if len(batch) == _BATCH else []


def _wait(connection: Any, call: Callable[[], Any]) -> Any:
    """Run the call in a thread, so that Ctrl-C, which only the main thread sees, can stop it."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call)
        try:
            return done.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


@contextmanager
def _errors(sql: str = "", connection: Any = None) -> Iterator[None]:
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        text = str(error).partition("\n\nPossible solutions")[0]  # the suggested settings are locked
        raise RunError(f"DuckDB could not finish the query: {one_line(text)}") from None
    except duckdb.Error as error:
        if type(error) is duckdb.Error or _DAMAGE.search(str(error)):
            raise RunError(f"a file of the run cannot be read: {one_line(error)}; see `curate verify`") from None
        text = re.sub(r'\nDid you mean "pg_\w+"\?', "", str(error)).strip()  # an internal table of DuckDB
        raise RecipeError(f"SQL: {_hint(text, sql, connection)}{text}") from None


def _hint(error: str, sql: str, connection: Any) -> str:
    """Return a hint: the named query that the SQL uses as a table, or the tables that have the column.

    For a column that only the pool has, the hint explains how to get it into the tables.
    """
    missing = _MISSING.search(error)
    table, column = (name and name.lower() for name in missing.groups()) if missing else (None, None)
    for query in named_queries():
        if query.name == table or (column in query.columns and re.search(rf"\b{query.name}\b", sql, re.IGNORECASE)):
            hint = f"{column} is a column of the named query {query.name}" if column else f"{table} is a named query"
            return f"{hint}: curate sql DIR {query.name}\n"
    if table is not None:
        accepted = "samples, scores, measured, verdicts (all columns of a sample), kept, dropped and others"
        return f"there is no table {table}; accepted: {accepted}, which SHOW TABLES lists\n"
    if column is None or connection is None:
        return ""
    having = "SELECT DISTINCT table_name FROM duckdb_columns() WHERE lower(column_name) = ? ORDER BY ALL"
    tables = [name for (name,) in connection.execute(having, [column]).fetchall()]
    condition = "; to select dropped samples, write NOT kept" if column == "dropped" else ""
    if tables:
        return f"{column} is in {', '.join(tables)}{condition}\n"
    [(url,)] = connection.execute(f"SELECT getvariable('{_RUN}')").fetchall()
    store = RunStore(url)  # its shards have the columns of the inputs
    shards = [x.path for x in read_manifest(store) if x.path.startswith("shards/") and x.path.endswith(".parquet")]
    names: dict[str, str] = {}
    with suppress(OSError, pa.ArrowInvalid):  # they may have been moved
        names = {name.lower(): name for shard in shards[:1] for name in store.schema(shard).names}
    if (name := names.get(column)) is None:
        return ""
    state = f"{name} is a column of the pool, but no rule uses it, so this run did not store it"
    remedy = f"add derive: {{NAME: {name}}} to the recipe, or a rule that uses it, and run with --out NEW --reuse {url}"
    return f"{state}: {remedy}; that run measures nothing again\n"


# ---- opening


def _attach(connection: Any, folder: RunStore) -> None:
    """Make the small tables in stats.duckdb visible, but not its views, whose SQL is untrusted."""
    with temporary_folder() as temporary:
        path = folder.path(STATISTICS_FILE)
        if not folder.is_local:
            path = f"{temporary}/{STATISTICS_FILE}"
            with folder.open(STATISTICS_FILE) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        _check_regular(path)
        connection.execute(f"ATTACH {quote(path)} AS stats (READ_ONLY)")
        names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'stats'").fetchall()
        if missing := set(TABLES) - {name for (name,) in names}:
            state = f"{STATISTICS_FILE} has no table {', '.join(sorted(missing))}: another version of curate wrote it"
            raise RunError(f"{folder.url}: {state}; run its recipe again with --out NEW --reuse {folder.url}")
        for name in TABLES:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM stats.{name}")


def _locations(folder: RunStore, names: Sequence[str]) -> Iterator[str]:
    """Yield the absolute paths or URLs of the run's files. Raises RunError if a path leads out of the folder."""
    root = os.path.realpath(folder.root) if folder.is_local else ""
    real = cache(os.path.realpath)  # cached by folder, which thousands of files share
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or "*" in name:
            raise RunError(f"{folder.url}: its manifest lists {name!r}, which is not a path within the run")
        if not folder.is_local:
            yield str(folder.fs.unstrip_protocol(folder.path(name)))
            continue
        above, _, last = folder.path(name).rpartition("/")
        path = f"{real(above)}/{last}"
        path = os.path.realpath(path) if os.path.islink(path) else path
        if not path.startswith(f"{root}/"):
            raise RunError(f"{folder.url}: {escape(name)} links to a file outside the run; curate does not follow it")
        _check_regular(path)
        yield path


def _check_regular(path: str) -> None:
    """Raise OSError for a folder, which DuckDB would search for files, and for a pipe, which would block it."""
    if os.path.isdir(path):
        raise IsADirectoryError(0, "", path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path}: is not a regular file")


# ---- checking


def _check(connection: Any, sql: str, params: Mapping[str, object]) -> Any:
    if re.search("[\ud800-\udfff]", sql):
        raise RecipeError("SQL: the query is not valid UTF-8; accepted: text in UTF-8")
    if is_too_deep(sql):
        raise RecipeError("SQL: its parentheses are nested too deeply")
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise RecipeError(f"SQL: found {len(statements)} statements; accepted: one")
    statement = statements[0]
    reading, kind = statement.query, "another statement"
    with suppress(ValueError):  # DuckDB's Python API lacks some kinds, such as UPDATE EXTENSIONS
        kind = str(statement.type).rpartition(".")[2].replace("_", " ")
    if kind == "EXPLAIN":
        reading = _EXPLAIN.sub("", reading, count=1)
    try:
        tree = parse_sql(connection, reading)
    except RecursionError:
        raise RecipeError("SQL: its expressions are nested too deeply") from None
    if tree["error"] or len(tree["statements"]) != 1:
        accepted = "SELECT, FROM, EXPLAIN, DESCRIBE, SHOW"
        raise RecipeError(f"SQL: a run is read-only, and this is {kind}; accepted: {accepted}")
    for part in walk_tree(tree):
        kind = str(part.get("type", ""))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise RecipeError(f"SQL: a run is read-only, and this contains {kind.partition('_')[0]}; accepted: SELECT")
        if kind == "TABLE_FUNCTION":
            name = str(part["function"].get("function_name", "")).lower()
            if name not in _FUNCTIONS:
                accepted = f"accepted functions: {', '.join(sorted(_FUNCTIONS))}"
                tables = "a query reads the run's tables and views (SHOW TABLES lists them)"
                raise RecipeError(f"SQL: the table function {name}() is not accepted; {tables}; {accepted}")
    names = sorted(statement.named_parameters)
    check_params("the query", params, names, names)
    return statement


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that repeat, because the keys of a JSON object must be unique."""
    unique: list[str] = []
    for name in names:
        numbered = chain([name], (f"{name}_{number}" for number in count(1)))
        unique.append(next(each for each in numbered if each not in unique))
    return tuple(unique)
