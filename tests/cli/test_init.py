"""`curate init` and `curate schema`: recipes to begin with, examples, and what shells and editors complete."""

import json
import os
import re
import shlex
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest

from curate.cli.common import HELP
from curate.cli.init import engines, kinds
from curate.cli.main import build_app
from curate.recipe.recipe import load_recipe
from pipelines.engines.choose import choose_engine
from tests import kit
from tests.cli.shared import refusal, start
from tests.kit.user_pools import KINDS


@pytest.mark.parametrize("kind", kinds())
def test_each_recipe_is_one(kind, cli, tmp_path):
    done = cli("init", kind, "--out", str(tmp_path / "a.yaml"))
    assert done.status == 0 and f"curate plan {tmp_path}/a.yaml" in done.out
    assert load_recipe(str(tmp_path / "a.yaml"))


def test_keys_in_the_comments_of_the_first_recipe_are_right(tmp_path):
    text = files("pipelines.recipes").joinpath("basic.yaml").read_text("utf-8")
    (tmp_path / "a.yaml").write_text(re.sub(r"^( *)# (?=[a-z]+: \S)", r"\1", text, flags=re.MULTILINE))
    found = load_recipe(str(tmp_path / "a.yaml"))
    assert found.sample and found.dedup_place is not None and found.measure.clip and "aligned" in found.rules


def test_what_is_there_is_not_overwritten(cli, tmp_path):
    out = str(tmp_path / "a.yaml")
    assert cli("init", "--out", out).status == 0
    text = Path(out).read_text()
    assert "already exists" in refusal(cli("init", "laion", "--out", out)) and Path(out).read_text() == text
    assert "no recipe 'bsic'; did you mean 'basic'?" in refusal(cli("init", "bsic"))
    assert cli("init", "--out", str(tmp_path / "none/a.yaml")).status == 2


