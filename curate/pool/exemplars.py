"""Reads a recipe's own images from files, folders, or tars: exemplars, targets, or evaluation sets."""

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
    """Expand ranges, globs, and folders in `paths` to files. Raises RecipeError that begins with `where`."""
    with reraised(RecipeError, where, RecipeError, OSError):
        return list_files(paths, {}, suffixes=_SUFFIXES)


def read_pictures(files: list[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each image: of each sample in a tar, named by tar and key; of other files as they are.

    An image that a tar cuts off is yielded as far as it goes. A damaged tar yields its fault, without bytes.
    """
    for file in files:
        if not file.path.endswith(".tar"):
            with fsspec.open(file.path, "rb") as opened:
                yield file.path, opened.read(min(file.size, MAX_BYTES + 1))  # nothing for a file of the kernel
            continue
        opened = open_copy(file.path)
        index = index_tar(opened)
        samples = group_members(index)
        for key, member in zip(samples.keys, samples.image, strict=True):
            if member >= 0:
                yield f"{file.path} {key}", bytes(opened.read(int(index.offsets[member]), int(index.sizes[member])))
        if index.damage:
            yield f"{file.path} ({index.damage.detail})", b""
