"""The table of costs: its arithmetic, on trials that were made from known costs."""

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
)  # fmt: skip
from curate.store.facts import UsedFacts

TRUE = {"measure": (0.5, 0.1, 0.02, 2e-6), "match": (1.0, 0.0, 0.01, 1e-6), "emit": (0.0, 0.2, 0.0, 4e-6)}
ENGINE_S = (0.4, 0.6, 0.01)  # of a process, a run, a unit
LOCAL = Workers("local", 2, 1)


def trial(units, rows, kept, is_cold=False, spread=None):
    """A run that used what it should."""

    def used(process, run, unit, row, size):
        return process * is_cold + run + unit * units + row * size

    parts = {
        step: UsedFacts(
            step=step, cpu=used(*each, kept if step == "emit" else rows), shuffled=3 * rows + 100 * units, spread=spread
        )
        for step, each in TRUE.items()
    }
    parts["engine"] = UsedFacts(step="engine", cpu=used(*ENGINE_S, 0.0, 0))
    return CalibrationRun(units, rows, kept, parts)


def trials(spread=None):
    return Trials(
        trial(1, 20_000, 9_000, True), trial(1, 20_000, 9_000), trial(5, 100_000, 45_000, spread=spread),
        trial(1, 100_000, 45_000), start=2.0,
    )  # fmt: skip


@pytest.mark.parametrize("step", TRUE)
def test_what_trials_were_made_of_is_found(step):
    assert [each for each, _ in fit(trials(), step, CPU)] == pytest.approx(TRUE[step])


def test_an_engine_does_not_grow_by_rows():
    assert [each for each, _ in fit(trials(), "engine", CPU)] == pytest.approx([*ENGINE_S, 0.0])


def test_a_run_is_predicted():
    costs = predict(trials(), Work(10_000_000, 4_000_000, 100), LOCAL)
    by_step = {step: add_up(cost for cost in costs if (cost.step, cost.kind) == (step, CPU)) for step in TRUE}
    assert by_step["measure"].value == pytest.approx(0.5 + 0.1 + 2 + 20)
    assert by_step["match"].value == pytest.approx(1 + 1 + 10)
    assert by_step["emit"].value == pytest.approx(0.2 + 16)
    assert all(of.low < of.value < of.high for of in by_step.values())
    shuffled = add_up(cost for cost in costs if (cost.step, cost.kind) == ("measure", SHUFFLED))
    assert shuffled.value == pytest.approx(30_000_000 + 10_000)


def test_what_counts_may_shrink_by_units():
    few = {**trials().adjacent.used, "match": UsedFacts(step="match", shuffled=800_000)}
    many = {**trials().scattered.used, "match": UsedFacts(step="match", shuffled=500_000)}
    of = Trials(
        trials().first, trials().second, CalibrationRun(5, 100_000, 1, many), CalibrationRun(1, 100_000, 1, few)
    )
    *_, (of_unit, _), (of_row, _) = fit(of, "match", SHUFFLED)
    assert of_unit == -75_000 and of_row > 0


@pytest.mark.parametrize("left", [0.0, 0.25])
def test_what_is_lent_costs_nothing(left):
    work = Work(10_000_000, 4_000_000, 100, left)
    costs = predict(trials(), work, LOCAL)
    measure = add_up(cost for cost in costs if (cost.step, cost.kind) == ("measure", CPU))
    assert measure.value == pytest.approx(left and 0.5 + 0.1 + 0.5 + 5)
    assert add_up(cost for cost in costs if (cost.step, cost.kind) == ("emit", CPU)).value == pytest.approx(16.2)


def test_units_that_differ_widen_the_interval():
    def width(spread):
        of = add_up(
            cost
            for cost in predict(trials(spread), Work(1e7, 4e6, 100), LOCAL)
            if (cost.step, cost.kind) == ("measure", CPU)
        )
        return of.high - of.low

    assert width(0.5) > 1.5 * width(0.01)


def test_a_finished_run_is_taken_as_it_is():
    one = trial(1, 100_000, 45_000)
    costs = predict(Trials(one, one, one, one), Work(100_000, 45_000, 1), LOCAL)
    for step in (*TRUE, "engine"):
        total = add_up(cost for cost in costs if (cost.step, cost.kind) == (step, CPU)).value
        assert total == pytest.approx(one.used[step].cpu)


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


def test_what_waits_is_paid_for():
    costs = [Cost("measure", CPU, "rows", 100, 1.0, 0.0)]
    add_waiting(costs, Range(15.0, 14.0, 16.0), Workers("dataflow", 10, 10, memory=20.0, disk=100.0))
    assert [(cost.step, cost.kind, cost.count * cost.each) for cost in costs[1:]] == [
        ("idle", CPU, 50.0),
        ("all", MEMORY, 300.0),
        ("all", DISK, 1500.0),
    ]
    for seconds in (Range(9.0, 8.0, 10.0), None):  # no core waits; and nobody knows
        add_waiting(costs := [Cost("measure", CPU, "rows", 100, 1.0, 0.0)], seconds, Workers("spark", 10, 10))
        assert len(costs) == 1


def test_an_engine_on_a_cluster_has_costs_of_its_own():
    workers = Workers("spark", 100, 100, overhead=(11.0, 1.5, 0.015), seconds=(20.0, 0.0))
    costs = {
        cost.per: cost.count * cost.each
        for cost in predict(trials(), Work(1e7, 4e6, 1000), workers)
        if cost.step == "engine"
    }
    assert costs["run"] == 11.0 and costs["processes"] == 150.0
    assert costs["tasks"] == pytest.approx(0.015 * 15 * (1 + 250))  # an eighth of 2,000 units, four to a task


def test_nothing_was_read_from_local_disks():
    assert not [cost for cost in predict(trials(), Work(1e7, 4e6, 100), LOCAL) if cost.kind == READS]


def test_a_sample_of_bounded_size_does_not_grow_with_the_pool():
    """Of drift, 2 x 2,048 embeddings of each source are compared, however large the pool is."""
    drift = [{**of.used, "drift": UsedFacts(step="drift", cpu=1e-4 * min(of.rows, 4096))} for of in trials()[:4]]
    of = Trials(*(each._replace(used=used) for each, used in zip(trials()[:4], drift, strict=True)))
    for rows in (100_000, 12_800_000_000):
        costs = [cost for cost in predict(of, Work(rows, 1, 100), LOCAL) if (cost.step, cost.kind) == ("drift", CPU)]
        assert add_up(costs).value == pytest.approx(0.4096), rows


def test_each_process_of_another_machine_compiles_once():
    of, work = trials()._replace(compiling=20.0), Work(10_000_000, 4_000_000, 100)
    cluster = Workers("spark", 40, 40, overhead=(0.0, 0.0, 0.0))

    def start(trials, workers):
        return add_up(cost for cost in predict(trials, work, workers) if (cost.step, cost.kind) == ("start", CPU)).value

    assert start(of, cluster) - start(trials(), cluster) == pytest.approx(40 * 20.0)
    assert start(of, LOCAL) == start(trials(), LOCAL)  # here the trials compiled already
