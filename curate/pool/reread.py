"""Reads rows of a unit again from the inputs, for shards, models, pages, or search.

The footer note of the unit's `samples` has the state of each file and the rows in each part. If a file has changed, or
an image has another sha256, the run ends.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from curate.base.errors import RunError
from curate.pool.formats.input_format import InputPart, InputSample, PartRows, Places
from curate.pool.plan import Unit
from curate.pool.registry import find_format
from curate.read.listing import check_state
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.source import Source
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class UnitRereader:
    """Reads rows of a measured unit again. Row numbers are in the unit, ascending (int64).

    All methods raise RunError if an input file or image has changed since it was measured, and OSError if one cannot be
    read.
    """

    unit: Unit
    source: Source
    tables: UnitTables

    def samples(self, samples: pa.Table, members: pa.Table | None = None) -> Iterator[InputSample]:
        """Yield samples. `samples` has their columns row and format; with key and sha256, images are checked.

        `members` lists which members of each sample to read; None reads all of them.
        """
        kind, rows = find_format(self.source), samples["row"].to_numpy()
        if kind.has_members and members is None:
            members = self.tables.read("members", ["suffix", "offset", "size"]).take(rows)
        if not kind.has_members:
            samples = samples.append_column("offset", self.tables.read("samples", ["offset"])["offset"].take(rows))
        for part, wanted in self._parts(rows, samples, members):
            reread = kind.reread(self.source, part, wanted)
            for sample, *measured in zip(reread, *_measured(wanted.samples), strict=True):
                files = dict(sample.members)
                suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in files), next(iter(files), ""))
                _check_image(part, files.get(suffix), *measured)
                yield sample

    def images(self, rows: Places) -> Iterator[bytes | None]:
        """Yield each row's image file, None if it is incomplete."""
        samples = self.tables.read("samples", ["offset", "bytes", "shard", "key", "sha256"]).take(rows)
        for part, wanted in self._parts(rows, samples):
            images = find_format(self.source).reread_images(self.source, part, wanted)
            for image, *measured in zip(images, *_measured(wanted.samples), strict=True):
                _check_image(part, image, *measured)
                yield image

    def rows(self, rows: Places, output: pa.Schema) -> Iterator[pa.Table]:
        """Yield rows without images as tables with these columns, part by part."""
        samples = self.tables.read("samples", ["key", "offset"]).take(rows)
        for part, wanted in self._parts(rows, samples):
            yield find_format(self.source).reread_table(self.source, part, wanted, output)

    def _parts(
        self, rows: Places, samples: pa.Table, members: pa.Table | None = None
    ) -> Iterator[tuple[InputPart, PartRows]]:
        """Yield the parts with requested rows, and these rows. Checks a part before and after the caller reads it."""
        note, read = self.tables.note("samples"), find_format(self.source).state
        first = at = 0
        for part, state, count in zip(self.unit.parts, note["states"], note["rows"], strict=True):
            positions = rows[(rows >= first) & (rows < first + count)] - first
            first += count
            if len(positions):
                wanted = samples.slice(at, len(positions)), members and members.slice(at, len(positions))
                at += len(positions)
                check_state(part.path, self.source.storage, state, part.fingerprint, read)
                yield part, PartRows(positions, *wanted)
                check_state(part.path, self.source.storage, state, part.fingerprint, read)


def _measured(samples: pa.Table) -> Iterator[list[str | None]]:
    for name in ("shard", "key", "sha256"):
        yield samples[name].to_pylist() if name in samples.column_names else [None] * len(samples)


def _check_image(
    part: InputPart, image: bytes | memoryview | None, file: str | None, key: str | None, digest: str | None
) -> None:
    """Raise RunError if an image's sha256 differs from the measured one; None is not compared."""
    if image is not None and digest is not None and hashlib.sha256(image).hexdigest() != digest:
        problem = f"the image of sample {key!r} has changed since it was measured, but its file looks unchanged"
        remedy = "if the server sent wrong bytes once, run again; otherwise, run into a new folder, without --reuse"
        where = (file or part.path)[:300]
        raise RunError(f"{where}: {problem}. Inputs must not change until a run is finished: {remedy}")


def file_images(source: Source, path: str, positions: Places, samples: pa.Table) -> Iterator[bytes | None]:
    """Yield the images at these ascending positions in an input file, without checking whether the file has changed.

    `samples` has their columns offset and bytes. Yields None if an image is incomplete. Raises OSError.
    """
    return find_format(source).reread_images(source, InputPart(path, 0, ""), PartRows(positions, samples))
