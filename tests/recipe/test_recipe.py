"""Recipes: accepted values, refused ones, and messages that name the key, the value, and the accepted values."""

import os
import pickle
import re

import fsspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.base.stages import RESERVED_RULES
from curate.recipe.deciding import Balance, Top
from curate.recipe.recipe import Recipe, change_recipe, load_recipe, parse_recipe

SOURCE = {"name": "a", "format": "parquet", "path": "/pool/x.parquet"}
FULL = """
name: everything
seed: 7
input:
  - {name: photos, format: webdataset, path: "pool/{00..19}.tar", caption_key: alt, storage: {anon: true}}
  - name: urls
    format: parquet
    path: [a.parquet, /b.parquet, "memory://c/*.parquet"]
    columns: {caption: TEXT, uid: u, url: link, key: k, width: w, height: h, language: l, image: i, scores: [s]}
measure:
  language: {}
  image: {decode: false, phash: true, max_pixels: 100}
match: {metadata: entries.json.gz, mode: reference}
rules:
  english: language = 'en'
  best: {top: 0.3, of: s}
  words: words > 2
dedup: {by: [sha256, uid, phash], prefer: s}
balance: {rows: 1000}
output: {rows_per_shard: 5}
max_failed: 0
max_failed_files: 1
"""


def recipe(**sections):
    return parse_recipe({"input": [SOURCE], **sections})


def refusal(sections):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"input": [SOURCE], **sections}, "r.yaml")
    return str(caught.value)


def write(folder, text):
    path = folder / "r.yaml"
    path.write_text(text)
    return str(path)


def load(folder, *overrides, text="input: {name: a, format: parquet, path: x.parquet}\n"):
    return load_recipe(write(folder, text), overrides)


def load_refusal(folder, *overrides, **text):
    with pytest.raises(RecipeError) as caught:
        load(folder, *overrides, **text)
    return str(caught.value)


# ---- sections


def test_every_section_is_read(tmp_path):
    found = load(tmp_path, text=FULL)
    tars, urls = found.input
    assert (found.name, found.seed, found.max_failed, found.max_failed_files) == ("everything", 7, 0, 1)
    assert (tars.name, tars.format, tars.caption_key, tars.storage) == ("photos", "webdataset", "alt", {"anon": True})
    assert tars.paths == (f"{tmp_path}/pool/{{00..19}}.tar",)
    assert urls.paths == (f"{tmp_path}/a.parquet", "/b.parquet", "memory://c/*.parquet")
    assert urls.columns.model_dump() == {
        "caption": "TEXT", "uid": "u", "url": "link", "key": "k", "width": "w", "height": "h", "language": "l",
        "image": "i", "scores": ("s",),
    }  # fmt: skip
    assert found.measure.language is not None
    assert found.measure.image.model_dump() == {"decode": False, "phash": True, "jpeg_side": None, "max_pixels": 100}
    assert found.match is not None and (found.match.metadata, found.match.mode) == (
        f"{tmp_path}/entries.json.gz",
        "reference",
    )
    assert list(found.rules.items()) == [
        ("english", "language = 'en'"),
        ("best", Top(top=0.3, of="s")),
        ("words", "words > 2"),
    ]
    assert found.dedup.by == ("sha256", "uid", "phash") and found.dedup.prefer == "s"
    assert found.balance == Balance(rows=1000)
    assert found.output.rows_per_shard == 5


def test_defaults():
    found = recipe()
    assert (found.name, found.seed, found.rules, found.match, found.balance) == ("curated", 0, {}, None, None)
    assert found.measure.language is None
    assert (found.measure.image.decode, found.measure.image.phash) == (True, False)
    assert found.dedup.by == ("uid",)
    assert (found.output.rows_per_shard, found.max_failed, found.max_failed_files) == (10_000, 0.05, 0.05)


@pytest.mark.parametrize("section", ["measure", "match", "rules", "dedup", "balance", "output"])
def test_an_empty_section_equals_a_missing_one(section):
    assert recipe(**{section: None}) == recipe()


