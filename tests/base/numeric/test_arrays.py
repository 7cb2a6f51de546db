import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import string_buffers


def test_buffers_of_slices() -> None:
    for kind in (pa.string(), pa.large_string()):
        data, offsets = string_buffers(pa.array(["a", "bc", "d"], kind)[1:])
        assert bytes(data[offsets[0] : offsets[-1]]) == b"bcd"
        assert (offsets.dtype, np.diff(offsets).tolist()) == (np.int64, [2, 1])
    assert string_buffers(pa.array([], pa.string()))[1].tolist() == [0]
