"""Recipes from files and by --set: what is read, relative paths, and hostile input (sections: test_refusals.py)."""

import os
import pickle

import fsspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.recipe.deciding import Balance, Top
from curate.recipe.recipe import Change, Recipe, change_recipe, changes, load_recipe, parse_recipe

SOURCE = {"name": "a", "format": "parquet", "path": "/pool/x.parquet"}
ONE = "input: {name: a, format: parquet, path: x.parquet}\n"
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


def load(folder, *overrides, text=ONE):
    (folder / "r.yaml").write_text(text)
    return load_recipe(str(folder / "r.yaml"), overrides)


def refusal(folder, *overrides, text=ONE):
    with pytest.raises(RecipeError) as caught:
        load(folder, *overrides, text=text)
    return str(caught.value)


def test_every_section_is_read(tmp_path):
    made = load(tmp_path, text=FULL)
    tars, urls = made.input
    assert (made.name, made.seed, made.max_failed, made.max_failed_files) == ("everything", 7, 0, 1)
    assert (tars.name, tars.format, tars.caption_key, tars.storage) == ("photos", "webdataset", "alt", {"anon": True})
    assert tars.paths == (f"{tmp_path}/pool/{{00..19}}.tar",)
    assert urls.paths == (f"{tmp_path}/a.parquet", "/b.parquet", "memory://c/*.parquet")
    assert urls.columns.model_dump() == {
        "caption": "TEXT", "uid": "u", "url": "link", "key": "k", "width": "w", "height": "h", "language": "l",
        "image": "i", "scores": ("s",),
    }  # fmt: skip
    assert made.measure.language is not None
    assert made.measure.image.model_dump() == {"decode": False, "phash": True, "jpeg_side": None, "max_pixels": 100}
    assert (made.match.metadata, made.match.mode) == (f"{tmp_path}/entries.json.gz", "reference")
    rules = {"english": "language = 'en'", "best": Top(top=0.3, of="s"), "words": "words > 2"}
    assert list(made.rules.items()) == list(rules.items())
    assert made.dedup.by == ("sha256", "uid", "phash") and made.dedup.prefer == "s"
    assert made.balance == Balance(rows=1000) and made.output.rows_per_shard == 5


def test_defaults():
    made = recipe()
    assert (made.name, made.seed, made.rules, made.match, made.balance) == ("curated", 0, {}, None, None)
    assert (made.measure.language, made.measure.image.decode, made.measure.image.phash) == (None, True, False)
    assert (made.output.rows_per_shard, made.max_failed, made.max_failed_files) == (10_000, 0.05, 0.05)
    for section in ("measure", "match", "rules", "dedup", "balance", "output"):
        assert recipe(**{section: None}) == made
    for by, passes in (([], "uid"), (["sha256"] * 2, "uid sha256"), (["sha256", "uid"], "sha256 uid")):
        assert recipe(dedup={"by": by}).dedup.by == tuple(passes.split()), "deduplication by uid is always on"


def test_sections_of_kinds_are_pickled_by_what_they_hold():
    near = {"phash": {"distance": 4}}
    captions = {"engines": {"a": {"recorded": {"path": "x", "model": "m"}}}, "recaption": {"engine": "a"}}
    made = recipe(measure={"image": {"phash": True}}, dedup={"by": [near], "against": near | {"images": "y"}})
    for one in (made, recipe(captions=captions)):
        assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, []), ({"a": None}, {}, []), ({"other": {"x": 1, "y": 2}}, {"other": {"y": 2, "x": 1}}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": 4}, [("a.b", 1, 3), ("d", None, 4)]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [("a.1.b", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]), ({"a": {"b": 1}}, {"a": None}, [("a", {"b": 1}, None)]),
        ({"rules": {"x": "1", "y": "2"}}, {"rules": {"y": "2", "x": "1"}},
         [("the order of rules", ["x", "y"], ["y", "x"])]),
    ],
)  # fmt: skip
def test_changes_between_recipes(old, new, found):
    assert changes(old, new) == [Change(*one) for one in found]


# ---- files


def test_a_missing_recipe_names_one_of_nearly_its_name(tmp_path):
    for name in ("smal.yaml", "h4.yaml", "basic.yml", "small.parquet"):
        (tmp_path / name).touch()
    names = {"small.yaml": "smal.yaml", "basic.yaml": "basic.yml", "nosuch.yaml": "", "no/small.yaml": ""}
    for name, file in names.items():
        near = rf"did you mean '{file}'\? " if file else ""
        with pytest.raises(RecipeError, match=f"/{name}: no such recipe; {near}accepted: "):
            load_recipe(str(tmp_path / name))


