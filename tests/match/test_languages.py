"""The table of languages: the identifier's labels, other names of languages, and tags as pools have them."""

import fasttext  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from curate.base.schema import define
from curate.match.languages import KEYS_WITHOUT_SPACES, OTHER, keys_of, languages
from curate.signals.language import _MODEL


def test_each_label_of_the_identifier_has_a_row():
    table = languages()
    assert table.schema == define(code=pa.string(), key=pa.string(), name=pa.string(), spaces=pa.bool_())
    model = fasttext.load_model(str(_MODEL))
    texts = ["hello", "日本語", "привет", "ไทย", "ا"]
    labels = {
        label.removeprefix("__label__") for text in texts for label in model.predict(text, k=176, threshold=-1)[0]
    }
    assert len(labels) == 176
    keys = dict(zip(table["code"].to_pylist(), table["key"].to_pylist(), strict=True))
    changed = {label: keys[label] for label in labels if keys[label] != label}
    assert changed == {"yue": "zh", "cbk": OTHER, "lrc": OTHER}
    assert set(keys.values()) <= labels | {OTHER, "zh_min_nan"}
    assert table["code"].to_pylist() == sorted(map(str, keys))


def test_languages_without_spaces():
    rows = languages().to_pylist()
    assert {row["key"] for row in rows if not row["spaces"]} == KEYS_WITHOUT_SPACES & {row["key"] for row in rows}


@pytest.mark.parametrize(
    ("code", "key"),
    [
        *[("en", "en"), ("EN", "en"), ("eng", "en"), ("en-US", "en"), ("en_AU", "en"), ("eng_Latn", "en")],
        *[("zh-Hant", "zh"), ("zh_TW", "zh"), ("zh-yue", "zh"), ("zh-cmn-Hans", "zh"), ("cmn", "zh"), ("lzh", "zh")],
        *[("nan", "zh_min_nan"), ("zh-min-nan", "zh_min_nan"), ("ar-arz", "arz"), ("arb", "ar"), ("iw", "he")],
        *[("nb", "no"), ("nob", "no"), ("nn-NO", "nn"), ("als", "als"), ("gsw", "als"), ("sqi", "sq"), ("tgl", "tl")],
        *[("ca@valencia", "ca"), ("sr-Latn-RS", "sr"), ("ger", "de"), ("deu", "de"), ("ceb", "ceb"), (" ja ", "ja")],
        *[("gan", OTHER), ("cbk", OTHER), ("und", OTHER), ("", OTHER), ("-", OTHER), (None, OTHER), ("日本", OTHER)],
    ],
)
def test_keys(code, key):
    assert keys_of(pa.array([code], pa.string())).to_pylist() == [key]


def test_keys_are_those_of_the_metadata():
    codes = pa.chunked_array([["en", "de-AT", "gan"], ["be-tarask", None, "zh"]])
    assert keys_of(codes, {"en", "gan", "be_tarask"}).to_pylist() == ["en", OTHER, "gan", "be_tarask", OTHER, OTHER]
    assert keys_of(codes.slice(0, 0)).to_pylist() == []
    assert keys_of(pa.nulls(2), {"en"}).to_pylist() == [OTHER, OTHER]