@pytest.mark.parametrize(
    ("by", "passes"),
    [
        ([], ("uid",)), (["sha256"], ("uid", "sha256")), (["sha256", "uid"], ("sha256", "uid")),
        (["sha256", "sha256"], ("uid", "sha256")),
    ],
)  # fmt: skip
def test_deduplication_by_uid_is_always_on(by, passes):
    assert recipe(dedup={"by": by}).dedup.by == passes


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        recipe().seed = 1  # type: ignore[misc]


# ---- unknown keys


@pytest.mark.parametrize(
    ("sections", "key", "near", "among"),
    [
        ({"seeed": 1}, "seeed", "seed", "max_failed_files"),
        ({"outptu": {}}, "outptu", "output", "balance"),
        ({"measure": {"lang": {}}}, "measure.lang", "language", "image"),
        ({"measure": {"image": {"phas": True}}}, "measure.image.phas", "phash", "max_pixels"),
        ({"match": {"metadata": "m", "mod": "reference"}}, "match.mod", "mode", "metadata"),
        ({"rules": {"best": {"topp": 0.2, "of": "s"}}}, "rules.best.topp", "top", "of"),
        # names of rules that are also names of sections
        ({"rules": {"image": {"topp": 0.2, "of": "s"}}}, "rules.image.topp", "top", "of"),
        ({"rules": {"str": {"topp": 0.2, "of": "s"}}}, "rules.str.topp", "top", "of"),
        # of heads, contexts, engines likewise
        ({"measure": {"heads": {"image": {"pat": "x"}}}}, "measure.heads.image.pat", "path", "activation"),
        ({"measure": {"heads": {"captions": {"pat": "x"}}}}, "measure.heads.captions.pat", "path", "activation"),
        ({"measure": {"contexts": {"output": {"valuse": {}}}}}, "measure.contexts.output.valuse", "values", "classes"),
        ({"measure": {"clusters": {"clip": {"select": "x"}}}}, "measure.clusters.clip.select", "selected", "centroids"),
        ({"captions": {"engines": {"gates": {"prize": {}}}}}, "captions.engines.gates.prize", "price", "vllm"),
        ({"captions": {"engines": {"regions": {"vllm": {"modle": "x"}}}}}, "captions.engines.regions.vllm.modle", "model", "options"),
        ({"captions": {"rewrite": {"style": ["human"]}}}, "captions.rewrite.style", "styles", "engine"),
        ({"captions": {"rewrite": [{"style": ["human"]}]}}, "captions.rewrite.0.style", "styles", "engine"),
        ({"dedup": {"prefre": "s"}}, "dedup.prefre", "prefer", "by"),
        ({"balance": {"row": 3}, "match": {"metadata": "m"}}, "balance.row", "rows", "t"),
        ({"output": {"rows_per_shards": 3}}, "output.rows_per_shards", "rows_per_shard", "rows_per_shard"),
        ({"input": {**SOURCE, "paht": "x"}}, "input.0.paht", "path", "columns"),
        ({"input": [SOURCE, {**SOURCE, "name": "b", "colums": {}}]}, "input.1.colums", "columns", "storage"),
        ({"input": {**SOURCE, "columns": {"captoin": "x"}}}, "input.0.columns.captoin", "caption", "scores"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(sections, key, near, among):
    [line] = [line for line in refusal(sections).splitlines() if "unknown key" in line or "no such" in line]
    assert line.startswith(f"r.yaml: {key}: ")
    assert f"did you mean {near!r}?" in line
    assert among in re.split("known(?: keys)?: ", line)[1].split(", ")


def test_an_unknown_key_like_no_other_lists_what_is_known():
    message = refusal({"zzzz": 1})
    assert "did you mean" not in message
    assert message.partition("known keys: ")[2].split(", ") == list(Recipe.model_fields)
    assert refusal({"measure": {"language": {"zzzz": "x"}}}).endswith(
        "measure.language.zzzz: unknown key; known keys: text, model, short"
    )


# ---- constraints and types

MATCH = {"match": {"metadata": "m"}}


@pytest.mark.parametrize(
    ("sections", "key", "parts"),
    [
        ({"name": 5}, "name", ["string", "5"]),
        ({"name": "a b"}, "name", ["a b"]),
        ({"seed": -1}, "seed", ["-1", "0"]),
        ({"seed": 2**63}, "seed", [str(2**63)]),
        ({"seed": 1.5}, "seed", ["integer", "1.5"]),
        ({"seed": True}, "seed", ["integer", "True"]),
        ({"seed": "5"}, "seed", ["integer", "'5'"]),
        ({"input": []}, "input", ["at least 1"]),
        ({"input": None}, "input", ["list", "None"]),
        ({"input": [{**SOURCE, "format": "csv"}]}, "input.0.format", ["webdataset", "parquet", "csv"]),
        ({"input": [{"name": "a", "path": "x"}]}, "input.0.format", ["missing"]),
        ({"input": [{**SOURCE, "format": "urls"}]}, "input.0.network", ["missing; accepted: such as {'contact': "]),
        ({"input": [{**SOURCE, "path": 5}]}, "input.0.path", ["string", "list", "5"]),
        ({"input": [{**SOURCE, "path": ["x", 5]}]}, "input.0.path.1", ["string", "5"]),
        ({"input": [{**SOURCE, "path": ""}]}, "input.0.path", ["names no file"]),
        ({"input": [{**SOURCE, "path": []}]}, "input.0.path", ["names no file"]),
        ({"input": [{**SOURCE, "path": ["x", ""]}]}, "input.0.path", ["names no file"]),
        ({"input": [{**SOURCE, "columns": {"scores": "s"}}]}, "input.0.columns.scores", ["list", "'s'"]),
        ({"input": [{**SOURCE, "storage": 5}]}, "input.0.storage", ["mapping", "5"]),
        ({"input": [SOURCE, SOURCE]}, "recipe", ["input", "'a'"]),
        ({"measure": 5}, "measure", ["mapping", "5"]),
        ({"measure": {"image": {"decode": "yes"}}}, "measure.image.decode", ["boolean", "'yes'"]),
        ({"measure": {"image": {"max_pixels": 0}}}, "measure.image.max_pixels", ["greater than 0", "0"]),
        ({"match": {}}, "match.metadata", ["missing"]),
        ({"match": {"metadata": 5}}, "match.metadata", ["string", "5"]),
        ({"match": {"metadata": "m", "mode": "fuzzy"}}, "match.mode", ["reference", "fuzzy"]),
        ({"rules": ["words > 2"]}, "rules", ["mapping", "words > 2"]),
        ({"rules": "words > 2"}, "rules", ["mapping", "words > 2"]),
        ({"rules": {"x": 5}}, "rules", ["x is 5", "SQL expression", "top"]),
        ({"rules": {"x": None}}, "rules", ["x is None", "SQL expression"]),
        ({"rules": {"x": {"top": 0.2}}}, "rules.x.of", ["missing"]),
        ({"rules": {"x": {"top": 0, "of": "s"}}}, "rules.x.top", ["greater than 0", "0"]),
        ({"rules": {"x": {"top": 1.5, "of": "s"}}}, "rules.x.top", ["less than or equal to 1", "1.5"]),
        ({"rules": {"x": {"rows": 0, "of": "s"}}}, "rules.x.rows", ["greater than or equal to 1", "0"]),
        ({"rules": {"x": {"top": 0.1, "rows": 5, "of": "s"}}}, "rules.x", ["either top (a fraction) or rows"]),
        ({"rules": {"x": {"of": "s"}}}, "rules.x", ["either top (a fraction) or rows"]),
        ({"rules": {"x": {"top": 0.1, "of": "s", "over": "all"}}}, "rules.x.over", ["'reached', 'pool' or 'budget'", "all"]),
        ({"rules": {"x": {"top": float("nan"), "of": "s"}}}, "rules.x.top", ["nan"]),
        ({"rules": {"x": {"top": "half", "of": "s"}}}, "rules.x.top", ["number", "half"]),
        ({"rules": {"a b": "true"}}, "rules", ["'a b'", "letters"]),
        ({"rules": {"a.b": "true"}}, "rules", ["'a.b'", "letters"]),
        ({"rules": {'a"b': "true"}}, "rules", ["letters"]),
        ({"rules": {"a\n": "true"}}, "rules", ["letters"]),
        ({"rules": {True: "true"}}, "rules.1.[key]", ["string", "True"]),
        ({"dedup": {"by": "sha256"}}, "dedup.by", ["list", "sha256"]),
        ({"dedup": {"by": ["md5"]}}, "dedup.by.0", ["uid", "sha256", "phash", "md5"]),
        ({"dedup": {"by": ["phash"]}}, "recipe", ["phash", "measure: {image: {phash: true}}"]),
        ({"balance": {"t": 5}}, "recipe", ["balance needs `match`"]),
        ({"balance": {}, **MATCH}, "balance", ["either t, rows or tail_share"]),
        ({"balance": {"t": 5, "rows": 5}, **MATCH}, "balance", ["either t, rows or tail_share"]),
        ({"balance": {"t": 0}, **MATCH}, "balance.t", ["greater than or equal to 1", "0"]),
        ({"balance": {"t": True}, **MATCH}, "balance.t", ["integer", "True"]),
        ({"balance": {"rows": 0.5}, **MATCH}, "balance.rows", ["integer", "0.5"]),
        ({"output": {"rows_per_shard": 0}}, "output.rows_per_shard", ["1", "0"]),
        ({"output": {"rows_per_shard": 1_000_001}}, "output.rows_per_shard", ["1000000", "1000001"]),
        ({"max_failed": 1.5}, "max_failed", ["less than or equal to 1", "1.5"]),
        ({"max_failed": -0.1}, "max_failed", ["greater than or equal to 0"]),
        ({"max_failed": float("nan")}, "max_failed", ["nan"]),
        ({"max_failed_files": "many"}, "max_failed_files", ["number", "many"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_accepted(sections, key, parts):
    lines = refusal(sections).splitlines()
    assert {line.split(": ")[1] for line in lines} == {key}, lines
    assert not [part for part in parts if part not in "\n".join(lines)]


def test_all_errors_are_reported_at_once():
    lines = refusal({"seed": -1, "nmae": "x", "output": {"rows_per_shard": 0}}).splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["nmae", "output.rows_per_shard", "seed"]


def test_a_long_value_is_cut():
    assert len(refusal({"name": "long name " * 1000})) < 300


@pytest.mark.parametrize("name", RESERVED_RULES)
def test_reserved_rule_names(name):
    message = refusal({"rules": {name: "words > 2"}})
    assert repr(name) in message and "reserved" in message


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"rules": {f"r{i}": "words > 1" for i in range(1001)}}, "rules: found 1,001; accepted: at most 1,000"),
        ({"input": [{"format": "parquet"}] * 1001}, "input: .*found 1,001; accepted: at most 1,000"),
        ({"derive": {f"d{i}": "words" for i in range(201)}}, "derive: found 201; accepted: at most 200"),
        ({"rules": {f"r{i}": "x" * 150_000 for i in range(2)}, "output": {"repeat": "words"}}, "characters of SQL: found 300,005; accepted: at most 300,000"),
    ],
)  # fmt: skip
def test_how_many_rules_there_may_be(sections, told):
    with pytest.raises(RecipeError, match=told):
        parse_recipe({"input": {"name": "a", "format": "webdataset", "path": "a.tar"}} | sections)


def test_rules_keep_their_order():
    names = ["z", "a", "m", "b"]
    assert list(recipe(rules=dict.fromkeys(names, "true")).rules) == names


# ---- files


def test_a_missing_recipe_names_one_of_nearly_its_name(tmp_path):
    for name in ("smal.yaml", "h4.yaml", "basic.yml", "small.parquet"):
        (tmp_path / name).touch()
    accepted = "accepted: a YAML mapping with key input, as `curate init` writes it"
    names = {"small.yaml": "smal.yaml", "basic.yaml": "basic.yml", "nosuch.yaml": "", "no/small.yaml": ""}
    for name, file in names.items():
        near = f"did you mean {file!r}? " if file else ""
        with pytest.raises(RecipeError) as raised:
            load_recipe(path := str(tmp_path / name))
        assert str(raised.value) == f"{path}: no such recipe; {near}{accepted}"


@pytest.mark.parametrize("path", ["nothing://r.yaml", "/proc/self/mem/r.yaml", "."])
def test_what_cannot_be_opened(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n", b"\0\0\0"])
def test_a_binary_file(tmp_path, data):
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=r"r\.yaml: (cannot be read as a recipe|not valid YAML)"):
        load_recipe(str(path))


def test_an_empty_file(tmp_path):
    assert "r.yaml: input: " in load_refusal(tmp_path, text="# no key\n")


@pytest.mark.parametrize("text", ["- a\n- b\n", "words > 2", "5"])
def test_yaml_without_a_mapping(tmp_path, text):
    message = load_refusal(tmp_path, text=text)
    assert "accepted: a YAML mapping with key input, as `curate init` writes it" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "line 1"),
        ("a: b: c", "line 1"),
        ("!!python/object/apply:os.system [ls]", "python"),
        ("? [a, b]\n: c", "cannot be a key"),
        ("? {a: b}\n: c", "cannot be a key"),
        ("seed: 1\nname: x\nseed: 2", "'seed' occurs twice, line 3"),
        ("rules:\n  a: words > 2\n  a: words > 3\n", "'a' occurs twice, line 3"),
    ],
)
def test_wrong_yaml(tmp_path, text, part):
    message = load_refusal(tmp_path, text=text)
    assert "r.yaml: not valid YAML: " in message and part in message


