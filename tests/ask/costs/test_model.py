"""The table of costs: its arithmetic, on trials made from known costs."""

import pytest

from curate.ask.costs.model import (
    CPU,
    DISK,
    MEMORY,
    READS,
    SHUFFLED,
    CalibrationRun,
    Cost,
    Range,
    Trials,
    Work,
    Workers,
    add_up,
    add_waiting,
    find_seconds,
    fit,
    predict,
)
from curate.store.facts import UsedFacts

TRUE = {"measure": (0.5, 0.1, 0.02, 2e-6), "match": (1.0, 0.0, 0.01, 1e-6), "emit": (0.0, 0.2, 0.0, 4e-6)}
ENGINE_S = (0.4, 0.6, 0.01)  # of a process, a run, a unit
LOCAL = Workers("local", 2, 1)


def trial(units, rows, kept, is_cold=False, spread=None):
    """A run that used what TRUE says."""

    def used(process, run, unit, row, size):
        return process * is_cold + run + unit * units + row * size

    parts = {}
    for step, each in TRUE.items():
        cpu, shuffled = used(*each, kept if step == "emit" else rows), 3 * rows + 100 * units
        parts[step] = UsedFacts(step=step, cpu=cpu, shuffled=shuffled, spread=spread)
    parts["engine"] = UsedFacts(step="engine", cpu=used(*ENGINE_S, 0.0, 0))
    return CalibrationRun(units, rows, kept, parts)


def trials(spread=None):
    return Trials(
        trial(1, 20_000, 9_000, True), trial(1, 20_000, 9_000), trial(5, 100_000, 45_000, spread=spread),
        trial(1, 100_000, 45_000), start=2.0,
    )  # fmt: skip


def total(costs, step, kind=CPU):
    return add_up(cost for cost in costs if (cost.step, cost.kind) == (step, kind))


def test_fit_finds_the_true_costs():
    for step, each in (*TRUE.items(), ("engine", (*ENGINE_S, 0.0))):  # an engine's costs do not grow with rows
        assert [found for found, _ in fit(trials(), step, CPU)] == pytest.approx(each), step


def test_a_run_is_predicted():
    costs = predict(trials(), Work(10_000_000, 4_000_000, 100), LOCAL)
    by_step = {step: total(costs, step) for step in TRUE}
    expected = {"measure": 0.5 + 0.1 + 2 + 20, "match": 1 + 1 + 10, "emit": 0.2 + 16}
    assert {step: of.value for step, of in by_step.items()} == pytest.approx(expected)
    assert all(of.low < of.value < of.high for of in by_step.values())
    assert total(costs, "measure", SHUFFLED).value == pytest.approx(30_000_000 + 10_000)
    assert not [cost for cost in costs if cost.kind == READS]  # from local disks


def test_counts_may_shrink_with_units():
    few, many = (
        CalibrationRun(units, 100_000, 1, {**trials().adjacent.used, "match": UsedFacts(step="match", shuffled=size)})
        for units, size in ((1, 800_000), (5, 500_000))
    )
    *_, (of_unit, _), (of_row, _) = fit(Trials(trials().first, trials().second, many, few), "match", SHUFFLED)
    assert of_unit == -75_000 and of_row > 0


@pytest.mark.parametrize("left", [0.0, 0.25])
def test_reused_tables_cost_nothing(left):
    costs = predict(trials(), Work(10_000_000, 4_000_000, 100, left), LOCAL)
    assert total(costs, "measure").value == pytest.approx(left and 0.5 + 0.1 + 0.5 + 5)
    assert total(costs, "emit").value == pytest.approx(16.2)


def test_units_that_differ_widen_the_interval():
    def width(spread):
        of = total(predict(trials(spread), Work(1e7, 4e6, 100), LOCAL), "measure")
        return of.high - of.low

    assert width(0.5) > 1.5 * width(0.01)


