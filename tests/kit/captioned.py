"""Runs that write captions: a recipe with an engine on an `llm_server`, the server's faithful answer, and what is in the shards."""

import json
import tarfile

from tests import kit
from tests.kit.written_runs import run_query

STYLES = ["human", "coco"]


def faithful(prompt):
    """What an engine answers to a LaCLIP prompt: the caption that it ends with, in other words, and another line."""
    caption = prompt.rstrip().splitlines()[-1].removesuffix("=>").strip()
    return f" here you can see {caption}\nand another line"


def caption_recipe(path, server, captions=None, **sections):
    """A recipe that rewrites each caption in two styles."""
    engine = {"base_url": server.base_url, "model": "tiny-llm", "attempts": 2, "timeout": 60}
    rewrite = {"engine": "llm", "styles": STYLES, "batch": 8}
    captions = {"engines": {"llm": {"openai": engine}}, "rewrite": rewrite, **(captions or {})}
    return kit.recipe_of(path, captions=captions, **{"max_failed": 1.0, **sections})


def kept_samples(folder):
    """The members of each sample in a run's shards, by uid and suffix."""
    found = {}
    for path in sorted(folder.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(f"{path.name} {key}", {})[suffix] = tar.extractfile(member).read()
    return {json.loads(files["json"])["uid"]: files for files in found.values()}


def ask(folder, name, **params):
    """A named query's rows."""
    found = run_query(str(folder), name, params)
    return [dict(zip(found.names, row, strict=True)) for row in found.rows]
