"""The audit counts every row, and refuses tables that contradict each other, however they were tampered with."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate import schema
from curate.errors import ConservationError, RunError
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, audit_unit, check_conservation, check_damage
from curate.recipe.recipe import Recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from pipelines.claim import Prepared
from pipelines.driver import prepare
from tests.laws.pools import make_samples, recipe_of, run_local, write_tars

KEPT = schema.KEPT
Row = dict[str, Any]


def recipe(path: str, **limits: Any) -> Recipe:
    return recipe_of(path, rules={"words": "words > 3", "None": "width > 48"}, **limits)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A finished run over two tars and one that is none; a rule has a name that Python prints for nothing."""
    base = tmp_path_factory.mktemp("audit")
    write_tars(base / "pool", make_samples(48)[::-1], 2)
    (base / "pool/00002.tar").write_bytes(b"<html>" * 200)
    made = recipe(f"{base}/pool/*.tar")
    run_local(made, base / "run")
    return prepare(made, str(base / "run"))


def change(
    prepared: Prepared, out: Path, rows: Callable[[list[Row]], list[Row]], table: str = "decisions"
) -> RunContext:
    """The run with a table of its first unit changed."""
    context = replace(prepared.context, store=replace(prepared.context.store, url=str(out)))
    for name in ("samples", "decisions"):
        found = prepared.context.unit_tables(prepared.plan.units[0]).read(name)
        if name == table:
            found = pa.Table.from_pylist(rows(found.to_pylist()), found.schema)
        note = prepared.context.unit_tables(prepared.plan.units[0]).note("samples")
        context.unit_tables(prepared.plan.units[0]).write(name, found, "", note)
    return context


def test_all_rows_are_counted(prepared: Prepared) -> None:
    told: Counter[str] = Counter()
    for unit in prepared.plan.units:
        audit = audit_unit(PublishSettings.of(prepared.context), unit)
        rules = prepared.context.unit_tables(unit).read("decisions")["rule"].to_pylist()
        assert audit.verdicts == Counter(rule or KEPT for rule in rules)
        assert (audit.rows, audit.kept) == (len(rules), rules.count(None))
        assert audit.files == {part.path for part in unit.parts}
        samples = prepared.context.unit_tables(unit).read("samples").to_pylist()
        bad = [(r["shard"], r["key"], r["status"], r["error"]) for r in samples if r["status"] != "ok"]
        listed = [tuple(row.values()) for row in audit.failures.to_pylist()]
        assert [row for row in listed if row[1] is not None] == bad
        told.update(audit.verdicts)
    assert told["None"] and told["words"] and told["failed"] and told["duplicate"] and told[KEPT]
    assert told == prepared.context.store.read_json("run.json")["counts"]


def test_a_file_that_could_not_be_read_stands_apart(prepared: Prepared) -> None:
    audits = [audit_unit(PublishSettings.of(prepared.context), unit) for unit in prepared.plan.units]
    unread = frozenset().union(*(audit.unread for audit in audits))
    assert [Path(path).name for path in unread] == ["00002.tar"]
    (row,) = [row for a in audits for row in a.failures.to_pylist() if row["key"] is None]
    assert (row["shard"], row["reason"]) == (*unread, "not_a_tar") and "<html>" in row["detail"]
    assert all(audit.failures.schema == schema.FAILURES for audit in audits)


def first(rows: list[Row], wanted: Callable[[Row], bool], **values: Any) -> list[Row]:
    """The rows with values changed in the first that is wanted."""
    place = next(i for i, row in enumerate(rows) if wanted(row))
    return [row | values if i == place else row for i, row in enumerate(rows)]


def both(rows: list[Row]) -> list[Row]:
    """A readable row is said to have failed and an unreadable one not: the sums still agree."""
    rows = first(rows, lambda r: r["rule"] == "failed", rule="words")
    return first(rows, lambda r: r["rule"] == "words" and r["uid"] is not None, rule="failed")


TAMPERED: dict[str, Callable[[list[Row]], list[Row]]] = {
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
}


