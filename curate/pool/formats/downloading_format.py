"""The interface of an input format whose rows are in files that the run itself makes, by downloading them: what else is asked of it."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.pool.formats.input_format import InputFormat, InputPart, Retry
from curate.pool.urls.download.rates import Rates
from curate.recipe.source import Source
from curate.store.store import RunStore


@dataclass(frozen=True)
class Outlook:
    """What fetching the parts of a source will take.

    Attributes:
        rows: of all parts, such as URLs.
        left: those of parts that are not there yet.
        parts: how many are not.
        at_once: how many parts of a unit are fetched at once.
        rates: what is known, or assumed, of a row.
    """

    rows: int
    left: int
    parts: int
    at_once: int
    rates: Rates


class DownloadingFormat(InputFormat):
    """An input format that downloads; see `InputFormat`, whose `fetch` it implements.

    Rows are those of lists. A run may try some of them again, in rounds: these are in parts of their own then (`InputPart.retry`), and
    left out of the parts that had them before.
    """

    @abstractmethod
    def share(self, source: Any, parts: Sequence[InputPart], run: RunStore) -> None:
        """Put into the folder of the run what each process would else make for itself of its files. Raises OSError."""

    @abstractmethod
    def fetched(self, source: Any, parts: Sequence[InputPart]) -> list[tuple[Source, frozenset[InputPart]]]:
        """Return which parts need not be fetched any more: for each place that may have some a source that reads them there."""

    @abstractmethod
    def outlook(self, source: Any, parts: Sequence[InputPart]) -> Outlook:
        """Return what fetching parts will take. `source` is placed in the run. Raises OSError."""

    @abstractmethod
    def clear(self, source: Any, shard: str, keys: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
        """Take samples out of what was downloaded, and return the files of the run that were rewritten.

        Args:
            source: the source, placed in a run.
            shard: as `shard` gives it.
            keys: of the samples.
            spans: offset and size of each of their members.
        """

    @abstractmethod
    def read_attempts(self, source: Any, shard: str, keys: Sequence[str | None]) -> pa.Table:
        """Return schema.ATTEMPTS of the samples of a shard (see `shard`) with these keys, null where they are not known. Raises OSError."""

    @abstractmethod
    def is_allowed_now(self, source: Any, reason: str, detail: str) -> bool:
        """Return whether a row was refused, for this reason, by limits that the source does not have, as of an older recipe."""

    @abstractmethod
    def list_key(self, source: Any, part: InputPart) -> str:
        """Return the digest of the list that a part is of, and of all that determines what becomes of its rows."""

    @abstractmethod
    def list_row(self, source: Any, part: InputPart, key: str) -> int:
        """Return which row of its list the sample of a part with this key is."""

    @abstractmethod
    def retry_parts(self, source: Any, of: InputPart, retry: Retry, later: Collection[int]) -> list[InputPart]:
        """Return the parts that have these rows of a list again, of which `of` is a part, but those of a later round."""

    @abstractmethod
    def left_out_keys(self, source: Any, part: InputPart) -> list[str]:
        """Return the keys of the samples that a part leaves out."""
