"""Images of the recipe's own, in files, folders or tars: exemplars, targets, evaluation sets; few, against the pool."""

from collections.abc import Iterator

import fsspec
import pyarrow as pa

from curate.base.errors import RecipeError
from curate.pool.formats.input_format import InputPart
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.read.faults import InputFault
from curate.read.image import MAX_BYTES
from curate.read.listing import InputFile, list_files
from curate.read.tar_samples import IMAGE_SUFFIXES

_TARS = WebdatasetInput()
_SUFFIXES = (*(f".{suffix}" for suffix in IMAGE_SUFFIXES), ".tar")


def picture_files(where: str, paths: str | tuple[str, ...]) -> list[InputFile]:
    """Return the files that `paths` name, ranges, globs and folders expanded. Raises RecipeError, by `where` first."""
    try:
        return list_files(paths, {}, suffixes=_SUFFIXES)
    except (RecipeError, OSError) as error:
        raise RecipeError(f"{where}: {error}") from None


def read_pictures(files: list[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each image: of a tar those of each sample, named by tar and key; else the file's own.

    An image that its tar does not hold whole comes as far as it is there; a damaged tar, with its fault, without bytes.
    """
    for file in files:
        if not file.path.endswith(".tar"):
            with fsspec.open(file.path, "rb") as opened:
                yield file.path, opened.read(min(file.size, MAX_BYTES + 1))  # of a file of the kernel nothing
            continue
        source = WebdatasetSource(name="exemplars", format=_TARS.key, path=file.path)
        part = InputPart(file.path, file.size, file.fingerprint)
        try:
            for batch in _TARS.read(source, part, pa.schema([]), None):
                has_image = batch.columns["offset"].is_valid().to_numpy(zero_copy_only=False)
                assert batch.images is not None
                for key, image in zip(batch.columns["key"].to_pylist(), batch.images(has_image), strict=True):
                    if image is not None:
                        yield f"{file.path} {key}", bytes(image)
        except InputFault as fault:
            yield f"{file.path} ({fault.detail})", b""
