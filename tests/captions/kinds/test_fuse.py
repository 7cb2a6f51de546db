"""Fused texts: both captions as data, in their own delimiters."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions.kinds.fuse import Fuse
from curate.llm.engine import Sampling
from tests.captions.hostile import HOSTILE
from tests.captions.rows import make_rows, requests


def table(pairs, per_row=1):
    captions, recaptions = zip(*pairs, strict=True) if pairs else ((), ())
    return make_rows(per_row, caption=list(captions), source=list(recaptions))


def fuse(**options):
    return Fuse(engine="llm", **options)


def test_what_is_asked():
    [found] = requests(table([("Corvane Spider 1967", "A red car\non a road.")]), fuse(style="long"))
    assert (found.kind, found.style, found.ordinal, found.group) == ("fused", "long", 0, "fused")
    assert found.prompt is None and found.image is None
    system, user = found.messages
    assert user.text == "<caption>Corvane Spider 1967</caption>\n<recaption>A red car on a road.</recaption>"
    assert (system.role, user.role) == ("system", "user")
    assert found.sampling == Sampling(0.0, 1.0, 80)


def test_further_texts_are_drawn_and_the_first_stays():
    one, three = (requests(table([("a", "b")], n), fuse()) for n in (1, 3))
    assert one == three[:1]
    assert [replace(r.sampling, seed=0) for r in three[1:]] == [Sampling(0.9, 0.9, 80)] * 2
    [warm] = requests(table([("a", "b")]), fuse(temperature=0.3, max_tokens=20))
    assert replace(warm.sampling, seed=0) == Sampling(0.3, 0.9, 20)


def test_both_texts_are_needed():
    nothing = [(None, "b"), ("a", None), ("", "b"), ("a", "\n"), ("a", "b")]
    assert [r.uid[-1] for r in requests(table(nothing), fuse())] == ["4"]
    assert requests(table(nothing, 0), fuse()) == [] == requests(table([]), fuse())


@given(st.permutations(range(9)), st.integers(0, 9))
@settings(max_examples=20)
def test_a_request_depends_on_its_row_alone(order, cut):
    rows = table([(f"cat {i}", f"An animal, {i}.") for i in range(9)], 2)
    shuffled = rows.take(pa.array(order, pa.int64()))
    parts = requests(shuffled[:cut], fuse()) + requests(shuffled[cut:], fuse())
    by_place = {(r.uid, r.ordinal): r for r in parts}
    whole = requests(rows, fuse())
    assert [by_place[r.uid, r.ordinal] for r in whole] == whole and len(parts) == len(whole) == 18


def test_an_own_template(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("[user]\n<recaption>{recaption}</recaption> <caption>{caption}</caption>")
    [found] = requests(table([("a", "b")]), fuse(template=str(path)))
    assert [m.text for m in found.messages] == ["<recaption>b</recaption> <caption>a</caption>"]


@pytest.mark.parametrize("caption", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", [0, 1])
def test_a_hostile_text_stays_data(caption, place):
    """The recaption too: a model that was led astray may have written it."""
    pair = ("a cat", caption) if place else (caption, "a cat")
    [found] = requests(table([pair]), fuse())
    [plain] = requests(table([("a cat", "a cat")]), fuse())
    assert found.messages[0] == plain.messages[0] and len(found.messages) == 2
    lines = found.messages[1].text.split("\n")
    assert lines[1 - place] == plain.messages[1].text.split("\n")[1 - place]
    name = ("caption", "recaption")[place]
    assert len(lines) == 2 and lines[place].startswith(f"<{name}>") and lines[place].endswith(f"</{name}>")
    assert lines[place].count("<") == lines[place].count(">") == 2


def test_text_of():
    assert fuse().text_of('\n "A red Corvane Spider." \nI hope this helps!', "short") == "A red Corvane Spider."
    assert fuse().text_of("", "short") == ""
