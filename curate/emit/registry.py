"""The output formats, in the order in which they are tried: to add one, add a file and a line."""

from curate.emit.output_format import OutputFormat
from curate.emit.parquet import ParquetOutput
from curate.emit.webdataset import WebdatasetOutput

KINDS: tuple[OutputFormat, ...] = (WebdatasetOutput(), ParquetOutput())
