"""A run continues in its own folder; curate refuses a folder of another run, and names the differences."""

import logging

import pytest

from curate.base.errors import RecipeError
from curate.base.registry import version
from curate.base.stages import VERSIONS
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore
from pipelines import claim
from pipelines.identity import find_identity, log_damage
from pipelines.prepare import prepare
from tests import kit
from tests.pipelines.graphs import make_recipe


@pytest.fixture
def run(tmp_path):
    kit.run_local(make_recipe(tmp_path), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def begun(tmp_path):
    """A run that curate 0.0.9 began with another version of Pillow."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claim, "__version__", "0.0.9")
        patched.setattr(claim, "version", lambda name: "9.0" if name == "pillow" else version(name))
        with claim.claimed(prepare(make_recipe(tmp_path), str(tmp_path / "begun"))):
            return tmp_path / "begun"


def test_a_version_that_recomputes_tables_names_them(run, begun, tmp_path, monkeypatch):
    monkeypatch.setitem(VERSIONS, "decide", 99)
    anew = r".*still valid, and recomputes only decisions, shards"
    with pytest.raises(RecipeError, match=f"a library, or --fingerprint changed{anew}"):
        prepare(make_recipe(tmp_path), str(run))
    with pytest.raises(
        RecipeError, match=rf"from curate 0.0.9, but this is 0.1.0; only curate 0.0.9 can finish it{anew}"
    ):
        prepare(make_recipe(tmp_path), str(begun))


def test_unknown_keys_in_the_recipe_of_another_version_are_named(begun, tmp_path):
    store = RunStore(str(begun))
    claimed = store.read_json(RUN_FILE)
    store.write_json(RUN_FILE, claimed | {"identity": "other", "recipe": claimed["recipe"] | {"later": 1}})
    with pytest.raises(RecipeError, match=r"pool \(changed: later\) from curate 0.0.9, but this is 0.1.0. Choose"):
        prepare(make_recipe(tmp_path), str(begun))


def test_another_pool_is_refused(run, tmp_path):
    (tmp_path / "pool/00000.parquet").unlink()
    (tmp_path / "pool").rmdir()
    kit.write_parquets(tmp_path / "pool", kit.make_rows(13), 1)
    with pytest.raises(RecipeError, match=r"of the same recipe, but an input"):
        prepare(make_recipe(tmp_path), str(run))


def test_neither_limits_names_nor_the_folder_make_another_run(run, begun, tmp_path):
    recipe = make_recipe(tmp_path, name="another", license="mit", max_failed=0.5)
    contexts = [prepare(one, str(out)).context for one, out in ((recipe, run), (make_recipe(tmp_path), tmp_path / "x"))]
    assert len(set(map(find_identity, contexts))) == 1 and prepare(recipe, str(run)).finished
    assert not prepare(recipe, str(begun)).finished  # another version of curate began it


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_damaged_run_is_not_finished_and_the_file_is_named(damage, run, tmp_path, caplog):
    file = run / "uids.npy"
    data = file.read_bytes()
    file.unlink()
    if damage == "shorter":
        file.write_bytes(data[:-1])
    prepared = prepare(make_recipe(tmp_path), str(run))
    assert not prepared.finished
    with caplog.at_level(logging.WARNING):
        log_damage(prepared.context.store)
    assert [message for message in caplog.messages if "uids.npy: " in message and message.endswith("; recomputing it")]
