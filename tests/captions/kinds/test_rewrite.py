"""Rewrites: the example pools, the draw of examples, the form of prompts, and the text taken from an answer."""

import re
from dataclasses import replace

import pyarrow as pa
import pytest
import xxhash

from curate.base.errors import RecipeError
from curate.captions.gates.gate import Candidates, run_gates
from curate.captions.kinds.rewrite import STYLES, TRIPLES, Rewrite, draw_triples, load_pairs, read_pairs
from curate.captions.kinds.text import as_data
from curate.llm.engine import Sampling
from curate.recipe.gates import Gates
from tests.captions.hostile import HOSTILE, count_marks
from tests.captions.rows import make_rows
from tests.kit.metaclip import mix64


def table(captions, per_row=1, uids=None):
    return make_rows(per_row, caption=captions, **({"uid": uids} if uids else {}))


def requests(rows, section, seed=0):
    return section.requests(rows, seed)


def rewrite(*styles, **options):
    return Rewrite(engine="llm", **{"styles": styles} if styles else {}, **options)


# ---- the pools


@pytest.mark.parametrize("style", STYLES)
def test_pools(style):
    pairs = load_pairs(style)
    assert len(pairs) >= 16
    assert len({text.lower() for pair in pairs for text in pair}) == 2 * len(pairs)
    for pair in pairs:
        for text in pair:
            assert text == as_data(text) and text  # one line, without an arrow
        assert 3 <= len(pair.source.split()) <= 25 and 3 <= len(pair.target.split()) <= 30


@pytest.mark.parametrize("style", STYLES)
def test_the_gates_pass_what_the_examples_show(style):
    sources, targets = zip(*load_pairs(style), strict=True)
    verdicts = run_gates(Candidates(Rewrite.relation, pa.array(targets), pa.array(sources)), Gates.full()())
    assert verdicts.first.to_pylist() == ["passed"] * len(sources)


@pytest.mark.parametrize("style", STYLES)
def test_triples(style):
    found = draw_triples(style, load_pairs(style))
    assert len(found) == len({frozenset(triple) for triple in found}) == TRIPLES
    pool = range(len(load_pairs(style)))
    assert all(len(set(triple)) == 3 and set(triple) <= set(pool) for triple in found)
    assert {pair for triple in found for pair in triple} == set(pool)  # 96 places: no pair is left out


# ---- the draw


def chosen(uids, style, seed=0):
    groups = [r.group for r in requests(table(["a cat"] * len(uids), 1, uids), rewrite(style), seed)]
    return [int(group.removeprefix(f"rewrite/{style}/")) for group in groups]


def test_the_draw_by_a_naive_splitmix():
    uids = ["0123456789abcdef" * 2, "f" * 32, "0" * 32, "00ff" * 8]
    for style in STYLES:
        key = xxhash.xxh3_64_intdigest(f"captions.rewrite\0{style}\x007".encode())
        expected = [mix64(int(uid[16:], 16) ^ mix64(int(uid[:16], 16) ^ key)) >> 59 for uid in uids]
        assert chosen(uids, style, seed=7) == expected


# ---- the prompt


def test_a_completion():
    rows = table(["Red  bicycle,\n2014 model"], uids=["0123456789abcdef" * 2])
    for request in requests(rows, rewrite(), 5):
        assert request.kind == "rewrite" and request.image is None and request.messages == () and request.ordinal == 0
        style, triple = re.fullmatch(r"rewrite/(\w+)/(\d+)", request.group).groups()
        assert style == request.style
        lines = request.prompt.split("\n")
        pairs = [load_pairs(style)[i] for i in draw_triples(style, load_pairs(style))[int(triple)]]
        assert lines[1:] == ["", *(f"{a} => {b}" for a, b in pairs), "Red bicycle, 2014 model =>"]
        assert replace(request.sampling, seed=0) == Sampling(0.9, 0.95, 77, ("\n",), 0)


def test_a_chat():
    [request] = requests(table(["Red bicycle"]), rewrite("coco", prompt="chat", max_tokens=50, temperature=0.5))
    system, user = request.messages
    assert request.prompt is None and (system.role, user.role) == ("system", "user")
    assert user.text == "<caption>Red bicycle</caption>" and system.text.count(" => ") == 3
    assert replace(request.sampling, seed=0) == Sampling(0.5, 0.95, 50, (), 0)


def test_several_texts_differ_by_ordinal_and_seed_and_the_first_stays():
    one, three = (requests(table(["a cat"], n), rewrite("coco")) for n in (1, 3))
    assert [r.ordinal for r in three] == [0, 1, 2] and one == three[:1]
    assert len({r.sampling.seed for r in three}) == 3 and len({r.prompt for r in three}) == 1


def test_rows_for_which_nothing_is_asked():
    rows = make_rows([1, 1, 1, 0, None, 2], caption=[None, "", " \u200b", "a", "b", "c"])
    assert [(r.uid[-1], r.ordinal) for r in requests(rows, rewrite("coco"))] == [("5", 0), ("5", 1)]
    assert requests(rows[:0], rewrite()) == []


# LaCLIP's prompt, as its code builds it
LACLIP = """write image captions differently,

            {} => {}

            {} => {}

            {} => {}

            {} =>"""
TEMPLATE = LACLIP.format(*[f"{{{side}_{i}}}" for i in (1, 2, 3) for side in ("source", "target")], "{caption}")
PAIRS = [(f"photo of thing <{i}>", f"a picture that shows thing <{i}>") for i in range(16)]


