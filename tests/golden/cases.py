"""Six small pools with a recipe each, which together use most of what a recipe can ask for."""

import json
import shutil
from importlib.resources import as_file, files
from unittest import mock

import numpy as np
import yaml
from PIL import Image

from curate.demo.pool import write_pool as write_demo
from curate.recipe.recipe import load_recipe
from tests import kit
from tests.kit import embedded, languages, llm_server
from tests.kit.llm_server import FaultServer


def write_recipe(folder, **sections):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))


def images(folder):
    """Tars with duplicates and damage: rules, deduplication by uid, bytes and phash, MetaCLIP's balancing."""
    kit.write_tars(folder / "pool", kit.make_samples(60), 3)
    kit.write_metadata(folder)
    write_recipe(
        folder,
        name="images",
        input={"name": "web", "format": "webdataset", "path": "pool/*.tar"},
        measure={"image": {"phash": True}, "language": {}},
        match={"metadata": "metadata.json"},
        rules={"short": "words > 2", "narrow": "least(width, height) >= 49"},
        dedup={"by": ["uid", "sha256", {"phash": {"distance": 2}}]},
        balance={"t": 12},
        output={"rows_per_shard": 20},
        max_failed=1.0,
    )


def texts(folder):
    """Rows of text with scores: top by score, a derived statistic, a weighted sample, Parquet output."""
    kit.write_parquets(folder / "pool", kit.make_rows(120), 2)
    write_recipe(
        folder,
        name="texts",
        input={"name": "laion", "format": "parquet", "path": "pool/*.parquet", "columns": {"scores": ["clip_score"]}},
        derive={"rank": "quantile(clip_score)"},
        rules={"large": "least(width, height) >= 150", "best": {"top": 0.8, "of": "clip_score"}, "long": "words > 3"},
        dedup={"by": ["uid"]},
        sample={"rows": 40, "weights": "rank"},
        max_failed=1.0,
    )


def per_language(folder):
    """Captions of five languages, balanced per language as MetaCLIP 2 does, one caption for each image."""
    sizes = {"en": 60, "de": 30, "ja": 20, "tr": 12, "sw": 6}
    languages.write_entries(folder, sizes)
    languages.write_pool(folder, languages.make_texts(sizes=sizes), 2)
    write_recipe(
        folder,
        name="per-language",
        input={"name": "web", "format": "parquet", "path": "pool2/*.parquet", "columns": {"language": "lang"}},
        match={"metadata": "entries.parquet"},
        rules={"caps": "caption <> upper(caption)"},
        balance={"scheme": "per_language", "t": 4, "one_per": "url"},
    )


def embeddings(folder):
    """Rows with embeddings: s-CLIPLoss, clusters, near duplicates by cosine."""
    path = embedded.write_pool(folder / "pool", 3, *embedded.make_embeddings(90), missing=(3, 50))
    recipe = embedded.recipe_of(
        path,
        {
            "negclip": {"s_clip": {"of": "l14", "references": 40}},
            "clusters": {"topic": {"of": "l14", "k": 4, "rounds": 6}},
        },
        name="embeddings",
        max_failed=1.0,
    )
    recipe["input"]["path"] = "pool/*.parquet"
    recipe["rules"] = {"aligned": {"top": 0.7, "of": "s_clip"}}
    recipe["dedup"] = {"by": [{"embedding": {"cosine": 0.9, "of": "l14"}}]}
    write_recipe(folder, **recipe)


def rewritten(prompt):
    """What the endpoint answers: a faithful rewrite, or for some captions something that a quality filter refuses."""
    caption = prompt.rstrip().splitlines()[-1].removesuffix("=>").strip()
    return "As an AI, I cannot see images." if "of" in caption.split() else f"there is {caption}, seen from afar"


def captions(folder):
    """Photos in a folder with a table of captions; rewrites that an endpoint gave before, judged and mixed."""
    (folder / "photos").mkdir()
    for i in range(24):
        side = 40 if i == 5 else 64
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, 64, 3), np.uint8)).save(
            folder / f"photos/{i}.png"
        )
    rows = [{"file_name": f"{i}.png", "caption": f"a {kit.WORDS[i]} beside the {kit.WORDS[i + 7]}"} for i in range(24)]
    (folder / "photos/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "captions",
        "input": {"name": "mine", "format": "files", "path": "photos"},
        "rules": {"small": "height >= 50"},
        "captions": {"rewrite": {"engine": "llm", "styles": ["human", "coco"]}, "output": {"mix": {"rewrite": 0.5}}},
    }
    with FaultServer() as server, mock.patch.object(llm_server, "echo", rewritten):
        recipe["captions"]["engines"] = {"llm": {"openai": {"base_url": server.base_url, "model": "tiny"}}}
        write_recipe(folder, **recipe)
        kit.run_local(load_recipe(str(folder / "recipe.yaml")), folder / "asked")
    recipe["captions"]["engines"] = {"llm": {"recorded": {"path": "asked", "model": "tiny"}}}
    write_recipe(folder, **recipe)


def demo(folder):
    """The demo's scenes with its CLIP: languages, clip_score, near duplicates by phash and embedding, target size."""
    write_demo(str(folder / "pool"), samples=120, seed=0, shards=4)
    with as_file(files("curate.demo")) as packaged:
        shutil.copytree(packaged / "clip", folder / "clip")
        recipe = yaml.safe_load((packaged / "recipe.yaml").read_text())
    write_recipe(folder, **recipe | {"balance": {"t": 2}, "max_failed": 1.0})


CASES = [images, texts, per_language, embeddings, captions, demo]
