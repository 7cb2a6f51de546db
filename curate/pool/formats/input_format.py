"""What an input format is: the interface of every file of this folder which reads a kind of input.

A format lists the parts of a source, reads each part once to be measured, and some rows of it again to be emitted,
captioned or shown.
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
from curate.base.wording import pluralise
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
Embeddings = Sequence[PrecomputedEmbeddings]  # that a source is to supply
_SUPPLIED = ("uid", "url", "key", "width", "height", "language")


@dataclass(frozen=True, slots=True)
class InputPart:
    """What units are made of: a file, or a piece of one that can be read alone. Its rows are numbered from 0."""

    path: str  # of the file
    size: int  # bytes
    fingerprint: str  # differs where the file does (see `curate.read.listing.InputFile`)
    groups: tuple[int, int] | None = None  # of a piece, its first group of the file and the one behind its last
    rows: int | None = None  # how many it has; None where listing does not state it
    fault: tuple[str, str] | None = None  # reason and detail, where the file cannot be used
    sidecar_fingerprint: str = ""  # of the file beside it that supplies embeddings; empty where there is none
    listing_fingerprint: str = ""  # of the file beside it that lists its samples, on which its rows depend
    retry: Retry | None = None  # of a part that has rows of its file again, because they may come now: which
    left_out: tuple[int, ...] = ()  # numbers of the rows that such a part has instead; `rows` does not count them
    limit: int | None = None  # only so many of its first rows are measured, for an estimate


@dataclass(frozen=True)
class FileColumns:
    """What one kind of a source's files holds."""

    has_images: bool
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # all columns; emitted of files without images
    supplied: frozenset[str] = frozenset()  # which of uid, url, key, width, height and language there are
    scores: tuple[str, ...] = ()  # the names of columns that land in table `scores`
    nameable: tuple[str, ...] = ()  # of further ones that land there where an expression of the recipe names them

    @classmethod
    def of(cls, schema: pa.Schema, wanted: Columns) -> Self:
        """Return what files with these columns hold. Raises InputError where the caption's is missing, or misfits."""
        roles = find_columns(schema, wanted)
        supplied, scores = frozenset(part for part in _SUPPLIED if getattr(roles, part)), roles.scores or ()
        nameable = tuple(f.name for f in schema if f.name not in scores and score_type(f.type) is not None)
        return cls(bool(roles.image), schema, supplied, scores, nameable if wanted.scores is None else ())


