"""Packets of units: what travels from step to step, small and whole."""

from types import SimpleNamespace

import apache_beam as beam
import numpy as np
import pytest

from curate.decide.unit_state import SURVIVING, UnitState
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import Unit
from curate.run.units import Fold, WorkerLocation
from curate.store.layout import UNITS
from curate.store.store import RunStore
from pipelines.steps import units
from pipelines.steps.units import pack, unpack
from tests import kit


def _states(count, rows):
    rng = np.random.default_rng(0)
    return [
        UnitState(
            Unit(i, "pool", (InputPart(f"/data/pool/{i:05d}.parquet", 1000 + i, f"mtime:{i}", (i, i + 1), rows),)),
            rng.choice(np.array([0, SURVIVING], np.int16), rows),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("rows", [0, 8, 300_000])
def test_states_come_back(rows):
    states = _states(5, rows)
    number, data = pack(7, states)
    assert number == 7 and isinstance(data, bytes)
    found = unpack((number, data))
    assert [state.unit for state in found] == [state.unit for state in states]
    assert all(np.array_equal(one.verdicts, other.verdicts) for one, other in zip(found, states, strict=True))


def test_small_units_travel_small():
    """A runner keeps several copies of every packet of every step, so a unit of few rows must take less than its file's name."""
    assert len(pack(0, _states(8, 8))[1]) / 8 < 70


def test_values_wait_in_files_where_all_workers_see_them():
    """Workers of Prism may be containers, which see the run's folder and no other of this machine."""
    seen = {
        (place.name, url)
        for place in WorkerLocation
        for url in ("/runs/1", "memory://runs/1")
        if units.BeamUnits(beam.Pipeline(), [], SimpleNamespace(place=place, store=RunStore(url)), spool="/s")._spool
    }
    assert seen == {("THIS_PROCESS", "/runs/1"), ("THIS_PROCESS", "memory://runs/1"), ("PROCESSES", "/runs/1")}


def test_a_step_has_as_element_what_no_step_before_it_has_as_a_side_input():
    """Beam's local runner orders stages by the addresses of objects, so a step could run before its input."""
    root = beam.Pipeline()
    context = SimpleNamespace(place=WorkerLocation.THIS_PROCESS, store=RunStore("/runs/1"))
    asked = units.BeamUnits(root, [], context)
    search = groups = asked.get("groups", int)
    for n in range(3):
        counts = asked.ask(f"count {n}", lambda tables, unit, *of: [1], search, groups, combine=Fold[int]())
        search = asked.get(f"narrow {n}", max, search, counts)
    asked.get("end", max, groups, search)
    asked.finish()
    transforms = root.to_runner_api().components.transforms.values()
    makers = {output: transform.unique_name for transform in transforms for output in transform.outputs.values()}
    elements = {of.unique_name: makers[of.inputs["None"]] for of in transforms if "None" in of.inputs}
    assert [elements[f"narrow {n}"].partition(": ")[0] for n in range(3)] == ["count 0", "count 1", "count 2"]
    assert elements["end"] == "narrow 2"


@pytest.mark.slow
def test_units_of_a_large_plan_travel_as_files(tmp_path, monkeypatch):
    """A pipeline for a cluster holds their names; the run's output is the same."""
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(48), 6), max_failed=1.0)
    written = []
    write = RunStore.write_bytes

    def noted(store, name, *words, **named):
        written.append(name)
        return write(store, name, *words, **named)

    monkeypatch.setattr(RunStore, "write_bytes", noted)
    there = kit.run_beam(recipe, tmp_path / "there", here=False)
    assert not [name for name in written if name.startswith(UNITS)]
    monkeypatch.setattr(units, "_IN_GRAPH", 0)
    monkeypatch.setattr(units, "_TOGETHER", 2)
    files = kit.run_beam(recipe, tmp_path / "files", here=False)
    assert [name for name in written if name.startswith(UNITS)] == [f"{UNITS}/{number}" for number in range(3)]
    assert kit.lasting_files(files.folder) == kit.lasting_files(there.folder)
