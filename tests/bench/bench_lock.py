"""What share of the CPU time of measuring images Python's lock is held: `python -m tests.bench.bench_lock`; a minute or two.

Units are measured in threads of one process, so n threads are at most 1 / share times as fast as one. Pools of tars with JPEGs are
measured with sha256 and phash, tables and all. After each millisecond of the process's CPU time a signal asks the thread that runs
just then whether it holds the lock, so what else the machine does hardly counts. Needs a C compiler, `cc`.
"""

import ctypes
import gc
import hashlib
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from curate.cli.imports import RARELY
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.recipe.recipe import parse_recipe
from tests.bench.bench_emit import make_pool, plan_run

SIZES = ((256, 256), (448, 320), (640, 480), (1024, 768))
IMAGES, ROUNDS, TURNS = 500, 5, 5
_SAMPLER = """
#include <signal.h>
#include <sys/time.h>
int PyGILState_Check(void);
static volatile long counts[2];  /* signals to threads without the lock, and with it */
static void ask(int number) { __atomic_add_fetch(&counts[PyGILState_Check() != 0], 1, __ATOMIC_RELAXED); }
void start(void) {
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
    struct itimerval each = {{0, 1000}, {0, 1000}};
    sigaction(SIGPROF, &action, 0);
    setitimer(ITIMER_PROF, &each, 0);
}
long stop(int has_lock) {
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_PROF, &never, 0);
    return __atomic_exchange_n(&counts[has_lock], 0, __ATOMIC_RELAXED);
}
"""


def compile_sampler(folder):
    (folder / "sampler.c").write_text(_SAMPLER)
    library = folder / "sampler.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, folder / "sampler.c"], check=True)
    sampler = ctypes.CDLL(str(library))
    sampler.stop.restype = ctypes.c_long
    return sampler


def held_share(sampler, work, rounds):
    """The share of the CPU time of several calls."""
    sampler.start()
    for _ in range(rounds):
        work()
    free, held = sampler.stop(0), sampler.stop(1)
    return held / (free + held)


def measuring(pool, out):
    """Measures a pool, as often as it is called."""
    recipe = parse_recipe(
        {
            "input": [{"name": "pool", "format": "webdataset", "path": f"{pool}/*.tar"}],
            "measure": {"image": {"phash": True}},
        }
    )
    settings = MeasureSettings.of(plan_run(recipe, out)[0])

    def measure():
        with tempfile.TemporaryDirectory(dir=out) as run:
            context, units = plan_run(recipe, Path(run))
            for unit in units:
                measure_unit(settings, unit, context.unit_tables(unit))

    return measure


def main():
    with tempfile.TemporaryDirectory() as folder:
        sampler = compile_sampler(Path(folder))
        counting = held_share(sampler, lambda: sum(range(20_000_000)), 2)
        hashing = held_share(sampler, lambda: hashlib.sha256(bytes(200_000_000)), 2)
        print(f"counting in Python: {counting:.1%}; hashing much: {hashing:.1%}")
        for width, height in SIZES:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                pool = Path(name)
                size = make_pool(pool, 1, IMAGES, width, height)[0].stat().st_size
                measure = measuring(pool, pool)
                measure()  # compiles
                gc.freeze()  # as a run does, and the next line
                gc.set_threshold(RARELY)
                share = median(held_share(sampler, measure, ROUNDS) for _ in range(TURNS))
            print(
                f"JPEGs of {width} x {height}, {size / IMAGES / 1000:.0f} KB: the lock is held {share:.1%} of the CPU time; "
                f"16 threads are at most {min(16, 1 / share):.1f} x one"
            )


if __name__ == "__main__":
    main()
