"""README.md of a run: a dataset card for Hugging Face, filled from run.json.

In: the content of run.json. Out: YAML front matter, which configures `datasets.load_dataset`, and Markdown from the
template card.md. Names, rules, models and languages may have any text. The YAML library quotes it, or it is written as
code or escaped, so that it never becomes markup.
"""

import json
import re
from functools import cache, partial
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from curate.base.stages import FORGOTTEN
from curate.base.wording import escape, format_bytes, pluralize
from curate.emit.output_format import OutputFormat, find_written
from curate.store.facts import ContentFacts, RunFacts

UNKNOWN = "unknown"  # the license, if the recipe does not give one
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip
_CODE = re.compile(r"[a-z]{2,3}")  # ISO 639-1 and 639-3, which the Hub accepts
_MIN_SHARE = 0.001  # languages with a smaller share of the kept samples are probably errors of the detector
_DTYPES = dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"), "image")
_DTYPES |= {"txt": "string", "json": "json", "cls": "int64"}
_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")


def card_text(run: RunFacts) -> str:
    """Return the card's text."""
    front = yaml.safe_dump(_front_matter(run), sort_keys=False, allow_unicode=True, width=100)
    return template("card.md").render(run=run, kind=find_written(run), front=front.rstrip())


def summary(run: RunFacts) -> str:
    """Describe the dataset in one sentence."""
    pairs = "image-text" if run.pool.images else "URL-text"
    return f"{run.kept:,} {pairs} pairs curated from {run.rows:,} by curate {run.curate}."


def steps(run: RunFacts) -> list[tuple[str, str]]:
    """Return the steps that selected the kept samples: (name, description), in order."""
    recipe, lines = run.recipe, []
    passes = [by if isinstance(by, str) else _near(by) for by in (recipe.get("dedup") or {}).get("by", [])]
    dedup = [("deduplication", f"by {', then by '.join(passes)}; one sample of each group is kept")] if passes else []
    match = []
    if recipe.get("match"):
        entries = f"{run.metadata.entries:,} metadata entries" if run.metadata else "the metadata"
        match.append(("match", f"the caption contains at least one of {entries}"))
    for rule in run.rules:
        if rule.dedup:
            lines += [*match, *dedup]
            match, dedup = [], []
            continue
        reached = "" if rule.threshold is None else f", which means at least {rule.show(rule.threshold)}"
        lines.append((rule.name, " ".join(rule.sql.split()) if rule.sql else f"the {rule.expression}{reached}"))
    lines += [*match, *dedup]
    if run.selection:
        lines.append((run.selection.key, run.selection.card))
    return lines


def languages(run: RunFacts) -> list[str]:
    """Return the codes of the kept languages, the most frequent first, without very rare ones."""
    counts = run.content.languages
    total = sum(counts.values())
    return [code for code, rows in counts.items() if rows >= _MIN_SHARE * total and _CODE.fullmatch(code)]


def _front_matter(run: RunFacts) -> dict[str, Any]:
    kind, kept, codes = find_written(run), run.kept, languages(run)
    front: dict[str, Any] = {"pretty_name": escape(run.name), "license": run.recipe.get("license", UNKNOWN)}
    front |= {"language": codes} if codes else {}
    front["task_categories"] = ["image-to-text", "text-to-image", "zero-shot-image-classification"]
    front["size_categories"] = [next((name for limit, name in _SIZES if kept < limit), "n>1T")]
    front["tags"] = ["image-text", "curated", *kind.tags]
    files = {"split": "train", "path": f"shards/*.{kind.suffix}"}
    if kept:
        # Without a version, `datasets` confuses local folders that have the same name.
        version = f"0.0.{int(run.content.digest[:8], 16)}"
        front["configs"] = [{"config_name": "default", "version": version, "data_files": [files]}]
    written = ["syn.json"] if ((run.recipe.get("captions") or {}).get("output") or {}).get("syn_json") else []
    if kept and run.content.files and (features := _features([*run.content.files, *written], kind, run.content)):
        front["dataset_info"] = {"config_name": "default", "features": features}
    return front


def _features(suffixes: list[str], kind: OutputFormat, content: ContentFacts) -> list[dict[str, Any]]:
    """Return the columns for `datasets`. Otherwise, it would infer them from five samples, and miss some."""
    kinds: dict[str, Any] = {suffix: _DTYPES.get(suffix.rpartition(".")[2]) for suffix in sorted(suffixes)}
    if not all(kinds.values()):  # if one is unknown, let `datasets` infer them
        return []
    # Typed fields for the json if each has one type: the type `json` would round floats, and turn NaN into null.
    kinds |= {"json": content.json_dtype} if content.json_dtype not in (None, "mixed") else {}
    return [{"name": name, **_feature(dtype)} for name, dtype in {**kinds, **kind.loader_columns}.items()]


def _feature(dtype: Any) -> dict[str, Any]:
    """Return a type from `find_dtype` for the card, sorted by name, because shards are written in any order."""
    if isinstance(dtype, dict):
        return {"struct": [{"name": name, **_feature(inner)} for name, inner in sorted(dtype.items())]}
    return {"list": _feature(dtype[0])} if isinstance(dtype, list) else {"dtype": dtype}


def citation(run: RunFacts) -> str:
    """Return a citation: name and size of the dataset, and the identity of its run."""
    forgotten = run.counts.get(FORGOTTEN, 0)
    less = f" without {forgotten:,} removed on request" if forgotten else ""
    return f"{escape(run.name)}, {pluralize(run.kept, 'sample')}, curate {run.curate}, run {run.identity}{less}"


@cache
def template(name: str) -> jinja2.Template:
    """Return one of the templates in this package."""
    filters = {
        "plain": _plain,
        "code": _code,
        "count": "{:,}".format,
        "share": _share,
        "json": partial(json.dumps, ensure_ascii=False),
    }
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    dumps = partial(json.dumps, ensure_ascii=False)
    environment.filters |= filters | {"bytes": format_bytes, "pluralize": pluralize, "json": dumps}
    of_run = {"summary": summary, "steps": steps, "languages": languages, "citation": citation}
    environment.globals |= of_run
    return environment.from_string(files("curate.publish").joinpath(name).read_text("utf-8"))


def _share(part: float, whole: float, digits: int = 2) -> str:
    return f"{part / whole if whole else 0:.{digits}%}"


def _near(by: dict[str, Any]) -> str:
    words = {key: ", ".join(f"{name} {value}" for name, value in parts.items()) for key, parts in by.items() if parts}
    return ", ".join(f"{key} ({options})" for key, options in words.items())


def _plain(text: str) -> str:
    text = _SPECIAL.sub(r"\\\1", " ".join(escape(text).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Return the text as a code span, even if it has backticks. The result is also valid in tables."""
    text = " ".join(escape(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
