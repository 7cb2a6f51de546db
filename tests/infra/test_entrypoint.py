"""What a container of the image starts: Spark's own classes; on Kubernetes a driver or an executor, as Spark asks for it."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "infra/entrypoint.sh"


@pytest.mark.parametrize(
    "words", [["driver", "--class", "A", "local:///opt/curate/staged.py"], ["executor"], ["a.B", "x y"]]
)
def test_what_it_starts(words, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("spark-submit", "spark-class", "java"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\"\n")
        program.chmod(0o755)
    names = ("DRIVER_URL", "EXECUTOR_ID", "EXECUTOR_CORES", "APPLICATION_ID", "EXECUTOR_POD_IP", "RESOURCE_PROFILE_ID")
    variables = {f"SPARK_{name}": f"the {name}" for name in (*names, "EXECUTOR_POD_NAME", "DRIVER_BIND_ADDRESS")}
    variables |= {
        "SPARK_HOME": str(tmp_path),
        "SPARK_EXECUTOR_MEMORY": "2g",
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    variables |= {"SPARK_JAVA_OPT_10": "-Dlast=a b", "SPARK_JAVA_OPT_2": "-Dfirst"}
    done = subprocess.run([str(SCRIPT), *words], env=variables, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if words[0] == "driver":
        assert lines[:3] == ["spark-submit", "--deploy-mode", "client"] and lines[-3:] == words[1:]
        assert "spark.driver.bindAddress=the DRIVER_BIND_ADDRESS" in lines
    elif words == ["executor"]:
        assert lines[:5] == ["java", "-Dfirst", "-Dlast=a b", "-Xms2g", "-Xmx2g"] and f"{tmp_path}/jars/*" in lines
        options = lines[lines.index("--driver-url") :]
        assert dict(zip(options[::2], options[1::2], strict=True))["--podName"] == "the EXECUTOR_POD_NAME"
    else:
        assert lines == ["spark-class", *words]


def test_options_of_an_executor_are_sparks():
    folder = Path(pytest.importorskip("pyspark").__file__).parent / "jars"
    [jar] = folder.glob("spark-kubernetes_*.jar")
    core = next(folder.glob("spark-core_*.jar"))
    known = b""
    for file in (jar, core):
        with zipfile.ZipFile(file) as archive:
            known += b"".join(archive.read(name) for name in archive.namelist() if "ExecutorBackend" in name)
    options = [word for word in SCRIPT.read_text().split() if word.startswith("--") and "driver." not in word]
    for option in options[options.index("--driver-url") :]:
        assert option.encode() in known, option
