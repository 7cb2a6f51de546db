"""What the kept samples are, counted for the card: languages, file types, sizes.

In: the files of a run that `digests` lists. Out: `content` of run.json.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import ids
from curate.output.output_format import OutputFormat
from curate.store.facts import ContentFacts
from curate.store.manifest import Published
from curate.store.store import RunStore

_MEASURES = ("words", "width", "height")
_LANGUAGES = 500  # more are noise, or a stranger's column
_READERS = 8  # files read at once: what hides the latency of an object store

Counts = tuple[Counter[str | None], Counter[str], dict[str, tuple[int, int]]]


def count_content(folder: RunStore, digests: Iterable[Published], kind: OutputFormat) -> ContentFacts:
    """Count the kept samples of a run.

    Args:
        folder: the run folder.
        digests: the manifest's lines of its tables and shards.
        kind: the format of the shards.
    """
    lines = {line.path: line for line in digests}
    units = [path.rpartition("/")[2] for path in sorted(lines) if path.startswith("tables/decisions/")]
    members = any(path.startswith("tables/members/") for path in lines)
    languages: Counter[str | None] = Counter()
    files: Counter[str] = Counter()
    sums = dict.fromkeys(_MEASURES, (0, 0))

    def count(unit: str) -> Counts:
        return _count_unit(folder, unit, kind, members and f"tables/members/{unit}" in lines)

    with ThreadPoolExecutor(_READERS) as pool:
        for found, suffixes, more in pool.map(count, units):
            languages.update(found)
            files.update(suffixes)
            sums = {name: (sums[name][0] + more[name][0], sums[name][1] + more[name][1]) for name in _MEASURES}
    shards = [line for path, line in lines.items() if path.startswith("shards/") and path.endswith(f".{kind.suffix}")]
    del languages[None]
    ordered = sorted(languages.items(), key=lambda item: (-item[1], str(item[0])))
    return ContentFacts(
        languages={str(code): rows for code, rows in ordered[:_LANGUAGES]},
        files=dict(sorted(files.items(), key=lambda item: (-item[1], item[0]))),
        shards=len(shards),
        bytes=sum(line.bytes for line in shards),
        digest=ids.digest(sorted((line.path, line.sha256) for line in shards)),
        means={name: round(total / rows, 2) for name, (total, rows) in sums.items() if rows},
    )


def _count_unit(folder: RunStore, unit: str, kind: OutputFormat, members: bool) -> Counts:
    kept = folder.read_parquet(f"tables/decisions/{unit}", ["kept"])["kept"]
    samples = folder.read_parquet(f"tables/samples/{unit}", ["language", "format", *_MEASURES]).filter(kept)
    sums = {name: (pc.sum(samples[name]).as_py() or 0, len(samples) - samples[name].null_count) for name in _MEASURES}
    files: Counter[str] = Counter()
    if kind.has_members:
        if members:
            found = folder.read_parquet(f"tables/members/{unit}", ["suffix"]).filter(kept)["suffix"]
            files = _values(pc.list_flatten(found))
        else:
            files = Counter(
                {"jpg" if name == "jpeg" else name: rows for name, rows in _values(samples["format"]).items()}
            )
        files |= Counter({"txt": len(samples), "json": len(samples)})  # which every sample has in the tars
        del files[None]
    return _values(samples["language"]), files, sums


def _values(column: pa.ChunkedArray) -> Counter[Any]:
    """Return how often each value occurs."""
    return Counter({item["values"]: item["counts"] for item in pc.value_counts(column.combine_chunks()).to_pylist()})
