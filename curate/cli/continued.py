"""What a child of `curate run` does if an earlier one died: it takes over the folder, and says what was in flight."""

import sys
from typing import TYPE_CHECKING

from curate.ask.status import STEPS, describe_attempts
from curate.base.errors import RunError
from curate.base.wording import pluralise
from curate.cli.supervise import MAX_DEATHS, Supervisor
from curate.download.shard_names import STATISTICS
from curate.run.units import Place
from curate.store.attempts import MOST, read_attempts
from curate.store.layout import POOL
from curate.store.lease import Holder
from curate.store.lock import Keeper, locked

if TYPE_CHECKING:
    from pipelines.claim import Prepared

_OUTPUTS = (*((place, suffix) for _, place, suffix, _ in STEPS), (POOL, STATISTICS))


class CommandKeeper(Keeper):
    """The command that supervises this process keeps the folder, if there is one."""

    def __init__(self) -> None:
        self._supervisor = Supervisor.current
        if self._supervisor:
            self.process, self.lock = self._supervisor.process, self._supervisor.lock
            if holder := self._supervisor.facts.get("holder"):
                self.holder = Holder.model_validate(holder | {"died": self._died})

    @property
    def log(self) -> str | None:
        """The log of a driver, where an earlier child has left the shell."""
        return self.holder.log if self.holder else None

    @property
    def _died(self) -> str:
        """How many processes of this run died, and how; empty if none did."""
        if not (self._supervisor and self._supervisor.total):
            return ""
        return f"{pluralise(self._supervisor.total, 'process', 'processes')} died, the last {self._supervisor.death}"

    def keep(self, holder: Holder, lock: int | None) -> None:
        """Keep the folder for the next child."""
        if self._supervisor:
            self._supervisor.send(lock if self.lock is None else None, holder=holder.model_dump())

    def stop_supervising(self) -> None:
        """Let the command end as this process does."""
        if self._supervisor:
            self._supervisor.send(is_supervised=False)
            self._supervisor = None

    def report_death(self, prepared: "Prepared") -> None:
        """Print what was in flight if an earlier child died; free the folder if it had finished the run.

        On an engine with workers of its own the command does not go on after a death. Raises RunError if six died since
        the last file was finished, or three while the same unit was isolated.
        """
        store = prepared.context.store
        if prepared.context.place is not Place.THIS_PROCESS:
            self.stop_supervising()
        if prepared.finished and self.holder:
            with locked(store, "run", keeper=self):
                return
        if not (self._supervisor and self._died):
            return
        facts, attempts = self._supervisor.facts, read_attempts(store)
        finished = sum(path.endswith(suffix) for place, suffix in _OUTPUTS for path in store.files(place))
        deaths = 1 if finished > facts.get("finished", finished) else self._supervisor.deaths
        self._supervisor.send(deaths=deaths, finished=finished, attempts=attempts)
        in_flight = f"in flight: {describe_attempts(attempts, prepared.plan.units)}"
        before = facts.get("attempts", {})
        if deaths < MAX_DEATHS and not any(before.get(work, MOST) < count == MOST for work, count in attempts.items()):
            print(f"curate: {in_flight}", file=sys.stderr, flush=True)
            return
        remedy = "If memory runs out, free some. Finished work is kept, and the same command continues"
        remedy = f"{remedy}: what was killed {MOST} times then fails as worker_died."
        raise RunError(f"{store.url}: {self._died}, and isolating units does not help; {in_flight}\n{remedy}")
