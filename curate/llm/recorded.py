"""The engine that replays answers from an earlier run, or from any Parquet files with the layout of table `answers`.

In: the columns of `LAYOUT`. Out: the answer or error in the row with the request's digest. If there is no such row, the
error is `unknown`. If several rows have the digest, the first text wins, or else the first error. Digests include the
engine's model name, prompts and sampling, so all of these must be the same as in the replayed run. All answers are in
memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
from pydantic import Field

from curate.base import ids, schema
from curate.base.decoded_size import MAX_DECODED, check_decoded, read_footer
from curate.base.errors import RecipeError, reraised
from curate.base.process import Cache
from curate.llm.engine import Answer, Engine, EngineOptions, Request
from curate.read.listing import InputFile, list_files
from curate.recipe.section import UserFile

LAYOUT = pa.schema(map(schema.ANSWERS.field, ("digest", "answer", "error", "tokens_in", "tokens_out", "finish")))


class Recorded(EngineOptions):
    """Replays the answers of an earlier run. A request without a recorded answer fails."""

    example: ClassVar[Any] = {"path": "run1", "model": "my-vlm"}

    path: UserFile = Field(examples=["run1"])
    """Folder of a run, or Parquet files of its table `answers`. The path may have ranges and globs."""
    model: str = Field(examples=["my-vlm"], min_length=1)
    """Name of the model in the recorded run."""

    def open(self) -> "RecordedEngine":
        return RecordedEngine(self)

    def fingerprint(self) -> str:
        """See `EngineOptions`. Changes with the files."""
        with suppress(RecipeError):  # the engine raises it when it reads the files
            return ids.digest([[file.path, file.size, file.fingerprint] for file in _list_files(self.path)])
        return ""


class RecordedEngine(Engine):
    """An engine that replays answers; see the module. It reads them once, at `check` or the first request."""

    def __init__(self, options: Recorded):
        self._options, self._read = options, Cache[dict[str, Answer]]()

    @property
    def model(self) -> str:
        return self._options.model

    def check(self) -> None:
        """See `Engine`. Raises RecipeError if a file is missing, is not Parquet or has another layout."""
        self._answers()

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield each request's recorded answer, in order. Raises RecipeError like `check`."""
        answers = self._answers()
        for index, digest in enumerate(request.digest(self.model) for request in requests):
            unknown = f"none of the {len(answers)} recorded answers is for request {digest} to {self.model}"
            yield index, answers.get(digest) or Answer(None, f"unknown: {unknown}")

    def _answers(self) -> dict[str, Answer]:
        return self._read.get("", partial(_read_answers, self._options.path))


def _read_answers(path: str) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for file in _list_files(path):
        for row in _read_table(file.path).to_pylist():
            if row["answer"] is None and row["error"] is None:
                row["error"] = "malformed: the recorded row has neither an answer nor an error"
            earlier = answers.get(row["digest"])
            if earlier is None or (earlier.error is not None and row["error"] is None):
                answers[row["digest"]] = Answer.of_row(row)
    return answers


def _list_files(path: str) -> list[InputFile]:
    fs, inner = fsspec.core.url_to_fs(path)
    if fs.isdir(inner):
        path = f"{path.rstrip('/')}/tables/answers/*.parquet"
    try:
        return list_files((path,), {})
    except RecipeError as error:
        accepted = "accepted: the folder of a `curate run` with captions, or Parquet files of its table answers"
        raise RecipeError(f"{error}; {accepted}") from None


def _read_table(name: str) -> pa.Table:
    unreadable = reraised(RecipeError, f"{name}: cannot be read as Parquet", OSError, pa.ArrowException)
    with unreadable, fsspec.open(name, "rb") as file:
        footer = read_footer(file)
        columns = [f"{field.name} {field.type}" for field in footer.schema.to_arrow_schema()]
        if wrong := [column for field in LAYOUT if (column := f"{field.name} {field.type}") not in columns]:
            problem = f"is not a table of answers: it has {', '.join(columns) or 'no column'}"
            raise RecipeError(f"{name}: {problem}; accepted: a file with {', '.join(wrong)}")
        checked = check_decoded(file, footer, range(footer.num_row_groups), LAYOUT.names, MAX_DECODED)
        return checked.read(LAYOUT.names, use_threads=False)
