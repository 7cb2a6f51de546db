"""Maps language codes to the keys of metadata, which are names of Wikipedias, to select the entries for a text.

In: codes from lid.176 or from a pool: ISO 639-1, -2 and -3, or BCP 47 tags (en-US, zh-Hant, eng_Latn), in any case.
Out: keys: en, de, zh, ceb, and `other`. `tests/match/make_languages.py` creates `languages.parquet` (code, key, name,
and whether spaces separate words), because MetaCLIP 2's own map is not published.
"""

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.ids import table_digest
from curate.base.numeric.arrays import whole

OTHER = "other"
"""The key of all languages without a key of their own."""
KEYS_WITHOUT_SPACES = frozenset(("bo", "dz", "ja", "km", "lo", "my", "ryu", "th", "zh", "zh_classical", "zh_yue"))
"""The names of the Wikipedias for which MetaCLIP 2 uses special tokenizers."""
_MACROLANGUAGES = frozenset(("ar", "ms", "sw", "zh"))  # a tag may name a member: zh-yue


@cache
def languages() -> pa.Table:
    """Return the table of codes: code, key, name (string), spaces (bool)."""
    return pq.read_table(pa.BufferReader(files("curate.match").joinpath("languages.parquet").read_bytes()))


@cache
def languages_digest() -> str:
    """Return a digest of the codes and keys, on which matches by language depend."""
    return table_digest(languages().select(["code", "key"]))


@cache
def _keys() -> dict[str, str]:
    return dict(zip(*(languages()[name].to_pylist() for name in ("code", "key")), strict=True))


def keys_of(codes: pa.Array | pa.ChunkedArray, keys_there: Collection[str] | None = None) -> pa.Array:
    """Return the key of each code (string); `other` for null and for codes without a key.

    Only the language of a tag counts: en-US is en, zh-Hant is zh, zh-yue is yue. If `keys_there`, the keys of the
    metadata, is given, a tag that is one of them is its own key (be_tarask for be-tarask), and other keys are `other`.
    """
    array = whole(codes) if isinstance(codes, pa.ChunkedArray) else codes
    encoded = array.cast(pa.string()).dictionary_encode()
    keys = [_key_of(str(code), keys_there) for code in encoded.dictionary.to_pylist()]
    return pa.array(keys, pa.string()).take(encoded.indices).fill_null(OTHER)


def _key_of(code: str, keys_there: Collection[str] | None) -> str:
    tag = re.sub(r"[^a-z0-9]+", "_", code.strip().lower())
    language, _, rest = tag.partition("_")
    member = re.match(r"(?:min_)?([a-z]{3})(?:_|$)", rest) if language in _MACROLANGUAGES else None
    if member and member[1] in _keys():
        language = member[1]
    key = _keys().get(language, OTHER)
    if keys_there is None:
        return key
    return next((name for name in (tag, key, language) if name in keys_there), OTHER)
