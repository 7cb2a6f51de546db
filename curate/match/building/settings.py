"""What a build is of: the mode, the wikis with their keys, and how much of each source comes in."""

from dataclasses import dataclass

from curate.match.building.wikis import Mode
from curate.store.store import RunStore


@dataclass(frozen=True)
class Limits:
    """How much comes in, by MetaCLIP (en, and all languages in the mode `reference`) or MetaCLIP 2 (the others).

    The defaults are theirs.
    """

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

    @property
    def is_corrected(self) -> bool:
        """Whether known faults of the published code are mended."""
        return self.mode is Mode.corrected

    def is_first(self, wiki: str) -> bool:
        """Return whether a wiki's entries are chosen as MetaCLIP's first version does."""
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
        return cap if self.is_corrected else max(cap, 1)
