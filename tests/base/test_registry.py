"""Registries: the order of kinds, nearest names, and kinds of other packages (see tests/test_foreign_kinds.py)."""

from dataclasses import dataclass

import pytest

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
    ("packages", "message"),
    [
        ({"fruit_x": "apple"}, r"two fruits are named 'apple': one in curate itself, one in package fruit-x 1\.2"),
        ({"fruit_a": "cherry", "fruit_b": "cherry"}, r"'cherry': one in fruit-\w 1\.2, one in package fruit-\w 1\.2"),
    ],
)
def test_kinds_of_one_name_are_refused(install, packages, message):
    installing = install(**{package: (key, fruit(key)) for package, key in packages.items()})
    with installing, pytest.raises(RecipeError, match=message):
        FRUITS.kinds()
