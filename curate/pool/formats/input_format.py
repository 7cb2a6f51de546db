"""The interface of input formats, which every format in this folder implements.

A format lists a source's parts, reads each part once for measuring, and reads some rows again for shards, captions, or
pages.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base.numeric.arrays import Mask
from curate.base.wording import pluralize
from curate.download.retry_record import Retry
from curate.pool.formats.found_files import FoundFiles
from curate.read.columns import Columns, find_columns, score_type
from curate.read.errors import InputError
from curate.read.field_types import FieldCounts
from curate.read.listing import file_state
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.source import Source
from curate.store.store import RunStore

Places = npt.NDArray[np.int64]
Embeddings = Sequence[PrecomputedEmbeddings]  # the embeddings that a source should supply
_SUPPLIED = ("uid", "url", "key", "width", "height", "language")


@dataclass(frozen=True, slots=True)
class InputPart:
    """A file, or a piece of one that can be read alone. Units consist of parts. A part's rows are numbered from 0."""

    path: str  # of the file
    size: int  # bytes
    fingerprint: str  # changes when the file does (see `curate.read.listing.InputFile`)
    groups: tuple[int, int] | None = None  # for a piece: its first group in the file, and the one after its last
    rows: int | None = None  # None if unknown before the file is read
    fault: tuple[str, str] | None = None  # reason and detail, if the file cannot be used
    sidecar_fingerprint: str = ""  # for the file beside it with embeddings; empty if there is none
    listing_fingerprint: str = ""  # for the file beside it that lists its samples and affects its rows
    retry: Retry | None = None  # set if this part retries rows of a file
    left_out: tuple[int, ...] = ()  # rows that other parts retry; `rows` does not count them
    limit: int | None = None  # for estimates: measure only the first rows


@dataclass(frozen=True)
class FileColumns:
    """The columns of some files of a source. A source has one of these for each distinct set of columns."""

    has_images: bool
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # all columns; written if there are no images
    supplied: frozenset[str] = frozenset()  # which of uid, url, key, width, height, and language exist
    scores: tuple[str, ...] = ()  # columns that go into table `scores`
    nameable: tuple[str, ...] = ()  # further columns that go there if an expression names them

    @classmethod
    def of(cls, schema: pa.Schema, wanted: Columns) -> Self:
        """Return the roles of a file's columns. Raises InputError if the caption column is missing or not text."""
        roles = find_columns(schema, wanted)
        supplied, scores = frozenset(part for part in _SUPPLIED if getattr(roles, part)), roles.scores or ()
        nameable = tuple(f.name for f in schema if f.name not in scores and score_type(f.type) is not None)
        return cls(bool(roles.image), schema, supplied, scores, nameable if wanted.scores is None else ())


