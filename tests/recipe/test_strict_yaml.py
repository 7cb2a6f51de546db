"""Untrusted YAML: plain text is read as PyYAML reads it; bombs, depth, and lone surrogates are refused quickly."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.recipe.strict_yaml import MAX_CHARACTERS, MAX_DEPTH, find_surrogate, load_yaml

BILLION, LONG = f"accepted: at most {MAX_CHARACTERS:,} characters", "characters, line 1; accepted: at most 100"
DEEP = "nested too deeply, line "
PLAIN = [
    "a: &a {x: 1, y: [2, 3]}\nb: *a\nc: [*a, *a]", "a: &a {x: 1}\nb: {<<: *a, y: 2}",
    "a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: [*a, *b], x: 3}", "a: &name words > 2\nb: *name\n*name : 5",
    "a: {b: &b {<<: &d {x: 1}, x: 2}}\nc: {<<: *b}", "", '"\\U0001f600"',
    "when: 2001-01-01\nat: 2001-01-01 10:00:00 +02:00\nn: [0x1f, 1_000, 1:30, .inf, 1e3, ~, yes]",
]  # fmt: skip


def test_plain_yaml_is_read_as_pyyaml_reads_it():
    for text in PLAIN:
        assert load_yaml(text) == yaml.safe_load(text), text
    # but for `off`, false in YAML 1.1, which is a key of `captions.gates`
    assert load_yaml("gates: {off: [names], on: 1, yes: off}") == {"gates": {"off": ["names"], "on": 1, "yes": False}}


@pytest.mark.thorough
@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_what_pyyaml_writes_is_read(value):
    assert load_yaml(yaml.safe_dump(value)) == value


def laughs(first, line, levels=40):
    """Each line has aliases of the previous line in place of each @."""
    lines = [f"l0: &l0 {first}", *(f"l{n}: &l{n} {line.replace('@', f'*l{n - 1}')}" for n in range(1, levels))]
    return "\n".join(lines)


TEN = f"[{', '.join(['@'] * 10)}]"
REFUSED = [
    (laughs("[x]", TEN), BILLION, "aliases", "too long", "line "), (laughs("{x: 1}", "{a: @, b: @, c: @, d: @}"), BILLION),
    (laughs("{x: 1}", f"{{<<: {TEN}, y: 1}}"), BILLION), (laughs("[]", TEN), BILLION),
    (laughs("x" * 1_000_000, TEN), BILLION), (laughs("[x]", "[@]", MAX_DEPTH), DEEP),
    *((text, "an alias is inside the value that it names, line 1") for text in ("&a [*a]", "a: &a {b: *a}",
     "&a {<<: *a}", "&a {? *a : 1}")),
    *((text, f"{DEEP}1; accepted: at most {MAX_DEPTH} levels") for text in ("[" * 50_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000,
     "[" * 101 + "]" * 101)),
    *((text, "is half of a surrogate pair, line 1", "\\ud") for text in ('"\\ud800"', '{"a\\udfff": 1}', 'a: ["x\\ud83dx"]',
     '!!str "\\ud800"')),
    ("#" * (MAX_CHARACTERS + 1), "characters; accepted: at most"),
    ("9" * 101, f"101 {LONG}"), ("0x" + "f" * 10_000, f"10,002 {LONG}"), ("1" + ":1" * 100_000, LONG),
    ("1" + ":1" * 1_000 + ".5", LONG),
    *((f"\na: {text}", "is not of the type timestamp, line 2") for text in ("2001-13-45", "2001-01-01 00:00:00 +99:99",
     "!!timestamp x")),
    ("\na: !!bool maybe", "is not of the type bool, line 2"), ('\na: !!int ""', "is not of the type int, line 2"),
    ("\na: !!int x", "is not of the type int, line 2"), ('\na: !!float ""', "is not of the type float, line 2"),
    *((f"!!{kind}", f"a value has the type {kind.split()[0]}, line 1; accepted: mappings, lists, text")
      for kind in ("binary aGVsbG8=", "set {a, b}", "omap [a: 1]", "pairs [a: 1]")),
    ("a: 1\na: 2", "key 'a' occurs twice, line 2"), ("rules:\n  a: x\n  a: y", "'a' occurs twice, line 3"),
    ("[a]: 1", "cannot be a key"), ("? {a: b}\n: c", "cannot be a key"), ("a: [", "line 1"), ("a: b: c", "line 1"),
    ("!!python/object/apply:os.system [ls]", "python"),
]  # fmt: skip


def test_what_is_refused():
    for text, *parts in REFUSED:
        began = time.process_time()
        with pytest.raises(yaml.YAMLError) as caught:
            load_yaml(text)
        assert time.process_time() - began < 10, text[:100]
        assert not [part for part in parts if part not in str(caught.value)], (text[:100], str(caught.value)[:300])


def test_limits_are_the_largest_that_is_read(monkeypatch):
    assert len(load_yaml(laughs("[x]", "[@]", MAX_DEPTH - 5))) == MAX_DEPTH - 5
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert find_surrogate("a\udc00\ud800") == "\\udc00" and find_surrogate("é😀") is None
    monkeypatch.setattr("curate.recipe.strict_yaml._MAX_NODES", 100)
    assert len(load_yaml(f"[{'a,' * 99}]")) == 99
    with pytest.raises(yaml.YAMLError, match="too many keys and values, line 1; accepted: at most 100"):
        load_yaml(f"[{'a,' * 100}]")
