"""The registry of output formats. A new one is a file of this folder and a line here, before those that it comes before."""

from curate.output.output_format import OutputFormat
from curate.output.parquet import Parquet
from curate.output.webdataset import Webdataset

KINDS: tuple[OutputFormat, ...] = (Webdataset(), Parquet())
