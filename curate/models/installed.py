"""What models are that installed packages ship, and sessions of onnxruntime, which run some of them.

Sessions have one thread: parallelism comes from the caller's threads.
"""

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without an import. Raises ModuleNotFoundError where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    return Path(spec.origin).parent


def identify_files(package: str, *paths: Path) -> str:
    """Return the package, its version and the digests of some of its files: what results depend on."""
    digests = [f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return " ".join([package, importlib.metadata.version(package), *digests])


def identify_models(package: str, *paths: Path) -> str:
    """Return what `identify_files` does, and the version of onnxruntime, on which the last digits depend."""
    return f"{identify_files(package, *paths)} onnxruntime {importlib.metadata.version('onnxruntime')}"


def open_session(path: Path, device: str = "cpu") -> Any:
    """Return a session with a model's weights, on the CPU or a GPU (`cuda:N`); its `run` is safe in many threads.

    Raises OSError where the GPU cannot be used, else what onnxruntime raises.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    kind, _, number = device.partition(":")
    first = [("CUDAExecutionProvider", {"device_id": number or "0", "use_tf32": "0"})] if kind == "cuda" else []
    session = onnxruntime.InferenceSession(str(path), options, providers=[*first, "CPUExecutionProvider"])
    if first and session.get_providers()[0] != first[0][0]:
        what = f"onnxruntime {onnxruntime.__version__} cannot use {device}, though it is there"
        raise OSError(f"{what}: is its CUDA or cuDNN missing?")
    return session
