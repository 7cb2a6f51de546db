"""The columns that follow from the sides of an image: as numpy has them, and as the SQL beside them says."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.base.numeric import sides

WIDTH = [640, 200, 1, None, 300, 0, -5, None, 3]
HEIGHT = [480, 600, 1, 300, None, 100, 7, None, 1]


@pytest.fixture
def pair():
    return [pa.chunked_array([pa.array(values, pa.int32())]) for values in (WIDTH, HEIGHT)]


def test_they_are_numpys(pair):
    width, height = (
        np.array([np.nan if value is None else value for value in side], float) for side in (WIDTH, HEIGHT)
    )
    shorter, ratio = (np.array(made(*pair).to_pylist(), float) for made in (sides.min_side, sides.aspect))
    assert np.array_equal(shorter, np.minimum(width, height), equal_nan=True)
    with np.errstate(divide="ignore"):
        expected = np.maximum(width, height) / np.minimum(width, height)
    assert np.array_equal(ratio, np.where(np.minimum(width, height) > 0, expected, np.nan), equal_nan=True)
    assert sides.min_side(*pair).type == pa.int32()


def test_they_are_what_their_sql_says(pair):
    batch = pa.table(pair, names=["width", "height"])
    for name, made in (("min_side", sides.min_side), ("aspect", sides.aspect)):
        found = duckdb.connect().from_arrow(batch).query("batch", f"SELECT {sides.SQL[name]} AS value FROM batch")
        assert found.to_arrow_table()["value"].to_pylist() == made(*pair).to_pylist()
        assert found.types[0] == {"min_side": "INTEGER", "aspect": "DOUBLE"}[name]
