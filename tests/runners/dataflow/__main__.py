"""A Dataflow on this machine, to try `runner: dataflow` without Google: it runs each job on Prism, and says what it does.

    python -m tests.runners.dataflow        in a checkout with `pip install -e '.[runners]'`, and Go's programs (CONTRIBUTING)

It prints what to set in another terminal; files go into its bucket by fsspec, and are gone when it ends.
"""

import logging
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from apache_beam.runners.runner import PipelineState

from tests.runners.clusters import find_go_program, write_boot
from tests.runners.dataflow.loopback import BUCKET, read_pipeline, serving_storage, start_on_prism, variables
from tests.runners.dataflow.service import serving


def work(job, boot):
    """Do a job, unless it is cancelled meanwhile."""
    print(f"job {job.id} {job.request['name']}: begins", flush=True)
    result = start_on_prism(read_pipeline(job)[0], boot)
    while not PipelineState.is_terminal(result.state):
        if job.state != "JOB_STATE_RUNNING":
            result.cancel()
            break
        time.sleep(0.5)
    else:
        try:
            result.wait_until_finish()
        except RuntimeError as error:  # for whoever follows the job; there is no page of it
            job.errors.append(str(error))
        job.state = f"JOB_STATE_{result.state}"
    print(f"job {job.id} {job.request['name']}: {job.state}", *job.errors, sep="\n", flush=True)


def find_missing():
    """What to install first, a line each."""
    lines = ["pip install -e '.[runners]'"] if find_spec("gcsfs") is None else []
    for name in ("fake-gcs-server", "prism", "container"):
        try:
            find_go_program(name)
        except pytest.skip.Exception as skipped:
            lines.append(str(skipped).partition(": ")[2])
    return lines


def main():
    """Serve until it is interrupted."""
    if missing := find_missing():
        sys.exit("\n".join(["this needs, in the checkout (Go installs into ~/go/bin):", *missing]))
    with serving_storage() as url, serving() as service, tempfile.TemporaryDirectory() as folder:
        os.environ.update(variables(url))
        logging.disable(logging.WARNING)
        print(
            "# in another terminal:\n" + "\n".join(f"export {name}={value}" for name, value in variables(url).items())
        )
        print("curate init --on dataflow")
        print("# in dataflow.yaml, besides what is there:\ndataflow_endpoint: " + service.url + "\nno_auth: true")
        print(f"# pools and runs: {BUCKET}/…, for example:")
        print(
            f'python -c \'import fsspec; fsspec.filesystem("gs").put("pool", "{BUCKET}/", recursive=True)\'', flush=True
        )
        done = 0
        while True:  # one job after another: Beam starts Prism in this thread alone
            for job in service.jobs[done:]:
                work(job, write_boot(Path(folder)))
                done += 1
            time.sleep(0.2)


if __name__ == "__main__":
    main()
