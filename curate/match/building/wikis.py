"""Which Wikipedia a file is of, which key of the metadata has its entries, and how much of each source comes in.

A wiki has the name of its database without `wiki`: de, zh_yue, simple. Its key is that of its language where the table
of `curate.match.languages` has one; `nds_nl` goes with `nds`, what is behind the underscore being a variety; all wikis
without a key of their own form `other`. Five families whose varieties share no language are left out.
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
    """How entries are made: as by MetaCLIP (reference), MetaCLIP 2 (worldwide), or the latter without its faults."""

    reference = "reference"
    worldwide = "worldwide"
    corrected = "corrected"


def find_wiki(path: str) -> str:
    """Return the wiki that the name of a file says. Raises RecipeError where it says none."""
    match = _IN_PATH.search(path)
    if match is None:
        raise RecipeError(f"--wiki {path}: its name does not say of which language it is; accepted: {_ACCEPTED}")
    return normal_name(match["config"] or match["name"])


def normal_name(name: str) -> str:
    """Return the name of a wiki as a database has it: zh_yue for zh-yue."""
    name = name.lower().replace("-", "_")
    return _NAMES.get(name, name)


@cache
def all_keys() -> frozenset[str]:
    """Return the keys that a language identifier's codes lead to."""
    return frozenset(map(str, languages()["key"].to_pylist())) | {OTHER}


def key_of_wiki(wiki: str, mode: Mode) -> str | None:
    """Return the key of a wiki's entries; None for one that is left out."""
    if mode is Mode.corrected and wiki == "zh_min_nan":  # in Latin script, and not Chinese as zh has it
        return wiki
    family, underscore, _ = wiki.partition("_")
    if underscore and family in _FAMILIES:
        return None
    return family if family in all_keys() else OTHER


@dataclass(frozen=True)
class Limits:
    """How much comes in; the defaults are MetaCLIP's (en, and all languages in mode `reference`) or MetaCLIP 2's."""

    pmi: float = 30  # pairs of words: at least (MetaCLIP), or more than (MetaCLIP 2)
    count: int = 100  # MetaCLIP: least count of a word
    views: int = 70  # MetaCLIP: least sum of views of a title
    words: int = 251_465  # MetaCLIP 2: of each at most so many new entries,
    pairs: int = 100_646
    titles: int = 61_235
    words_percent: int = 10  # and at most such a share of all that there are
    titles_percent: int = 76
    characters: int = 256  # MetaCLIP 2: of an entry, but for numbers and wordnets


@dataclass(frozen=True)
class BuildSettings:
    """What goes to every part."""

    store: RunStore  # the folder that the build works in
    mode: Mode
    keys: dict[str, str]  # of each wiki that is built
    limits: Limits = Limits()

    def is_first(self, wiki: str) -> bool:
        return self.mode is Mode.reference or wiki == "en"

    def cap(self, kind: str, total: int, wiki: str) -> int | None:
        """Return how many new entries come in of so many words, pairs or titles; None: all that reach a threshold."""
        if self.is_first(wiki):
            return None
        limits = self.limits
        cap = {
            "words": min(limits.words, total * limits.words_percent // 100),
            "pairs": limits.pairs,
            "titles": min(limits.titles, total * limits.titles_percent // 100),
        }[kind]
        # MetaCLIP 2 looks at a cap once it has added an entry
        return cap if self.mode is Mode.corrected else max(cap, 1)