def test_what_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(1 << 40)
    for name, data in zip(
        "abcde", (b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n", b"\0\0\0", b"- a\n- b\n", b"5"), strict=True
    ):
        (tmp_path / name).write_bytes(data)
    for path in ("nothing://r.yaml", "/proc/self/mem/r.yaml", ".", "/dev/zero", *"abcde", "pipe", "large.yaml"):
        whole = path if path.startswith(("/", "nothing")) else str(tmp_path / path)
        with pytest.raises(RecipeError) as caught:
            load_recipe(whole)
        assert str(caught.value).startswith(f"{whole}: "), path
    assert "r.yaml: input: " in refusal(tmp_path, text="# no key\n")


def test_relative_paths_are_of_the_recipes_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    text = "input: {name: a, format: parquet, path: ../x.parquet}\nmatch: {metadata: m.json}\n"
    (tmp_path / "in/r.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    made = load_recipe("in/r.yaml")
    assert made.input[0].path == f"{tmp_path}/in/../x.parquet" and made.match.metadata == f"{tmp_path}/in/m.json"
    for path in ("/abs/x.parquet", "s3://bucket/x.parquet"):
        assert load(tmp_path, f"input.path={path}").input[0].path == path
    fsspec.filesystem("memory").pipe("/recipes/r.yaml", yaml.safe_dump({"input": {**SOURCE, "path": "x"}}).encode())
    assert load_recipe("memory://recipes/r.yaml").input[0].path == "memory://recipes/x"
    (folder := tmp_path / "a\udcff").mkdir()
    assert refusal(folder).startswith(f"{tmp_path}/a\\udcff: the recipe's folder has a name that is not UTF-8")


def bomb(levels=40):
    """A value whose aliases expand beyond any memory."""
    lines = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return f"{{l0: &l0 [x], {', '.join(lines)}}}"


# A recipe with a hostile value, and where --set puts it
HOSTILE = {
    "input: [{{name: a, format: parquet, path: x, storage: {}}}]": "input.0.storage",
    "{}: {{}}": "rules.a",
    "input: [{{name: a, format: parquet, path: x}}]\nrules: {{{}: words > 1}}": "name",
    "input: [{{name: a, format: parquet, path: x}}]\n"
    "captions: {{engines: {{e: {{openai: {{base_url: 'http://x', model: m, extra: {}}}}}}}}}": "new",
}


@pytest.mark.thorough
@pytest.mark.parametrize("value", ["bomb", '"\\ud800"', "[" * 500, '{"\\udfff": 1}', "&a [*a]", "0x" + "f" * 9999])
def test_hostile_yaml_anywhere(tmp_path, value):
    value = bomb() if value == "bomb" else value
    for text, key in HOSTILE.items():
        message = refusal(tmp_path, text=text.format(value))
        assert "r.yaml: not valid YAML: " in message and len(message) < 1000
        message = refusal(tmp_path, f"{key}={value}")
        assert message.startswith(f"--set {key}=") and "is not a YAML value" in message and len(message) < 1000


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


# ---- --set

TWO = "input: [{name: a, format: webdataset, path: x.tar}, {name: b, format: webdataset, path: y.tar}]"
BALANCED = f"{ONE}match: {{metadata: m}}\nbalance: {{rows: 3}}\nrules: {{z: words > 1}}\n"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7), ("name=other", "name", "other"), ("max_failed=0.5", "max_failed", 0.5),
        ("output.rows_per_shard=10", "output.rows_per_shard", 10),
        ("measure.image.phash=true", "measure.image.phash", True),
        ("measure.language={}", "measure.language", {"text": "prepared", "model": None}),
        ("balance.t=5", "balance", {"t": 5, "rows": None}), ("balance.rows=9", "balance", {"t": None, "rows": 9}),
        ("balance=null", "balance", None), ("rules.new=words > 2", "rules", {"z": "words > 1", "new": "words > 2"}),
        ("rules.z=words > 2", "rules", {"z": "words > 2"}),
        ("rules.z=language = 'en'", "rules", {"z": "language = 'en'"}),
        ("rules.z={top: 0.2, of: s}", "rules", {"z": {"top": 0.2, "of": "s"}}), ("rules.z=null", "rules", {}),
        ("rules=null", "rules", {}), ("dedup.by=[uid, sha256]", "dedup.by", ("uid", "sha256")),
        ("input.0.name=alt", "input.0.name", "alt"), ("input.0.columns.caption=alt", "input.0.columns.caption", "alt"),
        ("input.path=/y", "input.0.path", "/y"), ("dedup.prefer=s", "dedup.prefer", "s"),
    ],
)  # fmt: skip
def test_set(tmp_path, override, path, value):
    at = load(tmp_path, override, text=BALANCED).model_dump()
    for part in path.split("."):
        at = at[int(part) if part.isdigit() else part]
    assert at == value


