"""Error notes: error messages in files of the run folder, because runners garble exceptions.

Notes are written for curate's errors, and for all errors that end the work on a unit. A runner passes exceptions on as
text, wraps and annotates them, and may retry the failed work. So each note has an id, and the raised exception names
this id. The notes that the runner's last exception names say why the run ended.

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
_END_NOTE = f"{ERROR_NOTES}/run.json"  # the message with which the last command ended
_IDS = re.compile(r" \(error notes? ([0-9a-f ]{32,})\)")
_NOTES, _PLACES = 100, 5  # maximum number of notes read for an error, and of places named in a message


@contextmanager
def noting_errors(folder: RunStore, location: str = "") -> Iterator[None]:
    """Write a note if an error of curate or of a plugin ends the block, and raise a RunError that names the note.

    With a place, such as a unit, the note names it, and all other errors get notes too.
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
        with suppress(Exception):  # a failed write must not hide the error
            values = {"place": location, "message": message, "is_ours": is_ours}
            folder.write_json(f"{ERROR_NOTES}/{note}.json", values)
        may_pass = not getattr(error, "permanent", is_ours)
        kind = TransientError if may_pass else RunError
        raise kind(f"{''.join(_join([(location, message)]))} (error note {note})") from error


def join_errors(errors: Sequence[Exception]) -> Exception:
    """Join several errors and their notes into one error; return a single error as it is."""
    if len(errors) == 1:
        return errors[0]
    notes = " ".join(note for error in errors for note in _IDS.findall(str(error))[-1:])
    kind = RunError if all(getattr(error, "permanent", False) for error in errors) else TransientError
    return kind("; ".join(_IDS.sub("", str(error)) for error in errors) + (f" (error notes {notes})" if notes else ""))


def read_error_note(folder: RunStore, error: BaseException, hint: str = "") -> str | None:
    """Return the messages in the notes behind a runner's exception; None if another failure ended the run.

    If one of them is not an error of curate, the hint is added.
    """
    for notes in _IDS.findall(str(error))[-1:]:  # the last of several attempts
        files = [file for note in notes.split()[:_NOTES] if folder.exists(file := f"{ERROR_NOTES}/{note}.json")]
        if read := [folder.read_json(file) for file in files]:
            message = "\n".join(_join((note["place"], note["message"]) for note in read))
            return message if all(note["is_ours"] for note in read) else f"{message}\n{hint}".rstrip()
    return None


def note_end(folder: RunStore, message: str) -> None:
    """Replace all notes by the message with which a command ends. An empty message leaves no note."""
    folder.delete(ERROR_NOTES)
    if message:
        with suppress(Exception):  # as above
            folder.write_json(_END_NOTE, {"place": "", "message": message})


def read_error_notes(folder: RunStore) -> tuple[list[str], bool]:
    """Return the distinct messages in notes, and whether a command ended with them."""
    files = folder.files(ERROR_NOTES)
    read = [folder.read_json(file) for file in files]
    return list(_join((note["place"], note["message"]) for note in read)), _END_NOTE in files


def _join(failures: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield distinct messages from pairs of place and message. A message's places come first, unless it names them."""
    locations: dict[str, set[str]] = {}
    for location, message in failures:
        locations.setdefault(message, set()).update([] if location in message else [location])
    for message, named in locations.items():
        others = f" and {len(named) - _PLACES:,} more" if len(named) > _PLACES else ""
        yield f"{', '.join(sorted(named)[:_PLACES])}{others}: {message}" if named else message
