"""Which images, with which captions, a folder or a table means: for `curate init PATH`, and for messages."""

import os
from itertools import product
from typing import Any

from curate.download.lists import kind_of
from curate.pool.files.captions import FILE_NAMES
from curate.pool.formats.found_files import FoundFiles, name_columns, read_head, texts_of
from curate.pool.formats.input_format import Recognized
from curate.read.columns import COLUMN_NAMES
from curate.read.tar_samples import IMAGE_SUFFIXES

_IMAGES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
_TABLES, _FOLDERS, _VALUES = 10, 20, 5  # that are tried: tables, folders that names may count from, names
_NAMES = COLUMN_NAMES | {"file": FILE_NAMES}


def recognize_images(listed: FoundFiles) -> Recognized | None:
    """Return how to read images: with a table among them or beside their folder, with metadata files, or NAME.txt.

    Of a table without images it tells where these are. None where there are no images, or a table names none.
    """
    tables, images = sorted(filter(kind_of, listed.names), key=lambda name: name.count("/")), listed.ending(*_IMAGES)
    paths, has_tables_alone = [listed.path], bool(tables) and not images
    if has_tables_alone:
        images = FoundFiles.look(os.path.dirname(tables[0]) or ".", listed.storage).ending(*_IMAGES)
        folders = dict.fromkeys(os.path.dirname(image) for image in images)
        paths = [os.path.commonpath(folders), *folders] if images else []
    elif listed.is_folder and "://" not in listed.path:
        parent = os.path.dirname(listed.path)
        tables += [os.path.join(parent, name) for name in sorted(os.listdir(parent or ".")) if kind_of(name)]
    for table, path in product(tables[:_TABLES] if images else (), paths[:_FOLDERS]):
        head = read_head(table, listed.storage)
        texts = {} if head is None else texts_of(head)
        file = next((column for column in texts if _names_files(texts[column], table, path, listed)), None)
        columns = name_columns(texts, _NAMES, file=file) if file else None
        if head is not None and columns is not None:
            keys: dict[str, Any] = {"path": os.path.normpath(path) if has_tables_alone else path}
            keys |= {} if os.path.basename(table).startswith("metadata.") else {"table": table}
            keys |= {"columns": columns} if columns else {}
            return Recognized(keys, len(images) + 1, "own-images", tuple(head.column_names))
    if not images or has_tables_alone:
        return None
    stems = {os.path.splitext(name)[0] for name in listed.ending(".txt")}
    captions = sum(os.path.splitext(name)[0] in stems for name in images)
    return Recognized({"path": listed.path}, len(images) + captions if captions else 1, "own-images")


def _names_files(values: list[str], table: str, path: str, listed: FoundFiles) -> bool:
    """Return whether some of these values name images, from the table's folder or from `path`."""
    names = [value for value in values if value.lower().endswith(_IMAGES) and "://" not in value][:_VALUES]
    folders = (os.path.dirname(table) or ".", path)
    return any(listed.exists(f"{folder}/{name}") for name in names for folder in folders)
