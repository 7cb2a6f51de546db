"""The audit counts every row, and refuses tables that contradict each other, however they were tampered with."""

import itertools
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema, stages
from curate.base.errors import ConservationError, RunError
from curate.publish.audit import (
    Audit,
    Failing,
    PublishSettings,
    audit_unit,
    check_conservation,
    check_damage,
    write_failures,
)
from curate.store.layout import FAILURES_FILE, FAILURES_PARTS, failures_part
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests.kit import make_samples, recipe_of, run_local, write_tars

KEPT = stages.KEPT


def recipe(path, **limits):
    return recipe_of(path, rules={"words": "words > 3", "None": "width > 48"}, **limits)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A finished run over two tars and one that is none; a rule has a name that Python prints for nothing."""
    base = tmp_path_factory.mktemp("audit")
    write_tars(base / "pool", make_samples(48)[::-1], 2)
    (base / "pool/00002.tar").write_bytes(b"<html>" * 200)
    made = recipe(f"{base}/pool/*.tar")
    run_local(made, base / "run")
    return prepare(made, str(base / "run"))


def change(prepared, out, rows, table="decisions"):
    """The run with a table of its first unit changed."""
    context = replace(prepared.context, store=replace(prepared.context.store, url=str(out)))
    unit = prepared.plan.units[0]
    tables = prepared.context.unit_tables(unit)
    for name in ("samples", "members", "decisions"):
        found = tables.read(name)
        if name == table:
            found = pa.Table.from_pylist(rows(found.to_pylist()), found.schema)
        context.unit_tables(unit).write(name, found, "", tables.note("samples"))
    return context


def audited(context, unit):
    return audit_unit(PublishSettings.of(context), context.unit_tables(unit), unit)


def test_all_rows_are_counted(prepared):
    context, whole, bad = prepared.context, Audit(), []
    for unit in prepared.plan.units:
        found, tables = audited(context, unit), context.unit_tables(unit)
        rules = tables.read("decisions")["rule"].to_pylist()
        kept = rules.count(None)
        assert found.verdicts == Counter(rule or KEPT for rule in rules)
        assert (found.rows, found.kept) == (len(rules), {unit.index: kept} if kept else {})
        names = ("unit", "row", "uid", "shard", "key", "status", "error")
        bad += [tuple(r[name] for name in names) for r in tables.read("samples").to_pylist() if r["status"] != "ok"]
        whole.add(found)
    assert {"None", "words", "failed", "duplicate", KEPT} <= whole.verdicts.keys()
    assert whole.verdicts == context.store.read_json("run.json")["counts"]
    store = RunStore(tempfile.mkdtemp())
    for name in context.store.files(FAILURES_PARTS):
        store.write_bytes(name, context.store.read_bytes(name))
    write_failures(store, whole)
    failures = store.read_parquet(FAILURES_FILE)
    rows = failures.to_pylist()
    assert [tuple(row.values())[:7] for row in rows if row["row"] is not None] == bad
    assert Counter(row["reason"] for row in rows) == {reason: found.rows for reason, found in whole.failing.items()}
    assert failures.schema == schema.FAILURES
    # A file that could not be read has a row without a number, uid, and key.
    [row] = [row for row in rows if row["row"] is None]
    assert [Path(path).name for path in whole.unread] == ["00002.tar"] and row["unit"] is not None
    assert (row["uid"], row["key"], row["shard"], row["reason"]) == (None, None, *whole.unread, "not_a_tar")


@pytest.mark.parametrize("rows", [0, 100, 450_000])
def test_many_failures_are_written_some_at_a_time(rows, tmp_path):
    store, audit, parts = RunStore(str(tmp_path)), Audit(), []
    for unit, first in enumerate(range(0, rows, 100_000)):
        numbers = pa.array(range(first, min(rows, first + 100_000)), pa.int32())
        columns = {"row": numbers, "unit": pa.repeat(pa.scalar(unit, pa.int32()), len(numbers))}
        none = {field.name: pa.nulls(len(numbers), field.type) for field in schema.FAILURES}
        parts.append(pa.table({**none, **columns}, schema.FAILURES))
        store.write_parquet(failures_part(unit), parts[-1])
    audit.failing, audit.failed = {"http_error": Failing(rows, 0, "an example")}, {*range(len(parts))}
    write_failures(store, audit)
    file, whole = pq.ParquetFile(tmp_path / FAILURES_FILE), pa.concat_tables([schema.FAILURES.empty_table(), *parts])
    assert file.num_row_groups == (2 if rows > 300_000 else 1)
    assert file.read().equals(whole)
    digest = store.recorded(FAILURES_FILE)
    assert digest is not None and digest.rows == rows


def first(rows, wanted, **values):
    """The rows with values changed in the first that is wanted."""
    place = next(i for i, row in enumerate(rows) if wanted(row))
    return [row | values if i == place else row for i, row in enumerate(rows)]


def both(rows):
    """A readable row is said to have failed and an unreadable one not: the sums still agree."""
    rows = first(rows, lambda r: r["rule"] == "failed", rule="words")
    return first(rows, lambda r: r["rule"] == "words" and r["uid"] is not None, rule="failed")


TAMPERED = {
    "a row lost": lambda rows: rows[:-1],
    "a row twice": lambda rows: [*rows, rows[-1]],
    "two rows swapped": lambda rows: [rows[1], rows[0], *rows[2:]],
    "a uid changed": lambda rows: first(rows, lambda r: r["kept"], uid="0" * 32),
    "a uid lost": lambda rows: first(rows, lambda r: r["kept"], uid=None),
    "dropped by nothing": lambda rows: first(rows, lambda r: r["kept"], kept=False),
    "kept and dropped": lambda rows: first(rows, lambda r: r["rule"] == "words", kept=True),
    "neither": lambda rows: first(rows, lambda r: r["kept"], kept=None),
    "unreadable but kept": lambda rows: first(rows, lambda r: r["rule"] == "failed", kept=True, rule=None),
    "unreadable but not failed": lambda rows: first(rows, lambda r: r["rule"] == "failed", rule="words"),
    "readable but failed": lambda rows: first(rows, lambda r: r["kept"], kept=False, rule="failed"),
    "failed and not, crosswise": both,
    "a status changed": lambda rows: first(rows, lambda r: r["status"] == "ok", status="truncated_image"),
    "a status lost": lambda rows: first(rows, lambda r: r["status"] == "ok", status=None),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_contradictions_are_refused(prepared, tmp_path, how):
    unit = prepared.plan.units[0]
    untouched = change(prepared, tmp_path / "same", list)
    assert audited(untouched, unit).verdicts == audited(prepared.context, unit).verdicts
    with pytest.raises(ConservationError, match="unit 00000"):
        audited(
            change(prepared, tmp_path / "changed", TAMPERED[how], "samples" if "status" in how else "decisions"), unit
        )


NUMBERS = itertools.count()  # of units


def audit(verdicts, rows=None, reasons=0, unread=False):
    return Audit(
        sizes={next(NUMBERS): sum(verdicts.values()) if rows is None else rows},
        drops=Counter({("s", None if rule == KEPT else rule): count for rule, count in verdicts.items()}),
        failing={"empty_image": Failing(reasons, 0, "a.tar x")} if reasons else {},
        unread={"a.tar"} if unread else set(),
    )


def total(audits):
    found = Audit()
    for one in audits:
        found.add(one)
    return found


def settings_of(context, files=2):
    settings = PublishSettings.of(context)
    return replace(settings, pool=replace(settings.pool, files=files))


def test_sums_agree_or_nothing_is_published():
    audits = [audit({"kept": 3, "words": 2}), audit({"kept": 1, "failed": 4}), audit({})]
    assert check_conservation(total(audits), 4) == {"kept": 4, "words": 2, "failed": 4}
    assert check_conservation(Audit(), 0) == {}
    for wrong, emitted in (
        (audits, 3),
        (audits, 5),
        ([*audits, audit({"kept": 1}, rows=2)], 5),
        ([audit({}, rows=1)], 0),
    ):
        with pytest.raises(ConservationError, match="do not match"):
            check_conservation(total(wrong), emitted)


@pytest.mark.parametrize(
    ("failed", "limit", "fits"), [(5, 0.05, True), (6, 0.05, False), (29, 0.29, True), (1, 0, False)]
)
def test_damage_above_the_limit_fails_the_run(prepared, tmp_path, failed, limit, fits):
    context = replace(prepared.context, recipe=recipe("x.tar", max_failed=limit), store=RunStore(str(tmp_path)))
    found = audit({"kept": 100 - failed, "failed": failed}, reasons=failed)
    failures = pa.Table.from_pylist([{"row": 0, "reason": "empty_image"}] * failed, schema.FAILURES)
    if fits:
        check_damage(settings_of(context), found)
        assert context.store.files() == []
        return
    context.store.write_parquet(failures_part(0), failures)
    found.failed.add(0)
    with pytest.raises(RunError, match=rf"(?s){failed} of 100 samples .*max_failed is.*empty_image {failed}"):
        check_damage(settings_of(context), found)
    assert context.store.read_parquet("failures.parquet")["reason"].to_pylist() == ["empty_image"] * failed


def test_the_advice_is_enough(prepared, tmp_path):
    for failed in range(1, 101, 9):
        found = audit({"kept": 100 - failed, "failed": failed})
        context = replace(prepared.context, recipe=recipe("x.tar", max_failed=0), store=RunStore(str(tmp_path)))
        with pytest.raises(RunError) as error:
            check_damage(settings_of(context), found)
        value = float(str(error.value).rpartition("=")[2])
        check_damage(settings_of(replace(prepared.context, recipe=recipe("x.tar", max_failed=value))), found)


def test_unread_files_count_once_each(prepared, tmp_path):
    found = total([audit({"kept": 1}, unread=True), audit({"kept": 1}, unread=True)])
    check_damage(settings_of(replace(prepared.context, recipe=recipe("x.tar", max_failed_files=0.5))), found)
    context = replace(prepared.context, recipe=recipe("x.tar", max_failed_files=0.49), store=RunStore(str(tmp_path)))
    with pytest.raises(RunError, match=r"(?s)1 of 2 files \(50\.0%\).*max_failed_files=0\.51"):
        check_damage(settings_of(context), found)
    check_damage(settings_of(prepared.context), Audit())
