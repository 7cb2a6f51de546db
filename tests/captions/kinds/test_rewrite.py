"""Rewrites: the pools, the draw of examples, the prompt's form, and what is made of an answer."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.captions.gates.gate import Candidates, run_gates
from curate.captions.kinds.rewrite import STYLES, TRIPLES, Rewrite, draw_triples, load_pairs, read_pairs
from curate.captions.kinds.text import as_data
from curate.llm.engine import Sampling
from curate.recipe.gates import Gates
from tests.captions.hostile import HOSTILE, count_marks
from tests.captions.rows import make_rows, requests
from tests.kit.metaclip import mix64

CHI_SQUARE_31 = 61.1  # exceeded by chance once in a thousand
SMALL_WORDS = {"with", "the", "to", "in", "a", "of", "and", "for", "on"}


def table(captions, per_row=1, uids=None):
    return make_rows(per_row, caption=captions, **({"uid": uids} if uids else {}))


def rewrite(*styles, **options):
    return Rewrite(engine="llm", **{"styles": styles} if styles else {}, **options)


# ---- the pools


def numbers(text):
    return Counter(re.findall(r"\d+(?:[.,:]\d+)*", text))


def capitals(text):
    """Words with a capital, but for the first one and small words in titles."""
    words = re.findall(r"[^\W\d_][\w'.]*[^\W_]|[^\W\d_]", text)
    return [word for word in words[1:] if word[0].isupper() and word.lower() not in SMALL_WORDS]


@pytest.mark.parametrize("style", STYLES)
def test_pools(style):
    pairs = load_pairs(style)
    assert len(pairs) >= 16
    assert len({text.lower() for pair in pairs for text in pair}) == 2 * len(pairs)
    for pair in pairs:
        for text in pair:
            assert text == as_data(text) and text  # as it would stand in a prompt: one line, without an arrow
            assert all(ord(char) < 0x250 for char in text)
        assert 3 <= len(pair.source.split()) <= 25 and 3 <= len(pair.target.split()) <= 30


@pytest.mark.parametrize("style", STYLES)
def test_targets_keep_numbers_and_names_and_invent_none(style):
    for source, target in load_pairs(style):
        assert numbers(source) == numbers(target), target
        titled = sum(word[0].isupper() for word in source.split() if word[0].isalpha()) > 0.7 * len(source.split())
        folded = target.casefold()
        for word in capitals(source):
            assert word in target or (titled and word.casefold() in folded), f"{word}: {target}"
        for word in capitals(target):
            assert word in source or word == "I", f"{word}: {target}"


@pytest.mark.parametrize("style", STYLES)
def test_the_gates_pass_what_the_examples_show(style):
    sources, targets = zip(*load_pairs(style), strict=True)
    verdicts = run_gates(Candidates(Rewrite.relation, pa.array(targets), pa.array(sources)), Gates.full()())
    assert verdicts.first.to_pylist() == ["passed"] * len(sources)


def test_pools_show_numbers_names_and_variety():
    assert sum(bool(numbers(pair.source)) for style in STYLES for pair in load_pairs(style)) >= 20
    assert sum(bool(capitals(pair.source)) for style in STYLES for pair in load_pairs(style)) >= 30
    for style in set(STYLES) - {"coco"}:  # whose captions begin with an article
        beginnings = Counter(pair.target.split()[0].lower() for pair in load_pairs(style))
        assert beginnings.most_common(1)[0][1] <= len(load_pairs(style)) / 2
    assert len({pair for style in STYLES for pair in load_pairs(style)}) == sum(len(load_pairs(s)) for s in STYLES)


@pytest.mark.parametrize("style", STYLES)
def test_triples(style):
    found = draw_triples(style, load_pairs(style))
    assert len(found) == len({frozenset(triple) for triple in found}) == TRIPLES
    pool = range(len(load_pairs(style)))
    assert all(len(set(triple)) == 3 and set(triple) <= set(pool) for triple in found)
    assert {pair for triple in found for pair in triple} == set(pool)  # 96 places: no pair is left out


def test_triples_differ_by_style():
    assert len({draw_triples(style, load_pairs(style)) for style in STYLES}) == len(STYLES)


# ---- the draw


def chosen(uids, style, seed=0):
    groups = [r.group for r in requests(table(["a cat"] * len(uids), 1, uids), rewrite(style), seed)]
    return [int(group.removeprefix(f"rewrite/{style}/")) for group in groups]


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.thorough
@pytest.mark.parametrize("place", [0, 16, 8])
@pytest.mark.parametrize("style", STYLES)
def test_triples_are_spread_evenly(style, place):
    """Counting uids too, in the low half, the high half, and across both: own uids need not be hashes."""
    uids = [f"{i << 4 * place:032x}" for i in range(6400)]
    assert chi_square(np.bincount(chosen(uids, style), minlength=TRIPLES)) < CHI_SQUARE_31


@pytest.mark.thorough
def test_triples_of_styles_and_seeds_are_independent():
    uids = [f"{i:032x}" for i in range(20_480)]
    first = np.array(chosen(uids, "human"))
    for other in (chosen(uids, "coco"), chosen(uids, "human", seed=1)):
        joint = np.bincount(first * TRIPLES + np.array(other), minlength=TRIPLES * TRIPLES)
        assert chi_square(joint) < 1023 + 3.3 * (2 * 1023) ** 0.5


def test_the_draw_by_a_naive_splitmix():
    uids = ["0123456789abcdef" * 2, "f" * 32, "0" * 32, "00ff" * 8]
    for style in STYLES:
        key = xxhash.xxh3_64_intdigest(f"captions.rewrite\0{style}\x007".encode())
        expected = [mix64(int(uid[16:], 16) ^ mix64(int(uid[:16], 16) ^ key)) >> 59 for uid in uids]
        assert chosen(uids, style, seed=7) == expected


@given(st.permutations(range(12)), st.integers(0, 12))
@settings(max_examples=20)
def test_a_request_depends_on_its_row_alone(order, cut):
    captions = [f"a cat number {i}" if i % 5 else None for i in range(12)]
    rows = table(captions, per_row=2)
    for prompt in ("completion", "chat"):
        options = rewrite(prompt=prompt)
        whole = requests(rows, options)
        assert len(whole) == 9 * 4 * 2
        shuffled = rows.take(pa.array(order, pa.int64()))
        parts = requests(shuffled[:cut], options) + requests(shuffled[cut:], options)
        by_place = {(r.uid, r.style, r.ordinal): r for r in parts}
        assert [by_place[r.uid, r.style, r.ordinal] for r in whole] == whole and len(parts) == len(whole)
        assert len({r.digest("m") for r in whole}) == len(whole)


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


def test_requests_of_a_group_share_all_but_the_caption():
    found = requests(table([f"cat {i}" for i in range(400)]), rewrite("human"))
    beginnings = {(r.group, r.prompt.rpartition("\n")[0]) for r in found}
    assert len(beginnings) == TRIPLES == len({group for group, _ in beginnings})


def test_several_texts_differ_by_ordinal_and_seed_and_the_first_stays():
    one, three = (requests(table(["a cat"], n), rewrite("coco")) for n in (1, 3))
    assert [r.ordinal for r in three] == [0, 1, 2] and one == three[:1]
    assert len({r.sampling.seed for r in three}) == 3 and len({r.prompt for r in three}) == 1


def test_rows_for_which_nothing_is_asked():
    rows = make_rows([1, 1, 1, 0, None, 2], caption=[None, "", " \u200b", "a", "b", "c"])
    assert [(r.uid[-1], r.ordinal) for r in requests(rows, rewrite("coco"))] == [("5", 0), ("5", 1)]
    assert requests(rows[:0], rewrite()) == []


def test_an_own_template(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Rewrite.\n{examples}\n{caption} =>")
    options = rewrite("coco", template=str(path))
    [mine], [packaged] = (requests(table(["a cat"]), o) for o in (options, rewrite("coco")))
    assert mine.prompt == "Rewrite.\n" + packaged.prompt.partition("\n\n")[2]
    assert mine.digest("m") != packaged.digest("m")


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
    """Byte for byte, with examples of the user's: three different pairs of them, in 32 triples."""
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
    assert sorted(shown) == [
        f"{source} => {target}" for source, target in PAIRS[:3]
    ]  # of three pairs there is one triple
    [four] = requests(table(["a cat"]), rewrite("coco", examples={"coco": own}))
    assert four.prompt.split("\n")[2:5] and "thing <" in four.prompt  # a style of the package may be replaced


