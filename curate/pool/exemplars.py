"""Images of the recipe's own, in files, folders or tars: exemplars, targets, evaluation sets; few, against the pool."""

from collections.abc import Iterator

import fsspec

from curate.base.errors import RecipeError, reraised
from curate.read.image import MAX_BYTES
from curate.read.listing import InputFile, list_files
from curate.read.tar_samples import IMAGE_SUFFIXES, group_members
from curate.tar.byte_sources import open_copy
from curate.tar.index import index_tar

_SUFFIXES = (*(f".{suffix}" for suffix in IMAGE_SUFFIXES), ".tar")


def picture_files(where: str, paths: str | tuple[str, ...]) -> list[InputFile]:
    """Return the files that `paths` name, ranges, globs and folders expanded. Raises RecipeError, by `where` first."""
    with reraised(RecipeError, where, RecipeError, OSError):
        return list_files(paths, {}, suffixes=_SUFFIXES)


def read_pictures(files: list[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each image: of a tar those of each sample, named by tar and key; else the file's own.

    An image that its tar does not hold whole comes as far as it is there; a damaged tar, with its fault, without bytes.
    """
    for file in files:
        if not file.path.endswith(".tar"):
            with fsspec.open(file.path, "rb") as opened:
                yield file.path, opened.read(min(file.size, MAX_BYTES + 1))  # of a file of the kernel nothing
            continue
        opened = open_copy(file.path)
        index = index_tar(opened)
        samples = group_members(index)
        for key, member in zip(samples.keys, samples.image, strict=True):
            if member >= 0:
                yield f"{file.path} {key}", bytes(opened.read(int(index.offsets[member]), int(index.sizes[member])))
        if index.damage:
            yield f"{file.path} ({index.damage.detail})", b""
