"""The key of a unit's captions changes if and only if something that affects the texts changes."""

import json
from dataclasses import replace

import pytest

from curate.captions.engines import identify_engines
from curate.captions.settings import CaptionSettings
from curate.recipe.recipe import change_recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit.keys import check_key

ENGINE = {"base_url": "http://localhost:1/v1", "model": "tiny"}
CAPTIONS = {
    "engines": {"llm": {"openai": ENGINE}, "other": {"openai": ENGINE}},
    "recaption": {"engine": "llm", "styles": ["short"]},
    "fuse": {"engine": "llm"},
    "rewrite": [{"engine": "llm", "styles": ["human"]}, {"engine": "llm", "styles": ["coco"]}],
    "translate": {"engine": "llm", "languages": ["de"]},
    "regions": {"model": "org/owl"},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    path = kit.write_tars(folder / "tars", kit.make_samples(24), 1)
    return prepare(kit.recipe_of(path, captions=CAPTIONS), str(folder / "out"))


def test_the_key_changes_with_its_inputs_alone(prepared, tmp_path):
    settings, unit = CaptionSettings.of(prepared.context), prepared.plan.units[0]
    for name, field in (("a", "{language} "), ("b", "In {language}: ")):
        (tmp_path / name).write_text(f"[user]\n{field}<caption>{{caption}}</caption>")

    def make(change=""):
        captions = change_recipe(prepared.context.recipe, [f"captions.{change}"] if change else []).captions
        return replace(settings, captions=captions, engine_ids=identify_engines(captions)).key(unit, "d" * 32)

    changes = [
        "engines.llm.openai.model=large", "engines.llm.openai.extra={top_k: 3}", "translate=null",
        "recaption.styles=[short, long]", "rewrite={engine: llm, styles: [human]}", "fuse.per_row=2", "fuse.temperature=0.5",
        "translate.languages=[fr]", f"translate.template={tmp_path}/a", f"translate.template={tmp_path}/b",
        "gates={words: [2, 50]}", "output.mix={rewrite: 0.1}", "regions.model=org/other", "regions.threshold=0.2",
    ]  # fmt: skip
    not_changes = [
        "engines.llm.openai.base_url=http://elsewhere:1/v1", "engines.llm.price={hour: 3}", "fuse.engine=other",
        f"engines.llm.openai={json.dumps(ENGINE | {'concurrency': 3, 'timeout': 5, 'attempts': 2})}",
        "recaption.batch=7", "regions={model: org/owl, device: cpu, batch: 3}",
    ]  # fmt: skip
    check_key(make, changes, not_changes)
    other = replace(unit, parts=(replace(unit.parts[0], size=1),))
    assert len({make(), settings.key(unit, "e" * 32), settings.key(other, "d" * 32)}) == 3
