import pyarrow as pa
import pytest

from curate.base.schema import FILE_REASONS
from curate.read.columns import COLUMN_NAMES, Columns, find_columns
from curate.read.errors import InputError

TEXT, NUMBER, REAL = pa.string(), pa.int64(), pa.float64()


def find(columns, **wanted):
    return find_columns(pa.schema(list(columns.items())), Columns(**wanted))  # type: ignore[arg-type]


def parts(found):
    return {part: name for part in COLUMN_NAMES if (name := getattr(found, part))}


def fault(columns, **wanted):
    with pytest.raises(InputError) as caught:
        find(columns, **wanted)
    assert caught.value.reason in FILE_REASONS
    return caught.value


KNOWN = {
    "laion": (
        {"SAMPLE_ID": NUMBER, "URL": TEXT, "TEXT": TEXT, "HEIGHT": pa.int32(), "WIDTH": pa.int32(), "LICENSE": TEXT,
         "LANGUAGE": TEXT, "NSFW": TEXT, "similarity": REAL, "punsafe": pa.float32(), "pwatermark": pa.float32()},
        {"caption": "TEXT", "url": "URL", "width": "WIDTH", "height": "HEIGHT", "language": "LANGUAGE"},
        ("similarity", "punsafe", "pwatermark"),
    ),
    "datacomp": (
        {"uid": TEXT, "url": TEXT, "text": TEXT, "original_width": NUMBER, "original_height": NUMBER,
         "clip_b32_similarity_score": pa.float32(), "clip_l14_similarity_score": pa.float32(),
         "face_bboxes": pa.list_(pa.list_(REAL)), "sha256": TEXT},
        {"caption": "text", "uid": "uid", "url": "url", "width": "original_width", "height": "original_height"},
        ("clip_b32_similarity_score", "clip_l14_similarity_score"),
    ),
    "img2dataset": (
        {"url": TEXT, "caption": TEXT, "key": TEXT, "status": TEXT, "error_message": TEXT, "width": pa.int32(),
         "height": pa.int32(), "original_width": pa.int32(), "original_height": pa.int32(), "exif": TEXT, "sha256": TEXT},
        {"caption": "caption", "url": "url", "key": "key", "width": "width", "height": "height"},
        (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_pools(name):
    columns, expected, scores = KNOWN[name]
    found = find(columns)
    assert parts(found) == expected and found.scores == scores


def test_image_columns():
    huggingface = pa.struct([("bytes", pa.binary()), ("path", TEXT)])
    for kind in (pa.binary(), pa.large_binary(), huggingface):
        assert find({"image": kind, "text": TEXT}).image == "image"
        assert find({"jpg": kind, "caption": TEXT}).image == "jpg"
    for kind in (TEXT, NUMBER, pa.struct([("path", TEXT)]), pa.null()):
        assert find({"image": kind, "text": TEXT}).image is None


def test_earlier_spellings_come_first_whatever_the_order():
    assert find({"text": TEXT, "caption": TEXT}).caption == "caption"
    assert find({"alt": TEXT, "Alt_Text": TEXT}).caption == "Alt_Text"
    assert find({"original_width": NUMBER, "width": NUMBER, "text": TEXT}).width == "width"


def test_a_spelling_of_another_type_is_passed_over():
    assert find({"caption": NUMBER, "text": TEXT}).caption == "text"
    assert find({"text": TEXT, "width": TEXT, "original_width": NUMBER}).width == "original_width"
    assert find({"text": TEXT, "uid": NUMBER}).uid is None
    assert find({"text": TEXT, "width": REAL, "height": pa.uint16()}).width == "width"
    for kind in (TEXT, pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.null()):
        assert find({"caption": kind}).caption == "caption"
    assert find({"caption": pa.dictionary(pa.int32(), TEXT)}).caption == "caption"


def test_configured_columns():
    columns = {"caption": TEXT, "alt": TEXT, "link": TEXT, "w": NUMBER, "h": NUMBER, "id": TEXT, "pic": pa.binary(),
               "lang": TEXT, "name": TEXT, "a": REAL, "b": REAL, "n": NUMBER}  # fmt: skip
    found = find(
        columns, caption="alt", url="link", width="w", height="h", uid="id", image="pic", language="lang", key="name",
        scores=("n", "a"),
    )  # fmt: skip
    assert parts(found) == {
        "caption": "alt", "uid": "id", "url": "link", "key": "name", "width": "w", "height": "h", "language": "lang",
        "image": "pic",
    }  # fmt: skip
    assert found.scores == ("n", "a")
    assert find(columns, scores=()).scores == ()
    assert find(columns).scores == ("a", "b")


def test_configured_names_are_exact_and_may_be_absent():
    assert fault({"TEXT": TEXT}, caption="text").reason == "no_caption_column"
    assert find({"TEXT": TEXT}).caption == "TEXT"
    found = find({"caption": TEXT, "url": TEXT}, url="link", scores=("s",))
    assert found.url is None and found.scores == ()
    assert find({"caption": TEXT, "width": REAL, "s": pa.float16()}).scores == ("s",)  # not the width


FAULTS = [
    ({"x": TEXT, "y": REAL}, {}, "no_caption_column", ["no caption column", "x, y"]),
    ({}, {}, "no_caption_column", ["columns: none"]), ({"caption": pa.list_(TEXT)}, {}, "wrong_type", ["list", "text"]),
    ({"caption": TEXT}, {"caption": "alt"}, "no_caption_column", ["'alt'", "columns: caption"]),
    ({"caption": NUMBER}, {}, "wrong_type", ["'caption' is int64", "text"]),
    ({"caption": TEXT, "n": NUMBER}, {"uid": "n"}, "wrong_type", ["uid column 'n' is int64", "text"]),
    ({"caption": TEXT, "n": TEXT}, {"width": "n"}, "wrong_type", ["width column 'n' is string", "number"]),
    ({"caption": TEXT, "n": TEXT}, {"image": "n"}, "wrong_type", ["image column 'n' is string", "bytes"]),
]  # fmt: skip


def test_faults():
    for columns, wanted, reason, words in FAULTS:
        found = fault(columns, **wanted)
        assert found.reason == reason and found.detail == str(found)
        assert not [word for word in words if word not in found.detail], found.detail


def test_two_columns_of_one_name():
    with pytest.raises(InputError, match="two columns are named 'b'") as caught:
        find_columns(pa.schema([("caption", TEXT), ("b", REAL), ("b", REAL)]), Columns())
    assert caught.value.reason == "wrong_type"