@dataclass(frozen=True)
class PlannedSource:
    """A listed source."""

    parts: tuple[InputPart, ...]  # in order; units group consecutive ones
    columns: tuple[FileColumns, ...]  # of each kind of usable file, in order of appearance
    dimensions: dict[str, int] = field(default_factory=dict)  # of the supplied `measure.embeddings`, by name


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a part."""

    # Columns of equal length, by their name in table `samples`. `caption` (text or bytes) is required. These are
    # optional: key, url, uid (the input's own), width, height, language, bytes, offset, and original_sha256 (as the
    # input states it, for the original download or for the stored image)
    columns: dict[str, pa.Array]
    faults: tuple[pa.Array, pa.Array] | None = None  # status and error of each row (string), if some are unusable
    # A function that takes a mask of wanted rows. It returns an iterator with one item per row: the bytes of its image,
    # or None if the image is not wanted or missing. None instead of the function: the rows have no images
    images: Callable[[Mask], Iterator[bytes | memoryview | None]] | None = None
    scores: dict[str, pa.ChunkedArray] = field(default_factory=dict)  # supplied by the input, by name
    members: tuple[pa.Array, pa.Array, pa.Array] | None = None  # suffix, offset, size of `schema.MEMBERS`
    # A function that takes the names of the image's and the text's embeddings, their dimension, and the mask of usable
    # rows. It returns two columns (see `curate.base.numeric.vectors`) or raises `curate.read.errors.EmbeddingError`
    embeddings: Callable[[tuple[str, str], int, Mask], tuple[pa.Array, pa.Array]] | None = None
    # Counts of values in the fields of rows with images (see `InputSample`), which become columns beside the shards
    fields: FieldCounts = field(default_factory=Counter)
    # If rows are links in pages, graphics in articles, or files: how many were found, and how many did not become rows,
    # by reason or suffix
    links: Counter[str] = field(default_factory=Counter)
    damaged: str = ""  # status of rows with undecodable images; empty: as `measure_image` reports


Batches = Iterator[Batch]


@dataclass(frozen=True)
class PartRows:
    """Rows of a part to read again."""

    places: Places  # ascending row numbers in the part
    # Columns of table `samples`. `reread` uses format, and offset if the format has no members; `reread_images` uses
    # offset and bytes; `reread_table` uses key and offset
    samples: pa.Table
    members: pa.Table | None = None  # suffix, offset, and size of table `members`; None if the format has none


class InputSample(NamedTuple):
    """A sample as it is in the input."""

    members: list[tuple[str, bytes | memoryview]]  # suffix (lower case) and bytes of each file except .txt and .json
    fields: Mapping[str, Any] = MappingProxyType({})  # of the .json, or columns that are stored nowhere else
    text: bytes | memoryview = b""  # the .txt; empty if there is none
    json: bytes | memoryview = b""  # the .json with `fields`; empty if there is none


@dataclass(frozen=True)
class Recognized:
    """How a format would read a path."""

    keys: dict[str, Any]  # keys of the source besides `name` and `format`
    files: int  # number of files that it reads; the format that reads the most wins
    template: str = "basic"  # the shipped recipe that supplies the other sections
    columns: tuple[str, ...] = ()  # columns seen in the files


def need_package(source: Source, package: str, extra: str) -> None:
    """Raise RecipeError if a package that a format needs is not installed."""
    if find_spec(package) is None:
        remedy = f"install it with: pip install '.[{extra}]' in a checkout of curate"
        raise source.error(f"format {source.format} needs the package {package}; {remedy}")


class InputFormat(ABC):
    """The interface of input formats."""

    key: ClassVar[str]  # its name in a recipe, as in `format: webdataset`
    section: ClassVar[type[Source]] = Source  # the keys of such a source; a pydantic class derived from `Source`
    has_members: ClassVar[bool] = False  # whether rows are members at byte offsets, listed in table `members`
    suffixes: ClassVar[tuple[str, ...]] = ()  # of its files, in lower case, if suffixes suffice to recognize them
    opens_files: ClassVar[bool] = True  # whether `plan` notices files of another format

    @abstractmethod
    def plan(self, source: Any, embeddings: Embeddings, content: bool) -> PlannedSource:
        """List the parts of a source, which is an instance of `section` and should supply these embeddings.

        With `content`, fingerprints are digests of contents instead of size and etag or mtime. Raises RecipeError if a
        file is missing or if no file can be used, OSError if listing fails.
        """

    def recognize(self, listed: FoundFiles) -> Recognized | None:
        """Return how to read a path; None if this format cannot read it, or cannot tell whether it can.

        `curate init PATH` writes the result to a recipe, and errors of other formats mention it. This opens only a few
        files.
        """
        names = listed.ending(*self.suffixes) if self.suffixes else []
        return Recognized({"path": listed.pattern(*self.suffixes)}, len(names)) if names else None

    def fetch(self, source: Any, parts: Sequence[InputPart]) -> None:  # noqa: B027 (most formats have nothing to do)
        """Fetch parts that must be fetched before they are read, unless this was done. Raises OSError."""

    def share(self, source: Any, parts: Sequence[InputPart], run: RunStore) -> None:  # noqa: B027 (likewise)
        """Write planning data about parts to the run's folder, for all processes. Raises OSError."""

    @abstractmethod
    def read(self, source: Any, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        """Read all rows of a part that has no fault, in order. The same fingerprint must give the same rows.

        `scores` are the columns for table `scores`. If the pool has no images, `output` are the columns that
        `reread_table` will return: errors in them must be raised now. Raises `curate.read.errors.InputError` if the
        part is damaged (curate still uses the rows before the damage), OSError if it cannot be read now.
        """

    @abstractmethod
    def reread(self, source: Any, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read samples again, with all their members. Raises OSError."""

    def reread_images(self, source: Any, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read each row's image again; None if it is incomplete. Raises OSError."""
        for sample in self.reread(source, part, rows):
            yield next((bytes(data) for suffix, data in sample.members if suffix in IMAGE_SUFFIXES), None)

    def reread_table(self, source: Any, part: InputPart, rows: PartRows, output: pa.Schema) -> pa.Table:
        """Read rows without images again, as a table with these columns. Raises OSError."""
        samples = self.reread(source, part, rows)
        return pa.Table.from_pylist([sample.fields for sample in samples], schema=output)

    def missing_column(self, source: Any, name: str) -> str:
        """Return a hint how to make an input column available to expressions; empty if there is none."""
        return ""

    def resized(self, source: Any, path: str) -> str:
        """Return a message if images were resized and rules cannot use the original sizes; empty otherwise."""
        return ""

    def url_column(self, source: Any, output: pa.Schema) -> str | None:
        """Return the URL column among those that a pool without images writes; the source may name it."""
        named = getattr(source, "columns", None)
        try:
            return find_columns(output, named if isinstance(named, Columns) else Columns()).url
        except InputError:  # columns of another source
            return None

    def state(self, path: str, storage: dict[str, Any]) -> str:
        """Return a digest that changes when the content at a part's path does. Raises OSError."""
        return file_state(path, storage)

    def example_file(self, source: Any, part: InputPart) -> str | None:
        """Return a file of a part that workers try to read before the run, or None. Raises OSError."""
        return part.path

    def shards(self, source: Any, part: InputPart, samples: pa.Table) -> pa.Array:
        """Return column `shard` of table `samples` for rows of a part."""
        return pa.repeat(self.shard(source, part), len(samples))

    def shard(self, source: Any, part: InputPart) -> str:
        """Return the text in column `shard` of table `samples` for a part's rows."""
        return part.path

    def describe(self, parts: Sequence[InputPart]) -> str:
        """Return how many files, or other countable items, a source's parts come from."""
        return pluralize(len({part.path for part in parts}), "file")

    def weight(self, part: InputPart, has_images: bool) -> int:
        """Return what the part adds to a unit's size: bytes in a pool with images, rows in a pool without."""
        return part.size if has_images else part.rows or 0
