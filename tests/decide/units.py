"""Measures, matches, and decides small pools of Parquet in this process, unit by unit and without Beam."""

import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base import ids, schema, stages
from curate.decide.select_rows import choose, count_alive, draw_rows, sum_entries
from curate.decide.settings import DecideSettings
from curate.match.metadata import read_metadata
from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from tests import kit


def curate(folder, table, entries=None, files=1, **recipe):
    """Return the context and plan of a run with decisions, and the expected and kept rows of each entry, by unit."""
    for i in range(files):
        start, stop = i * len(table) // files, (i + 1) * len(table) // files
        pq.write_table(table[start:stop], folder / f"{i:03d}.parquet", row_group_size=max(1, len(table) // 7))
    key, metadata = "", None
    if entries is not None:
        (folder / "entries.txt").write_text("\n".join(entries))
        recipe["match"] = {"metadata": str(folder / "entries.txt")}
        metadata = read_metadata(str(folder / "entries.txt"))[0]
        key = ids.table_digest(metadata)
    checked = parse_recipe({"input": {"name": "pool", "format": "parquet", "path": f"{folder}/*.parquet"}, **recipe})
    plan = make_plan(checked)
    context = RunContext(checked, plan.pool, RunStore(str(folder / f"run-{uuid.uuid4().hex}")), metadata_key=key)
    settings = DecideSettings.of(context)  # checks rules and passes
    kit.measure_and_match(context, plan.units, metadata)
    states = kit.decide_in_process(settings, context, plan.units)
    counts = count_alive(states, settings) if context.recipe.match else None
    draw_rows(states, settings, states.ask("Unread", lambda *_: []), choose(states, settings, counts), counts)
    units = plan.units if counts else []
    sums = [next(sum_entries(settings.tables(unit), unit, settings)) for unit in units]
    return context, plan, [part.dense(settings.n_entries) for part in sums]


def decisions(context, plan):
    """All decisions; checks that they conform to the schema and agree with each other."""
    tables = []
    for unit in plan.units:
        table = context.unit_tables(unit).read("decisions")
        assert table.schema.remove_metadata() == schema.DECISIONS
        base = context.unit_tables(unit).read("samples", ["unit", "row", "uid", "status"])
        assert table.select(["unit", "row", "uid"]).to_pydict() == base.select(["unit", "row", "uid"]).to_pydict()
        names = {*context.recipe.rules, *stages.RESERVED_RULES, "balance", "sample"}
        for row, status in zip(table.to_pylist(), base["status"].to_pylist(), strict=True):
            assert row["kept"] == (row["rule"] is None) and (row["rule"] is None or row["rule"] in names)
            assert (row["rule"] == "failed") == (status != "ok")
            assert (row["duplicate_of"] is not None) == (row["rule"] == "duplicate")
            reached = row["rule"] in (None, "balance")
            assert (row["probability"] > 0) == reached and 0 <= row["probability"] <= 1
            assert (row["draw"] is not None) == (reached and context.recipe.balance is not None)
            assert row["draw"] is None or row["kept"] == (row["draw"] < 1)
        tables.append(table)
    return pa.concat_tables(tables)


def rules_of(context, plan, _sums=()):
    """The rule of each row, None where it is kept."""
    return decisions(context, plan)["rule"].to_pylist()


def cut(rules, scores, fraction, name):
    """DataComp's CLIP score fraction of the remaining rows: descending[int(N·f)] is the threshold."""
    reached = np.array([score for score, rule in zip(scores, rules, strict=True) if rule is None and score is not None])
    threshold = np.sort(reached)[::-1][int(len(reached) * fraction)] if len(reached) else np.inf
    is_in = [score is not None and score >= threshold for score in scores]
    return [rule or (None if passes else name) for rule, passes in zip(rules, is_in, strict=True)]