def test_set_applies_in_order_and_makes_sections(tmp_path):
    assert load(tmp_path, "balance.t=5", "balance.rows=8", "balance.t=6", text=BALANCED).balance == Balance(t=6)
    made = load(tmp_path, "match.metadata=/m.json", "balance.t=5", "rules.best.top=0.2", "rules.best.of=s")
    assert (made.match.metadata, made.balance, made.rules) == ("/m.json", Balance(t=5), {"best": Top(top=0.2, of="s")})


@pytest.mark.parametrize("key", ["input.join.path", "input.0.join.path", "input.join.0.path", "input.0.join.0.path"])
def test_a_single_source_and_a_single_join_are_set_with_or_without_their_place(tmp_path, key):
    names = ("name: a, format: webdataset, path: x.tar", "path: x.csv, on: key, columns: {a: b}")
    for form in ("input: {%s, join: {%s}}", "input: [{%s, join: {%s}}]", "input: {%s, join: [{%s}]}"):
        [source] = load(tmp_path, f"{key}=/y.csv", text=form % names).input
        assert (source.path, source.join[0].path) == (f"{tmp_path}/x.tar", "/y.csv")


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("rules.side=min_side >= 256", "rules.side adds a new rule, after all other rules; did you mean 'size'?"),
        ("rules.blurry=words > 1", "rules.blurry adds a new rule, after all other rules"),
        ("rules.once=null", "--set rules.once=null: deduplication now comes after all rules"),
        ("rules.size=min_side >= 256", ""), ("rules.size=null", ""),
    ],
)  # fmt: skip
def test_set_warns_of_likely_mistakes(tmp_path, caplog, override, note):
    loaded = load(tmp_path, text=f"{ONE}rules: {{once: dedup, size: min_side >= 200}}\n")
    assert not caplog.messages
    change_recipe(loaded, [override])
    assert len(caplog.messages) == bool(note) and "".join(caplog.messages).startswith(note)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed", "--set seed; key=value"), ("=5", "--set =5; key=value"), ("seed=[", "--set seed=[; YAML"),
        ("seeed=1", "seeed; did you mean 'seed'?"), ("output.rows=1", "output.rows; rows_per_shard"),
        ("input.1.path=y", "--set input.1.path=y; '1'; below 1"), ("input.-1.path=y", "'-1'; below 1"),
        ("input.x.path=y", "input.0.x: unknown key"), ("input.²=y", "'²'; below 1"),
        ("rules.z.top=0.2", "--set rules.z.top=0.2; 'top'; 'words > 1'; another expression, or"),
        ("rules.failed=words > 1", "reserved"), ("rules.z=", "rules; z is None"), ("rules.z=true", "rules; z is True"),
        ("rules.y=null", "--set rules.y=null; no rule 'y' to remove; rules: z"),
        ("match=null", "balance needs `match`"),
        ("balance.t=many", "balance.t; integer; many"), ("rules.y.top=0.2", "rules.y.of; missing"),
        ("rules.\udcff=words > 1", "bytes that are not UTF-8"), ("rules.a=\udcff", "bytes that are not UTF-8"),
        ("\udcff=1", "bytes that are not UTF-8"), ("rules.a='\ud800'", "bytes that are not UTF-8"),
        (f"input.storage{'.a' * 19_999}=1", "a key of 20,002 parts; accepted: at most 100"),
        (f"input.{'9' * 5000}.path=x", "accepted: a position below 1"),
    ],
)  # fmt: skip
def test_wrong_set(tmp_path, override, parts):
    message = refusal(tmp_path, override, text=BALANCED)
    assert message.isprintable() and not [part for part in parts.split("; ") if part not in message], message
    assert "accepted: a position below 2, such as input.0.path" in refusal(tmp_path, "input.path=z", text=TWO)
