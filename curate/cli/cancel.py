"""`curate cancel`: stop a run that was handed over."""

import sys
from typing import Annotated

from typer import Argument

from curate.base.errors import RunError
from curate.base.wording import one_line
from curate.store.layout import RUN_FILE, SUCCESS_FILE
from curate.store.lease import end_lease
from curate.store.lock import find_holder
from curate.store.manifest import how_to_go_on, no_run
from curate.store.store import RunStore

_SECONDS = 600  # that it has to end


def cancel(directory: Annotated[str, Argument(metavar="DIR", help="The folder of a run.")]) -> None:
    """Stop a run that was handed over, and free its lease.

    Finished work is kept: the same `curate run` continues. The exit status is 1 if the job may go on.
    """
    from pipelines.engines.attached import ask, is_dead, stop  # with Beam, and all that engines need

    store = RunStore(directory)
    if not ((holder := find_holder(store)) or store.exists(RUN_FILE)):
        raise no_run(store, directory)
    what = f"{holder} has ended already" if holder else "nobody is at work here"
    if holder and (holder.handle or holder.log) and not ask(holder)[0]:
        print(f"{directory}: cancelling {holder}, for at most {_SECONDS // 60} min", file=sys.stderr, flush=True)
        try:
            stop(holder, _SECONDS)
        except Exception as error:  # of any library's
            see = f"; see {holder.page}" if holder.page else ""
            raise RunError(f"{directory}: {holder} may go on: {one_line(error, 300)}{see}") from None
        what = f"{holder} is cancelled"
    elif holder and not is_dead(holder):
        where = f"on {holder.host}: kill {holder.process}"
        raise RunError(f"{directory}: {holder} was not handed over; end it by Ctrl-C in its terminal, or {where}")
    if holder:
        end_lease(store, holder.id)
    go_on = "the run is finished" if store.exists(SUCCESS_FILE) else how_to_go_on(store, directory)
    print(f"{directory}: {what}; {go_on}")