def write_pairs(path, pairs=PAIRS):
    path.write_text("\n".join(f"{source} => {target}" for source, target in pairs) + "\n\n")
    return str(path)


def test_laclips_own_prompt(tmp_path):
    """The prompts are equal byte for byte, with the user's examples: three different pairs, in 32 triples."""
    (tmp_path / "prompt.txt").write_text(TEMPLATE)
    options = rewrite(template=f"{tmp_path}/prompt.txt", examples={"chatgpt": write_pairs(tmp_path / "chatgpt.txt")})
    assert options.styles == ("chatgpt",)
    found = requests(table([f"cat {i}" for i in range(400)]), options)
    triples_shown = set()
    for i, request in enumerate(found):
        [shown] = [m.groups() for m in [re.fullmatch(LACLIP.replace("{}", "(.*)"), request.prompt)] if m]
        pairs = list(zip(shown[:6:2], shown[1:6:2], strict=True))
        assert len(set(pairs)) == 3 and set(pairs) <= set(PAIRS) and shown[6] == f"cat {i}"
        assert request.prompt == LACLIP.format(*(text for pair in pairs for text in pair), f"cat {i}")
        triples_shown.add(tuple(pairs))
    assert len(triples_shown) == TRIPLES and {request.style for request in found} == {"chatgpt"}
    assert set(options.shown_examples()) == {text for pair in PAIRS for text in pair}


def test_examples_beside_the_packages_styles(tmp_path):
    own = write_pairs(tmp_path / "own.txt", PAIRS[:3])
    found = requests(table(["a cat"]), rewrite("coco", "own", examples={"own": own}))
    assert [request.style for request in found] == ["coco", "own"]
    assert found[0] == requests(table(["a cat"]), rewrite("coco"))[0]
    shown = found[1].prompt.split("\n")[2:5]
    assert sorted(shown) == [f"{source} => {target}" for source, target in PAIRS[:3]]
    [four] = requests(table(["a cat"]), rewrite("coco", examples={"coco": own}))
    assert four.prompt.split("\n")[2:5] and "thing <" in four.prompt  # a style of the package may be replaced


NO_FIELDS = "has no fields for examples, but the section has"


@pytest.mark.parametrize(
    ("template", "styles", "examples", "message"),
    [
        ("{caption} =>", [], {}, f"{NO_FIELDS} 4 styles; accepted: fields examples, source_1"),
        ("{caption} =>", [], {"a": "x"}, f"{NO_FIELDS} examples"),
        ("{examples} {caption} =>", ["bare"], {}, "style 'bare' has no examples; accepted: chat_a, chat_b, human, coco"),
        ("{source_4} {caption} =>", [], {}, rf"(?s)unknown field .source_4.; .*: caption, examples, .*\n.*{NO_FIELDS} 4"),
    ],
)  # fmt: skip
def test_templates_that_do_not_fit_the_styles(template, styles, examples, message, tmp_path):
    (tmp_path / "mine.txt").write_text(template)
    with pytest.raises(RecipeError, match=message):
        rewrite(*styles, template=f"{tmp_path}/mine.txt", **{"examples": examples} if examples else {}).load_template()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a => b\nc\n", r"line 2 is 'c'; accepted: CAPTION => CAPTION IN OTHER WORDS"),
        ("a => b => c\n", r"line 1 is 'a => b => c'"), ("=> b\n", r"line 1 is '=> b'"),
        ("a => b\na => b\nc => d", r"has 2 different pairs; accepted: at least 3"), ("", r"has 0 different pairs"),
        (b"\xff => b", r"cannot be read as examples of rewrite"),
    ],
)  # fmt: skip
def test_wrong_examples(text, message, tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=message) as error:
        read_pairs(str(path))
    assert str(error.value).startswith(f"{path}: ")
    path.unlink()
    with pytest.raises(RecipeError, match=r"own\.txt: no such file; the recipe names it as examples of rewrite"):
        read_pairs(str(path))


@pytest.mark.parametrize("caption", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_caption_stays_data(caption):
    uids = ["ab" * 16]
    [found], [plain] = (requests(table([c], 1, uids), rewrite("human")) for c in (caption, "a cat"))
    assert found.prompt.count("\n") == plain.prompt.count("\n") == 5 and found.prompt.count("=>") == 4
    assert found.prompt.rpartition("\n")[0] == plain.prompt.rpartition("\n")[0] and found.prompt.endswith(" =>")
    assert count_marks(found.prompt) == 0


# ---- the answer


@pytest.mark.parametrize(
    ("answer", "completion", "chat"),
    [
        (" a cat on a mat\nanother => line", "a cat on a mat", "a cat on a mat"), (' "a cat" ', "a cat", "a cat"),
        ("\na cat", "", "a cat"), ("a cat => a black cat", "a cat", "a cat => a black cat"),
        ("Sure! Here it is:\n\na cat", "Sure! Here it is:", "Sure! Here it is:"),
        ("Rewrite: a cat", "Rewrite: a cat", "Rewrite: a cat"), ("", "", ""), ("=>", "", "=>"),
    ],
)  # fmt: skip
def test_text_of(answer, completion, chat):
    assert rewrite().text_of(answer, "human") == completion
    assert rewrite(prompt="chat").text_of(answer, "human") == chat
