"""Two attempts at the same work at once. Engines start a second one if the first is slow, or its worker seems dead."""

import random
import threading
from contextlib import contextmanager

import pytest

from curate.publish import publish as publishing_steps
from curate.store.store import RunStore
from pipelines.steps import functions


def attempt_both(work, turns):
    """Run two attempts that put their files into place in turns; return their results or exceptions.

    `a` puts the first `turns[0]` files, then `b` puts `turns[1]`, then `a` puts its others, and `b` its others.
    """
    order = ["a"] * turns[0] + ["b"] * turns[1] + ["a"] * 99 + ["b"] * 99
    changed, results = threading.Condition(), {}

    def in_turn(method):
        def putting(*arguments, **options):
            name = threading.current_thread().name
            with changed:
                assert changed.wait_for(lambda: order[0] == name, 300)
            try:
                return method(*arguments, **options)
            finally:
                with changed:
                    order.remove(name)
                    changed.notify_all()

        return putting

    def run():
        name = threading.current_thread().name
        try:
            results[name] = work()
        except Exception as error:
            results[name] = error
        with changed:
            order[:] = [other for other in order if other != name]
            changed.notify_all()

    with pytest.MonkeyPatch.context() as patched:
        for method in ("_put", "_commit_once"):
            patched.setattr(RunStore, method, in_turn(getattr(RunStore, method)))
        attempts = [threading.Thread(target=run, name=name) for name in "ab"]
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join(600)
    return [results["a"], results["b"]]


@contextmanager
def twice():
    """Let two attempts work at every element of every step; the result of one of them, drawn at random, counts."""
    chosen, threads, publish = random.Random(5), functions.threads, publishing_steps.publish

    def both(work):
        results = [None, None]

        def run(number):
            results[number] = work()

        attempts = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join()
        return results[chosen.randrange(2)]

    class Twice:
        def submit(self, function, *arguments):
            return threads("unit").submit(lambda: both(lambda: function(*arguments)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(functions, "threads", lambda name: Twice())
        patched.setattr(publishing_steps, "publish", lambda *arguments: both(lambda: publish(*arguments)))
        yield
