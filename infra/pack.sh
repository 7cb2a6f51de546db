#!/usr/bin/env bash
# Packs Python, its standard library, and curate with its packages for spark.archives, so that workers need no Python.
#     infra/pack.sh [--with EXTRAS] [--python PYTHON] environment.tar.gz
# EXTRAS are the extras of curate that the recipe and the store need, such as clip,aws. The archive has torch only if one of
# them needs it. PYTHON is the Python of the environment to pack; the default is `python`. The archive leaves out Spark's Java
# files, which the cluster has. It works on machines with this kind of processor, and a glibc that is not older than here.
set -euo pipefail
extras="" python=python
while [[ ${1-} == --* ]]; do
  case $1 in
    --with) extras=$2 ;;
    --python) python=$2 ;;
    *) echo "pack.sh: unknown option $1; accepted: --with EXTRAS, --python PYTHON" >&2 && exit 2 ;;
  esac
  shift 2
done
[[ $# == 1 ]] || { echo "usage: pack.sh [--with EXTRAS] [--python PYTHON] environment.tar.gz" >&2 && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" - "$folder" "$extras" <<'PYTHON'
import importlib.metadata as metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import curate
import pipelines
from packaging.requirements import Requirement

folder, extras = Path(sys.argv[1]), {"spark", *filter(None, sys.argv[2].split(","))}
version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
library, stdlib = folder / "lib" / version, Path(sysconfig.get_path("stdlib"))
left_out = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "ensurepip", "tkinter", "turtledemo", "config-*", "_tkinter*")


def leave_out(parent, names):
    packages = {"site-packages", "dist-packages"} if Path(parent) == stdlib else set()
    return left_out(parent, names) | packages & set(names)


shutil.copytree(stdlib, library, ignore=leave_out)
site, copied = library / "site-packages", set()
(library / "sitecustomize.py").unlink(missing_ok=True)
(library / "sitecustomize.py").write_text(
    'import os, site\n\nsite.addsitedir(os.path.join(os.path.dirname(__file__), "site-packages"))\n'
)


def pack(name, extras):
    """Copy the files of a package and of its requirements."""
    distribution = metadata.distribution(name)
    for text in distribution.requires or ():
        needed = Requirement(text)
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        key = re.sub(r"[-_.]+", "-", needed.name).lower(), frozenset(needed.extras)
        if key not in copied:
            copied.add(key)
            try:
                pack(needed.name, needed.extras)
            except metadata.PackageNotFoundError:
                sys.exit(f"pack.sh: {name} needs {text}, which is missing in this environment; install it")
    for file in distribution.files or ():
        path, source = file.as_posix(), Path(distribution.locate_file(file))
        is_left_out = re.search(r"(^|/)(__pycache__|tests?)/|^\.\.|\.pth$|^pyspark/(jars|examples|data|licenses)/", path)
        if not is_left_out and source.is_file():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, site / path)


pack("curate", extras)
for package in (curate, pipelines):  # an editable install lists only their names
    source = Path(package.__path__[0])
    shutil.copytree(source, site / source.name, ignore=left_out, dirs_exist_ok=True)
    for name in ("sql", "infra"):
        if package is curate and (beside := source.parent / name).is_dir() and not (source / name).is_dir():
            shutil.copytree(beside, site / "curate" / name, ignore=left_out, dirs_exist_ok=True)

# Python itself, and the system libraries that it and the packages load, except for the C library.
program = Path(os.path.realpath(sys._base_executable))
(folder / "bin").mkdir()
shutil.copy2(program, folder / "bin" / version)
files = [str(program), *(str(path) for path in folder.rglob("*.so*") if not path.is_symlink())]
text = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
for name, path in set(re.findall(r"(\S+) => (/\S+)", text)):
    is_of_c = re.match(r"(ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|libnsl)[-.]", name)
    if not (is_of_c or path.startswith(f"{folder}/")):
        shutil.copy2(os.path.realpath(path), folder / "lib" / name)
(folder / "bin/python").write_text(
    f"""#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
export LD_LIBRARY_PATH="$here/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
unset PYTHONHOME
exec "$here/bin/{version}" "$@"
"""
)
(folder / "bin/python").chmod(0o755)
(folder / "bin/python3").symlink_to("python")
PYTHON

tar -C "$folder" --owner=0 --group=0 --sort=name -czf "$1" .
size=$(du -sm "$folder" | cut -f1)
echo "$1: $(($(stat -c %s "$1") / 1000000)) MB, unpacked $size MB; in spark_conf: spark.archives: $(realpath "$1")#environment, spark.pyspark.python: ./environment/bin/python"