def test_the_costs_of_a_finished_run_are_its_own():
    one = trial(1, 100_000, 45_000)
    costs = predict(Trials(one, one, one, one), Work(100_000, 45_000, 1), LOCAL)
    for step in (*TRUE, "engine"):
        assert total(costs, step).value == pytest.approx(one.used[step].cpu)


def test_margins_of_independent_costs_do_not_add_up():
    of = add_up([Cost("a", CPU, "run", 2, 5.0, 1.5), Cost("b", CPU, "run", 1, 10.0, 4.0)])
    assert (of.value, of.low, of.high) == (20.0, 20 - 5 - 2, 20 + 5 + 2)
    assert add_up([Cost("a", CPU, "run", 1, 1.0, 9.0)]).low == 0.0
    assert Range(1.0, 0.5, 2.0).times(10) == Range(10.0, 5.0, 20.0)


def test_cores_share_units_and_wait_for_the_last_round():
    costs = [Cost("measure", CPU, "rows", 1000, 0.1, 0.0), Cost("engine", CPU, "run", 1, 3.0, 0.0)]

    def seconds(units, cores):
        of = find_seconds(costs, Work(1000, 1000, units), Workers("local", cores, 1))
        return of and of.value

    assert seconds(100, 4) == pytest.approx(100 / 4 + 3)
    assert seconds(5, 4) == pytest.approx(100 / 5 * 2 + 3)  # two rounds
    assert seconds(2, 4) == pytest.approx(100 / 2 + 3)  # two cores have nothing to do
    assert seconds(100, None) is None


def test_idle_machines_are_paid_for():
    work = Cost("measure", CPU, "rows", 100, 1.0, 0.0)
    add_waiting(costs := [work], Range(15.0, 14.0, 16.0), Workers("dataflow", 10, 10, memory=20.0, disk=100.0))
    waiting = [(cost.step, cost.kind, cost.count * cost.each) for cost in costs[1:]]
    assert waiting == [("idle", CPU, 50.0), ("all", MEMORY, 300.0), ("all", DISK, 1500.0)]
    for seconds in (Range(9.0, 8.0, 10.0), None):  # no core is idle, or the time is unknown
        add_waiting(costs := [work], seconds, Workers("spark", 10, 10))
        assert len(costs) == 1


def test_an_engine_on_a_cluster_has_its_own_costs():
    workers = Workers("spark", 100, 100, overhead=(11.0, 1.5, 0.015), seconds=(20.0, 0.0))
    engine = [cost for cost in predict(trials(), Work(1e7, 4e6, 1000), workers) if cost.step == "engine"]
    costs = {cost.per: cost.count * cost.each for cost in engine}
    assert costs["run"] == 11.0 and costs["processes"] == 150.0
    assert costs["tasks"] == pytest.approx(0.015 * 15 * (1 + 250))  # an eighth of 2,000 units, four per task


def test_a_sample_of_bounded_size_does_not_grow_with_the_pool():
    """Drift compares 2 x 2,048 embeddings per source, however large the pool is."""
    drift = [{**of.used, "drift": UsedFacts(step="drift", cpu=1e-4 * min(of.rows, 4096))} for of in trials()[:4]]
    of = Trials(*(each._replace(used=used) for each, used in zip(trials()[:4], drift, strict=True)))
    for rows in (100_000, 12_800_000_000):
        assert total(predict(of, Work(rows, 1, 100), LOCAL), "drift").value == pytest.approx(0.4096), rows


def test_each_process_on_another_machine_compiles_once():
    of, work = trials()._replace(compiling=20.0), Work(10_000_000, 4_000_000, 100)
    cluster = Workers("spark", 40, 40, overhead=(0.0, 0.0, 0.0))

    def start(trials, workers):
        return total(predict(trials, work, workers), "start").value

    assert start(of, cluster) - start(trials(), cluster) == pytest.approx(40 * 20.0)
    assert start(of, LOCAL) == start(trials(), LOCAL)  # here the trials have compiled already
