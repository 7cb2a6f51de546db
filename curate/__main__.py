"""The script `curate`, and `python -m curate`: Ctrl-C ends it with status 130 from here on, while it is importing, too."""

import sys
from importlib import import_module

from curate.cli.interrupt import end_when_interrupted


def start() -> None:
    """Run the command as a process of its own: an interrupt ends it at once, whatever its threads are doing."""
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    goes_on = "; finished work is kept: run again to continue" if name in ("run", "demo") else ""
    end_when_interrupted(f"curate: interrupted{goes_on}")
    import_module("curate.cli.main").command()


if __name__ == "__main__":
    start()
