"""The key of a unit's captions: it changes if and only if something that its texts depend on does."""

from dataclasses import replace

import pytest

from curate.captions.engines import identify_engines
from curate.captions.settings import CaptionSettings
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit

DECISIONS = "d" * 32
ENGINE = {"base_url": "http://localhost:1/v1", "model": "tiny"}
CAPTIONS = {
    "engines": {"llm": {"openai": ENGINE}, "other": {"openai": ENGINE}},
    "recaption": {"engine": "llm", "styles": ["short"]}, "fuse": {"engine": "llm"},
    "rewrite": [{"engine": "llm", "styles": ["human"]}, {"engine": "llm", "styles": ["coco"]}],
    "translate": {"engine": "llm", "languages": ["de"]}, "regions": {"model": "org/owl"},
}  # fmt: skip
SAME = {
    "where the engine is": {"engines": {"llm": {"openai": {**ENGINE, "base_url": "http://elsewhere:1/v1"}}}},
    "how it is asked": {"engines": {"llm": {"openai": {**ENGINE, "concurrency": 3, "timeout": 5, "attempts": 2}}}},
    "its price": {"engines": {"llm": {"openai": ENGINE, "price": {"hour": 3}}}},
    "the engine's name": {"fuse": {"engine": "other"}},
    "the size of batches": {"recaption": {"engine": "llm", "styles": ["short"], "batch": 7}},
    "where the detector runs": {"regions": {"model": "org/owl", "device": "cpu", "batch": 3}},
}
OTHER = {
    "the engine's model": {"engines": {"llm": {"openai": {**ENGINE, "model": "large"}}}},
    "further fields of requests": {"engines": {"llm": {"openai": {**ENGINE, "extra": {"top_k": 3}}}}},
    "a kind less": {"translate": None}, "a style more": {"recaption": {"engine": "llm", "styles": ["short", "long"]}},
    "a section less": {"rewrite": {"engine": "llm", "styles": ["human"]}},
    "texts of a row": {"fuse": {"engine": "llm", "per_row": 2}},
    "the temperature": {"fuse": {"engine": "llm", "temperature": 0.5}},
    "a language": {"translate": {"engine": "llm", "languages": ["fr"]}},
    "the template": {"translate": {"engine": "llm", "languages": ["de"], "template": "TEMPLATE"}},
    "the gates": {"gates": {"words": [2, 50]}}, "the mix": {"output": {"mix": {"rewrite": 0.1}}},
    "the detector": {"regions": {"model": "org/other"}},
    "its threshold": {"regions": {"model": "org/owl", "threshold": 0.2}},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    path = kit.write_tars(folder / "tars", kit.make_samples(24), 1)
    prepared = prepare(kit.recipe_of(path, captions=CAPTIONS), str(folder / "out"))
    return CaptionSettings.of(prepared.context), prepared.plan.units[0]


def changed(settings, sections):
    source = {"name": "a", "format": "webdataset", "path": "a.tar"}
    engines = {**CAPTIONS["engines"], **sections.get("engines", {})}
    recipe = parse_recipe({"input": source, "captions": {**CAPTIONS, **sections, "engines": engines}})
    assert recipe.captions is not None
    return replace(settings, captions=recipe.captions, engine_ids=identify_engines(recipe.captions))


@pytest.mark.parametrize("name", SAME)
def test_what_texts_do_not_depend_on(base, name):
    settings, unit = base
    assert changed(settings, SAME[name]).key(unit, DECISIONS) == settings.key(unit, DECISIONS)


def test_what_texts_depend_on(base, tmp_path):
    settings, unit = base
    template = tmp_path / "mine.txt"
    keys = {settings.key(unit, DECISIONS), settings.key(unit, "e" * 32)}
    for text in ("[user]\n{language} <caption>{caption}</caption>", "[user]\n<caption>{caption}</caption> {language}"):
        template.write_text(text)
        named = {"translate": {**OTHER["the template"]["translate"], "template": str(template)}}
        keys.add(changed(settings, named).key(unit, DECISIONS))
    others = {name: sections for name, sections in OTHER.items() if name != "the template"}
    keys |= {changed(settings, sections).key(unit, DECISIONS) for sections in others.values()}
    keys.add(settings.key(replace(unit, parts=(replace(unit.parts[0], size=1),)), DECISIONS))
    assert len(keys) == 2 + 2 + len(others) + 1
