"""Untrusted YAML: plain text is read as by PyYAML; bombs, depth, and lone surrogates are refused quickly."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.recipe.strict_yaml import MAX_CHARACTERS, MAX_DEPTH, find_surrogate, load_yaml


def refusal(text):
    began = time.process_time()
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(text)
    assert time.process_time() - began < 10
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: [2, 3]}\nb: *a\nc: [*a, *a]",
        "a: &a {x: 1}\nb: {<<: *a, y: 2}",
        "a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: [*a, *b], x: 3}",
        "a: &name words > 2\nb: *name\n*name : 5",
        "a: {b: &b {<<: &d {x: 1}, x: 2}}\nc: {<<: *b}",
        "when: 2001-01-01\nat: 2001-01-01 10:00:00 +02:00\nn: [0x1f, 1_000, 1:30, .inf, 1e3, ~, yes]",
        "",
        '"\\U0001f600"',
    ],
)
def test_plain_yaml_is_read_as_pyyaml_reads_it(text):
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.thorough
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_pyyaml_writes_is_read(value):
    assert load_yaml(yaml.safe_dump(value)) == value


def laughs(first, line, levels=40):
    """Each line has ten aliases of the previous one."""
    lines = [f"l0: &l0 {first}", *(f"l{n}: &l{n} {line.replace('@', f'*l{n - 1}')}" for n in range(1, levels))]
    return "\n".join(lines)


LIST = f"[{', '.join(['@'] * 10)}]"


@pytest.mark.parametrize(
    ("first", "line"),
    [
        ("[x]", LIST),
        ("{x: 1}", "{a: @, b: @, c: @, d: @}"),
        ("{x: 1}", f"{{<<: {LIST}, y: 1}}"),
        ("[]", LIST),
        ("x" * 1_000_000, LIST),
    ],
)
def test_a_billion_laughs(first, line):
    message = refusal(laughs(first, line))
    assert f"more than {MAX_CHARACTERS:,} characters" in message and "aliases" in message and "line " in message


def test_a_chain_of_aliases_is_as_deep_as_it_is_when_followed():
    assert f"nested more than {MAX_DEPTH} deep" in refusal(laughs("[x]", "[@]", MAX_DEPTH))
    assert len(load_yaml(laughs("[x]", "[@]", MAX_DEPTH - 5))) == MAX_DEPTH - 5


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "&a {<<: *a}", "&a {? *a : 1}"])
def test_an_alias_within_what_it_names(text):
    assert "an alias inside the value that it refers to, line 1" in refusal(text)


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000, "[" * 101 + "]" * 101])
def test_depth(text):
    assert f"nested more than {MAX_DEPTH} deep, line 1" in refusal(text)
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a\\udfff": 1}', 'a: ["x\\ud83dx"]', '!!str "\\ud800"'])
def test_half_a_surrogate_pair(text):
    message = refusal(text)
    assert "half a surrogate pair, \\ud" in message and "line 1" in message
    assert find_surrogate("a\udc00\ud800") == "\\udc00" and find_surrogate("é😀") is None


def test_too_many_values(monkeypatch):
    """4 MB of short values took minutes."""
    monkeypatch.setattr("curate.recipe.strict_yaml._MAX_NODES", 100)
    assert len(load_yaml(f"[{'a,' * 99}]")) == 99
    with pytest.raises(yaml.YAMLError, match="more than 100 keys and values, line 1; accepted: at most that"):
        load_yaml(f"[{'a,' * 100}]")


def test_a_text_that_is_too_long():
    assert "characters; accepted: at most" in refusal("#" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("text", ["9" * 101, "0x" + "f" * 10_000, "1" + ":1" * 100_000, "1" + ":1" * 1_000 + ".5"])
def test_numbers_that_are_too_long(text):
    assert f"a number of {len(text):,} characters, line 1; accepted: at most 100" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "2001-13-45", "2001-01-01 00:00:00 +99:99", "!!bool maybe", '!!int ""', "!!int x",
        '!!float ""', "!!timestamp x",
    ],
)  # fmt: skip
def test_a_scalar_that_is_not_what_its_tag_says(text):
    kind = text.partition(" ")[0][2:] if text.startswith("!") else "timestamp"
    message = refusal(f"\na: {text}")
    assert f"is not {kind}, line 2" in message


@pytest.mark.parametrize("text", ["!!binary aGVsbG8=", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]"])
def test_values_that_json_does_not_have(text):
    kind = text.partition(" ")[0][2:]
    assert f"a value of type {kind}, line 1; accepted: mappings, lists, texts" in refusal(text)


@pytest.mark.parametrize(
    ("text", "part"), [("a: 1\na: 2", "key 'a' occurs twice, line 2"), ("[a]: 1", "cannot be a key")]
)
def test_keys(text, part):
    assert part in refusal(text)


def test_a_key_is_no_boolean():
    """YAML 1.1 reads `off` as false, but it is a key in `captions.gates`."""
    assert load_yaml("gates: {off: [names], on: 1, yes: off}") == {"gates": {"off": ["names"], "on": 1, "yes": False}}
