"""`curate` in processes that need no imports: each is forked from a server that has imported what most commands use.

A new interpreter imports for seconds, which tests of many commands, or of many kills, pay each time. A forked process has
its own session, memory, threads, locks, signals and standard streams, and is killed as any other. That a command starts at
all, and what it imports, is for tests that start an interpreter: see `tests/cli`. Not for several threads at once.
"""

import atexit
import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import chdir, suppress
from multiprocessing import get_context
from pathlib import Path

_CONTEXT, _ROOT = get_context("forkserver"), Path(__file__).parents[2]
_COMMANDS = ("finished", "forget", "run", "sql", "status", "summary")
_RUNS = ("pipelines.driver", "pipelines.prepare", "pipelines.engines.registry", "curate.decide.dedup.passes.registry")
_BEAM = ("apache_beam.runners.portability.fn_api_runner", "apache_beam.runners.worker.log_handler", "IPython")
_READERS = ("curate.ask.diff", "curate.ask.explain", "curate.ask.report.page", "curate.ask.verify", "curate.ask.query")
_CONTEXT.set_forkserver_preload(
    [__name__, "curate.cli.main", *(f"curate.cli.{name}" for name in _COMMANDS), *_RUNS, *_BEAM, *_READERS]
)


def start(*words, env=None, cwd=None, out=os.devnull, err=os.devnull):
    """Start `curate WORDS` in a session of its own, in the folder `cwd`, with what it prints in the files `out` and `err`.

    `env` replaces the environment; its `PYTHONPATH` holds as it does for an interpreter.
    """
    text, streams = [str(word) for word in words], (str(out), str(err))
    process = _CONTEXT.Process(target=_begin, args=(text, dict(env or os.environ), str(cwd or Path.cwd()), streams))
    with chdir(_ROOT):  # where the server, which this starts, finds this module
        process.start()
    return process


def run(*words, env=None, cwd=None):
    """Run `curate WORDS`; see `start`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(*words, env=env, cwd=cwd, out=out, err=err)
        process.join()
        status = process.exitcode
        assert status is not None
        return subprocess.CompletedProcess(["curate", *words], status, out.read_text(), err.read_text())


def kill(process):
    """Kill a process with all of its session."""
    try:
        os.killpg(process.pid or 0, signal.SIGKILL)
    except ProcessLookupError:  # it has ended, or has no session of its own yet
        with suppress(ProcessLookupError):
            process.kill()


def _begin(words, env, cwd, streams):
    os.setsid()
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    sys.argv[:] = ["curate", *words]
    tempfile.tempdir = None  # of the environment before
    logging.root.handlers.clear()  # what Beam warned of when it was imported added one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from curate.__main__ import start as start_command

    try:
        start_command()
    finally:
        atexit._run_exitfuncs()  # as an interpreter does: by these Beam ends the programs that it has started