def test_relative_paths_are_of_the_recipes_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", "input: {name: a, format: parquet, path: ../x.parquet}\nmatch: {metadata: m.json}\n")
    monkeypatch.chdir(tmp_path)
    found = load_recipe("in/r.yaml")
    assert found.input[0].path == f"{tmp_path}/in/../x.parquet"
    assert found.match is not None and found.match.metadata == f"{tmp_path}/in/m.json"


def test_a_remote_recipe_has_a_folder_too():
    fsspec.filesystem("memory").pipe("/recipes/r.yaml", yaml.safe_dump({"input": {**SOURCE, "path": "x"}}).encode())
    assert load_recipe("memory://recipes/r.yaml").input[0].path == "memory://recipes/x"


@pytest.mark.parametrize("path", ["/abs/x.parquet", "s3://bucket/x.parquet"])
def test_absolute_paths_stay(tmp_path, path):
    assert load(tmp_path, f"input.path={path}").input[0].path == path


def bomb(levels=40):
    """A value whose aliases expand beyond any memory."""
    lines = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return f"{{l0: &l0 [x], {', '.join(lines)}}}"


PLACES = {
    "input: [{{name: a, format: parquet, path: x, storage: {}}}]": "input.0.storage",
    "input: [{{name: a, format: parquet, path: {}}}]": "input.0.path",
    "{}: {{}}": "rules.a",
    "input: [{{name: a, format: parquet, path: x}}]\nrules: {{a: {}}}": "rules.a",
    "input: [{{name: a, format: parquet, path: x}}]\nrules: {{{}: words > 1}}": "name",
    "input: [{{name: {}, format: parquet, path: x}}]": "name",
    "input: [{{name: a, format: parquet, path: x}}]\n"
    "captions: {{engines: {{e: {{openai: {{base_url: 'http://x', model: m, extra: {}}}}}}}}}": "new",
}


