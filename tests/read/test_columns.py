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


def test_laion():
    found = find(
        {"SAMPLE_ID": NUMBER, "URL": TEXT, "TEXT": TEXT, "HEIGHT": pa.int32(), "WIDTH": pa.int32(), "LICENSE": TEXT,
         "LANGUAGE": TEXT, "NSFW": TEXT, "similarity": REAL, "punsafe": pa.float32(), "pwatermark": pa.float32()}
    )  # fmt: skip
    assert parts(found) == {
        "caption": "TEXT", "url": "URL", "width": "WIDTH", "height": "HEIGHT", "language": "LANGUAGE",
    }  # fmt: skip
    assert found.scores == ("similarity", "punsafe", "pwatermark")


def test_datacomp():
    found = find(
        {"uid": TEXT, "url": TEXT, "text": TEXT, "original_width": NUMBER, "original_height": NUMBER,
         "clip_b32_similarity_score": pa.float32(), "clip_l14_similarity_score": pa.float32(),
         "face_bboxes": pa.list_(pa.list_(REAL)), "sha256": TEXT}
    )  # fmt: skip
    assert parts(found) == {
        "caption": "text", "uid": "uid", "url": "url", "width": "original_width", "height": "original_height",
    }  # fmt: skip
    assert found.scores == ("clip_b32_similarity_score", "clip_l14_similarity_score")


def test_img2dataset():
    found = find(
        {"url": TEXT, "caption": TEXT, "key": TEXT, "status": TEXT, "error_message": TEXT, "width": pa.int32(),
         "height": pa.int32(), "original_width": pa.int32(), "original_height": pa.int32(), "exif": TEXT, "sha256": TEXT}
    )  # fmt: skip
    assert parts(found) == {"caption": "caption", "url": "url", "key": "key", "width": "width", "height": "height"}
    assert found.scores == ()


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


@pytest.mark.parametrize(
    "kind",
    [
        TEXT,
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.string_view(),
        pa.null(),
        pa.dictionary(pa.int32(), TEXT),
    ],
)
def test_captions_may_be_of_these_types(kind):
    assert find({"caption": kind}).caption == "caption"


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


def test_configured_names_are_exact():
    assert fault({"TEXT": TEXT}, caption="text").reason == "no_caption_column"
    assert find({"TEXT": TEXT}).caption == "TEXT"


def test_a_configured_column_that_this_file_lacks_is_absent():
    found = find({"caption": TEXT, "url": TEXT}, url="link", scores=("s",))
    assert found.url is None and found.scores == ()


def test_columns_used_otherwise_are_no_scores():
    assert find({"caption": TEXT, "width": REAL, "s": pa.float16()}).scores == ("s",)


@pytest.mark.parametrize(
    ("columns", "wanted", "reason", "said"),
    [
        ({"x": TEXT, "y": REAL}, {}, "no_caption_column", ["no caption column", "x, y"]),
        ({}, {}, "no_caption_column", ["columns: none"]),
        ({"caption": TEXT}, {"caption": "alt"}, "no_caption_column", ["'alt'", "columns: caption"]),
        ({"caption": NUMBER}, {}, "wrong_type", ["'caption' is int64", "text"]),
        ({"caption": pa.list_(TEXT)}, {}, "wrong_type", ["list", "text"]),
        ({"caption": TEXT, "n": NUMBER}, {"uid": "n"}, "wrong_type", ["uid column 'n' is int64", "text"]),
        ({"caption": TEXT, "n": TEXT}, {"width": "n"}, "wrong_type", ["width column 'n' is string", "number"]),
        ({"caption": TEXT, "n": TEXT}, {"image": "n"}, "wrong_type", ["image column 'n' is string", "bytes"]),
    ],
)
def test_faults(columns, wanted, reason, said):
    found = fault(columns, **wanted)
    assert found.reason == reason and found.detail == str(found)
    assert not [part for part in said if part not in found.detail], found.detail


def test_two_columns_of_one_name():
    with pytest.raises(InputError, match="two columns are named 'b'") as caught:
        find_columns(pa.schema([("caption", TEXT), ("b", REAL), ("b", REAL)]), Columns())
    assert caught.value.reason == "wrong_type"
