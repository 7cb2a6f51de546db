"""Runs a command of curate, and prints the CPU seconds of each of its parts as JSON on standard error, for `bench_start`.

    PYTHONPATH=CHECKOUT python tests/bench/start_parts.py run RECIPE --out DIR

Each second counts for the innermost part that it was spent in. What is imported only once it is needed counts for who needs it.
"""

import gc
import importlib
import json
import sys
import time
from collections import Counter

# Part → functions of modules: as they are called from there.
PARTS = {
    "recipe and plan": ["curate.cli.run:load_recipe", "pipelines.prepare:prepare"],
    "metadata": ["pipelines.prepare:read_metadata", "curate.base.ids:table_digest", "curate.match.unit:load_matcher"],
    "claim": ["pipelines.claim:claim_folder"],
    "graph": ["pipelines.driver:build"],
    "run": ["pipelines.driver:run"],
    "publish": ["curate.publish.publish:publish"],
}


class Clock:
    """CPU seconds by the innermost part that they were spent in."""

    def __init__(self):
        self.seconds = Counter()
        self.stack = ["imports"]
        self.counted = 0.0

    def count(self):
        """Count the seconds since the last call."""
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self.counted
        self.counted = now


def wrap(clock, place, part):
    """Count what a function takes for a part."""
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    function = getattr(owner, name)

    def timed(*arguments, **options):
        clock.count()
        clock.stack.append(part)
        try:
            return function(*arguments, **options)
        finally:
            clock.count()
            clock.stack.pop()

    setattr(owner, name, timed)


def main():
    """Run the command."""
    clock = Clock()
    gc.set_threshold(100_000)
    gc.freeze()
    cli = importlib.import_module("curate.cli.main")
    cli.build_app(sys.argv[1:])
    importlib.import_module("curate.cli.imports").import_beam()
    for part, places in PARTS.items():
        for place in places:
            wrap(clock, place, part)
    clock.count()
    clock.stack[0] = "else"
    try:
        cli.command()
    finally:
        clock.count()
        print(json.dumps(clock.seconds), file=sys.stderr)


if __name__ == "__main__":
    main()
