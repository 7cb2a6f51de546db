"""Secrets in storage options come from variables, which each process reads; literal ones never reach a worker."""

import bz2
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from curate.recipe.secrets import check_variables, refuse_literals
from curate.run.context import RunContext
from curate.store.store import RunStore
from pipelines.engines.workers import Ask
from tests.kit.commands import run_command

if TYPE_CHECKING:
    from curate.pool.plan import Pool


def recipe(**storage):
    source = {"name": "photos", "format": "webdataset", "path": "s3://bucket/pool.tar", "storage": storage}
    return parse_recipe({"input": source}, "recipe.yaml")


def test_a_variable_travels_by_its_name(monkeypatch):
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    nested = {"aws_secret_access_key": "env:POOL_SECRET"}
    made = recipe(secret="env:POOL_SECRET", client_kwargs=nested, anon=False, keys=["env:POOL_SECRET"])
    assert made.input[0].storage["keys"] == ["hush-hush"]
    assert made.input[0].storage["client_kwargs"]["aws_secret_access_key"] == "hush-hush"
    for text in (pickle.dumps(made), repr(made).encode(), made.model_dump_json().encode()):
        assert b"hush" not in text and b"POOL_SECRET" in text
    monkeypatch.setenv("POOL_SECRET", "of the worker")
    again = pickle.loads(pickle.dumps(made)).input[0].storage
    assert again["secret"] == "of the worker" and again["anon"] is False
    assert parse_recipe(json.loads(made.model_dump_json()), "x").input[0].storage["secret"] == "of the worker"
    monkeypatch.delenv("POOL_SECRET")
    with pytest.raises(RecipeError, match=r"input 'photos': storage.secret: the environment variable POOL_SECRET is"):
        check_variables("photos", pickle.loads(pickle.dumps(made)).input[0].storage)


def test_a_wrong_name_is_not_shown():
    with pytest.raises(RecipeError, match=r"storage\.secret: env: is followed by no name") as error:
        recipe(secret="env:wJalr/XUtn")
    assert "wJalr" not in str(error.value)


def test_a_password_in_a_url_is_refused():
    """It would be in run.json, and in each message about the file."""
    for path in ("ftp://me:hush@host/pool.tar", ["simplecache::https://me:hush@host/{0..3}.tar"]):
        with pytest.raises(RecipeError, match=r"input.*path(.0)?: a password.*: env:MY_PASSWORD") as error:
            parse_recipe({"input": {"name": "photos", "format": "webdataset", "path": path}}, "recipe.yaml")
        assert "hush" not in str(error.value)
    for path in ("sftp://me@host:22/pool@2:a.tar", "pool:a@b.tar", "https://host/a?b=c:d@e"):
        parse_recipe({"input": {"name": "photos", "format": "webdataset", "path": path}}, "recipe.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "recipe.yaml", "--out", "{}/run"),
        ("run", "recipe.yaml", "--out", "run", "--reuse", "{}/run"),
        ("run", "recipe.yaml", "--out", "run", "--set", "blocklist={}/gone.txt"),
        ("sql", "{}/run"),
        ("verify", "{}/run"),
        ("status", "{}/run"),
        ("metadata", "build", "--wiki", "{}/dewiki-20240101-pages-articles-multistream.xml.bz2"),
        ("metadata", "build", "--wiki", "dewiki-20240101-pages-articles.xml.bz2", "--out", "{}/metadata.parquet"),
    ],
)
def test_a_password_on_a_command_line_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("input: {name: photos, format: webdataset, path: a.tar}")
    Path("dewiki-20240101-pages-articles.xml.bz2").write_bytes(bz2.compress(b"<mediawiki></mediawiki>"))
    done = run_command(*(word.replace("{}", "ftp://me:hush@localhost:1/folder") for word in words))
    assert done.status == 2 and "a password in a URL would be written to run.json" in done.err, done.err
    assert "hush" not in done.err + done.out


def test_workers_are_asked_for_variables(tmp_path, monkeypatch):
    """Variables for sources, and for caption engines."""
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    captions = {
        "engines": {"vlm": {"openai": {"base_url": "http://localhost:8000/v1", "model": "vlm", "key": "VLM_KEY"}}},
        "recaption": {"engine": "vlm"},
    }
    source = {"name": "photos", "format": "webdataset", "path": "s3://bucket/a.tar"}
    made = parse_recipe({"input": source | {"storage": {"secret": "env:POOL_SECRET"}}, "captions": captions}, "x")
    ask = Ask(RunContext(made, cast("Pool", None), RunStore(str(tmp_path))), "", (), (), (), 0)
    monkeypatch.setenv("VLM_KEY", "hush-hush")
    assert list(pickle.loads(pickle.dumps(ask))(0)) == []
    monkeypatch.delenv("VLM_KEY")
    [fault] = pickle.loads(pickle.dumps(ask))(0)
    assert "the environment variable VLM_KEY is not set" in fault
    monkeypatch.delenv("POOL_SECRET")
    [fault] = pickle.loads(pickle.dumps(ask))(0)
    assert "input 'photos': storage.secret: the environment variable POOL_SECRET is not set on" in fault


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("key", {"key": "AKIA"}),
        ("secret", {"secret": "hush-hush"}),
        ("token", {"token": "hush-hush"}),
        ("password", {"password": "hush-hush"}),
        ("connection_string", {"connection_string": "AccountName=a;AccountKey=hush-hush"}),
        ("account_key", {"account_key": "hush-hush"}),
        ("sas_token", {"sas_token": "hush-hush"}),
        ("client_kwargs.aws_secret_access_key", {"client_kwargs": {"aws_secret_access_key": "hush-hush"}}),
        ("token.private_key", {"token": {"private_key": "hush-hush"}}),
        ("client_kwargs.headers.Authorization", {"client_kwargs": {"headers": {"Authorization": "hush-hush"}}}),
    ],
)
def test_literal_secrets_are_refused(key, options):
    with pytest.raises(RecipeError, match=f"input 'photos': storage.{key}: .*accepted: env:NAME") as error:
        refuse_literals("photos", recipe(**options).input[0].storage)
    assert "hush" not in str(error.value) and "AKIA" not in str(error.value)


def test_what_is_no_secret_is_not_refused(monkeypatch):
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    options = {"anon": True, "token": "google_default", "endpoint_url": "http://host", "secret": "env:POOL_SECRET"}
    options |= {"config_kwargs": {"connect_timeout": 5}, "s3_additional_kwargs": {"SSEKMSKeyId": "alias/x"}}
    refuse_literals("photos", recipe(**options, profile="me").input[0].storage)
    refuse_literals("photos", recipe(token="/secrets/account.json").input[0].storage)
