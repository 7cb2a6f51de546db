"""A finished run, for notebooks and scripts: `curate.Run(path)`.

In: the folder of a finished run, local or any fsspec URL; it is only read. Out: Arrow tables, which stay valid when the
run is closed, and which DuckDB (`duckdb.from_arrow`), pandas (`to_pandas`) and polars read directly. They are loaded
whole: select by `where`, `columns` or SQL. As with `curate sql`, statements are read-only, over the run's tables alone.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from curate.ask.diff import Diff, diff_runs
from curate.ask.explain import explain_sample
from curate.ask.opened import connected
from curate.ask.output import Page, html_text, table_html
from curate.ask.query import asking, fetch_arrow, find_run, open_run
from curate.ask.report.image_page import HtmlPage, look_at, plot_columns
from curate.ask.whatif.answer import WhatIf, answer
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import points_table, sweep
from curate.ask.whatif.swept_number import parse_swept_number
from curate.base.errors import RecipeError
from curate.store.facts import read_facts


class Run:
    """A finished run, opened for queries. `path` is its folder, local or any fsspec URL.

    Raises:
        RecipeError: the folder holds no run.
        RunError: the run is not finished, or damaged.

    Example:
        >>> run = curate.Run("run1")                                    # doctest: +SKIP
        >>> run.funnel()
        >>> run.samples("rule = 'aligned'", ["uid", "caption", "clip_score"]).to_pandas()
        >>> run.sql("SELECT language, count(*) AS rows FROM kept GROUP BY language")
        >>> print(run.explain("d1e66234d1d4c089acaadec9778c317e"))
        >>> run.look("SELECT uid, clip_score FROM kept ORDER BY clip_score LIMIT 50")    # a page with images
        >>> run.plot("clip_score", "words")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._connection = open_run(self.path)
        _show_tables()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of run.json: resolved recipe, package versions, model identities, table keys, counts."""
        return read_facts(find_run(self.path)).to_json()

    def sql(self, query: str, **params: object) -> pa.Table:
        """Return the result of read-only SQL, or of a named query (`curate sql DIR` lists them).

        Args:
            query: one statement over the run's tables and views, or the name of a query, such as `funnel`.
            params: values for `$name` in the query.

        Returns:
            An Arrow table. Sums of integers are int64, or decimal128(38, 0) where one exceeds 64 bits.

        Raises:
            RecipeError: the query is wrong, not read-only, or lacks a parameter.
        """
        return fetch_arrow(self._connection, query, params)

    def samples(
        self, where: str | None = None, columns: Sequence[str] | None = None, limit: int | None = None
    ) -> pa.Table:
        """Return rows of the pool, in its order, with the columns of `samples`, `scores` and `decisions`.

        Args:
            where: a SQL condition, such as `NOT kept`, `rule = 'balance'` or `clip_score > 0.3 AND words < 5`.
            columns: names of columns; None: all.
            limit: at most N rows; None: all.

        Raises:
            RecipeError: the condition or a column is wrong.
        """
        shown = "*" if columns is None else ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        condition = "" if where is None else f"WHERE ({where}\n)"
        return self.sql(f"SELECT {shown} FROM verdicts {condition} ORDER BY unit, row LIMIT $limit", limit=limit)

    def funnel(self) -> pa.Table:
        """Return what each rule dropped, in order: rule, rows_in, dropped, kept, share_dropped, share_kept."""
        return self.sql("funnel")

    def explain(self, uid: str) -> Page:
        """Return the page of `curate explain`: why a sample was kept or dropped.

        Args:
            uid: its uid, or its URL, key or file as in the pool.

        Raises:
            RecipeError: it is neither 32 hex digits nor a URL, key or file of the pool.
            RunError: no row has this uid.
        """
        return explain_sample(self.path, uid)

    def look(self, query: str, **params: object) -> HtmlPage:
        """Return a page, shown by notebooks, with a query's rows and their images; it must yield a column `uid`."""
        with connected(self.path) as run, asking(self.path, query, params) as result:
            return look_at(run, result, query)

    def plot(self, *columns: str) -> HtmlPage:
        """Return histograms, shown by notebooks, of numeric columns in pool and kept set; by default of all columns.

        `.save(path)` writes them as HTML, SVG or PNG, by the end of the name.
        """
        with connected(self.path) as run:
            return plot_columns(run, columns)

    def diff(self, other: "Run | str | os.PathLike[str]") -> Diff:
        """Return how many samples another run gains and loses, by rule, entry, source and language; and `samples`."""
        return diff_runs(self.path, other.path if isinstance(other, Run) else os.fspath(other))

    def whatif(self, changes: Mapping[str, object]) -> WhatIf:
        """Return the yield with settings such as {"balance.t": 5000, "rules.words": "words > 4"}, without a new run."""
        return answer(open_finished(self.path), _overrides(changes))

    def sweep(self, number: str, changes: Mapping[str, object] | None = None, points: int = 12) -> pa.Table:
        """Return the yield of each value of a number, such as "rules.side=min_side >= {200..400}", a row a value.

        It is what `curate whatif --sweep` gives: `points` values of a range and the run's own value in it,
        with `changes` as of `whatif`.
        """
        run = open_finished(self.path)
        swept = parse_swept_number(str(number)).with_value_of(run.facts.recipe, run.facts.t)
        return points_table(list(sweep(run, _overrides(changes or {}), swept, points)))

    def close(self) -> None:
        """Close the run's files. Fetched tables stay valid."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = self.facts["counts"]
        return f"Run({self.path!r}): {counts['kept']:,} of {sum(counts.values()):,} samples kept"

    def _repr_html_(self) -> str:
        """Return the funnel with bars, for notebooks."""
        rows = self.funnel().to_pylist()
        pool = max((row["kept"] for row in rows), default=0) or 1
        bar = '<div style="background:#4c78a8;height:0.8em;width:{:.0f}px"></div>'
        cells = [
            f"<tr><td>{html_text(row['rule'])}</td><td>{row['dropped']:,}</td><td>{row['kept']:,}</td>"
            f"<td>{bar.format(200 * row['kept'] / pool)}</td></tr>"
            for row in rows
        ]
        head = "<tr><th>rule</th><th>dropped</th><th>left</th><th></th></tr>"
        return f"<b>{html_text(self.facts['name'])}</b> {html_text(self.path)}<table>{head}{''.join(cells)}</table>"


def _overrides(changes: Mapping[str, object]) -> list[str]:
    if not isinstance(changes, Mapping):
        raise RecipeError(f"changes {changes!r:.80}: accepted: a dict, such as {{'balance.t': 50}}")
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changes.items()]


def _show_tables() -> None:
    """Let a notebook show Arrow tables as tables, unless it shows them in a way of its own."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        if pa.Table not in formatter.type_printers:
            formatter.for_type(pa.Table, table_html)