NAMED = {  # what must be in a source beside its path
    "images_with_a_table": "table: photos/list.csv\n    columns: {caption: title, file: photo}",
    "images_beside_a_table": "path: photos\n    table: captions.csv\n    # its columns: filename, text\n",
    "table_of_images": "path: photos\n    table: captions.csv\n    # its columns: file, caption\n",
    "titles_in_parquet": "columns: {caption: title}",
    "csv_of_urls": "columns: {caption: title, url: link}",
    "headless_tsv_of_urls": "column_names: [caption, url, column3]",
}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"run"}))
def test_a_recipe_for_what_is_at_a_path_is_good_as_it_is(kind, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, key = KINDS[kind]
    path = str(make(Path()))
    done = cli("init", path, "--out", "mine.yaml")
    assert done.status == 0 and f"; format: {key}\nwrote mine.yaml" in done.out, done.err
    text = Path("mine.yaml").read_text()
    assert text.startswith(f"# Written by curate init for {path}: ") and len(text.splitlines()) < 50
    assert NAMED.get(kind, "format") in text
    columns = re.findall("^    columns: |^    column_names: ", text, re.MULTILINE)
    assert len(columns) == (kind in NAMED and "column" in NAMED[kind].replace("# its columns", "")), text
    planned = cli("plan", "mine.yaml", "--no-estimate")
    assert planned.status == 0, planned.err
    # What else could be set is right, too
    loaded = re.sub(r"^    # (?!from|its)(\w+: \S)", r"    \1", text, flags=re.MULTILINE)
    Path("all.yaml").write_text(loaded)
    assert load_recipe("all.yaml").input and loaded.count("\n    #") <= 2


def test_a_recipe_for_a_run(cli, tmp_path, run):
    out = tmp_path / "a.yaml"
    assert cli("init", str(run), "--out", str(out)).status == 0 and f"path: {run}\n" in out.read_text()
    assert cli("plan", str(out), "--no-estimate").status == 0


def test_a_recipes_name_wins_over_a_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KINDS["tars"][0](tmp_path).rename("captions")
    assert cli("init", "captions", "--out", "a.yaml").status == 0
    assert "rewrite:" in Path("a.yaml").read_text()
    assert cli("init", "./captions", "--out", "b.yaml").status == 0
    assert "path: ./captions/**/*.tar" in Path("b.yaml").read_text()


def test_paths_are_right_for_a_recipe_in_another_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KINDS["tars"][0](Path())
    Path("2 recipes: mine").mkdir()
    assert cli("init", "pool", "--out", "2 recipes: mine/a.yaml").status == 0
    assert cli("plan", "2 recipes: mine/a.yaml", "--no-estimate").status == 0


def test_names_that_yaml_cannot_hold(cli, tmp_path):
    pool = tmp_path / "my\nname: photos"
    pool.mkdir()
    for name in ("a.jpg", "a.txt"):
        (pool / name).write_bytes(b"x")
    Path(os.fsdecode(bytes(pool) + b"/\xff.csv")).write_text("file,caption\na.jpg,b\n")
    assert cli("init", str(pool), "--out", str(tmp_path / "a.yaml")).status == 0
    assert cli("plan", str(tmp_path / "a.yaml"), "--no-estimate").status == 0


def test_what_curate_does_not_read(cli, tmp_path):
    (tmp_path / "notes").mkdir()
    for name, content, found in (
        ("notes", None, "no file"), ("notes/a.csv", b"id,n\n1,2\n", "1 .csv with columns id, n"),
        ("a.jpg", b"x", "1 .jpg"), ("a.parquet", b"PAR1", "1 .parquet, which cannot be read"),
    ):  # fmt: skip
        if content:
            (tmp_path / name).write_bytes(content)
        assert f"{name}: {found}; no format reads this; accepted: " in refusal(cli("init", str(tmp_path / name)))
    assert "none: no such file or folder" in refusal(cli("init", str(tmp_path / "none")))


@pytest.mark.parametrize("engine", engines())
def test_each_engine_has_options_that_beam_reads(engine, cli, tmp_path):
    out = str(tmp_path / "a.yaml")
    done = cli("init", "--on", engine, "--out", out)
    assert done.status == 0 and f"--on {out}" in done.out
    assert choose_engine([], out, "gs://my-bucket/run").key == engine
    Path(out).write_text(re.sub(r"(?m)^( *)# (?=[a-z_.]+: )", r"\1", Path(out).read_text()))
    assert choose_engine([], out, "gs://my-bucket/run")  # whatever else it suggests is known too
    assert cli("init", "--on", engine, "--out", out).status == 2


def test_refusals(cli):
    assert "did you mean 'spark'? accepted: dataflow, local," in refusal(cli("init", "--on", "sparc"))
    assert cli("init", "laion", "--on", "spark").status == 2


@pytest.mark.thorough
def test_the_first_recipes_run(cli, tmp_path):
    """Only paths change: Basic runs over tars, LAION's recipe over its columns, MetaCLIP's over URLs and captions."""
    for kind in ("basic", "laion", "metaclip"):
        assert cli("init", kind, "--out", str(tmp_path / f"{kind}.yaml")).status == 0
    kit.write_tars(tmp_path / "pool", kit.make_samples(48), 2)
    rows = kit.make_rows(200).select(["url", "text", "original_width", "original_height"])
    rows = rows.rename_columns(["URL", "TEXT", "WIDTH", "HEIGHT"])
    for name, value in (("similarity", 0.3), ("pwatermark", 0.1), ("punsafe", 0.1)):
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    kit.write_parquets(tmp_path / "metadata", rows, 1)
    (tmp_path / "pool/rows.parquet").write_bytes((tmp_path / "metadata/00000.parquet").read_bytes())
    kit.write_metadata(tmp_path)
    for kind, changes in (("basic", ["rules.side=min_side >= 20"]), ("laion", []), ("metaclip", [])):
        words = [word for change in [*changes, "max_failed=1.0"] for word in ("--set", change)]
        done = cli("run", str(tmp_path / f"{kind}.yaml"), "--out", str(tmp_path / f"run-{kind}"), *words)
        assert done.status == 0, done.err
        assert int(re.search(r"^kept +([\d,]+)", done.out, re.MULTILINE)[1].replace(",", "")) > 20, done.out


def test_schema_is_json(cli):
    assert "input" in json.loads(cli("schema").out)["properties"]


@pytest.mark.parametrize("name", [name for name in HELP if "examples" in HELP[name]])
def test_examples_are_commands(name):
    """Each example uses its command, with arguments and options that exist."""
    import typer

    for example in HELP[name]["examples"]:
        words = shlex.split(example.partition(" > ")[0])[1:]
        context = typer.main.get_command(build_app(words)).make_context("curate", words)
        while isinstance(context.command, typer.core.TyperGroup):
            command, words = context.command.get_command(context, words[0]), words[1:]
            context = command.make_context(command.name, words)  # or it raises
        assert context.command.name == name


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("line", "found"),
    [("curate wh", ["whatif"]), ("curate run --re", ["--reuse", "--retry"]), ("curate init lai", ["laion"])],
)
def test_a_shell_completes_commands_options_and_values(line, found):
    words = line.split()
    asked = {"_CURATE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    out, err = start("", env=os.environ | asked).communicate(timeout=300)
    assert out.split() == found, err
