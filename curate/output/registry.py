"""The output formats, in the order in which they are tried. A new one is a file of this folder and a line here."""

from curate.output.output_format import OutputFormat
from curate.output.parquet import ParquetOutput
from curate.output.webdataset import WebdatasetOutput

KINDS: tuple[OutputFormat, ...] = (WebdatasetOutput(), ParquetOutput())
