"""`curate status`: how far a run is, and who works on it."""

import sys
import time
from typing import Annotated

from rich.console import Console
from rich.live import Live
from rich.text import Text
from typer import Argument, Exit, Option

from curate.ask.status import NOT_YET, Status, find_status
from curate.cli.common import print_lines
from curate.cli.terminal import plain
from curate.store.lease import Holder
from curate.store.store import RunStore

_BETWEEN = 30.0  # seconds between two looks at an object store: each lists folders
_HERE = 2.0  # at a local folder


def status(
    directory: Annotated[str, Argument(metavar="DIR", help="The folder of a run, finished or not.")],
    watch: Annotated[bool, Option("--watch", help="Repeat until the run has ended.")] = False,
) -> None:
    """Show how far a run is, and who works on it.

    The exit status is 0 if it is finished, 3 if it waits or works, 1 if it failed or its lease is stale.
    """
    now = _follow(directory) if watch else find_status(directory, _ask)
    if not watch or sys.stdout.isatty():
        print_lines(*now.lines)
    raise Exit(now.exit_status)


def _ask(holder: Holder) -> tuple[bool | None, str]:
    from pipelines.engines.attached import ask  # with Beam, and all that engines need

    return ask(holder)


def _follow(directory: str) -> Status:
    """Show a run until it has ended: on a terminal in place, elsewhere a line whenever something has changed."""
    last = ""
    with Live(console=Console(file=plain(sys.stdout)), transient=True, auto_refresh=False) as live:
        while True:
            try:
                now = find_status(directory, _ask)
                if live.console.is_terminal:
                    live.update(Text("\n").join(line.text for line in now.lines), refresh=True)
                elif now.short != last:
                    print(last := now.short, flush=True)
                if now.exit_status != NOT_YET:
                    return now
            except OSError as error:  # a store may have a bad hour
                print(f"curate: {error}", file=sys.stderr)
            time.sleep(_HERE if RunStore(directory).is_local else _BETWEEN)
