"""`curate status` shows the progress of a run and who works on it; `curate cancel` stops a run in the background."""

import sys
import time
from typing import Annotated

from rich.console import Console
from rich.live import Live
from rich.text import Text
from typer import Argument, Exit, Option

from curate.ask.status import FAILED, NOT_YET, Status, find_status, seconds_between
from curate.base.errors import RunError
from curate.base.wording import one_line
from curate.cli.common import plain, print_lines
from curate.store.layout import RUN_FILE, SUCCESS_FILE
from curate.store.lease import Holder, end_lease
from curate.store.lock import find_holder
from curate.store.manifest import how_to_go_on, no_run
from curate.store.store import RunStore

_MIN_PAUSE = 2.0  # minimum seconds between two polls
_SECONDS = 600  # time that a job has to end


def status(
    directory: Annotated[str, Argument(metavar="DIR")], watch: Annotated[bool, Option("--watch")] = False
) -> None:
    """Show the progress of a run, and who works on it."""
    now = _follow(directory) if watch else find_status(directory, _ask)
    if not watch or sys.stdout.isatty() or now.exit_status == FAILED:
        print_lines(*now.lines)
    raise Exit(now.exit_status)


def _ask(holder: Holder) -> tuple[bool | None, str]:
    from pipelines.engines.registry import ask  # imports Beam, and all that engines need

    return ask(holder)


def _follow(directory: str) -> Status:
    """Show a run until it has ended: on a terminal, in the same place; elsewhere, with a line for each change."""
    last = ""
    with Live(console=Console(file=plain(sys.stdout)), transient=True, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            try:
                now = find_status(directory, _ask)
                if live.console.is_terminal:
                    live.update(Text("\n").join(line.text for line in now.lines), refresh=True)
                elif now.short != last:
                    print(last := now.short, flush=True)
                if now.exit_status != NOT_YET:
                    return now
            except OSError as error:  # a store may not respond for a while
                print(f"curate: {error}", file=sys.stderr)
            time.sleep(seconds_between(RunStore(directory), _MIN_PAUSE, time.monotonic() - began))


def cancel(directory: Annotated[str, Argument(metavar="DIR")]) -> None:
    """Stop a run that works in the background or on a cluster."""
    from pipelines.engines.registry import ask, is_dead, stop  # imports Beam, and all that engines need

    store = RunStore(directory)
    if not ((holder := find_holder(store)) or store.exists(RUN_FILE)):
        raise no_run(store, directory)
    outcome = f"{holder} has already ended" if holder else "nothing is running here"
    if holder and (holder.handle or holder.log) and not ask(holder)[0]:
        print(f"{directory}: canceling {holder}; this takes at most {_SECONDS // 60} min", file=sys.stderr, flush=True)
        try:
            stop(holder, _SECONDS)
        except Exception as error:  # from any library
            see = f"; see {holder.page}" if holder.page else ""
            raise RunError(f"{directory}: {holder} may still be running: {one_line(error, 300)}{see}") from None
        outcome = f"{holder} is canceled"
    elif holder and not is_dead(holder):
        where = f"on {holder.host}: kill {holder.process}"
        raise RunError(f"{directory}: {holder} runs in a terminal; press Ctrl-C there, or {where}")
    if holder:
        end_lease(store, holder.id)
    go_on = "the run is finished" if store.exists(SUCCESS_FILE) else how_to_go_on(store, directory)
    print(f"{directory}: {outcome}; {go_on}")
