"""The script `curate`, and `python -m curate`: Ctrl-C or `kill` ends it at once from here on, while it is importing,
too. `curate run` becomes two processes here, while nothing is imported.
"""

import sys
from importlib import import_module

from curate.cli.interrupt import end_when_interrupted, end_when_read


def start() -> None:
    """Run the command as a process of its own: an interrupt ends it at once, whatever its threads are doing."""
    is_run = next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "run"
    if not is_run or "--in-process" in sys.argv:
        end_when_interrupted("curate: interrupted")
        import_module("curate.cli.main").command()
        return
    from curate.cli.supervise import Supervisor

    supervisor = Supervisor()
    supervisor.run()
    end_when_read(supervisor.read_signals, "curate: interrupted")
    status: object = 1  # which the child sends, for another one means that something has ended it
    try:
        import_module("curate.cli.main").command()
        status = 0
    except SystemExit as ended:
        status = ended.code
        raise
    finally:
        supervisor.send(status=status)


if __name__ == "__main__":
    start()
