"""The registry of input formats.

To add one to curate, add a module and a line here. To add one from another package, register an instance of its class
as an entry point in the group `curate.formats`. The entry point's name is the format's key.
"""

from contextlib import suppress

from curate.base.errors import RecipeError
from curate.pool.crawl.format import CommonCrawlInput
from curate.pool.files.format import FilesInput
from curate.pool.formats.found_files import MAX_NAMES, FoundFiles
from curate.pool.formats.input_format import Embeddings, InputFormat, PlannedSource, Recognized
from curate.pool.formats.parquet import ParquetInput
from curate.pool.formats.run import RunInput
from curate.pool.formats.webdataset import WebdatasetInput
from curate.pool.pmc.format import PmcInput
from curate.pool.urls.format import UrlsInput
from curate.recipe.source import FORMATS, Source

KINDS: tuple[InputFormat, ...] = (
    WebdatasetInput(),
    FilesInput(),
    ParquetInput(),
    RunInput(),
    UrlsInput(),
    CommonCrawlInput(),
    PmcInput(),
)


def find_format(source: Source) -> InputFormat:
    """Return the format of a source."""
    kind: InputFormat = FORMATS.find(source.format)
    return kind


def recognize(listed: FoundFiles) -> tuple[str, Recognized] | None:
    """Return the key of the format that reads the most files, and how it reads them; None if no format reads any.

    On a tie, a format from another package wins.
    """
    kinds = sorted(FORMATS.kinds(), key=lambda key: FORMATS.package(key) is None)
    recognized = [(key, found_by) for key in kinds if (found_by := FORMATS.find(key).recognize(listed))]
    return max(recognized, key=lambda pair: pair[1].files, default=None)


def suggest(source: Source, listed: FoundFiles) -> str:
    """Return which other format reads more of a source's files, for a message; empty if none does."""
    by_itself, other = find_format(source).recognize(listed), recognize(listed)
    if other is None or (by_itself and by_itself.files >= other[1].files):
        return ""
    remedy = f"`curate init {listed.path}` writes a recipe"
    return f"format: {other[0]} can read {listed.path} ({listed.describe()}); {remedy}"


def plan_source(source: Source, embeddings: Embeddings, content: bool) -> PlannedSource:
    """Return a source's listing. Raises a RecipeError, which names the format that can read the files, if any."""
    kind, hint = find_format(source), ""
    try:
        planned = kind.plan(source, embeddings, content)
    except RecipeError as error:
        # not if the store failed, because it would block again
        if source.paths and not isinstance(error.__context__, OSError):
            with suppress(RecipeError, OSError):
                hint = suggest(source, FoundFiles.look(source.paths[0], source.storage))
        if hint:
            raise RecipeError(f"{error}; {hint}") from None
        raise
    if not kind.opens_files:
        names = tuple(part.path for part in planned.parts[:MAX_NAMES])
        if hint := suggest(source, FoundFiles(source.paths[0], names, source.storage)):
            raise source.error(hint)
    return planned


def find_downloading(source: Source) -> UrlsInput | None:
    """Return the format of a source that downloads; None for any other."""
    kind = find_format(source)
    return kind if isinstance(kind, UrlsInput) else None
