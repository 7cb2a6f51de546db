"""Maps files to Wikipedias, and Wikipedias to metadata keys. Sets how many entries of each source are added.

A wiki has the name of its database without `wiki`: de, zh_yue, simple. Its key is that of its language in the table of
`curate.match.languages`; `nds_nl` belongs to `nds`, because the part after the underscore is a variety. All wikis
without a key form `other`. Five families whose varieties share no language are left out.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from curate.base.errors import RecipeError
from curate.match.languages import OTHER, languages
from curate.store.store import RunStore

_FAMILIES = frozenset(("bat", "cbk", "fiu", "map", "roa"))
_NAMES = {"be_x_old": "be_tarask"}
_IN_PATH = re.compile(r"(?:^|/)(?:\d{8}\.(?P<config>[a-z][a-z-]*)/|(?P<name>[a-z][a-z0-9_]*?)wiki(?:-[^/]*|/.*)$)")
_ACCEPTED = (
    "a dump under its own name, such as dewiki-20260101-pages-articles-multistream.xml.bz2, a folder such as "
    "20231101.de, or the language before the path, as in de=PATH"
)


class Mode(StrEnum):
    """How to build entries: as in MetaCLIP (reference), MetaCLIP 2 (worldwide), or that without errors (corrected)."""

    reference = "reference"
    worldwide = "worldwide"
    corrected = "corrected"


def find_wiki(path: str) -> str:
    """Return the wiki in a file name. Raises RecipeError if there is none."""
    match = _IN_PATH.search(path)
    if match is None:
        raise RecipeError(f"--wiki {path}: its name does not contain a language; accepted: {_ACCEPTED}")
    return normal_name(match["config"] or match["name"])


def normal_name(name: str) -> str:
    """Return the database name of a wiki: zh_yue for zh-yue."""
    name = name.lower().replace("-", "_")
    return _NAMES.get(name, name)


@cache
def all_keys() -> frozenset[str]:
    """Return the keys that a language identifier's codes map to."""
    return frozenset(map(str, languages()["key"].to_pylist())) | {OTHER}


def key_of_wiki(wiki: str, mode: Mode) -> str | None:
    """Return the key of a wiki's entries; None if it is left out."""
    if mode is Mode.corrected and wiki == "zh_min_nan":  # in Latin script, unlike zh
        return wiki
    family, underscore, _ = wiki.partition("_")
    if underscore and family in _FAMILIES:
        return None
    return family if family in all_keys() else OTHER


@dataclass(frozen=True)
class Limits:
    """Limits on entries; the defaults are MetaCLIP's (en, and all languages in mode `reference`) or MetaCLIP 2's."""

    pmi: float = 30  # mutual information of pairs: at least (MetaCLIP), or more than (MetaCLIP 2)
    count: int = 100  # MetaCLIP: minimum count of a word
    views: int = 70  # MetaCLIP: minimum views of a title
    words: int = 251_465  # MetaCLIP 2: maximum new entries of each source,
    pairs: int = 100_646
    titles: int = 61_235
    words_percent: int = 10  # and their maximum share of the candidates
    titles_percent: int = 76
    characters: int = 256  # MetaCLIP 2: maximum of an entry, except numbers and wordnets


@dataclass(frozen=True)
class BuildSettings:
    """Settings for every part."""

    store: RunStore  # the build's folder
    mode: Mode
    keys: dict[str, str]  # of each wiki that is built
    limits: Limits = Limits()

    def is_first(self, wiki: str) -> bool:
        return self.mode is Mode.reference or wiki == "en"

    def cap(self, kind: str, total: int, wiki: str) -> int | None:
        """Return the maximum new entries among so many words, pairs or titles; None: all above a threshold."""
        if self.is_first(wiki):
            return None
        limits = self.limits
        cap = {
            "words": min(limits.words, total * limits.words_percent // 100),
            "pairs": limits.pairs,
            "titles": min(limits.titles, total * limits.titles_percent // 100),
        }[kind]
        # MetaCLIP 2 checks the cap after it has added an entry
        return cap if self.mode is Mode.corrected else max(cap, 1)
