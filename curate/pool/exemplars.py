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
    """Expand ranges, globs, and folders in `paths` to files. Raises a RecipeError that begins with `where`."""
    with reraised(RecipeError, where, RecipeError, OSError):
        return list_files(paths, {}, suffixes=_SUFFIXES)


def read_pictures(files: list[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each image. The name of an image in a tar is the tar's path and the sample's key.

    If a tar ends within an image, this yields the bytes that are there. If a tar is damaged, this also yields a name
    that includes the error, with empty bytes.
    """
    for file in files:
        if not file.path.endswith(".tar"):
            with fsspec.open(file.path, "rb") as opened:
                yield file.path, opened.read(min(file.size, MAX_BYTES + 1))  # nothing if its size is 0, as in /proc
            continue
        opened = open_copy(file.path)
        index = index_tar(opened)
        samples = group_members(index)
        for key, member in zip(samples.keys, samples.image, strict=True):
            if member >= 0:
                yield f"{file.path} {key}", bytes(opened.read(int(index.offsets[member]), int(index.sizes[member])))
        if index.damage:
            yield f"{file.path} ({index.damage.detail})", b""