@pytest.mark.thorough
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["bomb", '"\\ud800"', "[" * 5000, '{"\\udfff": 1}', "&a [*a]", "0x" + "f" * 9999])
def test_hostile_yaml_anywhere(tmp_path, place, value):
    value = bomb() if value == "bomb" else value
    message = load_refusal(tmp_path, text=place.format(value))
    assert "r.yaml: not valid YAML: " in message and len(message) < 1000
    message = load_refusal(tmp_path, f"{PLACES[place]}={value}")
    assert message.startswith(f"--set {PLACES[place]}=") and "is not a YAML value" in message and len(message) < 1000


@pytest.mark.parametrize("override", ["rules.\udcff=words > 1", "rules.a=\udcff", "\udcff=1", "rules.a='\ud800'"])
def test_set_of_what_is_no_utf8(tmp_path, override):
    message = load_refusal(tmp_path, override)
    assert "bytes that are not UTF-8" in message and message.isascii()


def test_keys_of_set_that_are_too_long(tmp_path):
    assert "a key of 20,002 parts; accepted: at most 100" in load_refusal(tmp_path, f"input.storage{'.a' * 19_999}=1")
    assert "accepted: a position below 1" in load_refusal(tmp_path, f"input.{'9' * 5000}.path=x", text=BALANCED)