def test_the_digest_of_examples_is_of_their_content(tmp_path):
    one, same = (write_pairs(tmp_path / name) for name in ("one.txt", "same.txt"))
    other = write_pairs(tmp_path / "other.txt", PAIRS[1:])
    digests = [rewrite(examples={"own": path}).examples_digest() for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2] and rewrite().examples_digest() is None


def test_a_prompt_without_examples(tmp_path):
    (tmp_path / "bare.txt").write_text("Say it otherwise: {caption} =>")
    options = rewrite("bare", template=f"{tmp_path}/bare.txt")
    [request] = requests(table(["a cat"]), options)
    assert request.prompt == "Say it otherwise: a cat =>" and request.style == "bare" and options.shown_examples() == []
    for wrong, message in (
        (
            rewrite(template=f"{tmp_path}/bare.txt"),
            "has no fields for examples, but the section has 4 styles; accepted: fields examples, source_1",
        ),
        (
            rewrite(template=f"{tmp_path}/bare.txt", examples={"a": "x"}),
            "has no fields for examples, but the section has examples",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            wrong.load_template()
    (tmp_path / "shows.txt").write_text("{examples} {caption} =>")
    with pytest.raises(
        RecipeError, match="style 'bare' has no examples; accepted: chat_a, chat_b, human, coco, and keys of examples"
    ):
        rewrite("bare", template=f"{tmp_path}/shows.txt").load_template()
    (tmp_path / "wrong.txt").write_text("{source_4} {caption} =>")
    with pytest.raises(
        RecipeError,
        match=r"(?s)unknown field \{source_4\}; .*fields of rewrite_completion: caption, examples, source_1, target_1"
        r".*\n.*wrong.txt: has no fields for examples, but the section has 4 styles",
    ):
        rewrite(template=f"{tmp_path}/wrong.txt").load_template()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a => b\nc\n", r"line 2 is 'c'; accepted: a caption => the same in other words"),
        ("a => b => c\n", r"line 1 is 'a => b => c'"), ("=> b\n", r"line 1 is '=> b'"),
        ("a => b\na => b\nc => d", r"has 2 pairs; accepted: at least 3, all of them different"), ("", r"has 0 pairs"),
        (b"\xff => b", r"cannot be read as examples of rewrite"),
    ],
)  # fmt: skip
def test_wrong_examples(text, message, tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=message) as error:
        read_pairs(str(path))
    assert str(error.value).startswith(f"{path}: ")


