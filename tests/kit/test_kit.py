"""The case of the kit's own docstring."""

from tests import kit


def test_short_captions_are_dropped(tmp_path):
    result = kit.curate(tmp_path, [kit.sample("a", "a red dog"), kit.sample("b", "dog")], rules={"short": "words > 1"})
    assert result.by_key == {"a": "kept", "b": "short"}