@pytest.mark.parametrize("key", ["input.path", "input.0.path"])
@pytest.mark.parametrize("form", ["input: {SOURCE}", "input: [{SOURCE}]"])
def test_a_single_source_is_set_with_or_without_its_place(tmp_path, form, key):
    text = form.replace("SOURCE", "name: a, format: webdataset, path: x.tar")
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(f"{tmp_path}/recipe.yaml", [f"{key}=/y.tar"]).input[0].path == "/y.tar"
    two = "input: [{name: a, format: webdataset, path: x.tar}, {name: b, format: webdataset, path: y.tar}]"
    assert "accepted: a position below 2, such as input.0.path" in load_refusal(tmp_path, "input.path=z", text=two)


@pytest.mark.parametrize("key", ["input.join.path", "input.0.join.path", "input.join.0.path", "input.0.join.0.path"])
@pytest.mark.parametrize("form", ["input: {%s, join: {%s}}", "input: [{%s, join: {%s}}]", "input: {%s, join: [{%s}]}"])
def test_a_single_join_likewise(tmp_path, form, key):
    text = form % ("name: a, format: webdataset, path: x.tar", "path: x.csv, on: key, columns: {a: b}")
    (tmp_path / "recipe.yaml").write_text(text)
    [source] = load_recipe(f"{tmp_path}/recipe.yaml", [f"{key}=/y.csv"]).input
    assert (source.path, source.join[0].path) == (f"{tmp_path}/x.tar", "/y.csv")


