"""A signal that differs by 1e-6 whenever it is computed, with speculation on and executors killed: decisions follow from the stored scores."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress

import pytest
import yaml

from tests import kit
from tests.kit import forked
from tests.kit.noise import follows_from_scores
from tests.kit.packages import lay_out
from tests.runners.clusters import find_executors

pytestmark = pytest.mark.runners

UNITS = 12
# The signal of a package of its own, as an installer lays it out; it notes each computation, and now and then takes long.
MODULE = """
import hashlib, os, random, time, uuid
from pathlib import Path
from dataclasses import replace
from tests.kit.noise import KIND as NOISE, NOISY, noisy

def compute(captions):
    unit = hashlib.sha256(repr(captions.to_pylist()).encode()).hexdigest()
    (Path(os.environ["LATE_LOG"]) / f"{unit}-{uuid.uuid4().hex}").touch()
    time.sleep(random.choice([0, 0.1, 0.1, 2]))
    return noisy(captions)

SIGNAL = replace(NOISY, compute=compute)
KIND = replace(NOISE, build=lambda name, section, built: [SIGNAL])
"""
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "50ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "100ms",
    "spark.task.maxFailures": "20",
    "spark.stage.maxConsecutiveAttempts": "20",
}


def write_recipe(folder):
    kit.write_parquets(folder / "pool", kit.make_rows(20 * UNITS), UNITS)
    files = [f"{folder}/pool/{number:05d}.parquet" for number in range(UNITS)]
    recipe = {
        "input": [{"name": f"p{i}", "format": "parquet", "path": file} for i, file in enumerate(files)],  # a unit each
        "match": {"metadata": kit.write_metadata(folder)},
        "measure": {"noise": {}},
        "rules": {"best": {"top": 0.5, "of": "noisy"}},
        "dedup": {"by": ["uid"]},
        "balance": {"t": 12},
        "output": {"rows_per_shard": 30},
        "max_failed": 1.0,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_decisions_follow_from_the_scores_that_are_there(rounds, cluster, tmp_path):
    lay_out(tmp_path / "package", "late-noise", "signals", {"noise": "late_noise:KIND"}, late_noise=MODULE)
    recipe, draws, kills, attempts = write_recipe(tmp_path), random.Random(rounds), 0, 0
    path = os.pathsep.join([str(tmp_path / "package"), os.environ["PYTHONPATH"]])
    for number in range(rounds):
        log, out = tmp_path / f"log{number}", tmp_path / f"out{number}"
        log.mkdir()
        conf = SPECULATION | {"spark.ui.enabled": "false", "spark.executor.memory": "512m"}
        conf |= {"spark.executorEnv.PYTHONPATH": path, "spark.executorEnv.LATE_LOG": str(log)}
        on = tmp_path / f"on{number}.yaml"
        on.write_text(yaml.safe_dump({"runner": "spark", "spark_master_url": cluster.url, "spark_conf": conf}))
        environment = os.environ | {"PYTHONPATH": path, "LATE_LOG": str(log)}
        ended = threading.Event()

        def curate(*words, environment=environment):
            done = forked.run(*words, env=environment)
            assert done.returncode == 0, done.stderr[-5000:]
            return done.stdout

        def kill(log=log, ended=ended):
            nonlocal kills
            for begun in (8,) if rounds == 1 else (3, 8, UNITS):
                while len(list(log.iterdir())) < begun:
                    if ended.wait(0.05):
                        return
                before = kills
                while kills == before:  # an executor may end, and another begin, meanwhile
                    if found := find_executors(cluster.folder):
                        with suppress(ProcessLookupError):
                            os.kill(draws.choice(found), signal.SIGKILL)
                            kills += 1
                    elif ended.wait(0.05):
                        return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            curate("run", recipe, "--out", out, "--on", on)
        finally:
            ended.set()
            killer.join()
        assert "nothing differs" in curate("verify", out)
        follows_from_scores(kit.Ran(out))
        times = Counter(path.name.partition("-")[0] for path in log.iterdir())
        attempts += times.total() - len(times)
    assert kills >= rounds and attempts >= rounds // 2
    print(f"{rounds} rounds, {kills} executors killed, {attempts} attempts at units that were measured already")
