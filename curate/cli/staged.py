"""The driver in Spark's cluster mode: `spark-submit` sends this file to a machine where curate is installed.

In: the URL of a run folder, and the lease of the run whose arguments are stored there (see
`pipelines.engines.spark_cluster`). Out: the run, and the driver's log. At the end, the lease is ended. If the driver's
machine is lost, YARN starts the driver again, and it continues. If the run fails, the stored arguments are deleted.
"""

import sys
import time
import traceback


def drive(url: str, lease: str) -> int:
    """Do the staged run, and return the exit status."""
    from curate.base.errors import CurateError, describe
    from curate.cli.detach import logging_to
    from curate.cli.main import show_warnings
    from curate.cli.progress import show_progress
    from curate.cli.summary import summary
    from curate.store.facts import read_claim
    from curate.store.layout import staged_file
    from curate.store.lease import end_lease, renewing
    from curate.store.lock import remove_leftovers
    from curate.store.store import RunStore
    from pipelines.driver import run_job
    from pipelines.engines.spark import Spark

    store, began, status = RunStore(url), time.monotonic(), 0
    if not store.exists(staged_file(lease)):
        print(f"{url}: this driver finds no job to run: the job has ended, or another command uses the folder")
        return 1
    try:
        with logging_to(store), renewing(store, lease), show_progress(store, len(read_claim(store).unit_keys)):
            show_warnings()
            run_job(store, lambda: Spark.run_staged(store, lease, print))
            print(summary(url, time.monotonic() - began))
    except Exception as error:  # from any library, because nothing else would end the lease
        if not isinstance(error, CurateError):
            traceback.print_exc()
        print(f"curate: {describe(error) or type(error).__name__}", flush=True)
        status = getattr(error, "exit_status", 1)
        store.delete(staged_file(lease))
    end_lease(store, lease)
    if not status:
        remove_leftovers(store)
    return status


if __name__ == "__main__":
    from curate.cli.staged import drive as run  # with the name that pickles use

    sys.exit(run(*sys.argv[1:]))
