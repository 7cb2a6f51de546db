"""The dataset card and croissant.json: what Hugging Face and mlcroissant read in them, and names that try to be markup."""

import copy
import json
import re
from collections import Counter

import pyarrow as pa
import pytest
import yaml
from markdown_it import MarkdownIt

from curate.base.errors import RecipeError
from curate.publish.card import card_text
from curate.publish.describe import croissant
from curate.recipe.recipe import parse_recipe
from curate.store.facts import RunFacts
from curate.store.manifest import Published
from tests.kit import Ran, make_rows, make_samples, recipe_of, run_local, write_metadata, write_parquets, write_tars

RULES = {"words": "words > 3", "long": {"top": 0.9, "of": "characters"}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    sections = {"match": {"metadata": write_metadata(folder)}, "rules": RULES, "balance": {"t": 30}}
    sections |= {"name": "small-one", "measure": {"language": {}}, "output": {"rows_per_shard": 40}}
    return run_local(recipe_of(write_tars(folder / "pool", make_samples(60), 2), **sections), folder / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    path = write_parquets(folder / "pool", make_rows(300), 2)
    return run_local(recipe_of(path, "parquet", source={"columns": {"caption": "text"}}, rules=RULES), folder / "run")


def front(text):
    """The front matter, which must be the only one."""
    _, between, _ = text.split("---\n", 2)
    return dict(yaml.safe_load(between))


def facts_of(ran, **changes):
    """A run's facts, with other values of some keys of run.json."""
    return RunFacts.model_validate(ran.run | changes)


def card(ran):
    return (ran.folder / "README.md").read_text()


def test_hugging_face_reads_the_front_matter(images, texts):
    hub = pytest.importorskip("huggingface_hub")
    for ran, kind in ((images, "tar"), (texts, "parquet")):
        data = hub.DatasetCard(card(ran)).data.to_dict()
        assert data == front(card(ran))
        assert (data["license"], data["size_categories"]) == ("unknown", ["n<1K"])
        [config] = data["configs"]
        assert re.fullmatch(r"0\.0\.\d+", config.pop("version"))
        assert config == {"config_name": "default", "data_files": [{"split": "train", "path": f"shards/*.{kind}"}]}
    data = front(card(images))
    assert data["pretty_name"] == "small-one" and "en" in data["language"]
    features = {one.pop("name"): one for one in data["dataset_info"]["features"]}
    assert {"name": "uid", "dtype": "string"} in features.pop("json")["struct"]
    assert {name: one["dtype"] for name, one in features.items()} == {
        "jpg": "image", "jpeg": "image", "png": "image", "txt": "string", "__key__": "string", "__url__": "string",
    }  # fmt: skip
    assert "language" not in front(card(texts)) and "dataset_info" not in front(card(texts))


@pytest.mark.parametrize(
    ("dtype", "feature"),
    [
        ({"b": ["null"], "a": "float64"}, {"struct": [{"name": "a", "dtype": "float64"}, {"name": "b", "list": {"dtype": "null"}}]}),
        ({"c": [{"d": "int64"}]}, {"struct": [{"name": "c", "list": {"struct": [{"name": "d", "dtype": "int64"}]}}]}),
        ("mixed", {"dtype": "json"}),
        (None, {"dtype": "json"}),  # of an older run
    ],
)  # fmt: skip
def test_the_json_has_the_types_of_its_fields(images, dtype, feature):
    text = card_text(facts_of(images, content=images.run["content"] | {"json_dtype": dtype}))
    assert {"name": "json", **feature} in front(text)["dataset_info"]["features"]


def test_what_was_kept_is_counted(images):
    content, kept = images.run["content"], images.counts["kept"]
    samples, decisions = images.table("samples"), images.table("decisions")
    rows = samples.filter(decisions["kept"])
    assert content["languages"] == Counter(rows["language"].to_pylist())
    assert list(content["languages"].values()) == sorted(content["languages"].values(), reverse=True)
    named = [name.partition(".")[2] for name, _ in images.members]
    assert content["files"] == {suffix: named.count(suffix) for suffix in set(named)}
    assert content["shards"] == len(list(images.folder.glob("shards/*.tar"))) > 1
    assert content["bytes"] == sum(path.stat().st_size for path in images.folder.glob("shards/*.tar"))
    assert content["means"]["words"] == pytest.approx(sum(rows["words"].to_pylist()) / kept, abs=0.01)


def test_sizes(images):
    sizes = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 10**6: "1M<n<10M", 10**12 - 1: "100B<n<1T", 10**12: "n>1T"}
    for kept, size in sizes.items():
        assert front(card_text(facts_of(images, counts={"kept": kept})))["size_categories"] == [size]


EVIL = 'x"\n---\nlicense: mit\n---\n# <script>alert(1)</script> <img src=x onerror=y> | ![a](http://b) [c](javascript:d) `` e` `f'


def hostile(run):
    """The run with a name that tries to be markup in every place where a name stands."""
    models = {EVIL: EVIL, "clip": {"model": EVIL, "weights": {"sha256": EVIL}}}
    run = copy.deepcopy(run) | {"name": EVIL, "models": models}
    run["rules"] = [{"name": EVIL, "sql": EVIL, "top": None, "of": None, "threshold": None}]
    run["rules"].append({"name": "top", "sql": None, "top": 0.5, "of": EVIL, "threshold": 0.5})
    run["counts"] = {EVIL: 7, **run["counts"]}
    run["recipe"]["input"] = [run["recipe"]["input"][0] | {"name": EVIL}]
    run["content"] |= {"languages": {"en": 50, EVIL: 49, "de": 1}, "files": {"jpg": 50, EVIL: 1}}
    work = dict.fromkeys(("sent", "failed", "replaced", "tokens_in", "tokens_out"), 0)
    work |= {"kind": "rewrite", "engine": "e", "model": EVIL, "passed": 1, "requests": 2, "seconds": 1.0, "cost": None}
    run["caption_work"] = [work]
    run["recipe"]["captions"] = {"output": {"mix": {}}}
    return RunFacts.model_validate(run)


def test_names_are_no_markup(images):
    text = card_text(hostile(images.run))
    data = front(text)
    assert data["license"] == "unknown" and data["language"] == ["en", "de"]
    assert "dataset_info" not in data  # a suffix that nobody knows: the reader infers the columns
    assert data["pretty_name"].startswith('x"\\n---\\nlicense') and "\n" not in data["pretty_name"]
    body = text.split("\n---\n", 2)[1]
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert set(re.findall(r"<(\w+)", rendered)) <= {
        "h1", "h2", "p", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "pre",
    }  # fmt: skip
    assert rendered.count("<h1>") == 1 and rendered.count("&lt;script&gt;") > 5
    assert all(line.count("<td") == 3 for line in rendered.split("<tr>")[2:])
    assert json.loads(json.dumps(croissant(hostile(images.run), [], None)))["name"] == EVIL


# ---- croissant


def read_croissant(ran):
    mlc = pytest.importorskip("mlcroissant")
    found = mlc.Dataset(jsonld=str(ran.folder / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert not issues.errors and not issues.warnings, issues.report()
    return found


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_mlcroissant_reads_every_sample(kind, request):
    ran = request.getfixturevalue(kind)
    rows = list(read_croissant(ran).records("samples"))
    kept = ran.table("decisions").filter(ran.table("decisions")["kept"])["uid"].to_pylist()
    assert sorted(row["samples/uid"].decode() for row in rows) == sorted(kept)
    columns = {"images": {"caption": bytes, "width": int}, "texts": {"text": bytes, "clip_score": float}}[kind]
    assert all(isinstance(rows[0][f"samples/{name}"], form) for name, form in columns.items())


def test_files_are_named_with_their_digests(images):
    found = json.loads((images.folder / "croissant.json").read_text())
    files = {one["@id"]: one["sha256"] for one in found["distribution"] if one["@type"] == "cr:FileObject"}
    listed = {row["path"]: row["sha256"] for row in images.table("manifest").to_pylist()}
    shards = [path for path in listed if re.fullmatch(r"shards/\d+\.(tar|parquet)", path)]
    assert files == {path: listed[path] for path in shards}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["datePublished"])
    assert "words: words > 3" in found["rai:dataPreprocessingProtocol"]


def test_thousands_of_files_are_sets(images, tmp_path):
    lines = [Published(f"shards/{n:05d}.tar", 1, 1, "0" * 64) for n in range(201)]
    types = {
        "a b/c": pa.string(),
        "uid": pa.string(),
        "list": pa.list_(pa.float32()),
        "raw": pa.binary(),
        "": pa.string(),
    }
    strange = pa.schema(list(types.items()))
    found = croissant(facts_of(images), lines, strange)
    assert [one["@id"] for one in found["distribution"]] == ["tars", "parquet"]
    assert [(one["@id"], one["dataType"], one.get("repeated")) for one in found["recordSet"][0]["field"]] == [
        ("samples/0", "sc:Text", None), ("samples/uid", "sc:Text", None), ("samples/list", "sc:Float", True),
    ]  # fmt: skip
    (tmp_path / "croissant.json").write_text(json.dumps(found))
    read_croissant(Ran(tmp_path))


def test_an_empty_run(tmp_path):
    path = write_tars(tmp_path / "pool", make_samples(12), 1)
    ran = run_local(recipe_of(path, rules={"none": "words > 1000"}), tmp_path / "run")
    read_croissant(ran)
    assert front(card(ran))["size_categories"] == ["n<1K"] and "configs" not in front(card(ran))
    assert "load_dataset" not in card(ran)


def test_the_license_is_what_the_recipe_says(images):
    run = facts_of(images, recipe=images.run["recipe"] | {"license": "cc-by-4.0"})
    assert front(card_text(run))["license"] == croissant(run, [], None)["license"] == "cc-by-4.0"
    with pytest.raises(RecipeError, match="license"):
        parse_recipe({"input": [{"name": "a", "format": "webdataset", "path": "a.tar"}], "license": "see below\n---"})
