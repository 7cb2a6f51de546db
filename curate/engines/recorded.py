"""The engine that replays answers: of an earlier run, or of any Parquet files in the layout of table `answers`.

In: columns digest, answer, error, finish (string), tokens_in, tokens_out (int32), as `schema.ANSWERS` has them; others are
not looked at. Out: the row of a request's digest as its answer, errors too; `unknown` where there is none. Where a digest
is in several rows, a text comes before an error, and then the first row.

A digest holds the engine's name for its model: so `model` must be what the run that is replayed called it, and prompts
and sampling must be the same. All rows are held in memory, for tests and small runs.
"""

import threading
from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from curate import ids, schema
from curate.engines.options import EngineOptions
from curate.engines.request import Answer, Request
from curate.errors import RecipeError
from curate.pool.listing import InputFile, list_files
from curate.recipe.section import UserPath
from curate.wording import one_line

LAYOUT = pa.schema(
    [schema.ANSWERS.field(name) for name in ("digest", "answer", "error", "tokens_in", "tokens_out", "finish")]
)


class Recorded(EngineOptions):
    """Answers of an earlier run, or any Parquet files of table `answers`; what they do not hold is an error.

    Attributes:
        path: a run's folder, or Parquet files by path, brace range or glob, on any fsspec file system.
        model: what the run that is replayed called its model.
    """

    path: UserPath = Field(min_length=1)
    model: str = Field(min_length=1)

    def open(self) -> "RecordedEngine":
        """See `EngineOptions`."""
        return RecordedEngine(self)

    def fingerprint(self) -> str:
        """See `EngineOptions`: what changes with the files."""
        try:
            return ids.digest([[file.path, file.size, file.fingerprint] for file in _list_files(self.path)])
        except RecipeError:  # which the engine raises when it reads them
            return ""


class RecordedEngine:
    """An engine of answers that are there; see the module. They are read once, at `check` or the first `ask`."""

    def __init__(self, options: Recorded):
        self.options = options
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] | None = None

    @property
    def model(self) -> str:
        """What the run that is replayed called its model."""
        return self.options.model

    def check(self) -> None:
        """Read the answers. Raises RecipeError where a file is missing, is not Parquet or has another layout."""
        self._load()

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the recorded answer of each request, in order. Raises RecipeError as `check` does."""
        answers = self._load()
        return [self._find(answers, request.digest(self.model)) for request in requests]

    def close(self) -> None:
        """Forget the answers; a later `ask` reads them again."""
        with self._lock:
            self._answers = None

    def _find(self, answers: dict[str, Answer], digest: str) -> Answer:
        return answers.get(digest) or Answer(
            None, f"unknown: no answer to {digest} of {self.model} among the {len(answers)} recorded"
        )

    def _load(self) -> dict[str, Answer]:
        with self._lock:
            if self._answers is None:
                self._answers = _read_answers(self.options.path)
            return self._answers


def _read_answers(path: str) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for file in _list_files(path):
        for row in _read_table(file.path).to_pylist():
            text, error = row["answer"], row["error"]
            if text is None and error is None:
                error = "malformed: the recorded row holds neither an answer nor an error"
            known = answers.get(row["digest"])
            if known is None or (known.error is not None and error is None):
                answers[row["digest"]] = Answer(
                    text, error, row["tokens_in"] or 0, row["tokens_out"] or 0, row["finish"]
                )
    return answers


def _list_files(path: str) -> list[InputFile]:
    fs, inner = fsspec.core.url_to_fs(path)
    if fs.isdir(inner):
        path = f"{path.rstrip('/')}/tables/answers/*.parquet"
    return list_files((path,), {})


def _read_table(name: str) -> pa.Table:
    try:
        with fsspec.open(name, "rb") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)  # read by this thread alone, as in RunStore.read_parquet
            found = parquet.schema_arrow
            wrong = [
                field for field in LAYOUT if field.name not in found.names or found.field(field.name).type != field.type
            ]
            if wrong:
                raise RecipeError(
                    f"{name}: is no table of answers: it has {_list(found)}; accepted: a file with {_list(wrong)}"
                )
            return parquet.read(LAYOUT.names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise RecipeError(f"{name}: cannot be read as Parquet: {one_line(error, 300)}") from None


def _list(fields: pa.Schema | list[pa.Field]) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in fields) or "no column"
