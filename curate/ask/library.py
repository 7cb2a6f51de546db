"""The named queries: the files of sql/, each with a header that describes its parameters and columns.

A header is made of comments: a summary in one line, further lines if needed, and

    -- theme: THEME                                      its section of the page
    -- param: NAME [= DEFAULT] [[KIND]] MEANING          required without a default; text, or read by the default's type
    -- column: NAME MEANING                              of the answer, in order; * for all columns of a view
    -- empty: WHY                                         the message if the answer has no rows

KIND is one of: `column of VIEW`, or `number of VIEW` for a numeric column: the name of a column in the view. SQL gets
it as a value for struct_extract, never as part of the statement. The default null selects the first score that a rule
names, else clip_score, else the first score, or `words` in a run without scores. `rule`: null, or the name of a step
that drops samples in this run, as in the funnel. `text`: null, or text. `positive`: an integer of at least 1; other
parameters with an integer default also accept 0. `numbers`: null, or numbers separated by spaces or commas.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import takewhile
from typing import NamedTuple

from curate.base.errors import RecipeError
from curate.base.schema import SAMPLES, SIDES
from curate.base.wording import did_you_mean
from curate.recipe.files import shipped_folder

THEMES = (
    "Overview", "Sources, languages and hosts", "Scores and thresholds", "Entries and balancing", "Duplicates",
    "Captions", "Images", "Samples to look at", "Files and failures",
)  # fmt: skip

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][-+]?\d+)?\Z")
_PARAM = re.compile(
    r"(\w+)(?:\s*=\s*('[^']*'|[^\s\[]+))?(?:\s+\[(rule|text|positive|numbers|(?:column|number) of \w+)\])?\s+(\S.*)\Z"
)
_NUMERIC = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?\Z|FLOAT\Z|DOUBLE\Z|DECIMAL")
_KEYS = ("unit", "row", "offset", "phash")  # numbers that are not measurements
_FALLBACK = "words"

Columns = Callable[[str], Mapping[str, str]]


class Param(NamedTuple):
    """A parameter of a named query. A required one has no default and is text."""

    name: str
    default: object
    help: str
    required: bool
    kind: str | None = None  # column or number, of `view`; rule, text, positive or numbers
    view: str | None = None

    @property
    def usage(self) -> str:
        """The parameter as `name=default`, or as `name=…` if it is required."""
        return f"{self.name}={'…' if self.required else 'null' if self.default is None else self.default}"


class NamedQuery(NamedTuple):
    """A file in sql/: theme, one-line summary, notes, parameters, columns (name → meaning), message if empty, SQL."""

    name: str
    theme: str
    summary: str
    notes: str
    params: tuple[Param, ...]
    columns: dict[str, str]
    empty: str  # the message if the answer has no rows
    sql: str

    @property
    def usage(self) -> str:
        """All parameters in one line; see `Param.usage`."""
        return " ".join(param.usage for param in self.params)

    @property
    def table(self) -> str:
        """The query as a table for use in another query."""
        return f"({self.sql.strip().rstrip(';')})"


@cache
def named_queries() -> tuple[NamedQuery, ...]:
    """Return the queries in sql/, by name."""
    paths = sorted(path for path in shipped_folder("sql").glob("*.sql") if path.stem != "views")
    return tuple(_parse_query(path.stem, path.read_text("utf-8")) for path in paths)


@cache
def report_sql(name: str) -> str:
    """Return the statement sql/report/NAME.sql, for reports, explanations and comparisons, not for users.

    In it, {NAME} stands for the named query NAME as a table.
    """
    text = (shipped_folder("sql") / "report" / f"{name}.sql").read_text("utf-8")
    tables = {query.name: query.table for query in named_queries()}
    return re.sub(r"\{(\w+)\}", lambda match: tables.get(match[1], match[0]), text)


def is_name(text: str) -> bool:
    """Return whether a text is the name of a query: a single word is a name, never SQL."""
    return re.fullmatch(r"\s*[\w-]+\s*;*\s*", text) is not None


def find_query(text: str) -> NamedQuery:
    """Return the query of that name. Raises RecipeError with the three nearest names if there is none."""
    word = text.strip().rstrip(";").strip()
    queries = {query.name: query for query in named_queries()}
    name = word.lower().replace("-", "_")
    if name in queries:
        return queries[name]
    *others, last = difflib.get_close_matches(name, queries, 3, cutoff=0)
    hint = f"did you mean {', '.join(others)} or {last}?"
    raise RecipeError(f'no query named {word!r}; {hint} `curate sql DIR` lists all; or give SQL, such as "FROM {word}"')


def fill_params(
    query: NamedQuery, values: Mapping[str, object], columns: Columns, rules: str, steps: Sequence[str] = ()
) -> dict[str, object]:
    """Return the parameters with defaults filled in; a text is parsed by the type of the default.

    `columns` returns a view's columns (name → DuckDB type); scores that the text `rules` names are preferred; `steps`
    are the steps of the funnel that drop samples.
    """
    needed = [param.name for param in query.params if param.required]
    check_params(query.name, values, [param.name for param in query.params], needed)
    filled: dict[str, object] = {}
    for param in query.params:
        value = values.get(param.name, param.default)
        if param.view is not None:
            filled[param.name] = _column(param, value, columns(param.view), rules)
            continue
        if isinstance(value, str) and not param.required and not isinstance(param.default, str):
            if value.lower() in ("null", ""):
                value = None
            elif param.kind not in ("rule", "text"):
                value = read_number(value)
        _check_value(param, value, steps)
        filled[param.name] = value
    return filled


def _check_value(param: Param, value: object, steps: Sequence[str]) -> None:
    """Raise RecipeError for a value for which SQL would return nothing, or an error of its own."""
    option = f"--param {param.name}={value}"
    if param.kind == "rule" and value is not None and value not in steps:
        hint = did_you_mean(str(value), steps)
        raise RecipeError(f"{option}: no step of this run has this name; {hint}accepted: {', '.join(steps)}")
    if param.kind == "numbers" and isinstance(value, str):
        parts = re.split(r"[\s,;]+", value.strip())
        if wrong := [part for part in parts if not isinstance(read_number(part), int | float)]:
            accepted = "numbers separated by spaces or commas"
            raise RecipeError(f"{option}: {wrong[0]!r} is not a number; accepted: {accepted}")
    if isinstance(param.default, int | float) and value is not None:
        minimum = 1 if param.kind == "positive" else 0
        if not isinstance(value, int | float):
            raise RecipeError(f"{option}: needs a number, such as {param.default}")
        if isinstance(param.default, int) and (isinstance(value, float) or value < minimum):
            raise RecipeError(f"{option}: needs an integer of at least {minimum}, such as {param.default}")


def check_params(query: str, values: Mapping[str, object], names: Sequence[str], needed: Sequence[str]) -> None:
    """Raise RecipeError if a parameter is unknown or missing."""
    accepted = f"parameters of {query}: {', '.join(names)}" if names else f"{query} has no parameters"
    for name in values:
        if name not in names:
            raise RecipeError(f"--param {name}: unknown; {did_you_mean(name, names)}{accepted}")
    for name in needed:
        if name not in values:
            raise RecipeError(f"--param {name}=… is missing; {accepted}")


def read_number(text: str) -> object:
    """Return a number if the text is one; 'quoted' text without its quotes; else the text."""
    if match := _NUMBER.match(text):
        return float(text) if match[2] or match[3] else int(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text


def _column(param: Param, value: object, columns: Mapping[str, str], rules: str) -> str:
    fit = {
        name.lower(): name
        for name, kind in columns.items()
        if param.kind == "column" or (_NUMERIC.match(kind) and name not in _KEYS)
    }
    if value is None or str(value).lower() == "null":
        scores = [name for name in fit if fit[name] not in (*SAMPLES.names, *SIDES.names)]
        ruling = [name for name in scores if re.search(rf"\b{re.escape(name)}\b", rules.lower())]
        value = [*ruling, *({"clip_score"} & {*scores}), *scores, _FALLBACK][0]
    name = fit.get(str(value).lower())
    if name is None:
        kind = "numeric column" if param.kind == "number" else "column"
        hint = f"{did_you_mean(str(value), fit.values())}accepted: {', '.join(fit.values())}"
        raise RecipeError(f"--param {param.name}={value}: no {kind} of this run's {param.view}; {hint}")
    return name


def _parse_query(name: str, text: str) -> NamedQuery:
    lines = [line[2:].strip() for line in takewhile(lambda line: line.startswith("--"), text.splitlines())]
    kinds = ("theme:", "param:", "column:", "empty:")
    headers = {kind: [line.removeprefix(kind).strip() for line in lines if line.startswith(kind)] for kind in kinds}
    params = []
    for line in headers["param:"]:
        match = _PARAM.match(line)
        assert match, f"{name}.sql: {line}"
        kind, _, view = (match[3] or "").partition(" of ")
        default = None if match[2] in (None, "null") else read_number(match[2])
        params.append(Param(match[1], default, match[4], match[2] is None, kind or None, view or None))
    columns = dict((line + " ").split(None, 1) for line in headers["column:"])
    notes = " ".join(line for line in lines[1:] if not line.startswith(kinds))
    theme = (headers["theme:"] or [""])[0]
    columns, empty = {k: v.strip() for k, v in columns.items()}, " ".join(headers["empty:"])
    return NamedQuery(name, theme, lines[0], notes, tuple(params), columns, empty, text)
