"""The script `curate`, and `python -m curate`: Ctrl-C or `kill` ends it at once from here on, while it is importing,
too.
"""

from importlib import import_module

from curate.cli.interrupt import end_when_interrupted


def start() -> None:
    """Run the command as a process of its own: an interrupt ends it at once, whatever its threads are doing."""
    end_when_interrupted("curate: interrupted")
    import_module("curate.cli.main").command()


if __name__ == "__main__":
    start()
