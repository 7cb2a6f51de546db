"""Heads, compared with torch's forward pass of the published architectures in every file format; and other files."""

import hashlib
import io
import os
import re
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
nn = torch.nn

from curate.base.errors import RecipeError  # noqa: E402
from curate.models import heads  # noqa: E402
from curate.models.heads import load_head  # noqa: E402


class Sequence(nn.Module):
    """Like the published modules: a Sequential called `layers`."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def aesthetic_v2(d=768):
    sizes = [nn.Linear(d, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64)]
    return Sequence(*sizes, nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))


def aesthetic_relu(d=768):
    sizes = [nn.Linear(d, 1024), nn.ReLU(), nn.Dropout(0.2), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.2)]
    return Sequence(*sizes, nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 1))


def safety(d=1024, activation=nn.ReLU):
    layers, sizes = [], [d, 1024, 2048, 1024, 256, 128]
    for i in range(5):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), activation(), nn.Dropout(0.2)]
    return Sequence(*layers, nn.Linear(128, 16), nn.Linear(16, 1))


class Functional(nn.Module):
    """Neighboring numbers, with the activation called between all layers."""

    def __init__(self, names):
        super().__init__()
        sizes = [nn.Linear(24, 12), nn.Linear(12, 6, bias=False), nn.Linear(6, 1)]
        self.steps = sizes if names else []
        self.layers = nn.ModuleList() if names else nn.ModuleList(sizes)
        for name, layer in zip(names, sizes, strict=False):
            self.add_module(name, layer)

    def forward(self, x):
        one, two, three = self.steps or self.layers
        return three(torch.relu(two(torch.relu(one(x)))))


def alive(module):
    """Enlarge the weights, so that activations and every layer matter, and switch to evaluation."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=1.4 / parameter.shape[-1] ** 0.5 if parameter.ndim == 2 else 0.3)
    return module.eval()


