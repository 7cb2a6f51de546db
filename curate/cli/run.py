"""`curate run`: runs a recipe, or, with `--detach`, lets it run in the background."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from curate.ask.status import describe_attempts
from curate.base.errors import RecipeError, RunError
from curate.base.stages import COUNTED
from curate.base.wording import pluralize
from curate.cli import common
from curate.cli.detach import describe_handover, detached, is_driver, start_driver
from curate.cli.progress import show_progress
from curate.cli.summary import summary
from curate.cli.supervise import MAX_DEATHS, Supervisor
from curate.download.retry_record import Retries
from curate.download.shard_names import STATISTICS
from curate.measure.current import count_needed
from curate.measure.settings import TABLES, MeasureSettings
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading
from curate.pool.retry import find_mendable
from curate.recipe.recipe import load_recipe
from curate.run.context import RunContext
from curate.run.units import WorkerLocation
from curate.store.attempts import MAX_ATTEMPTS, read_attempts
from curate.store.facts import read_unit_keys
from curate.store.forgotten import count_forgotten_since
from curate.store.layout import POOL, REPORT_FILE, SUCCESS_FILE
from curate.store.lease import Holder, MayEnd
from curate.store.lock import Keeper, check_unlocked, locked, remove_leftovers
from curate.store.store import RunStore

if TYPE_CHECKING:
    from pipelines.claim import Prepared

_OUTPUTS = (*((folder, suffix) for _, folder, suffix, _ in COUNTED), (POOL, STATISTICS))


class CommandKeeper(Keeper):
    """Lets the command that supervises this process, if there is one, keep the folder's lock."""

    def __init__(self) -> None:
        self._supervisor = Supervisor.current
        if self._supervisor:
            self.process, self.lock = self._supervisor.process, self._supervisor.lock
            if holder := self._supervisor.facts.get("holder"):
                self.holder = Holder.model_validate(holder | {"died": self._died})

    @property
    def _died(self) -> str:
        if not (self._supervisor and self._supervisor.total):
            return ""
        return f"{pluralize(self._supervisor.total, 'process', 'processes')} died, the last {self._supervisor.death}"

    def keep(self, holder: Holder, lock: int | None) -> None:
        if self._supervisor:
            self._supervisor.send(lock if self.lock is None else None, holder=holder.model_dump())

    def stop_supervising(self) -> None:
        """Let the command end with this process's exit status."""
        if self._supervisor:
            self._supervisor.send(is_supervised=False)
            self._supervisor = None

    def report_death(self, prepared: "Prepared") -> None:
        """If an earlier child died, print what it worked on. If it had finished the run, unlock the folder.

        Raises RunError if six children died since a file was last finished, or three while the same unit was isolated.
        """
        store = prepared.context.store
        if prepared.context.place is not WorkerLocation.THIS_PROCESS:
            self.stop_supervising()
        if prepared.finished and self.holder:
            with locked(store, "run", keeper=self):
                return
        if not (self._supervisor and self._died):
            return
        facts, attempts = self._supervisor.facts, read_attempts(store)
        finished = sum(path.endswith(suffix) for folder, suffix in _OUTPUTS for path in store.files(folder))
        deaths = 1 if finished > facts.get("finished", finished) else self._supervisor.deaths
        self._supervisor.send(deaths=deaths, finished=finished, attempts=attempts)
        in_flight = f"in flight: {describe_attempts(attempts, prepared.plan.units)}"
        before = facts.get("attempts", {})
        if deaths < MAX_DEATHS and not any(
            before.get(work, MAX_ATTEMPTS) < count == MAX_ATTEMPTS for work, count in attempts.items()
        ):
            print(f"curate: {in_flight}", file=sys.stderr, flush=True)
            return
        remedy = "If memory ran out, free some. Finished work is not lost: repeat the command to continue."
        remedy = f"{remedy} curate then marks samples that killed {MAX_ATTEMPTS} processes as worker_died."
        raise RunError(f"{store.url}: {self._died}, even with units isolated; {in_flight}\n{remedy}")