@dataclass(frozen=True)
class PlannedSource:
    """What is known of a source once it is listed."""

    parts: tuple[InputPart, ...]  # in order; consecutive ones are grouped into units
    columns: tuple[FileColumns, ...]  # of each kind of file that can be used, in order of appearance
    dimensions: dict[str, int] = field(default_factory=dict)  # of the supplied `measure.embeddings`, by name


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a part, as the input has them."""

    # Of equal length, by their names in `samples`: `caption` (text or bytes) always; key, url, uid (the input's own),
    # width, height, language, bytes, offset, original_sha256 (as stated, of the image as first downloaded, or as
    # stored) where there are any
    columns: dict[str, pa.Array]
    faults: tuple[pa.Array, pa.Array] | None = None  # status and error of each row (string), where some are unusable
    # From a mask of wanted rows to one item a row, read as they are requested: the bytes of its image, None where it is
    # not wanted or has none. None: rows without images
    images: Callable[[Mask], Iterator[bytes | memoryview | None]] | None = None
    scores: dict[str, pa.ChunkedArray] = field(default_factory=dict)  # that the input supplies, by name
    members: tuple[pa.Array, pa.Array, pa.Array] | None = None  # suffix, offset, size of `schema.MEMBERS`
    # From the names of the image's and the text's embeddings, their dimension and the mask of usable rows to two
    # columns (see `curate.base.numeric.vectors`); raises `curate.read.errors.EmbeddingError`
    embeddings: Callable[[tuple[str, str], int, Mask], tuple[pa.Array, pa.Array]] | None = None
    # How many values the fields of rows with images have (see `InputSample`), columns beside the shards then
    fields: FieldCounts = field(default_factory=Counter)
    # Of a source whose rows are links of pages, graphics of articles, or files: how many there were, and how many are
    # no rows, by reason or suffix
    links: Counter[str] = field(default_factory=Counter)
    damaged: str = ""  # status of rows whose image cannot be decoded; empty: what `measure_image` says


Batches = Iterator[Batch]


@dataclass(frozen=True)
class PartRows:
    """Rows of a part that are read again."""

    places: Places  # ascending row numbers within the part
    # Their columns of table `samples`: format for `reread`, and offset where the format has no members; offset and
    # bytes for `reread_images`; key and offset for `reread_table`
    samples: pa.Table
    members: pa.Table | None = None  # suffix, offset and size of table `members`; None where the format has none


class InputSample(NamedTuple):
    """A sample as it came."""

    members: list[tuple[str, bytes | memoryview]]  # suffix (lower case) and bytes of each file but .txt and .json
    fields: Mapping[str, Any] = MappingProxyType({})  # of the .json, or columns that are not stored elsewhere
    text: bytes | memoryview = b""  # of the .txt; empty where there is none
    json: bytes | memoryview = b""  # the .json, which `fields` are of; empty where there is none


@dataclass(frozen=True)
class Recognized:
    """How a format would read what is at a path."""

    keys: dict[str, Any]  # of the source, besides `name` and `format`
    files: int  # how many of the files it reads: of several formats, the one that reads the most is meant
    template: str = "basic"  # the shipped recipe whose other sections suit it
    columns: tuple[str, ...] = ()  # that the files have, as far as it was seen


def need_package(source: Source, package: str, extra: str) -> None:
    """Raise RecipeError where a package that a format needs is not installed."""
    if find_spec(package) is None:
        remedy = f"install it with: pip install '.[{extra}]' in a checkout of curate"
        raise source.error(f"format {source.format} needs the package {package}; {remedy}")


class InputFormat(ABC):
    """The interface that every input format implements."""

    key: ClassVar[str]  # its name in a recipe, as in `format: webdataset`
    section: ClassVar[type[Source]] = Source  # the keys of such a source; a pydantic class derived from `Source`
    has_members: ClassVar[bool] = False  # whether rows are members at byte offsets, which table `members` lists
    suffixes: ClassVar[tuple[str, ...]] = ()  # of its files, in lower case, where these suffice to recognize them
    opens_files: ClassVar[bool] = True  # whether `plan` notices files of another format

    @abstractmethod
    def plan(self, source: Any, embeddings: Embeddings, content: bool) -> PlannedSource:
        """List the parts of a source (an object of `section`), which is to supply some embeddings.

        With `content`, fingerprints are of contents instead of size and etag or mtime. Raises RecipeError where a file
        is missing or none can be used, OSError where they cannot be listed.
        """

    def recognize(self, listed: FoundFiles) -> Recognized | None:
        """Return how to read what is at a path; None where this format does not, or cannot say.

        `curate init PATH` writes it into a recipe, and errors of other formats name it. Only a few files are opened.
        """
        names = listed.ending(*self.suffixes) if self.suffixes else []
        return Recognized({"path": listed.pattern(*self.suffixes)}, len(names)) if names else None

    def fetch(self, source: Any, parts: Sequence[InputPart]) -> None:  # noqa: B027 (most formats have nothing to do)
        """Make sure that parts can be read, again too, where they must be fetched before. Raises OSError."""

    def share(self, source: Any, parts: Sequence[InputPart], run: RunStore) -> None:  # noqa: B027 (likewise)
        """Put into the run's folder what planning wrote down of parts, for all processes. Raises OSError."""

    @abstractmethod
    def read(self, source: Any, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        """Read all rows of a part without a fault, in order; the same each time, unless the part's fingerprint changes.

        `scores` are the columns that land in table `scores`; `output`, of a pool without images, those that
        `reread_table` gives, so that what cannot be emitted is noticed now. Raises
        `curate.read.errors.InputError` where the part is damaged (the rows that came before are used), OSError
        where it cannot be read now.
        """

    @abstractmethod
    def reread(self, source: Any, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read samples again, with all their members. Raises OSError."""

    def reread_images(self, source: Any, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read the image of each row again; None where it is not whole. Raises OSError."""
        for sample in self.reread(source, part, rows):
            yield next((bytes(data) for suffix, data in sample.members if suffix in IMAGE_SUFFIXES), None)

    def reread_table(self, source: Any, part: InputPart, rows: PartRows, output: pa.Schema) -> pa.Table:
        """Read rows without images again, as a table of these columns. Raises OSError."""
        samples = self.reread(source, part, rows)
        return pa.Table.from_pylist([sample.fields for sample in samples], schema=output)

    def missing_column(self, source: Any, name: str) -> str:
        """Return what to change in a source so that expressions see a column of its inputs; empty without one."""
        return ""

    def resized(self, source: Any, path: str) -> str:
        """Return how images lost the sizes that rules may mean, by the source or its first file; empty where not."""
        return ""

    def url_column(self, source: Any, output: pa.Schema) -> str | None:
        """Return the column that holds URLs, as the source names it, of those that a pool without images emits."""
        named = getattr(source, "columns", None)
        try:
            return find_columns(output, named if isinstance(named, Columns) else Columns()).url
        except InputError:  # columns of another source
            return None

    def state(self, path: str, storage: dict[str, Any]) -> str:
        """Return what differs where what is at a part's path does. Raises OSError."""
        return file_state(path, storage)

    def example_file(self, source: Any, part: InputPart) -> str | None:
        """Return a file of a part, which workers try to read before the run; None without one. Raises OSError."""
        return part.path

    def shards(self, source: Any, part: InputPart, samples: pa.Table) -> pa.Array:
        """Return column `shard` of table `samples`, of which these are a part's rows."""
        return pa.repeat(self.shard(source, part), len(samples))

    def shard(self, source: Any, part: InputPart) -> str:
        """Return what column `shard` of table `samples` says of a part's rows."""
        return part.path

    def describe(self, parts: Sequence[InputPart]) -> str:
        """Return how many files, or what else people count, the parts of a source are."""
        return pluralise(len({part.path for part in parts}), "file")

    def weight(self, part: InputPart, has_images: bool) -> int:
        """Return how much of a unit the part takes: bytes of a pool with images, rows of one without."""
        return part.size if has_images else part.rows or 0