def test_a_folder_whose_name_is_no_utf8(tmp_path):
    folder = tmp_path / "a\udcff"
    folder.mkdir()
    message = load_refusal(folder)
    assert message == f"{tmp_path}/a\\udcff: the recipe's folder has a name that is not UTF-8; accepted: UTF-8"


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "large.yaml"])
def test_a_recipe_that_does_not_end(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: it .*; accepted: "):
        load_recipe(os.path.join(tmp_path, path))


# ---- --set

BALANCED = (
    "input: [{name: a, format: parquet, path: x}]\nmatch: {metadata: m}\nbalance: {rows: 3}\nrules: {z: words > 1}\n"
)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ["seed"], 7),
        ("name=other", ["name"], "other"),
        ("max_failed=0.5", ["max_failed"], 0.5),
        ("output.rows_per_shard=10", ["output", "rows_per_shard"], 10),
        ("measure.image.phash=true", ["measure", "image", "phash"], True),
        ("measure.language={}", ["measure", "language"], {"text": "prepared", "model": None}),
        ("balance.t=5", ["balance"], {"t": 5, "rows": None}),
        ("balance.rows=9", ["balance"], {"t": None, "rows": 9}),
        ("balance=null", ["balance"], None),
        ("rules.new=words > 2", ["rules"], {"z": "words > 1", "new": "words > 2"}),
        ("rules.z=words > 2", ["rules"], {"z": "words > 2"}),
        ("rules.z=language = 'en'", ["rules"], {"z": "language = 'en'"}),
        ("rules.z={top: 0.2, of: s}", ["rules"], {"z": {"top": 0.2, "of": "s"}}),
        ("rules.z=null", ["rules"], {}),
        ("rules=null", ["rules"], {}),
        ("dedup.by=[uid, sha256]", ["dedup", "by"], ("uid", "sha256")),
        ("input.0.name=alt", ["input", 0, "name"], "alt"),
        ("input.0.columns.caption=alt", ["input", 0, "columns", "caption"], "alt"),
    ],
)
def test_set(tmp_path, override, path, value):
    at = load(tmp_path, override, text=BALANCED).model_dump()
    for part in path:
        at = at[part]
    assert at == value


