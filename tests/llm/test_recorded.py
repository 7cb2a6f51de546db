"""Answers and errors are replayed by digest; other layouts, missing files, and unknown requests are reported."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema
from curate.base.errors import RecipeError
from curate.llm.engine import ERRORS, Answer, Message, Request, Sampling
from curate.llm.recorded import LAYOUT, Recorded, RecordedEngine

MODEL = "tiny-llm"
REQUESTS = [
    *[Request(f"{i:032x}", "rewrite", "human", 0, prompt=f"{i} =>", sampling=Sampling(0.9, seed=i)) for i in range(6)],
    Request("f" * 32, "recaption", "short", 1, messages=(Message("user", "What is it?"),), image=b"\xff\xd8\xff"),
]
ANSWERS = [
    Answer("a dog", None, 3, 2, "stop"), Answer(" ", None, 0, 0, None), Answer(None, "busy: 503", 0, 0, None),
    Answer("ein Hund 🐕\n", None, 2**31 - 1, 7, "length"),
    Answer(None, "empty: the answer contains no text", 9, 1, "stop"),
    Answer("cut", "engine: half an answer", 1, 1, None), Answer("a cat", None, 600, 2, "stop"),
]  # fmt: skip


def row(request, answer, model=MODEL):
    names = {"answer": "text"} | {name: name for name in ("error", "tokens_in", "tokens_out", "finish")}
    return {"digest": request.digest(model), **{column: getattr(answer, name) for column, name in names.items()}}


ROWS = [row(request, answer) for request, answer in zip(REQUESTS, ANSWERS, strict=True)]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="answers.parquet", layout=LAYOUT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, layout), path)
        return str(path)

    return write


def replay(path, requests, model=MODEL):
    return RecordedEngine(Recorded(path=path, model=model)).ask(requests)


def test_answers_come_back_as_they_were_in_any_order(write):
    path = write(ROWS)
    engine = RecordedEngine(Recorded(path=path, model=MODEL))
    engine.check()
    assert engine.model == MODEL
    assert engine.ask(REQUESTS) == ANSWERS
    assert engine.ask(REQUESTS[::-1] + REQUESTS[:1]) == ANSWERS[::-1] + ANSWERS[:1]
    assert engine.ask([]) == []
    write(ROWS[:1])
    assert engine.ask(REQUESTS) == ANSWERS, "read once"


@pytest.mark.parametrize("change", ["model", "prompt", "seed", "ordinal", "uid", "image"])
def test_what_was_never_asked_is_unknown(write, change):
    path = write(ROWS)
    known = REQUESTS[0]
    changed = {
        "model": known,
        "prompt": Request(known.uid, "rewrite", "human", 0, prompt="other =>", sampling=known.sampling),
        "seed": Request(known.uid, "rewrite", "human", 0, prompt=known.prompt, sampling=Sampling(0.9, seed=9)),
        "ordinal": Request(known.uid, "rewrite", "human", 1, prompt=known.prompt, sampling=known.sampling),
        "uid": Request("a" * 32, "rewrite", "human", 0, prompt=known.prompt, sampling=known.sampling),
        "image": Request("f" * 32, "recaption", "short", 1, messages=REQUESTS[-1].messages, image=b"\xff\xd8\xff\xe0"),
    }[change]
    (answer,) = replay(path, [changed], "other" if change == "model" else MODEL)
    assert answer.text is None and re.match(
        r"unknown: none of the 7 recorded answers is for request [0-9a-f]{32} to ", answer.error
    )
    assert "unknown" in ERRORS


def test_a_run_is_replayed_by_its_folder(write, tmp_path):
    columns = [{**row, "uid": "0" * 32, "kind": "rewrite", "style": "s", "ordinal": 0} for row in ROWS]
    write(columns[:3], "run/tables/answers/00000.parquet", schema.ANSWERS)
    write(columns[3:], "run/tables/answers/00001.parquet", schema.ANSWERS)
    for path in (tmp_path / "run", f"{tmp_path}/run/", f"{tmp_path}/run/tables/answers/{{00000..00001}}.parquet"):
        assert replay(str(path), REQUESTS) == ANSWERS


def test_of_several_rows_a_text_comes_before_an_error_and_the_first_before_others(write):
    request = REQUESTS[0]
    rows = [Answer(None, "busy: 1"), Answer(None, "busy: 2"), Answer("first"), Answer(None, "busy: 3"), Answer("last")]
    assert replay(write([row(request, answer) for answer in rows]), [request]) == [Answer("first")]
    assert replay(write([row(request, answer) for answer in rows[:2]]), [request]) == [Answer(None, "busy: 1")]


def test_rows_with_nulls(write):
    path = write([{**ROWS[0], "answer": None, "tokens_in": None, "tokens_out": None}, {**ROWS[1], "digest": None}])
    malformed, unknown = replay(path, REQUESTS[:2])
    assert malformed.text is None and malformed.error.startswith("malformed: ") and malformed.tokens_in == 0
    assert unknown.error.startswith("unknown: ")


def test_other_layouts_are_told(write, tmp_path):
    large = pa.schema([f.with_type(pa.large_string()) if f.name == "answer" else f for f in LAYOUT])
    missing = pa.schema([field for field in LAYOUT if field.name != "digest"])
    for layout, wanted in ((large, "answer string"), (missing, "digest string")):
        with pytest.raises(RecipeError, match=rf"answers.parquet: is not a table of answers: .*accepted: .*{wanted}$"):
            RecordedEngine(Recorded(path=write(ROWS, layout=layout), model=MODEL)).check()
    (tmp_path / "text.parquet").write_text("digest,answer\n")
    with pytest.raises(RecipeError, match=r"text.parquet: cannot be read as Parquet"):
        replay(str(tmp_path / "text.parquet"), REQUESTS)
    for path in ("none.parquet", "none/*.parquet", "none{0..1}.parquet"):
        with pytest.raises(RecipeError, match="none"):
            replay(str(tmp_path / path), REQUESTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RecipeError, match=r"no file matches .*tables/answers.*; accepted: the folder of a `curate run` with captions"
    ):
        replay(str(tmp_path / "empty"), REQUESTS)


def test_answers_that_unpack_to_more_are_not_read(write, monkeypatch):
    monkeypatch.setattr("curate.llm.recorded.MAX_DECODED", 100)
    with pytest.raises(RecipeError, match=r"cannot be read as Parquet: unpacked, it has more than 100 bytes"):
        replay(write(ROWS), REQUESTS)
