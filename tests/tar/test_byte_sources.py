"""Tars on a server: copied whole to be measured, and of what is kept, what lies near together comes in one request."""

import shutil

import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.kit.range_server import serving_ranges

pytestmark = pytest.mark.thorough

pytest.importorskip("aiohttp")


def test_a_tar_is_requested_once_to_be_measured_and_once_to_be_emitted(tmp_path):
    """With the same tables and shards as a local pool; and nothing of the copies is left."""
    samples = kit.make_samples(240)
    local = kit.write_tars(tmp_path / "pool", samples, 3)
    measure = {"image": {"phash": True}, "language": {}}
    (tmp_path / "scratch").mkdir()
    ran = [kit.run_local(kit.recipe_of(local, measure=measure), tmp_path / "local")]
    with serving_ranges(tmp_path / "pool") as served, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
        path = f"{served.url}/{{00000..00002}}.tar"
        ran.append(kit.run_local(kit.recipe_of(path, measure=measure), tmp_path / "remote"))
    assert ran[0].counts == ran[1].counts and ran[0].counts["kept"] > 200
    for name in ("00000.tar", "00001.tar", "00002.tar"):
        size = (tmp_path / "pool" / name).stat().st_size
        gets = [count for _, count in served.gets(name)]
        assert len(gets) <= 3 and sum(gets) < 2.1 * size, (name, size, gets)
    assert not list((tmp_path / "scratch").iterdir())
    assert (tmp_path / "local/shards/00000.tar").read_bytes() == (tmp_path / "remote/shards/00000.tar").read_bytes()


def test_without_room_for_a_copy_it_is_read_by_ranges(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    local = kit.write_tars(tmp_path / "pool", kit.make_samples(40), 1)
    expected = kit.run_local(kit.recipe_of(local), tmp_path / "local").counts
    monkeypatch.setattr("curate.tar.byte_sources.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with serving_ranges(tmp_path / "pool") as served:
        ran = kit.run_local(kit.recipe_of(f"{served.url}/00000.tar"), tmp_path / "remote")
    assert ran.counts == expected and len(served.gets(".tar")) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("times", "unreadable"), [(2, 0), (100, 1)])
def test_a_store_that_is_busy_is_asked_three_times(times, unreadable, tmp_path):
    """Then the file is unreadable, and another run with --reuse reads it."""
    local = kit.write_tars(tmp_path / "pool", kit.make_samples(120), 3)
    expected = kit.run_local(kit.recipe_of(local), tmp_path / "local").counts
    with serving_ranges(tmp_path / "pool", refused="00001.tar", times=times) as served:
        recipe = kit.recipe_of(f"{served.url}/{{00000..00002}}.tar")
        ran = kit.run_local(recipe, tmp_path / "remote")
    failures = pq.read_table(tmp_path / "remote/failures.parquet", columns=["reason", "detail"]).to_pylist()
    found = [one["detail"] for one in failures if one["reason"] == "unreadable"]
    assert len(found) == unreadable and all("503" in detail for detail in found)
    assert (ran.counts == expected) is (not unreadable)
    if unreadable:
        with serving_ranges(tmp_path / "pool") as served:
            again = recipe.model_copy(update={"input": kit.recipe_of(f"{served.url}/{{00000..00002}}.tar").input})
            assert kit.run_local(again, tmp_path / "again", reuse=tmp_path / "remote").counts == expected