def test_examples_that_are_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"own\.txt: no such file; the recipe names it as examples of rewrite"):
        read_pairs(f"{tmp_path}/own.txt")


def test_an_unknown_style():
    with pytest.raises(
        ValueError, match="'coca' is not a style; accepted: chat_a, chat_b, human, coco, and keys of examples"
    ):
        rewrite("coca")


@pytest.mark.parametrize("caption", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_caption_stays_data(caption):
    uids = ["ab" * 16]
    [found], [plain] = (requests(table([c], 1, uids), rewrite("human")) for c in (caption, "a cat"))
    assert found.prompt.count("\n") == plain.prompt.count("\n") == 5 and found.prompt.count("=>") == 4
    assert found.prompt.rpartition("\n")[0] == plain.prompt.rpartition("\n")[0] and found.prompt.endswith(" =>")
    assert count_marks(found.prompt) == 0
    options = rewrite("human", prompt="chat")
    [found], [plain] = (requests(table([c], 1, uids), options) for c in (caption, "a cat"))
    assert found.messages[0] == plain.messages[0] and len(found.messages) == 2
    text = found.messages[1].text
    assert text.startswith("<caption>") and text.endswith("</caption>") and "\n" not in text
    assert text.count("<") == text.count(">") == 2 and len(text) <= 512 + len("<caption></caption>")


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
