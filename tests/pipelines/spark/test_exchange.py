"""Elements pass through memory and files as they were, in order, however they are divided; needs no PySpark."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.spark import exchange
from pipelines.spark.exchange import Block, Exchange, Held, Writer, spread

ELEMENTS = st.lists(st.binary(max_size=40), max_size=60)


@given(first=ELEMENTS, second=ELEMENTS, limit=st.integers(0, 500), most=st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_written_divided_and_read(tmp_path, monkeypatch, first, second, limit, most):
    monkeypatch.setattr(exchange, "_BLOCK", 64)
    writer = Writer(str(tmp_path), limit)
    for number in range(max(len(first), len(second))):
        for name, elements in (("first", first), ("second", second)):
            if number < len(elements):
                writer.add(name, elements[number])
    outputs = writer.close()
    assert sum(part.size for parts in outputs.values() for part in parts if isinstance(part, Held)) <= limit
    for name, elements in (("first", first), ("second", second)):
        parts = outputs.get(name, [])
        tasks = spread(parts, most)
        assert [element for task in tasks for part in task for element in part.read()] == elements
        assert len(tasks) == min(most, len(elements))
        counts = [sum(part.count for part in task) for task in tasks]
        assert not counts or max(counts) - min(counts) <= 1
        assert sum(part.count for part in parts) == len(elements)


def test_files_go_with_the_last_collection_in_them(tmp_path):
    held = Exchange(str(tmp_path), 100)
    writer = Writer(held.folder, 10)
    for name in ("one", "two"):
        writer.add(name, bytes(30))
    outputs = writer.close()
    (block,) = outputs["one"]
    assert isinstance(block, Block)
    for parts in outputs.values():
        held.keep(parts)
    assert held.limit(2) == 50  # what lies in files costs no budget
    held.drop(outputs["one"])
    assert Path(block.path).exists()
    held.drop(outputs["two"])
    assert not Path(block.path).exists()
    held.clear()
    assert not list(tmp_path.iterdir())


def test_what_the_driver_holds_is_budgeted(tmp_path):
    held = Exchange(str(tmp_path), 100)
    parts = [Held([bytes(40), bytes(20)])]
    held.keep(parts)
    assert held.limit(4) == 10
    held.keep(parts)
    assert held.limit(4) == 0
    held.drop(parts)
    assert held.limit(1) == 40
