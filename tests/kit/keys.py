"""A key changes if and only if one of its inputs does."""


def check_key(make, changes, not_changes=()):
    """Check that each change gives another key than `make()` does, and each of `not_changes` the same one.

    A change is an argument of `make`, such as an override in a recipe: `rules.words=words > 3`.
    """
    key, keys = make(), [make(change) for change in changes]
    same = [change for number, change in enumerate(changes) if keys[number] in (key, *keys[:number])]
    assert not same, f"these do not change the key, or as others do: {same}"
    assert not (wrong := [change for change in not_changes if make(change) != key]), f"these change the key: {wrong}"
