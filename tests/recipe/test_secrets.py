"""Secrets in storage options come from variables, which each process reads; literal ones never reach a worker."""

import bz2
import json
import pickle
from pathlib import Path

import pytest

from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from curate.recipe.secrets import check_variables, refuse_literals
from curate.run.context import RunContext
from curate.store.store import RunStore
from pipelines.engines.workers import Ask
from tests.kit.commands import run_command


def recipe(path="s3://bucket/pool.tar", storage=None, **sections):
    source = {"name": "photos", "format": "webdataset", "path": path, "storage": storage or {}}
    return parse_recipe({"input": source, **sections}, "recipe.yaml")


def test_a_variable_travels_by_its_name(monkeypatch):
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    nested = {"aws_secret_access_key": "env:POOL_SECRET"}
    made = recipe(
        storage={"secret": "env:POOL_SECRET", "client_kwargs": nested, "anon": False, "keys": ["env:POOL_SECRET"]}
    )
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
    with pytest.raises(RecipeError, match=r"storage\.secret: env: needs the name of an environment variable") as error:
        recipe(storage={"secret": "env:wJalr/XUtn"})
    assert "wJalr" not in str(error.value)


def test_a_password_in_a_url_is_refused(tmp_path, monkeypatch):
    """It would be in run.json, and in every message about the file."""
    for path in ("ftp://me:hush@host/pool.tar", ["simplecache::https://me:hush@host/{0..3}.tar"]):
        with pytest.raises(RecipeError, match=r"input.*path(.0)?: a password.*: env:MY_PASSWORD") as error:
            recipe(path)
        assert "hush" not in str(error.value)
    for path in ("sftp://me@host:22/pool@2:a.tar", "pool:a@b.tar", "https://host/a?b=c:d@e"):
        recipe(path)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("input: {name: photos, format: webdataset, path: a.tar}")
    Path("dewiki-20240101-pages-articles.xml.bz2").write_bytes(bz2.compress(b"<mediawiki></mediawiki>"))
    for words in (
        "run recipe.yaml --out @/run", "run recipe.yaml --out run --reuse @/run", "sql @/run", "verify @/run",
        "run recipe.yaml --out run --set blocklist=@/gone.txt", "status @/run",
        "metadata build --wiki @/dewiki-20240101-pages-articles-multistream.xml.bz2",
        "metadata build --wiki dewiki-20240101-pages-articles.xml.bz2 --out @/metadata.parquet",
    ):  # fmt: skip
        done = run_command(*words.replace("@", "ftp://me:hush@localhost:1/folder").split())
        assert done.status == 2 and "a password in a URL would be written to run.json" in done.err, done.err
        assert "hush" not in done.err + done.out


def test_workers_are_asked_for_variables(tmp_path, monkeypatch):
    """Variables for sources, and for caption engines."""
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    monkeypatch.setenv("VLM_KEY", "hush-hush")
    engine = {"openai": {"base_url": "http://localhost:8000/v1", "model": "vlm", "key": "VLM_KEY"}}
    captions = {"engines": {"vlm": engine}, "recaption": {"engine": "vlm"}}
    made = recipe(storage={"secret": "env:POOL_SECRET"}, captions=captions)
    data = pickle.dumps(Ask(RunContext(made, None, RunStore(str(tmp_path))), "", (), (), (), 0))
    assert list(pickle.loads(data)(0)) == []
    for name in ("VLM_KEY", "POOL_SECRET"):
        monkeypatch.delenv(name)
        [fault] = pickle.loads(data)(0)
        assert f"the environment variable {name} is not set" in fault


def test_literal_secrets_are_refused(monkeypatch):
    paths = [
        "key", "secret", "token", "password", "account_key", "sas_token", "client_kwargs.aws_secret_access_key",
        "token.private_key", "client_kwargs.headers.Authorization", "connection_string",
    ]  # fmt: skip
    for key in paths:
        options = "AccountName=a;AccountKey=hush-hush"
        for name in reversed(key.split(".")):
            options = {name: options}
        with pytest.raises(
            RecipeError, match=f"input 'photos': storage.{key} contains a secret, .*accepted: env:NAME"
        ) as error:
            refuse_literals("photos", recipe(storage=options).input[0].storage)
        assert "hush" not in str(error.value)
    monkeypatch.setenv("POOL_SECRET", "hush-hush")
    options = {"anon": True, "token": "google_default", "endpoint_url": "http://host", "secret": "env:POOL_SECRET"}
    options |= {"config_kwargs": {"connect_timeout": 5}, "s3_additional_kwargs": {"SSEKMSKeyId": "x"}, "profile": "me"}
    for harmless in (options, {"token": "/secrets/account.json"}):
        refuse_literals("photos", recipe(storage=harmless).input[0].storage)
