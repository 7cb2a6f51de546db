"""A shell for a run: executes statements and named queries from standard input, one after another.

The same barriers as for single queries apply. DuckDB's own shell is unsuitable: it can overwrite any file that it can
read (COPY … TO an allowed path), and cannot open remote runs.
"""

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, cast

import duckdb

from curate.ask.library import named_queries
from curate.ask.output import Format, Result, write_result
from curate.ask.query import answer, open_run
from curate.base.errors import CurateError, RecipeError
from curate.base.wording import escape

HELP = """\
A statement ends with ; and may span several lines. It is read-only SQL, or a named query with its parameters:
  FROM samples LIMIT 5;
  top_entries limit=5;
.queries          lists the named queries
.tables           lists tables and views
.format FORMAT    table, csv or json
.quit             leaves (or Ctrl-D); Ctrl-C stops a query
"""
_QUIET = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$|--[^\n]*(?:\n|\Z)|/\*.*?\*/""", re.DOTALL)
_NAMED = re.compile(r"\s*([\w-]+)((?:\s+\w+=(?:'[^']*'|[^\s;]*))*)\s*;\s*\Z")


def run_shell(url: str, format: Format, file: IO[str]) -> int:
    """Execute statements from standard input, until its end or .quit; results go to `file`, errors to standard error.

    Returns how many statements failed, if the input is not a terminal; else 0. Raises what `open_run` raises.
    """
    with open_run(url) as connection:
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            _complete_names(connection)
            print(f"{url}, read-only. .help lists commands, .quit leaves.", file=sys.stderr)
        failed = _Shell(connection, format, file).run(read_inputs(input if is_terminal else lambda _: input()))
        return 0 if is_terminal else failed


def read_inputs(read: Callable[[str], str]) -> Iterator[str]:
    """Yield statements that end in ;, and lines that begin with a dot, until `read` raises EOFError."""
    text = ""
    while True:
        try:
            line = read("   ...> " if text else "curate> ")
        except KeyboardInterrupt:
            text = ""
            print(file=sys.stderr)
            continue
        except EOFError:
            if text.strip():
                yield text
            return
        if not text and line.lstrip().startswith("."):
            yield line.strip()
            continue
        text = f"{text}{line}\n" if text or line.strip() else ""
        if is_complete(text):
            yield text
            text = ""


def is_complete(text: str) -> bool:
    """Return whether the last ; ends a statement, that is, is outside of texts, names and comments."""
    rest = _QUIET.sub(" ", text)
    return rest.rstrip().endswith(";") and not re.search(r"""['"]|/\*|\$\w*\$""", rest)


class _Shell:
    def __init__(self, connection: Any, format: Format, file: IO[str]) -> None:
        self.connection, self.format, self.file = connection, format, file

    def run(self, inputs: Iterator[str]) -> int:
        failed = 0
        for text in inputs:
            if text == ".quit":
                break
            try:
                self._answer(text)
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
            except CurateError as error:
                failed += 1
                hint = " (a statement ends with ;)" if "syntax error" in str(error) and "\n" in text.strip() else ""
                print(f"curate: {error}{hint}", file=sys.stderr)
            self.file.flush()
        return failed

    def _answer(self, text: str) -> None:
        named = _NAMED.match(text)
        if text.startswith("."):
            self._command(text)
        elif named and named[1].lower().replace("-", "_") in {query.name for query in named_queries()}:
            self._query(named[1], dict(word.split("=", 1) for word in shlex.split(named[2])))
        else:
            statements = [text]
            with suppress(duckdb.Error):  # executing it will report the error
                statements = [statement.query for statement in self.connection.extract_statements(text)]
            for statement in statements:
                self._query(statement)

    def _query(self, text: str, params: Mapping[str, str] | None = None) -> None:
        write_result(answer(self.connection, text, params), self.format, self.file)

    def _command(self, text: str) -> None:
        name, *words = text.split()
        if name == ".help":
            self.file.write(HELP)
        elif name == ".tables":
            self._query("SHOW TABLES")
        elif name == ".queries":
            rows = [(query.name, query.usage, query.summary) for query in named_queries()]
            write_result(Result(("query", "parameters", "answers"), rows), self.format, self.file)
        elif name == ".format" and words in (["table"], ["csv"], ["json"]):
            self.format = cast(Format, words[0])
        else:
            accepted = ".queries, .tables, .format table|csv|json, .help, .quit"
            raise RecipeError(f"{escape(text)}: unknown command; accepted: {accepted}")


def _complete_names(connection: Any) -> None:
    """Let Tab complete tables, columns and named queries, if Python has readline."""
    try:
        import readline
    except ImportError:
        return
    rows = connection.execute("SELECT table_name FROM duckdb_columns() UNION SELECT column_name FROM duckdb_columns()")
    names = sorted({name for (name,) in rows.fetchall()} | {query.name for query in named_queries()})

    def complete(begin: str, state: int) -> str | None:
        fit = [name for name in names if name.startswith(begin)]
        return fit[state] if state < len(fit) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
