"""Spark's cluster mode on Kubernetes: pods of an image, a pool and runs in an object store, and nobody waits.

Its secrets are Kubernetes': no object but these, no log, file or command line has them.
"""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import yaml

from curate.store.lease import find_lease
from curate.store.store import RunStore
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.waiting import wait_until
from tests.kit.watched import find_words, watching
from tests.runners.kubernetes import IMAGE, running_kubernetes
from tests.runners.runs import curate, digests, write_demo

pytestmark = [pytest.mark.runners, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
SECRET = "wJalrXUtnFEMI-K7MDENG"
HIDDEN = "je7MtGbClwBF"  # by which the pool is read


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory):
    with running_kubernetes(tmp_path_factory.mktemp("kubernetes")) as kubernetes:
        yield kubernetes


def test_handed_over_followed_killed_and_cancelled(kubernetes, tmp_path):
    watched, variables = tmp_path / "watched", {"POOL_KEY": HIDDEN, "POOL_SECRET": HIDDEN}
    watched.mkdir()
    (shared := tmp_path / "shared").mkdir()  # with the model
    secrets = {"AWS_ACCESS_KEY_ID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET} | variables
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in secrets.items()}
    kubernetes.ask("POST", "namespaces/default/secrets", {"metadata": {"name": "store"}, "data": encoded})
    kubernetes.account("spark")
    config = kubernetes.write_config(tmp_path / "kubeconfig", kubernetes.account("user"))
    with serving_s3() as endpoint, bucket_at(endpoint) as bucket:
        environment = os.environ | secrets | {"KUBECONFIG": str(config)}
        environment.pop("PYTHONPATH")
        recipe, store = write_demo(shared), fsspec.filesystem("s3")
        store.put(f"{shared}/pool/", "bucket/pool/", recursive=True)
        own = yaml.safe_load(recipe.read_text())
        storage = {"endpoint_url": endpoint, "key": "env:POOL_KEY", "secret": "env:POOL_SECRET"}
        own["input"][0] |= {"path": f"{bucket}/pool/{{00000..00003}}.tar", "storage": storage}
        recipe.write_text(yaml.safe_dump(own, sort_keys=False))
        conf = {
            "spark.kubernetes.container.image": IMAGE,
            "spark.kubernetes.authenticate.driver.serviceAccountName": "spark",
            "spark.pyspark.python": "/opt/venv/bin/python",
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.executor.instances": "1",
            "spark.executor.cores": "2",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
            "spark.ui.enabled": "false",
            "spark.kubernetes.driverEnv.AWS_ENDPOINT_URL": endpoint,
            "spark.executorEnv.AWS_ENDPOINT_URL": endpoint,
        }
        for role in ("driver", "executor"):
            volume = f"spark.kubernetes.{role}.volumes.hostPath.shared"
            conf |= {f"{volume}.mount.path": str(shared), f"{volume}.options.path": str(shared)}
            conf |= {f"spark.kubernetes.{role}.secretKeyRef.{name}": f"store:{name}" for name in secrets}
        options = {"runner": "spark", "spark_master_url": f"k8s://{kubernetes.url}", "spark_conf": conf}
        (tmp_path / "on.yaml").write_text(yaml.safe_dump(options))
        out = f"{bucket}/My_Run.1"

        def run(*words, shell=False):
            command = [sys.executable, "-m", "curate", *words]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, start_new_session=shell
            )
            with open(watched / "printed", "a") as file:
                file.write(f"{words} {done.returncode}\n{done.stdout}{done.stderr}")
            return done

        def hand_over(*words, out=out):
            done = run(
                "run", str(recipe), "--out", out, "--on", str(tmp_path / "on.yaml"), "--detach", *words, shell=True
            )
            assert done.returncode == 0 and f"{out}: runs in Spark" in done.stdout, done.stderr

        def measured():
            store.invalidate_cache()
            return len(store.glob(f"{out}/tables/samples/*.parquet"))

        def wait_for(holds):
            def look():
                time.sleep(0.5)
                return holds()

            try:
                wait_until(look)
            except AssertionError as error:
                raise AssertionError(kubernetes.read_logs()) from error

        def find_executor():
            return kubernetes.find_pods("executor")

        with watching([SECRET, HIDDEN], watched) as seen:
            hand_over()
            waiting = run("status", out)
            assert waiting.returncode == 3 and "waiting for curate run (job default:curate-my-run-1-" in waiting.stdout
            wait_for(find_executor)
            wait_for(measured)
            working = run("status", out)
            assert working.returncode == 3 and "is at work" in working.stdout and "(RUNNING)" in working.stdout
            second = run("run", str(recipe), "--out", out, "--on", str(tmp_path / "on.yaml"), "--detach")
            assert second.returncode == 1 and "is running here" in second.stderr
            for kind in ("pods", "configmaps", "services"):
                (watched / kind).write_text(json.dumps(kubernetes.objects(kind)))
            stopped = run("cancel", out)
            assert stopped.returncode == 0 and "is canceled; run its recipe again" in stopped.stdout, stopped.stderr
            assert not find_lease(RunStore(out))
            wait_for(lambda: not kubernetes.objects())
            now = run("status", out)
            assert now.returncode == 1 and "nobody works on it" in now.stdout

            hand_over()  # a driver that is killed
            wait_for(find_executor)
            [driver] = kubernetes.find_pods("driver")
            kubernetes.kill(driver)
            wait_for(lambda: not kubernetes.find_pods("driver"))
            now = run("status", out)
            assert now.returncode == 1 and "has ended (FAILED" in now.stdout, now.stdout

            hand_over("--take-over")  # an executor that is killed
            wait_for(find_executor)
            [killed] = find_executor()
            wait_for(lambda: "Running task" in kubernetes.read_log(killed))
            kubernetes.kill(killed)
            followed = run("status", out, "--watch")
            assert followed.returncode == 0 and "rows are kept" in followed.stdout, (
                followed.stdout,
                kubernetes.read_logs(),
            )
        assert seen == {}
        store.invalidate_cache()
        store.get(out, str(tmp_path / "there"), recursive=True)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            here = curate(recipe, tmp_path / "here")
        assert digests(tmp_path / "there") == here
        assert "nothing differs" in run("verify", out).stdout
    assert "measure 4/4" in (tmp_path / "there/logs/driver.log").read_text()
    assert find_words([SECRET, HIDDEN], kubernetes.folder / "logs") == []
    assert find_words([SECRET, HIDDEN], tmp_path / "there") == []
