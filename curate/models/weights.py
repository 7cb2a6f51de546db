"""Hash, find, or download model files in one process at a time on each machine, and open sessions of onnxruntime.

On a cluster, each core may have its own process, and all start together. For each large file, a temporary file of the
user caches the digest, and is also the lock.
"""

import fcntl
import hashlib
import importlib.util
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from curate.base.errors import RecipeError, needing, reraised
from curate.base.registry import version
from curate.recipe.files import read_whole


@contextmanager
def alone_with(subject: str) -> Iterator[IO[str]]:
    """Lock a subject against other processes and threads of this user; yield a file for notes about it.

    Raises OSError if the file cannot be opened or belongs to another user.
    """
    name = f"curate-{os.getuid()}-{hashlib.sha256(subject.encode()).hexdigest()[:16]}"
    path = os.path.join(tempfile.gettempdir(), name)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+", encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_uid != os.getuid():
            raise OSError(f"{path}: belongs to another user")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def find_digest(path: str) -> str:
    """Return a file's sha256, hex. Reads it once per machine, until size, times, or inode change. Raises OSError."""
    with alone_with(os.path.realpath(path)) as note:
        now = os.stat(path)
        if not stat.S_ISREG(now.st_mode):
            raise OSError(f"{path}: is not a regular file")
        state = f"{now.st_dev} {now.st_ino} {now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}"
        noted, _, digest = note.read().partition("\n")
        if noted != state or len(digest) != 64:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            note.seek(0)
            note.truncate()
            note.write(f"{state}\n{digest}")
    return digest


def read_file(subject: str, path: str, limit: int, accepted: str) -> bytes:
    """Return the bytes of a file, at most `limit`. Raises RecipeError, which begins with `subject`."""
    with reraised(RecipeError, f"{subject} cannot be read", OSError, ValueError, ImportError, remedy=f"; {accepted}"):
        return read_whole(path, limit)


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without an import. Raises ModuleNotFoundError if it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    return Path(spec.origin).parent


def shipped_files(where: str, package: str, names: Sequence[str], extra: str, *needed: str) -> list[Path]:
    """Return files that an installed package ships; to use them, the packages `needed` must be installed too.

    Raises RecipeError, which begins with `where`, if a package or a file is missing; `extra` installs them.
    """
    install = f"'.[{extra}]' in a checkout of curate"
    with needing(f"{where} needs the package {package}", install):
        folder, *_ = map(package_folder, (package.replace("-", "_"), *needed))
        if not all((folder / name).is_file() for name in names):
            raise ImportError(f"{package} {version(package)} does not contain {' and '.join(names)}")
    return [folder / name for name in names]


def identify_files(package: str, *paths: Path) -> str:
    """Return the package, its version, and the digests of some of its files, which determine results."""
    digests = [f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return " ".join([package, version(package), *digests])


def identify_models(package: str, *paths: Path) -> str:
    """Return the result of `identify_files`, and the version of onnxruntime, which affects the last digits."""
    return f"{identify_files(package, *paths)} onnxruntime {version('onnxruntime')}"


def open_session(path: Path, device: str = "cpu") -> Any:
    """Return a session with a model's weights, on the CPU or a GPU (`cuda:N`).

    It has one thread: parallelism comes from the caller's threads, which may share it. Raises OSError if the GPU cannot
    be used, and onnxruntime's errors.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, number = device.partition(":")
    if kind == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number or "0", "use_tf32": "0"}))
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if len(session.get_providers()) < len(providers):
        unused = f"onnxruntime {onnxruntime.__version__} cannot use {device}, although this machine has it"
        raise OSError(f"{unused}: is CUDA or cuDNN missing?")
    return session
