"""What differs between two recipes, by dotted key."""

import pytest

from curate.recipe.recipe import Change, changes


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": None}, {}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": 4}, [("a.b", 1, 3), ("d", None, 4)]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [("a.1.b", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": {"b": 1}}, {"a": None}, [("a", {"b": 1}, None)]),
        ({"rules": {"x": "1", "y": "2"}}, {"rules": {"y": "2", "x": "1"}}, [("the order of rules", ["x", "y"], ["y", "x"])]),
        ({"other": {"x": 1, "y": 2}}, {"other": {"y": 2, "x": 1}}, []),
    ],
)  # fmt: skip
def test_changes(old, new, found):
    assert changes(old, new) == [Change(*one) for one in found]
