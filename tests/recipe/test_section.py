"""Paths in a recipe are resolved if the field's type is a path, at any depth, and nothing else is."""

from typing import ClassVar

import pytest
from pydantic import Field, create_model

from curate.recipe.section import ModelPath, Section, UserPath, UserPaths, without_runtime


class Inner(Section):
    file: UserPath
    maybe: UserPath | None = None
    text: str = "text"


class Outer(Section):
    paths: UserPaths
    named: dict[str, UserPaths] = Field({})
    listed: tuple[Inner, ...] = ()
    either: Inner | tuple[Inner, ...] | None = None
    by_name: dict[str, str | Inner] = Field({})
    model: ModelPath = "org/name"


def absolute(path):
    return f"/base/{path}"


def test_every_form_of_a_field_that_holds_paths():
    inner = {"file": "f"}
    found = Outer.model_validate(
        {
            "paths": ["a", "b"], "named": {"x": "c", "y": ["d"]}, "listed": [inner, {"file": "g", "maybe": "h"}],
            "either": [inner], "by_name": {"file": "text", "other": inner}, "model": "./folder",
        },
        context=absolute,
    )  # fmt: skip
    assert found.model_dump() == {
        "paths": ("/base/a", "/base/b"),
        "named": {"x": "/base/c", "y": ("/base/d",)},
        "listed": ({"file": "/base/f", "maybe": None, "text": "text"}, {"file": "/base/g", "maybe": "/base/h", "text": "text"}),
        "either": ({"file": "/base/f", "maybe": None, "text": "text"},),
        "by_name": {"file": "text", "other": {"file": "/base/f", "maybe": None, "text": "text"}},
        "model": "/base/./folder",
    }  # fmt: skip


@pytest.mark.parametrize("model", ["org/name", "/folder", "name"])
def test_a_name_of_a_model_is_no_path(model):
    assert Outer.model_validate({"paths": "a", "model": model}, context=absolute).model == model


def test_paths_stay_as_they_are_written_without_a_context():
    assert Outer.model_validate({"paths": "a", "model": "./m"}).model_dump(include={"paths", "model"}) == {
        "paths": "a",
        "model": "./m",
    }


class Placed(Section):
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"device"})
    device: str = "cpu"
    model: str = "m"


class Holder(Section):
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"threads"})
    threads: int = 1
    inner: Placed | None = Placed()
    text: str = "text"


@pytest.mark.parametrize("holder", [Holder(), Holder(threads=2, inner=Placed(device="cuda"))])
def test_values_do_not_depend_on_where_they_are_computed(holder):
    assert without_runtime(holder, holder.model_dump()) == {"inner": {"model": "m"}, "text": "text"}
    assert without_runtime(holder, {"threads": 3, "text": "other"}) == {"text": "other"}
    assert without_runtime(Holder(inner=None), {"inner": None}) == {"inner": None}


def test_the_text_below_a_field_is_its_description():
    class Base(Section):
        first: int = 1
        """Of the base."""
        second: int = 2
        """Of the base
        too."""

    class Derived(Base):
        second: int = Field(3, description="Of the field.")
        third: int = 4

    def meanings(section):
        return {name: key.get("description") for name, key in section.model_json_schema()["properties"].items()}

    assert meanings(Base) == {"first": "Of the base.", "second": "Of the base too."}
    assert meanings(Derived) == {"first": "Of the base.", "second": "Of the field.", "third": None}
    assert meanings(create_model("Made", __base__=Derived, fourth=(int, 5)))["first"] == "Of the base."
