"""Waiting for what another thread or process does: however long it takes on a crowded machine, but not for ever."""

import time

SECONDS = 300.0  # at which patience ends


def wait_until(holds, goes_on=lambda: True):
    """Return once this holds. Raises AssertionError where what is waited for does not go on, or after SECONDS."""
    ends = time.monotonic() + SECONDS
    while not holds():
        assert goes_on() or holds(), "it has ended"
        assert time.monotonic() < ends, f"not within {SECONDS:.0f} s"
        time.sleep(0.02)
