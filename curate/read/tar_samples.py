"""Group the members of a tar into samples, by the webdataset convention, with a status for each.

In: a `TarIndex`. Out: `TarSamples`, one row per sample, in the order of their first members.

The rules:
- The key is the member's path, with folders but without a leading `./`, up to the first dot in its base name. The
  suffix is the rest of the name, in lower case. Folders, names without a dot, and hidden names (`.x`, macOS' `._x.jpg`)
  belong to no sample.
- Members with the same key form a sample, in any order, even if other members are between them.
- If a suffix comes a second time for a key, the status depends on the member before. If that member has another key, a
  second sample begins, with status `duplicate_key`. The first sample stays, and later members with this key join the
  second one. If that member has the same key, nobody knows which member is meant: the sample is `duplicate_member`.
- If the image, the .txt, or the .json is a link or another special member, the sample is `link_member`. Special members
  with other suffixes are ignored. If the file ends inside a member, the member's sample is `truncated_member`.
- The image is the member whose suffix comes first in IMAGE_SUFFIXES (open_clip's order, then the rest). A sample
  without such a member is `no_image`. A sample without a .txt and a .json is `no_caption`. The caller checks whether
  the JSON has a caption.
- All other regular members are kept as they are. `seg.png`, for example, is one suffix, and not an image.
- If several reasons apply, the status is the first of duplicate_key, duplicate_member, link_member, truncated_member,
  no_image, no_caption.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64
from curate.base.schema import OK
from curate.tar.index import TarIndex
from curate.tar.walk import FOLDER, REGULAR

IMAGE_SUFFIXES = ("jpg", "png", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif")
_LOADED = frozenset((*IMAGE_SUFFIXES, "txt", "json"))


@dataclass(frozen=True, slots=True)
class TarSamples:
    """The samples in one tar, column by column; `image`, `txt`, `json` and `members` are positions in the index."""

    keys: list[str]  # a key occurs twice only with status `duplicate_key`
    status: list[str]  # `ok` or a code of schema.SAMPLE_REASONS
    errors: list[str | None]  # a detail for each status
    image: list[int]  # -1 if there is none
    txt: list[int]
    json: list[int]
    starts: I64  # len + 1: sample i has members[starts[i] : starts[i + 1]]
    members: I64  # the regular members; within a sample, they are in the order of the tar
    suffixes: list[str]  # suffix of each of `members`, in lower case

    def __len__(self) -> int:
        return len(self.keys)

    def member_columns(self, index: TarIndex) -> tuple[pa.ListArray, pa.ListArray, pa.ListArray]:
        """Return the columns of schema.MEMBERS: suffix list<string>, offset list<int64> and size list<int64>."""
        starts, numbers = pa.array(self.starts, pa.int32()), (index.offsets[self.members], index.sizes[self.members])
        offset, size = (pa.ListArray.from_arrays(starts, pa.array(values, pa.int64())) for values in numbers)
        return pa.ListArray.from_arrays(starts, pa.array(self.suffixes, pa.string())), offset, size


@dataclass(slots=True)
class _Parts:
    key: str
    members: dict[str, int]  # by suffix
    second: bool
    repeated: str = ""
    link: str = ""


def split_name(name: str) -> tuple[str, str]:
    """Return the key and suffix (in lower case) in a member's name. Both are empty if it belongs to no sample."""
    name = name.removeprefix("./")
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    return (name[:dot], name[dot + 1 :].lower()) if dot > base else ("", "")


def group_members(index: TarIndex) -> TarSamples:
    """Group members into samples by the rules above."""
    samples: list[_Parts] = []
    current: dict[str, _Parts] = {}
    parts = _Parts("", {}, False)  # of the previous member
    for i, (name, kind) in enumerate(zip(index.names, index.types.tobytes(), strict=True)):
        key, suffix = split_name(name)
        if kind == FOLDER or not key:
            continue
        if key != parts.key:
            earlier = current.get(key)
            if earlier is None or suffix in earlier.members:
                samples.append(_Parts(key, {}, earlier is not None))
                current[key] = samples[-1]
            parts = current[key]
        if suffix in parts.members:
            parts.repeated = name
        else:
            parts.members[suffix] = i
        if kind != REGULAR and suffix in _LOADED:
            parts.link = name
    return _columns(index, samples)


def _columns(index: TarIndex, samples: list[_Parts]) -> TarSamples:
    special = set(np.flatnonzero((index.types != REGULAR) & (index.types != FOLDER)).tolist())
    cut = len(index) - 1 if len(index) and not index.complete[-1] else -1
    rows: list[tuple[Any, ...]] = []
    for parts in samples:
        members = {suffix: i for suffix, i in parts.members.items() if i not in special}
        image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), -1)
        txt, json = members.get("txt", -1), members.get("json", -1)
        status, error = OK, None
        if parts.second:
            status = "duplicate_key"
            error = f"the key {parts.key} appears earlier in this tar, with other samples in between"
        elif parts.repeated:
            status, error = "duplicate_member", f"{parts.repeated} occurs more than once"
        elif parts.link:
            status, error = "link_member", f"{parts.link} is a link or another special member"
        elif cut >= 0 and cut in parts.members.values():
            detail = index.damage.detail if index.damage else f"{index.names[cut]} is truncated"
            status, error = "truncated_member", detail
        elif image < 0 or (txt < 0 and json < 0):
            status, error = "no_image" if image < 0 else "no_caption", f"members: {', '.join(members)}"
        rows.append((parts.key, status, error, image, txt, json, members))
    keys, codes, errors, images, txts, jsons, kept = ([row[i] for row in rows] for i in range(7))
    starts = np.cumsum([0, *map(len, kept)], dtype=np.int64)
    positions = np.array([i for members in kept for i in members.values()], np.int64)
    suffixes = [suffix for members in kept for suffix in members]
    return TarSamples(keys, codes, errors, images, txts, jsons, starts, positions, suffixes)
