"""The archive of infra/pack.sh: all that curate needs and nothing more, in a root that has a C library and a shell alone."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.runners,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="another root needs root"),
]

ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = ("/bin/sh", "/usr/bin/dirname")
_MODULES = (
    "numpy, pyarrow.parquet, duckdb, numba, scipy.stats, PIL.Image, apache_beam, ssl, sqlite3, lzma, ctypes, pyspark"
)


def test_a_root_without_python(tmp_path):
    pytest.importorskip("pyspark")
    root, file = tmp_path / "root", tmp_path / "environment.tar.gz"
    command = [str(ROOT / "infra/pack.sh"), "--python", sys.executable, str(file)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert f"spark.archives: {file}#environment" in done.stdout
    for folder in ("environment", "tmp", "dev", "proc"):
        (root / folder).mkdir(parents=True)
    (root / "dev/null").touch()
    with tarfile.open(file) as archive:
        names = archive.getnames()
        archive.extractall(root / "environment", filter="fully_trusted")
    for word in ("torch", "nvidia", "pytest", "moto", "pyspark/jars", "tests", "__pycache__"):
        assert not [name for name in names if f"/site-packages/{word}/" in name], word
    for program in _PROGRAMS:
        text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        needed = [word for word in text.split() if word.startswith("/")]
        folder = Path(next(path for path in needed if "/libc.so" in path)).parent
        of_c = [
            f"{folder}/{name}" for name in ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
        ]
        for path in (program, *needed, *of_c):
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            if Path(path).exists():
                shutil.copy2(os.path.realpath(path), root / path[1:])

    def run(*words):
        command = ["/usr/sbin/chroot", str(root), "/environment/bin/python", *words]
        done = subprocess.run(command, env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout

    assert run("-m", "curate", "--version").startswith("curate ")
    assert run("-c", f"import sys, {_MODULES}; print(sys.prefix)") == "/environment\n"
