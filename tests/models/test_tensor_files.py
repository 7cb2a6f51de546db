"""Files of torch.save are read without torch and without running code; values equal those that torch saved."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from curate.models.tensor_files import read_torch_file

LIMIT = 1 << 20
RNG = np.random.default_rng(0)
SAVED = {
    "array": RNG.random((5, 3)).astype(np.float32), "array of Fortran": np.asfortranarray(RNG.random((5, 3))),
    "slice": RNG.random((8, 6)).astype(np.float16)[1:7:2, ::3], "numbers": np.arange(7), "scalar": torch.tensor(2.5),
    "big-endian": np.arange(5, dtype=">i4"), "no rows": np.zeros((0, 4), np.float32), "no tensor rows": torch.zeros(0, 4),
    "tensor": torch.arange(12.0).reshape(3, 4), "transposed": torch.arange(12).reshape(3, 4).T[1:],
    "expanded": torch.ones(4, 1).half().expand(4, 1), "shared": dict(zip("ab", torch.rand(4, 2).split(2), strict=True)),
    "dict": {"image_features": torch.rand(3, 2).half(), "labels": [torch.arange(3), "a", None, (1, 2.5)]},
}  # fmt: skip


def save(value, protocol=2):
    sink = io.BytesIO()
    torch.save(value, sink, pickle_protocol=protocol)
    return sink.getvalue()


def same(found, saved):
    if isinstance(saved, torch.Tensor | np.ndarray):
        want = np.asarray(saved)
        same_type = isinstance(found, np.ndarray) and found.dtype.newbyteorder("=") == want.dtype.newbyteorder("=")
        return same_type and np.array_equal(found, want)
    if isinstance(saved, dict):
        return found.keys() == saved.keys() and all(same(found[key], saved[key]) for key in saved)
    if isinstance(saved, list | tuple):
        return type(found) is type(saved) and all(map(same, found, saved))
    return bool(found == saved)


@pytest.mark.parametrize("case", SAVED)
def test_what_torch_saved_is_read(case):
    for protocol in (2, 3, 4, 5):
        assert same(read_torch_file(save(SAVED[case], protocol), LIMIT), SAVED[case])


def test_bfloat16_is_read_as_float32():
    saved = torch.tensor([1.5, -2.0, 1e-30, float("inf")], dtype=torch.bfloat16)
    assert same(read_torch_file(save([saved, torch.nn.Parameter(saved)]), LIMIT), [saved.float()] * 2)


@pytest.mark.upstream
def test_torch_s_weights_only_does_not_read_datacomp_s_centroids():
    """The reason of this module: their script saves an array by protocol 4."""
    with pytest.raises(pickle.UnpicklingError), pytest.warns(UserWarning, match="protocol 4"):
        torch.load(io.BytesIO(save(SAVED["array"], 4)), weights_only=True)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_never_run(tmp_path, protocol):
    content = save({"image_features": torch.ones(2, 2), "more": Hostile(tmp_path / "it ran")}, protocol)
    with pytest.raises(ValueError, match=r"refers to 'posix.mkdir'; accepted: .* no code"):
        read_torch_file(content, LIMIT)
    assert not (tmp_path / "it ran").exists()
    torch.load(io.BytesIO(content), weights_only=False)  # so that this test can fail
    assert (tmp_path / "it ran").exists()


def crafted(pickled, **members):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in {"data.pkl": pickled, **members}.items():
            made.writestr(f"a/{name}", data)
    return sink.getvalue()


def tensor(offset, size, stride, kind="FloatStorage"):
    """The pickle of a tensor in a storage of 4 numbers; the tensor may claim to be larger."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, kind), "0", "cpu", 4) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {})

    sink = io.BytesIO()
    Pickler(sink, 2).dump(Tensor())
    return sink.getvalue()


FOUR = {"data/0": np.arange(4, dtype="<f4").tobytes()}


def test_a_tensor_stays_in_its_storage():
    assert read_torch_file(crafted(tensor(1, (3,), (1,)), **FOUR), LIMIT).tolist() == [1, 2, 3]
    sizes = [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2,), (4,)), (4, (1,), (1,)), (-1, (2,), (1,)), (0, (-1,), (1,))]
    for offset, size, stride in [*sizes, (0, (1 << 62, 1 << 62), (0, 0)), (0, (2, 2), (1,))]:
        with pytest.raises(ValueError):
            read_torch_file(crafted(tensor(offset, size, stride), **FOUR), LIMIT)


def name(module, name):
    return f"c{module}\n{name}\n".encode()


