"""Images of the recipe's own, as files or in webdataset tars: exemplars, evaluation sets; few, compared with the pool."""

from collections.abc import Iterator

import fsspec

from curate.errors import RecipeError
from curate.pool.byte_sources import open_source
from curate.pool.listing import InputFile, list_files
from curate.pool.tar_index import index_tar
from curate.pool.tar_samples import group_members


def picture_files(where: str, paths: str | tuple[str, ...]) -> list[InputFile]:
    """Return the files that `paths` name, ranges and globs expanded. Raises RecipeError, which begins with `where`."""
    try:
        return list_files((paths,) if isinstance(paths, str) else paths, {})
    except (RecipeError, OSError) as error:
        raise RecipeError(f"{where}: {error}") from None


def read_pictures(files: list[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each image: of a tar those of each sample, named by tar and key; of others the file's own.

    An image that its tar does not hold whole, and the damage of a tar itself, come with no bytes.
    """
    for file in files:
        if not file.path.endswith(".tar"):
            with fsspec.open(file.path, "rb") as opened:
                yield file.path, opened.read()
            continue
        source = open_source(file.path)
        index = index_tar(source)
        samples = group_members(index)
        for key, member in zip(samples.keys, samples.image, strict=True):
            if member >= 0:
                whole = index.complete[member]
                data = source.read(int(index.offsets[member]), int(index.sizes[member])) if whole else b""
                yield f"{file.path} {key}", bytes(data)
        if index.damage:
            yield f"{file.path} ({index.damage.detail})", b""
