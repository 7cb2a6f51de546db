"""Translate captions into listed languages.

In: `ROWS`. Out: requests of kind `translation`, one for each row, language and ordinal; the style is the language's
code. A row that is in a language already is not translated into it.

What it trades: only languages that the model of `curate.signals.language` can name are accepted, since a translation is
checked by it. Captions are cut, see `curate.captions.text`. An answer has at most 160 tokens: other scripts take more.
"""

import difflib
import re
from dataclasses import dataclass

import pyarrow as pa

from curate.captions.prompts import Template, load_template
from curate.captions.sampling import seeded, text_sampling
from curate.captions.text import first_line, one_line
from curate.engines.request import Request
from curate.errors import RecipeError

KIND = "translation"

ROWS = pa.schema([("uid", pa.string()), ("caption", pa.string()), ("language", pa.string()), ("per_row", pa.int32())])
"""What rows bring: `per_row` texts are asked for in each language; none where that or the caption is null, or empty.
`language` is an ISO 639-1 code, or null where it is not known."""

LANGUAGES = {
    "af": "Afrikaans", "am": "Amharic", "an": "Aragonese", "ar": "Arabic", "as": "Assamese", "av": "Avar",
    "az": "Azerbaijani", "ba": "Bashkir", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "bo": "Tibetan",
    "br": "Breton", "bs": "Bosnian", "ca": "Catalan", "ce": "Chechen", "co": "Corsican", "cs": "Czech", "cv": "Chuvash",
    "cy": "Welsh", "da": "Danish", "de": "German", "dv": "Dhivehi", "el": "Greek", "en": "English", "eo": "Esperanto",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "fy": "West Frisian", "ga": "Irish", "gd": "Scottish Gaelic", "gl": "Galician", "gn": "Guarani", "gu": "Gujarati",
    "gv": "Manx", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole", "hu": "Hungarian",
    "hy": "Armenian", "ia": "Interlingua", "id": "Indonesian", "ie": "Interlingue", "io": "Ido", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer",
    "kn": "Kannada", "ko": "Korean", "ku": "Kurdish", "kv": "Komi", "kw": "Cornish", "ky": "Kyrgyz", "la": "Latin",
    "lb": "Luxembourgish", "li": "Limburgish", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "mg": "Malagasy",
    "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese",
    "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk", "no": "Norwegian", "oc": "Occitan",
    "or": "Odia", "os": "Ossetian", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese",
    "qu": "Quechua", "rm": "Romansh", "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit", "sc": "Sardinian",
    "sd": "Sindhi", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian",
    "sr": "Serbian", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik",
    "th": "Thai", "tk": "Turkmen", "tl": "Tagalog", "tr": "Turkish", "tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian",
    "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "vo": "Volapük", "wa": "Walloon", "yi": "Yiddish", "yo": "Yoruba",
    "zh": "Chinese",
}  # fmt: skip
"""ISO 639-1 codes, and the English names that prompts use."""


@dataclass(frozen=True)
class Translate:
    """How captions are translated.

    Attributes:
        languages: some codes of `LANGUAGES`; others raise RecipeError.
        temperature: of every text; None: the first is greedy, further ones are drawn at 0.9, top_p 0.9.
        max_tokens: at most so many.
        seed: the recipe's.
        template: instead of the package's translate.
    """

    languages: tuple[str, ...]
    temperature: float | None = None
    max_tokens: int = 160
    seed: int = 0
    template: Template | None = None

    def __post_init__(self) -> None:
        for code in self.languages:
            language_name(code)


def language_name(code: str, where: str = "captions.translate.languages") -> str:
    """The English name of a language; `where` is the recipe's key that names it.

    Raises:
        RecipeError: the code is not among `LANGUAGES`; the message names the nearest, to a name or tag like pt-BR too.
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    near = "; did you mean " + " or ".join(f"{c} ({LANGUAGES[c]})" for c in _near(code)) + "?" if _near(code) else ""
    raise RecipeError(
        f"{where}: unknown {code!r}{near}; accepted: ISO 639-1 codes of languages that can be "
        f"identified: {', '.join(LANGUAGES)}"
    )


def requests(rows: pa.Table, options: Translate) -> list[Request]:
    """What is asked, by row, language and ordinal; a request depends on its own row and the options alone.

    Args:
        rows: the columns of `ROWS`.
        options: how.
    """
    template = options.template or load_template("translate")
    asked = []
    for uid, caption, language, count in zip(*(rows[name].to_pylist() for name in ROWS.names), strict=True):
        if not (caption and one_line(caption)):
            continue
        for code in options.languages:
            if code == language:
                continue
            messages = template.messages(language=LANGUAGES[code], caption=caption)
            for ordinal in range(count or 0):
                sampling = text_sampling(options.temperature, ordinal, options.max_tokens)
                sampling = seeded(sampling, uid, KIND, code, ordinal, options.seed)
                asked.append(Request(uid, KIND, code, ordinal, None, messages, None, sampling, f"{KIND}/{code}"))
    return asked


def text_of(answer: str) -> str:
    """The caption that an answer holds: its first line that is not empty, without quotes around it; empty if none."""
    return first_line(answer)


def _near(code: str) -> list[str]:
    """At most 3 codes that may be meant: by a tag's first part, by a language's name, by likeness."""
    first = re.split(r"[-_]", code.strip().lower())[0]
    if first in LANGUAGES:
        return [first]
    codes = {name.lower(): code for code, name in LANGUAGES.items()}
    if first in codes:
        return [codes[first]]
    names = difflib.get_close_matches(first, codes, 3, 0.7)
    return [codes[name] for name in names] or difflib.get_close_matches(first, LANGUAGES, 3, 0.4)
