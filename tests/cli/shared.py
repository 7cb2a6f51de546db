"""What the tests of commands share: how to read what a command printed, and how to start and interrupt one in a process."""

import json
import signal
import subprocess
import sys
from textwrap import dedent

from tests.kit.commands import run_command


def tree(folder):
    """The files below a folder, with the times of their last change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def by_first_word(text):
    """The lines of a page, by their first word."""
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


def flat(text):
    """A page without line breaks and columns."""
    return " ".join(text.split())


def ask(command, run, *arguments):
    """The rows that `curate COMMAND RUN` prints as JSON, with nothing else on standard output or error."""
    done = run_command(command, str(run), *arguments, "--format", "json")
    assert (done.status, done.err) == (0, ""), done
    return json.loads(done.out)


def query(run, sql):
    """The rows of a query, as tuples."""
    return [tuple(row.values()) for row in ask("sql", run, sql)]


def changes(*overrides):
    """`--set` for each."""
    return [word for override in overrides for word in ("--set", override)]


def refusal(done, status=2):
    """The message of a command that was refused: on standard error alone, and no traceback."""
    assert (done.status, done.out) == (status, ""), done
    assert ("curate: " in done.err or "Error: " in done.err) and "Traceback" not in done.err, done
    return done.err


def start(code, *arguments, **options):
    """Start a command in a process of its own; `code` runs first, and may replace `main.main`."""
    lines = ("import sys", "from curate import __main__", "from curate.cli import main", "sys.argv[0] = 'curate'")
    command = [sys.executable, "-c", "\n".join([*lines, dedent(code), "__main__.start()"]), *arguments]
    return subprocess.Popen(command, **{"stdout": -1, "stderr": -1, "text": True, **options})


def interrupt(running, number=signal.SIGINT):
    """Interrupt a process; return its status and what it printed."""
    running.send_signal(number)
    try:
        out, err = running.communicate(timeout=300)
    finally:
        running.kill()
    return running.returncode, out, err
