"""Sessions of onnxruntime on one thread: parallelism comes from the caller's threads."""

import importlib.metadata
from pathlib import Path
from typing import Any


def runtime() -> str:
    """Return the runtime and its version, on which results depend in their last digits."""
    return f"onnxruntime {importlib.metadata.version('onnxruntime')}"


def open_session(path: Path) -> Any:
    """Return a session with a model's weights, on the CPU; its `run` may be called from many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