@pytest.mark.parametrize("how", TAMPERED)
def test_contradictions_are_refused(prepared: Prepared, tmp_path: Path, how: str) -> None:
    unit = prepared.plan.units[0]
    untouched = change(prepared, tmp_path / "same", list)
    assert (
        audit_unit(PublishSettings.of(untouched), unit).verdicts
        == audit_unit(PublishSettings.of(prepared.context), unit).verdicts
    )
    with pytest.raises(ConservationError, match="unit 00000"):
        audit_unit(PublishSettings.of(change(prepared, tmp_path / "changed", TAMPERED[how])), unit)


@pytest.mark.parametrize("status", ["truncated_image", None])
def test_a_changed_status_is_refused(prepared: Prepared, tmp_path: Path, status: str | None) -> None:
    context = change(
        prepared, tmp_path, lambda rows: first(rows, lambda r: r["status"] == "ok", status=status), "samples"
    )
    with pytest.raises(ConservationError):
        audit_unit(PublishSettings.of(context), prepared.plan.units[0])


def audit(verdicts: dict[str, int], rows: int | None = None, reasons: int = 0, unread: bool = False) -> Audit:
    failures = pa.Table.from_pylist([{"reason": "empty_image"}] * reasons, schema.FAILURES)
    files = frozenset({"a.tar", "b.tar"})
    total = sum(verdicts.values()) if rows is None else rows
    return Audit(Unit(0, "s", ()), total, verdicts, failures, files, frozenset({"a.tar"} if unread else ()))


def test_sums_agree_or_nothing_is_published() -> None:
    audits = [audit({"kept": 3, "words": 2}), audit({"kept": 1, "failed": 4}), audit({})]
    assert check_conservation(audits, 4) == {"kept": 4, "words": 2, "failed": 4}
    assert check_conservation([], 0) == {}
    for wrong, emitted in (
        (audits, 3),
        (audits, 5),
        ([*audits, audit({"kept": 1}, rows=2)], 5),
        ([audit({}, rows=1)], 0),
    ):
        with pytest.raises(ConservationError, match="do not agree"):
            check_conservation(wrong, emitted)


@pytest.mark.parametrize(
    ("failed", "limit", "fits"), [(5, 0.05, True), (6, 0.05, False), (29, 0.29, True), (1, 0, False)]
)
def test_damage_above_the_limit_fails_the_run(
    prepared: Prepared, tmp_path: Path, failed: int, limit: float, fits: bool
) -> None:
    context = replace(prepared.context, recipe=recipe("x.tar", max_failed=limit), store=RunStore(str(tmp_path)))
    audits = [audit({"kept": 100 - failed, "failed": failed}, reasons=failed)]
    if fits:
        check_damage(PublishSettings.of(context), audits)
        assert context.store.files() == []
        return
    with pytest.raises(RunError, match=rf"(?s){failed} of 100 samples .*max_failed is.*empty_image {failed}") as error:
        check_damage(PublishSettings.of(context), audits)
    assert context.store.read_parquet("failures.parquet")["reason"].to_pylist() == ["empty_image"] * failed
    advice = str(error.value).rpartition("--set ")[2]
    name, _, value = advice.partition("=")
    check_damage(PublishSettings.of(replace(context, recipe=recipe("x.tar", **{name: float(value)}))), audits)


def test_the_advice_is_enough(prepared: Prepared, tmp_path: Path) -> None:
    for failed in range(1, 101):
        audits = [audit({"kept": 100 - failed, "failed": failed})]
        context = replace(prepared.context, recipe=recipe("x.tar", max_failed=0), store=RunStore(str(tmp_path)))
        with pytest.raises(RunError) as error:
            check_damage(PublishSettings.of(context), audits)
        value = float(str(error.value).rpartition("=")[2])
        check_damage(PublishSettings.of(replace(prepared.context, recipe=recipe("x.tar", max_failed=value))), audits)


def test_unread_files_count_once_each(prepared: Prepared, tmp_path: Path) -> None:
    audits = [audit({"kept": 1}, unread=True), audit({"kept": 1}, unread=True)]
    check_damage(PublishSettings.of(replace(prepared.context, recipe=recipe("x.tar", max_failed_files=0.5))), audits)
    context = replace(prepared.context, recipe=recipe("x.tar", max_failed_files=0.49), store=RunStore(str(tmp_path)))
    with pytest.raises(RunError, match=r"(?s)1 of 2 files \(50\.0%\).*max_failed_files=0\.51"):
        check_damage(PublishSettings.of(context), audits)
    check_damage(PublishSettings.of(prepared.context), [])
