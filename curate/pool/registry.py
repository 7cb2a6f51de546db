"""The registry of input formats.

A new one is a file of `formats` and a line here, or the entry point of another package in the group `curate.formats`,
named as its key and naming an object of its class.
"""

from curate.pool.crawl.format import CommonCrawlInput
from curate.pool.files.format import FilesInput
from curate.pool.formats.input_format import InputFormat
from curate.pool.formats.parquet import ParquetInput
from curate.pool.formats.run import RunInput
from curate.pool.formats.webdataset import WebdatasetInput
from curate.pool.pmc.format import PmcInput
from curate.pool.urls.format import UrlsInput
from curate.recipe.source import FORMATS, Source

KINDS: tuple[InputFormat, ...] = (
    WebdatasetInput(),
    ParquetInput(),
    RunInput(),
    FilesInput(),
    UrlsInput(),
    CommonCrawlInput(),
    PmcInput(),
)


def find_format(source: Source) -> InputFormat:
    """Return the format of a source."""
    kind: InputFormat = FORMATS.find(source.format)
    return kind


def find_downloading(source: Source) -> UrlsInput | None:
    """Return the format of a source that downloads; None for any other."""
    kind = find_format(source)
    return kind if isinstance(kind, UrlsInput) else None
