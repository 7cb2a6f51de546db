"""What ends the Python worker of whatever executor has it: one run finds it, on local[N] too, and nobody waits for it."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.kit import deadly as measure
from tests.kit import deadly_captions as captions
from tests.runners.clusters import standalone

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.runners
@pytest.mark.parametrize(
    ("what", "where"), [("image", "local[4]"), pytest.param("request", "standalone", marks=pytest.mark.slow)]
)
def test_what_ends_its_worker_fails_alone(what, where, tmp_path):
    """Spark tries a task four times: three workers end with it, and the fourth has it apart.

    With the options that `curate init --on spark` writes: speculation, and executors that come and go. It is handed over
    by a shell that then ends, and whose output nobody holds any more, Java of Spark neither.
    """
    measure.install(tmp_path, "deadly") if what == "image" else captions.install(tmp_path)
    path = f"{tmp_path / 'site'}:{ROOT}"
    with standalone(tmp_path) if where == "standalone" else nullcontext(where) as url:
        options = (ROOT / "infra/spark.yaml").read_text()
        options = options.replace("spark_master_url: local[4]", f"spark_master_url: {url}")
        memory = "spark.executor.memory: "
        options = options.replace(f"{memory}1g\n", f"{memory}512m\n  spark.executorEnv.PYTHONPATH: {path}\n")
        (tmp_path / "spark.yaml").write_text(options)

        def curate(*words):
            return subprocess.run(
                [sys.executable, "-m", "curate", *words],
                env=os.environ | {"PYTHONPATH": path},
                cwd=tmp_path,
                capture_output=True,  # to its end
                text=True,
                check=False,
                start_new_session=True,
            )

        done = curate("run", "recipe.yaml", "--out", "run", "--on", "spark.yaml", "--detach")
        assert done.returncode == 0 and "runs in process " in done.stdout, done.stderr
        working = curate("status", "run")
        assert working.returncode == 3 and "is at work" in working.stdout, working.stdout
        followed = curate("status", "run", "--watch")
        counts = "12 of 13 rows are kept, 1 failed" if what == "image" else "13 of 13 rows are kept"
        assert followed.returncode == 0 and counts in followed.stdout, followed.stdout + followed.stderr
        step = "measure 1/1" if what == "image" else "caption 1/1"
        for _ in range(300):  # the process ends after its run is done
            log = (tmp_path / "run/logs/driver.log").read_text()
            if step in log:
                break
            time.sleep(0.1)
    measure.check(tmp_path / "run", "deadly") if what == "image" else captions.check(tmp_path / "run")
    assert f" at {'spark://' if where == 'standalone' else where[:7]}" in log
    assert "Python worker exited unexpectedly" in log and step in log