def run(
    recipe: common.RecipeArgument,
    out: Annotated[str, Option("--out", "-o", metavar="DIR")],
    beam_options: common.BeamArgument = None,
    reuse: Annotated[str | None, Option(metavar="DIR")] = None,
    overrides: common.SetOption = [],  # noqa: B006
    fingerprint: common.FingerprintOption = common.Fingerprint.stat,
    on: common.OnOption = None,
    retry: Annotated[bool, Option("--retry")] = False,
    detach: Annotated[bool, Option("--detach")] = False,
    take_over: Annotated[bool, Option("--take-over")] = False,
    in_process: Annotated[bool, Option("--in-process")] = False,
) -> None:
    """Run a recipe, or resume a run: measure, decide, write shards, publish."""
    options = common.prepare_beam(beam_options, "" if take_over else on)  # the lease may belong to a job of any engine
    from pipelines.claim import finish_updating
    from pipelines.engines.choose import choose_engine
    from pipelines.engines.registry import is_dead
    from pipelines.prepare import prepare

    may_end = is_dead if take_over else None
    keeper = CommandKeeper()
    if not (keeper.holder or RunStore(out).exists(SUCCESS_FILE)):
        check_unlocked(RunStore(out), may_end)  # before listing the pool, which may take long
        finish_updating(RunStore(out))
    loaded = load_recipe(recipe, overrides)
    if in_process and (detach or on or options):
        raise RecipeError("--in-process runs without Beam; remove --detach, --on and Beam options")
    if retry and not any(map(find_downloading, loaded.input)):
        remedy = f"if you repaired files, run into a new folder with --reuse {out}"
        raise RecipeError(f"--retry: retries URLs, but the recipe has no input with format urls; {remedy}")
    if detach and not is_driver() and not choose_engine(options, on).outlasts_driver:
        keeper.stop_supervising()  # the driver has its own supervisor
        start_driver(RunStore(out))
        return
    rounds = Retries.read(RunStore(out)).rounds if RunStore(out).exists(SUCCESS_FILE) else None
    content = fingerprint is common.Fingerprint.content
    plan_run = partial(prepare, loaded, out, reuse, content, options, retry=retry, on=on)
    with common.say_if_slow(common.PLANNING):
        prepared = plan_run()
    keeper.report_death(prepared)
    if prepared.finished:
        _tell_finished(prepared, out, retry)
        return
    _announce(prepared, retry, rounds, reuse, out)
    began = time.monotonic()
    if _work(prepared, keeper, may_end, detach, in_process, plan_run):
        print(summary(out, time.monotonic() - began))


def _work(
    prepared: "Prepared",
    keeper: CommandKeeper,
    may_end: MayEnd | None,
    detach: bool,
    in_process: bool,
    plan_run: Callable[[], "Prepared"],
) -> bool:
    """Do the run, or submit it if `detach` is set. Return whether it is done."""
    from pipelines.claim import claimed
    from pipelines.driver import preflight, run_in_process
    from pipelines.driver import run as run_pipeline

    with ExitStack() as entered:
        preflight(prepared, lambda line: print(line, file=sys.stderr, flush=True))
        urls = sum(outlook.left for _, _, outlook in common.find_outlooks(prepared.context, prepared.plan.units))
        folder_lock = entered.enter_context(claimed(prepared, may_end, keeper))
        if is_driver():
            entered.enter_context(detached(folder_lock))
        elif detach:
            run_pipeline(prepared, folder_lock, detach=True)
            print(describe_handover(folder_lock.store, prepared.engine.name), end="")
            return False
        if not in_process:
            entered.enter_context(show_progress(folder_lock.store, len(prepared.plan.units), urls))
        _run(prepared, plan_run, run_in_process if in_process else partial(run_pipeline, folder_lock=folder_lock))
    return True


