"""Shards of lists of URLs: what they are called, which are there, and how one is downloaded that is not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.base import ids
from curate.base.process import process_cache
from curate.pool.formats.input_format import InputPart
from curate.pool.formats.run import SHA256
from curate.pool.urls.download.rates import log_download
from curate.pool.urls.download.shard_names import NUMBERS, STATISTICS, shard_stem
from curate.pool.urls.download.source import UrlsSource
from curate.pool.urls.rows import read_list, with_url
from curate.store.store import RunStore

if TYPE_CHECKING:
    from curate.pool.urls.download.fetch import Fetcher


def identify_list(part: InputPart) -> list[str]:
    """Return what identifies the list that a part is of: its content, wherever it is, as far as that is known."""
    return [part.fingerprint] if part.fingerprint.startswith(SHA256) else [part.path, part.fingerprint]


def number_of(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard: of what determines it."""
    determining: list[Any] = [*identify_list(part), part.groups, source.row_fields()]
    determining += [part.retry.round, part.retry.rows] if part.retry else []
    return int(ids.digest(determining)[:15], 16) % NUMBERS


def make_shard(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard, which is downloaded unless it is there."""
    number = number_of(source, part)
    store, stem = source.place(shard_stem(number))
    if not store.exists(f"{stem}{STATISTICS}") and not source.adopt(shard_stem(number)):
        # here: other pools have no use for what it imports
        from curate.pool.urls.download.resize import make_resizer
        from curate.pool.urls.download.shard import complete, download_shard, read_facts

        if not complete(store, stem):
            rows = with_url(source, read_list(source, part))
            download_shard(rows, number, source, _fetcher(source), make_resizer(source), part.retry)
            complete(store, stem)
        log_download(RunStore(source._run), shard_stem(number), read_facts(store, stem))
    return number


def find_shards(source: UrlsSource, parts: Sequence[InputPart]) -> list[tuple[str, dict[InputPart, str]]]:
    """Return the places that shards may be in, each with those parts whose shard is there, and its name there."""
    stems = {part: shard_stem(number_of(source, part)) for part in parts if not part.fault}
    places = [(place, set(shards_in(RunStore(place)))) for place in source.places()]
    return [(place, {part: stem for part, stem in stems.items() if stem in names}) for place, names in places]


def shards_in(store: RunStore) -> list[str]:
    """Return the paths without suffix of the shards in a store."""
    return [name.removesuffix(STATISTICS) for name in store.names("") if name.endswith(STATISTICS)]


def _fetcher(source: UrlsSource) -> "Fetcher":
    """Return what fetches for a source, which all threads of the process share."""
    from curate.pool.urls.download.fetch import Fetcher

    key = ids.digest([source.network.model_dump(), source.disallowed_header_directives])
    return process_cache(f"fetcher {key}", lambda: Fetcher(source.network, source.disallowed_header_directives))