def embeddings(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def forward(module, x):
    with torch.inference_mode():
        return module(torch.from_numpy(x))[:, 0].numpy()


def save(state, path):
    if str(path).endswith(".safetensors"):
        safetensors.save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


CASES = {
    "v1": (lambda: nn.Linear(768, 1), "none"), "v1 b32": (lambda: nn.Linear(512, 1), "none"), "v2": (aesthetic_v2, "none"),
    "relu": (aesthetic_relu, "relu"), "safety": (safety, "relu"), "gelu": (lambda: safety(48, nn.GELU), "gelu"),
    "silu": (lambda: safety(48, nn.SiLU), "silu"), "list": (lambda: Functional([]), "relu"),
    "named": (lambda: Functional(["linear_1", "linear_2", "linear_10"]), "relu"),
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_as_torch_computes(tmp_path, case):
    make, activation = CASES[case]
    module = alive(make())
    x = embeddings(100, next(module.parameters()).shape[1])
    expected = forward(module, x)
    for suffix in ("pth", "pt", "safetensors", "PTH"):
        path = save(module.state_dict(), tmp_path / f"head.{suffix}")
        head = load_head(path, activation, "none")
        found = head.apply(x)
        assert found.dtype == np.float32 and found.shape == (100,)
        assert head.dimension == x.shape[1]
        assert head.digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert expected.std() > 0.01
        assert np.abs(found - expected).max() <= 2e-6 * max(1, np.abs(expected).max())


def test_output(tmp_path):
    path = save({"weight": torch.eye(8)[:1] * 400, "bias": torch.zeros(1)}, tmp_path / "head.pth")
    x = np.zeros((5, 8), np.float32)
    x[:, 0] = [-1, -0.01, 0, 0.01, 1]
    expected = torch.from_numpy(400 * x[:, 0])
    for output, values in (("none", expected), ("sigmoid", expected.sigmoid())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(load_head(path, "none", output).apply(x), values, rtol=1e-6)


def test_prefixes_and_wrappers(tmp_path):
    module, x = alive(aesthetic_v2(64)), embeddings(9, 64)
    for prefix in ("", "model.", "module.", "state_dict.", "net.module.mlp."):
        for wrapper in (None, "state_dict", "model_state_dict", "model"):
            state = {prefix + key: value for key, value in module.state_dict().items()}
            state = state if wrapper is None else {"epoch": 3, wrapper: state, "optimizer": {"lr": [0.1]}}
            head = load_head(save(state, tmp_path / "head.pth"), "none", "none")
            np.testing.assert_allclose(head.apply(x), forward(module, x), atol=1e-5)


def test_numbers_order_layers_not_letters(tmp_path):
    """layers.10 comes after layers.2; all sizes are equal, so that only the order matters."""
    module = alive(Sequence(*(nn.Linear(6, 6) if i % 2 == 0 else nn.ReLU() for i in range(11)), nn.Linear(6, 1)))
    state = dict(sorted(module.state_dict().items()))
    x = embeddings(20, 6)
    for suffix in ("pth", "safetensors"):
        head = load_head(save(state, tmp_path / f"head.{suffix}"), "relu", "none")
        np.testing.assert_allclose(head.apply(x), forward(module, x), atol=1e-6)


def test_other_floats_and_parameters_are_read_as_float32(tmp_path):
    kinds = [(kind, "pth") for kind in (torch.float16, torch.bfloat16, torch.float64)]
    for kind, suffix in [*kinds, (torch.bfloat16, "safetensors")]:
        module, x = alive(safety(32)).to(kind), embeddings(20, 32)
        head = load_head(save(module.state_dict(), tmp_path / f"head.{suffix}"), "relu", "none")
        np.testing.assert_allclose(head.apply(x), forward(module.to(torch.float32), x), atol=1e-5)
    module, x = alive(nn.Linear(16, 1)), embeddings(20, 16)
    path = save({"weight": module.weight, "bias": module.bias}, tmp_path / "head.pth")  # parameters, not plain tensors
    np.testing.assert_allclose(load_head(path, "none", "none").apply(x), forward(module, x), atol=1e-6)


def test_remote_file():
    torch.save(alive(nn.Linear(16, 1)).state_dict(), state := io.BytesIO())
    with fsspec.open("memory://heads/v1.pth", "wb") as file:
        file.write(state.getvalue())
    assert load_head("memory://heads/v1.pth", "none", "none").dimension == 16
    with pytest.raises(RecipeError, match=r"memory://heads/none\.pth: cannot be read: FileNotFoundError"):
        load_head("memory://heads/none.pth", "none", "none")


def test_blocks_of_rows(tmp_path, monkeypatch):
    head = load_head(save(alive(safety(32)).state_dict(), tmp_path / "head.pth"), "relu", "sigmoid")
    x = embeddings(103, 32)
    whole = head.apply(x)
    monkeypatch.setattr(heads, "ROWS", 10)
    np.testing.assert_allclose(head.apply(x), whole, atol=1e-6)
    np.testing.assert_allclose([head.apply(row[None])[0] for row in x], whole, atol=1e-6)
    assert head.apply(x[:0]).shape == (0,) and head.apply(x[:0]).dtype == np.float32
    half = x.astype(np.float16)
    half.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(head.apply(half), head.apply(half.astype(np.float32)), atol=0)


def zeros(**shapes):
    return {key.replace("_", "."): torch.zeros(shape) for key, shape in shapes.items()}


REFUSED = {
    "several outputs": (zeros(weight=(2, 8), bias=(2,)), "has 2 outputs"),
    "sizes": (zeros(a_0_weight=(4, 8), a_2_weight=(1, 5)), r"a\.2 does not fit"),
    "order": (zeros(a_0_weight=(1, 4), a_2_weight=(4, 8)), r"a\.2 does not fit"),
    "bias": (zeros(weight=(1, 8), bias=(2,)), "the layer does not fit"),
    "bias alone": (zeros(a_0_weight=(1, 8), b_bias=(1,)), "b has a bias, but no weight"),
    "no rows": (zeros(weight=(1, 0), bias=(1,)), "does not fit"),
    "scalar": (zeros(weight=(), bias=(1,)), "weight is not part of a linear layer"),
    "flat": (zeros(weight=(8,)), "weight is not part of a linear layer"),
    "convolution": (zeros(a_0_weight=(1, 8, 3, 3)), r"a\.0\.weight is not part"),
    "other keys": (zeros(weight=(1, 8), scale=(1,)), "scale is not part"),
    "batch norm": (nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).state_dict(), "num_batches"),
    "layer norm": (nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 1)).state_dict(), r"1\.weight is not"),
    "attention": (nn.MultiheadAttention(8, 2).state_dict(), "in_proj_(weight|bias) is not part"),
    "integers": ({"weight": torch.ones(1, 8, dtype=torch.int64)}, "not floats"),
    "NaN": ({"weight": torch.full((1, 8), float("nan"))}, "weight contains NaN"),
    "infinity": ({"weight": torch.ones(1, 8), "bias": torch.tensor([float("inf")])}, "bias contains NaN or infinity"),
}


