"""Error notes: the message of an error of ours, kept beside the run, whatever the runner makes of the exception.

A runner passes exceptions on as text, wrapped and annotated, and may try again what failed. So each note has an id that
the raised exception names, and the note that the runner's last exception names is why the run ended.
In: a run folder. Out: files below `tmp`, which is emptied when a run starts and when it ends.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curate.base.errors import CurateError, RunError, describe
from curate.base.foreign import naming_packages
from curate.store.store import RunStore

ERROR_NOTES = "tmp/errors"
_ID = re.compile(r"\(error note ([0-9a-f]{32})\)")


@contextmanager
def noting_errors(folder: RunStore) -> Iterator[None]:
    """Keep the message of an error, ours or a foreign kind's, that ends the block; raise a RunError that names it."""
    try:
        with naming_packages():
            yield
    except (CurateError, IsADirectoryError) as error:
        note = uuid.uuid4().hex
        with suppress(Exception):  # a folder that takes no note must not hide the error
            folder.write_json(f"{ERROR_NOTES}/{note}.json", {"message": describe(error)})
        raise RunError(f"{describe(error)} (error note {note})") from error


def read_error_note(folder: RunStore, error: BaseException) -> str | None:
    """Return the message of our error behind what a runner raised; None where another failure ended the run."""
    for note in _ID.findall(str(error))[-1:]:  # of several, as of a stage's attempts, what the runner gave up on
        if folder.exists(file := f"{ERROR_NOTES}/{note}.json"):
            return str(folder.read_json(file)["message"])
    return None


def read_error_notes(folder: RunStore) -> list[str]:
    """Return the messages that were noted, each once."""
    return list(dict.fromkeys(str(folder.read_json(file)["message"]) for file in folder.files(ERROR_NOTES)))
