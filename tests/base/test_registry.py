"""Registries: the order of kinds, nearest names, and kinds of other packages (see tests/test_foreign_kinds.py)."""

from dataclasses import dataclass

import pytest

from curate.base import registry
from curate.base.errors import RecipeError
from curate.base.registry import Registry
from tests.kit.packages import installed, lay_out


@dataclass(frozen=True)
class Fruit:
    key: str


BUILTIN = (Fruit("pear"), Fruit("apple"))
FRUITS = Registry("fruit", f"{__name__}:BUILTIN", "curate.test_fruits", f"{__name__}:Fruit")


def fruit(key):
    return f"from {__name__} import Fruit\nKIND = Fruit({key!r})\n"


@pytest.fixture
def install(tmp_path):
    """Installs packages of one fruit: the key of each, and the code of its module."""

    def make(**packages):
        for package, (key, code) in packages.items():
            kinds = {key: f"{package}:KIND"}
            lay_out(tmp_path, package.replace("_", "-"), "test_fruits", kinds, "1.2", **{package: code})
        return installed(tmp_path)

    return make


def test_own_kinds_in_their_order_then_foreign_ones_by_name(install):
    names = {"fruit_b": "cherry", "fruit_a": "zucchini", "fruit_c": "banana"}
    with install(**{package: (key, fruit(key)) for package, key in names.items()}):
        assert list(FRUITS.kinds()) == ["pear", "apple", "banana", "cherry", "zucchini"]
        assert FRUITS.find("cherry").key == "cherry"
        assert (FRUITS.package("cherry"), FRUITS.package("pear")) == ("fruit-b 1.2", None)
        assert list(Registry("fruit", FRUITS.builtin).kinds()) == ["pear", "apple"], "no group: own kinds alone"


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(RecipeError, match=r"no fruit is named 'aple'; did you mean 'apple'\? accepted: pear, apple$"):
        FRUITS.find("aple")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise KeyError('no')", r".*KeyError: 'no' at fruit_x.py:1 in <module>; repair or"),
        ("KIMD = 1", ".*AttributeError"),
        ("KIND = 1", r".* is 1; accepted: a kind \(Fruit\) with the entry point's name as its key"),
        (fruit("y"), r".* is Fruit\(key='y'\); accepted"),
    ],
)  # fmt: skip
def test_a_broken_kind_is_an_error_where_it_is_used_and_else_one_warning(install, code, message, caplog):
    message = rf"fruit 'x' of package fruit-x 1\.2: {message}"
    with install(fruit_x=("x", code)):
        assert list(FRUITS.kinds()) == ["pear", "apple"] and FRUITS.find("pear") is BUILTIN[0] and not caplog.records
        with pytest.raises(RecipeError, match=message) as raised:
            FRUITS.find("x")
        registry.warn_of_broken(raised.value)
        assert not caplog.records, "the error is enough"
    with install():
        assert FRUITS.broken
        for _ in range(2):
            registry.warn_of_broken("of others")
        [record] = caplog.records
        assert record.getMessage().startswith("warning: fruit 'x' of package fruit-x 1.2: ")


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({"fruit_x": "apple"}, r"two fruits are named 'apple': one of curate itself, one of package fruit-x 1\.2"),
        ({"fruit_a": "cherry", "fruit_b": "cherry"}, r"'cherry': one of fruit-\w 1\.2, one of package fruit-\w 1\.2"),
    ],
)
def test_kinds_of_one_name_are_refused(install, packages, message):
    installing = install(**{package: (key, fruit(key)) for package, key in packages.items()})
    with installing, pytest.raises(RecipeError, match=message):
        FRUITS.kinds()
