"""The JSON schema of recipes, by which editors complete keys and mark faults while a recipe is written.

It refuses no recipe that curate takes. What it does not say, such as rules that name no column, `curate plan` finds.
"""

from typing import Any

from curate.recipe.recipe import Recipe
from curate.recipe.source import FORMATS, UnknownSource


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12), with the kinds of signals, formats and engines that are installed."""
    schema = Recipe.full().model_json_schema()
    sections = schema["$defs"]
    for key, kind in FORMATS.kinds().items():
        properties = sections[kind.section.__name__]["properties"]
        properties["format"] = {"const": key, "description": properties["format"]["description"]}
    unknown = {"$ref": f"#/$defs/{UnknownSource.__name__}"}
    for choices in schema["properties"]["input"]["anyOf"]:
        source = choices.get("items", choices)
        source["oneOf"] = [choice for choice in source["oneOf"] if choice != unknown]
    del sections[UnknownSource.__name__]
    for section in sections.values():
        if "description" in section:
            section["description"] = section["description"].partition("\n\nAttributes:")[0]  # which are for developers
    for section in schema["properties"].values():
        if section.get("type") == "object" or "$ref" in section:  # or nothing, as YAML has a key without a value
            names = section.keys() - {"default", "description", "examples", "title"}
            section["anyOf"] = [{name: section.pop(name) for name in [*section] if name in names}, {"type": "null"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of curate"}
