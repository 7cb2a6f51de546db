"""Error notes: messages of what failed, kept beside the run, whatever the runner makes of the exception.

They are of our errors, and of all that ended the work on a unit. A runner passes exceptions on as text, wrapped and
annotated, and may try again what failed. So each note has an id that the raised exception names, and the notes that the
runner's last exception names are why the run ended.
In: a run folder. Out: files below `tmp`, which is emptied when a run starts and when it ends.
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from curate.base.errors import CurateError, RunError, TransientError, describe, is_disk_full
from curate.base.foreign import naming_packages
from curate.store.store import RunStore

ERROR_NOTES = "tmp/errors"
_END_NOTE = f"{ERROR_NOTES}/run.json"  # why the last command ended
_IDS = re.compile(r" \(error notes? ([0-9a-f ]{32,})\)")
_NOTES, _PLACES = 100, 5  # that are read of those that an error names; that are named of those that failed alike


@contextmanager
def noting_errors(folder: RunStore, location: str = "") -> Iterator[None]:
    """Keep the message of an error, ours or a foreign kind's, that ends the block; raise a RunError that names it.

    With a place, such as a unit, the message says where, and of all other errors there are notes too.
    """
    try:
        with naming_packages():
            yield
    except Exception as error:
        is_ours = isinstance(error, CurateError | IsADirectoryError) or is_disk_full(error)
        if not is_ours and (not location or os.environ.get("CURATE_DEBUG")):
            raise
        message = describe(error) if is_ours else f"{type(error).__name__}: {error}"
        note = uuid.uuid4().hex
        with suppress(Exception):  # a folder that takes no note must not hide the error
            values = {"place": location, "message": message, "is_ours": is_ours}
            folder.write_json(f"{ERROR_NOTES}/{note}.json", values)
        may_pass = not getattr(error, "permanent", is_ours)
        kind = TransientError if may_pass else RunError
        raise kind(f"{''.join(_join([(location, message)]))} (error note {note})") from error


def join_errors(errors: Sequence[Exception]) -> Exception:
    """Return one error for several, by the notes of each; the one, where there is one."""
    if len(errors) == 1:
        return errors[0]
    notes = " ".join(note for error in errors for note in _IDS.findall(str(error))[-1:])
    kind = RunError if all(getattr(error, "permanent", False) for error in errors) else TransientError
    return kind("; ".join(_IDS.sub("", str(error)) for error in errors) + (f" (error notes {notes})" if notes else ""))


def read_error_note(folder: RunStore, error: BaseException, hint: str = "") -> str | None:
    """Return the messages behind what a runner raised; None where another failure ended the run.

    The hint follows where one of them is not ours.
    """
    for notes in _IDS.findall(str(error))[-1:]:  # of several, as of a stage's attempts, what the runner gave up on
        files = [file for note in notes.split()[:_NOTES] if folder.exists(file := f"{ERROR_NOTES}/{note}.json")]
        if read := [folder.read_json(file) for file in files]:
            message = "\n".join(_join((note["place"], note["message"]) for note in read))
            return message if all(note["is_ours"] for note in read) else f"{message}\n{hint}".rstrip()
    return None


def note_end(folder: RunStore, message: str) -> None:
    """Replace all notes by the message with which a command ends; none if it is empty."""
    folder.delete(ERROR_NOTES)
    if message:
        with suppress(Exception):  # as above
            folder.write_json(_END_NOTE, {"place": "", "message": message})


def read_error_notes(folder: RunStore) -> tuple[list[str], bool]:
    """Return the messages that were noted, each once, and whether a command ended with them."""
    files = folder.files(ERROR_NOTES)
    read = [folder.read_json(file) for file in files]
    return list(_join((note["place"], note["message"]) for note in read)), _END_NOTE in files


def _join(failures: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield messages, each once, after the places where it was, which it may name itself; of places and messages."""
    locations: dict[str, set[str]] = {}
    for location, message in failures:
        locations.setdefault(message, set()).update([] if location in message else [location])
    for message, named in locations.items():
        others = f" and {len(named) - _PLACES:,} more" if len(named) > _PLACES else ""
        yield f"{', '.join(sorted(named)[:_PLACES])}{others}: {message}" if named else message
