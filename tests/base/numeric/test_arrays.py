import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import drop_nonfinite, string_buffers

NAN, INF = float("nan"), float("inf")


def test_buffers_of_slices():
    for kind in (pa.string(), pa.large_string()):
        data, offsets = string_buffers(pa.array(["a", "bc", "d"], kind)[1:])
        assert bytes(data[offsets[0] : offsets[-1]]) == b"bcd"
        assert (offsets.dtype, np.diff(offsets).tolist()) == (np.int64, [2, 1])
    assert string_buffers(pa.array([], pa.string()))[1].tolist() == [0]


def test_what_is_not_finite_is_null():
    for values, kind, left, count in (
        ([1.5, None, NAN, INF, -INF, 0.0], pa.float32(), [1.5, None, None, None, None, 0.0], 3),
        ([1.5, NAN, INF], pa.float16(), [1.5, None, None], 2), ([NAN], pa.float64(), [None], 1),
        ([[1.0, NAN], None, [], [INF]], pa.list_(pa.float32()), [[1.0, None], None, [], [None]], 2),
        ([[1.0], None], pa.list_(pa.float32()), [[1.0], None], 0), ([1, None], pa.int64(), [1, None], 0),
        (["nan"], pa.string(), ["nan"], 0), ([], pa.float32(), [], 0),
    ):  # fmt: skip
        array = pa.array(values, kind)
        for column in (array, pa.chunked_array([array, array[:0]]), pa.array([*values, *values], kind)[len(values) :]):
            dropped, counted = drop_nonfinite(column)
            assert (dropped.to_pylist(), dropped.type, counted) == (left, kind, count)
