"""In a recipe, values are resolved as paths, at any depth, if and only if the field's type is a path."""

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


def test_every_form_of_a_field_that_holds_paths():
    inner = {"file": "f"}
    data = {
        "paths": ["a", "b"], "named": {"x": "c", "y": ["d"]}, "listed": [inner, {"file": "g", "maybe": "h"}],
        "either": [inner], "by_name": {"file": "text", "other": inner}, "model": "./folder",
    }  # fmt: skip
    resolved = {"file": "/base/f", "maybe": None, "text": "text"}
    assert Outer.model_validate(data, context=lambda path: f"/base/{path}").model_dump() == {
        "paths": ("/base/a", "/base/b"), "named": {"x": "/base/c", "y": ("/base/d",)},
        "listed": (resolved, {"file": "/base/g", "maybe": "/base/h", "text": "text"}), "either": (resolved,),
        "by_name": {"file": "text", "other": resolved}, "model": "/base/./folder",
    }  # fmt: skip
    for model in ("org/name", "/folder", "name"):  # these are no relative paths
        assert Outer.model_validate({"paths": "a", "model": model}, context=lambda path: f"/base/{path}").model == model
    plain = Outer.model_validate({"paths": "a", "model": "./m"})  # without a context nothing is resolved
    assert (plain.paths, plain.model) == ("a", "./m")


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
        return [key.get("description") for key in section.model_json_schema()["properties"].values()]

    assert meanings(Base) == ["Of the base.", "Of the base too."]
    assert meanings(Derived) == ["Of the base.", "Of the field.", None]
    assert meanings(create_model("Made", __base__=Derived, fourth=(int, 5)))[0] == "Of the base."
