"""Registries: the order of kinds, nearest names, and kinds of other packages, whose faults name the package."""

import importlib
import re
import sys
from dataclasses import dataclass

import pytest

from curate.base import registry
from curate.base.errors import RecipeError
from curate.base.registry import Registry
from tests.kit.packages import lay_out


@dataclass(frozen=True)
class Fruit:
    key: str


BUILTIN = (Fruit("pear"), Fruit("apple"))
FRUITS = Registry("fruit", f"{__name__}:BUILTIN", "curate.test_fruits", f"{__name__}:Fruit")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes packages that state entry points, as an installer lays them out."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(package, code, *names):
        module = package.replace("-", "_")
        kinds = dict.fromkeys(names, f"{module}:KIND")
        lay_out(tmp_path, package, "test_fruits", kinds, "1.2", **{module: code})
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)

    registry._installed.cache_clear()
    registry._load.cache_clear()
    return make


@pytest.fixture(autouse=True)
def _forget():
    registry._installed.cache_clear()
    registry._load.cache_clear()


def code(key):
    return f"from tests.base.test_registry import Fruit\nKIND = Fruit({key!r})\n"


def test_own_kinds_in_their_order_then_foreign_ones_by_name(install):
    install("fruit-b", code("cherry"), "cherry")
    install("fruit-a", code("zucchini"), "zucchini")
    install("fruit-c", code("banana"), "banana")
    assert list(FRUITS.kinds()) == ["pear", "apple", "banana", "cherry", "zucchini"]
    assert FRUITS.find("cherry").key == "cherry"
    assert (FRUITS.package("cherry"), FRUITS.package("pear")) == ("fruit-b 1.2", None)


def test_no_group_means_own_kinds_alone(install):
    install("fruit-b", code("cherry"), "cherry")
    assert list(Registry("fruit", FRUITS.builtin).kinds()) == ["pear", "apple"]


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(RecipeError, match=r"no fruit is named 'aple'; did you mean 'apple'\? accepted: pear, apple$"):
        FRUITS.find("aple")


@pytest.mark.parametrize(
    ("package", "text", "name", "message"),
    [
        (
            "fruit-x",
            "raise KeyError('no')",
            "x",
            r"fruit 'x' of package fruit-x 1\.2: .*KeyError: 'no' at fruit_x.py:1 in <module>; repair or",
        ),
        ("fruit-x", "KIMD = 1", "x", r"fruit 'x' of package fruit-x 1\.2: .*AttributeError"),
        (
            "fruit-x",
            "KIND = 1",
            "x",
            r"fruit 'x' of package fruit-x 1\.2: .* is 1; accepted: a kind \(Fruit\) with the entry point's name as its key",
        ),
        ("fruit-x", code("y"), "x", r"fruit 'x' of package fruit-x 1\.2: .* is Fruit\(key='y'\); accepted"),
    ],
)  # fmt: skip
def test_a_fault_of_a_foreign_kind_names_its_package_where_it_is_used(install, package, text, name, message, caplog):
    install(package, text, name)
    assert list(FRUITS.kinds()) == ["pear", "apple"] and FRUITS.find("pear") is BUILTIN[0]
    assert not caplog.records
    for _ in range(2):
        registry.warn_of_broken("of others")
    [record] = caplog.records
    assert re.search(f"^warning: .*{message}", record.getMessage())
    with pytest.raises(RecipeError, match=message) as raised:
        FRUITS.find(name)
    registry._load.cache_clear()
    assert FRUITS.broken
    registry.warn_of_broken(raised.value)
    assert len(caplog.records) == 1, "an error that tells it is enough"


def test_a_name_of_curates_own(install):
    install("fruit-x", code("apple"), "apple")
    with pytest.raises(RecipeError, match="two fruits are named 'apple': one of curate itself, one of package fruit-x"):
        FRUITS.kinds()


def test_two_packages_with_one_name(install):
    install("fruit-a", code("cherry"), "cherry")
    install("fruit-b", code("cherry"), "cherry")
    with pytest.raises(
        RecipeError, match=r"'cherry': one of fruit-\w 1\.2, one of package fruit-\w 1\.2; uninstall one"
    ):
        FRUITS.kinds()