def test_set_applies_in_order(tmp_path):
    assert load(tmp_path, "balance.t=5", "balance.rows=8", "balance.t=6", text=BALANCED).balance == Balance(t=6)
    with_rule = load(tmp_path, "rules.best.top=0.2", "rules.best.of=s")
    assert with_rule.rules == {"best": Top(top=0.2, of="s")}


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("rules.side=min_side >= 256", "rules.side is a new rule, after all others; did you mean 'size'?"),
        ("rules.blurry=words > 1", "rules.blurry is a new rule, after all others"),
        ("rules.once=null", "--set rules.once=null: deduplication now comes after all rules; to leave out its passes: --set 'dedup.by=[uid]'"),
        ("rules.size=min_side >= 256", None),
        ("rules.size=null", None),
    ],
)  # fmt: skip
def test_set_warns_of_likely_mistakes(tmp_path, caplog, override, note):
    rules = "rules: {once: dedup, size: min_side >= 200}\n"
    loaded = load(tmp_path, text="input: {name: a, format: parquet, path: x.parquet}\n" + rules)
    assert not caplog.messages
    change_recipe(loaded, [override])
    assert caplog.messages == ([note] if note else [])


def test_set_makes_sections(tmp_path):
    found = load(tmp_path, "match.metadata=/m.json", "balance.t=5", "dedup.prefer=s")
    assert (found.match and found.match.metadata, found.balance, found.dedup.prefer) == ("/m.json", Balance(t=5), "s")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed", ["--set seed", "key=value"]),
        ("=5", ["--set =5", "key=value"]),
        ("seed=[", ["--set seed=[", "YAML"]),
        ("seeed=1", ["seeed", "did you mean 'seed'?"]),
        ("output.rows=1", ["output.rows", "rows_per_shard"]),
        ("input.1.path=y", ["--set input.1.path=y", "'1'", "below 1"]),
        ("input.-1.path=y", ["'-1'", "below 1"]),
        ("input.x.path=y", ["input.0.x: unknown key"]),
        ("input.²=y", ["'²'", "below 1"]),
        ("rules.z.top=0.2", ["--set rules.z.top=0.2", "'top'", "'words > 1'", "another expression, or"]),
        ("rules.failed=words > 1", ["reserved"]),
        ("rules.z=", ["rules", "z is None"]),
        ("rules.y=null", ["--set rules.y=null", "no rule 'y' to remove", "rules: z"]),
        ("rules.z=true", ["rules", "z is True"]),
        ("match=null", ["balance needs `match`"]),
        ("balance.t=many", ["balance.t", "integer", "many"]),
        ("rules.y.top=0.2", ["rules.y.of", "missing; accepted: such as 'clip_score'"]),
    ],
)
def test_wrong_set(tmp_path, override, parts):
    message = load_refusal(tmp_path, override, text=BALANCED)
    assert not [part for part in parts if part not in message], message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([*Recipe.model_fields, "input.0", "input.0.columns", "measure.image", "rules.x", "new"]),
)
def test_any_value_anywhere_is_read_or_refused(value, place):
    data = {"input": [dict(SOURCE)], "rules": {}, "measure": {}}
    *parents, last = place.split(".")
    at = data
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    at[int(last) if last.isdigit() else last] = value
    try:
        parse_recipe(data)
    except RecipeError as error:
        assert str(error).startswith("recipe: ")


def test_sections_of_kinds_are_pickled_by_what_they_hold():
    near = {"phash": {"distance": 4}}
    captions = {"engines": {"a": {"recorded": {"path": "x", "model": "m"}}}, "recaption": {"engine": "a"}}
    made = recipe(measure={"image": {"phash": True}}, dedup={"by": [near], "against": near | {"images": "y"}})
    for one in (made, recipe(captions=captions)):
        assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "sections",
    [
        {"derive": {"order": "words + 1"}},
        {"derive": {"both": "words"}},
        {"input": [{"name": "a", "format": "parquet", "path": "x", "join": {"path": "y", "on": "uid", "columns": {"Group": "z"}}}]},
    ],
)  # fmt: skip
def test_columns_have_no_names_that_sql_would_misread(sections):
    assert "is a reserved word of SQL, so expressions could not name it; accepted: another name" in refusal(sections)