def refusal(path):
    with pytest.raises(RecipeError, match="accepted: ") as error:
        load_head(str(path), "relu", "none")
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("case", REFUSED)
def test_other_states_are_refused(tmp_path, case):
    state, message = REFUSED[case]
    for suffix in ("pth", "safetensors"):
        text = refusal(save(state, tmp_path / f"head.{suffix}"))
        assert re.search(message, text)
        assert all(f"{key} {list(value.shape)}" in text for key, value in list(state.items())[:12])


def test_other_objects_are_refused(tmp_path):
    ones = torch.ones(1, 8)
    cyclic = {"epoch": 1}
    cyclic["state_dict"] = cyclic
    objects = [3.5, [ones], ones, {}, {"weight": [1.0, 2.0]}, {0: ones}, {"head": {"weight": ones}}, {"state_dict": {}}]
    objects += [{"weight": ones.to(torch.complex64)}, {"weight": ones.to_sparse()}, {"weight": ones.to("meta")}, cyclic]
    for value in objects:
        assert "accepted: a .safetensors file" in refusal(save(value, tmp_path / "head.pt")), value


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_never_loaded(tmp_path):
    mark, path = tmp_path / "it ran", tmp_path / "head.pth"
    for state in (nn.Linear(8, 1), {"weight": torch.ones(1, 8), "extra": Hostile(mark)}):
        torch.save(state, path)
        assert "no code" in refusal(path) and "weights_only" not in refusal(path)
        assert not mark.exists()
    torch.load(path, weights_only=False)  # so that this test can fail
    assert mark.exists()


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_other_bytes_are_refused(tmp_path, suffix):
    whole = Path(save(alive(nn.Linear(64, 1)).state_dict(), tmp_path / f"whole.{suffix}")).read_bytes()
    contents = [b"", b"weights\n", b"\x80", b"\0" * 64, b"PK\3\4" + b"\0" * 60, b"\xff" * 40, b"{}", b"\x80\x02}."]
    contents += [whole[:size] for size in (1, 7, 9, len(whole) // 2, len(whole) - 1)]
    for content in contents:
        (tmp_path / f"head.{suffix}").write_bytes(content)
        refusal(tmp_path / f"head.{suffix}")


def test_other_files_and_folders_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.pth").mkdir()
    cases = {"folder.pth": "cannot be read", "none.pth": "No such file"}
    for name, message in (cases | dict.fromkeys(("head.npy", "head"), "another kind")).items():
        assert message in refusal(tmp_path / name)
    long = {"a.0.weight": torch.zeros(1, 40_000), "a.1.weight": torch.zeros(40_000, 1)}
    path = save(long | {"a.2.weight": torch.zeros(1, 40_000)}, tmp_path / "head.safetensors")
    with pytest.raises(RecipeError, match="a layer with 40000 inputs is too large to multiply with the next"):
        load_head(path, "none", "none")
    monkeypatch.setattr(heads, "MAX_BYTES", 100)
    assert "more than 100 bytes" in refusal(path)