def pushed(*values):
    """The operations that push a tuple of values: of integers, texts, and operations as bytes."""
    operations = (value if isinstance(value, bytes) else pickle.dumps(value, 2)[2:-1] for value in values)
    return b"(" + b"".join(operations) + b"t"


def rebuilt(storage, size, stride):
    arguments = pushed(storage, 0, size, stride, False, name("collections", "OrderedDict") + b")R")
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def stored(kind, count):
    return pushed("storage", kind, "0", "cpu", count) + b"Q"


def pickled(*operations):
    return b"\x80\x02" + b"".join(operations) + b"."


FLOATS = name("torch", "FloatStorage")
NO_NUMBERS = rebuilt(stored(FLOATS, 4), (1_000_000_000, 0), (1, 1))  # long, and without a byte
EMPTY = name("numpy.core.numeric", "_frombuffer") + pushed(
    b"C\x00", name("numpy", "dtype") + pushed("f4") + b"R", (1 << 30, 0), "C"
)
REPLACED = stored(FLOATS, 4) + b"q\x00(" + EMPTY + b"Rtb0"  # numbers of a storage: long, and without a byte
LONG_NAME = name("numpy", "dtype") + pushed("i4," * 100_000, False, True) + b"R"
HOSTILE = {
    "a tensor in a tensor's place": crafted(pickled(rebuilt(NO_NUMBERS, (100_000_000, 4), (4, 1))), **FOUR),
    "a list in a tensor's place": crafted(pickled(rebuilt(b"]", (0,), (1,))), **FOUR),
    "sizes that are no integers": crafted(pickled(rebuilt(stored(FLOATS, 4), (1.5,), (1,))), **FOUR),
    "a storage of objects": crafted(pickled(rebuilt(stored("O", 2), (2,), (1,))), **FOUR),
    "another storage's numbers": crafted(
        pickled(REPLACED, rebuilt(b"h\x00", (1, 16), (16, 1)).replace(b"K\x00", b"J\x00\x00\x00\x20")), **FOUR
    ),
    "sizes of thousands of digits": crafted(pickled(rebuilt(stored(FLOATS, 4), (1 << 9999,) * 3, (0,) * 3)), **FOUR),
    "more sizes than numpy's": crafted(pickled(rebuilt(stored(FLOATS, 4), (1,) * 99, (1,) * 99)), **FOUR),
    "a type of many": crafted(
        pickled(name("numpy.core.numeric", "_frombuffer"), pushed(b"C\x04abcd", LONG_NAME, (1,), "C"), b"R")
    ),
    "attributes of a function": crafted(
        pickled(name("torch._utils", "_rebuild_tensor_v2"), b"N}", pickle.dumps("__doc__", 2)[2:-1], b"Ns\x86b")
    ),
}


REFUSED = {
    "no zip": b"\x80\x04]", "nothing": b"", "another zip": crafted(b"")[:20], "an empty pickle": crafted(b""),
    "a bomb": crafted(pickle.dumps(1), filler=b"\0" * (LIMIT + 1)), "a getter": crafted(b"cbuiltins\ngetattr\n."),
    "big-endian": crafted(pickle.dumps(1), byteorder=b"big"), "before 1.6": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "a storage that is missing": crafted(tensor(0, (1,), (1,))),
    "another storage": crafted(tensor(0, (1,), (1,), "BoolStorage"), **FOUR),
}  # fmt: skip


@pytest.mark.parametrize("case", [*HOSTILE, *REFUSED])
def test_other_files_are_refused(case):
    """Some of the hostile ones ended the process."""
    with pytest.raises(ValueError) as error:
        read_torch_file((HOSTILE | REFUSED)[case], LIMIT)
    assert type(error.value) is ValueError


def test_an_array_s_type_places_nothing_in_memory():
    """With numpy's own types, such a file could write to any address."""

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def dtype(name):
        return b"cnumpy\ndtype\n(" + text(name) + b"\x89\x88tR"

    field = text("a") + b"(" + dtype("i8") + b"\x8a\x06\x00\x00\x00\x00\x00\x01t"
    state = b"(K\x03" + text("|") + b"N(" + text("a") + b"t}" + field + b"sK\x08K\x01K\x1bt"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    pickled = b"\x80\x02" + array + b"(K\x01(K\x01t" + dtype("V8") + state + b"b\x89](K\x01tat" + b"b."
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    with pytest.raises(ValueError, match="an array without numbers"):
        read_torch_file(sink.getvalue(), 1 << 20)