def _run(prepared: "Prepared", plan_run: Callable[[], "Prepared"], work: Callable[["Prepared"], None]) -> None:
    """Run the pipeline with `work`. If samples were removed from the reused run in the meantime, run it again."""
    from pipelines.claim import claim_folder

    try:
        work(prepared)
    except RunError:
        reused = prepared.context.reuse
        if reused is None or not count_forgotten_since(prepared.context.store, reused):
            raise
        print(f"{reused.url}: samples were removed from this run; removing them from the new run too", file=sys.stderr)
        again = plan_run()
        claim_folder(again)
        work(again)


def _announce(prepared: "Prepared", retry: bool, rounds: int | None, reuse: str | None, out: str) -> None:
    """Print which URLs are retried, which tables are reused, and warnings about sizes."""
    context, units, retries = prepared.context, prepared.plan.units, prepared.retries
    if retry or reuse:
        from curate.ask.text_pages import render_page  # imports libraries that other runs need only at the end

        urls = int((retries.table["round"].to_numpy() == retries.rounds).sum())
        is_new_round = rounds is not None and retries.rounds > rounds
        facts = {"out": out, "recipe": context.recipe, "units": len(units), "reuse": reuse, "retry": retry}
        facts |= {"retries": retries, "urls": urls, "is_new_round": is_new_round}
        print(render_page("run", **facts, **_reused(context, units)), file=sys.stderr, end="")
    if prepared.imported:
        print(prepared.imported.summary, file=sys.stderr)
    for warning in common.warn_of_sizes(context.recipe, units):
        print(warning, file=sys.stderr)


def _reused(context: RunContext, units: Sequence[Unit]) -> dict[str, Any]:
    """Return facts about reuse for the page.

    They say, for each table, how many units are reused and how many are not; and which signals are measured again, or
    why all are.
    """
    from pipelines.identity import count_current

    if context.reuse is None:
        return {}
    decided = ("derived", "decisions", "answers", "captions")  # tables that are never reused as a whole
    current = {name: count for name, count in count_current(context, units).items() if name not in decided}
    lost = {name: len(units) - count for name, count in current.items() if count < len(units)}
    settings, needed = MeasureSettings.of(context), None
    if settings.signals and not lost.keys().isdisjoint(TABLES):
        needed = count_needed(settings, units, context.unit_tables)
    _, paths = read_unit_keys(context.reuse)
    has_same_names = any(source.name in paths for source in context.recipe.input)
    return {
        "current": current,
        "lost": lost,
        "needed": needed,
        "has_others": needed is not None and any(needed[signal.name] < len(units) for signal in settings.signals),
        "has_same_files": any(unit.reuse_index is not None for unit in units),
        "other_names": None if has_same_names else list(paths),
    }


def _tell_finished(prepared: "Prepared", out: str, retry: bool) -> None:
    """Print that there is nothing to do, and update the run's name and license."""
    from pipelines.claim import update_metadata

    context = prepared.context
    store = context.store
    remove_leftovers(store)
    reason = "no failed URL is worth another attempt" if retry else "this run is already finished"
    if not retry and len(mendable := find_mendable(store, prepared.plan.units, context.recipe.input)):
        reason += f", and {pluralize(len(mendable), 'URL')} may succeed on another attempt (--retry)"
    has_report = store.exists(REPORT_FILE)
    if changed := update_metadata(prepared):
        print(f"{out}: {reason}; updated only its {' and '.join(changed)}")
        if has_report:
            from curate.ask.report.page import write_report  # imports all that a page needs

            write_report(out)
            command = f"`curate report {out} --against DIR`"
            print(f"rewrote {REPORT_FILE}; to compare runs in it again, use {command}")
    else:
        print(f"{out}: {reason}; nothing to do (`curate verify {out}` reads every byte)")
