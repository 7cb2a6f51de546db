"""If a run has a folder in the place of a file, commands name it and what to do. Then the run continues."""

import re
import shutil

import pytest

from tests.kit.commands import write_pool

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("without_beam")]
IN_PLACE = "is a folder, but curate needs a file there; remove or move it"


@pytest.fixture
def out(cli, tmp_path):
    write_pool(tmp_path)
    assert cli("run", str(tmp_path / "tars.yaml"), "--out", str(tmp_path / "out")).status == 0
    return tmp_path / "out"


def files_by_kind(out):
    """Return a file of each kind."""
    names = {re.sub(r"\d+", "N", name): name for name in sorted(str(p.relative_to(out)) for p in out.rglob("*.*"))}
    assert len(names) >= 17
    return names.values()


def test_commands_name_a_folder_in_the_place_of_a_file(cli, out):
    for name in ("shards/00001.parquet", "tables/decisions/00000.parquet", "run.json"):
        (out / name).rename(out.parent / "file")
        (out / name).mkdir()
        for command, *arguments in (["verify"], ["sql", "FROM kept"]):
            done = cli(command, str(out), *arguments)
            assert done.status == 0 or f"{out / name}: {IN_PLACE}" in done.err, (name, command, done)
            assert done.status or command != "verify", name
        (out / name).rmdir()
        (out.parent / "file").rename(out / name)


def test_a_run_names_one_after_the_other_and_continues_once_all_are_gone(cli, out, tmp_path):
    recipe = str(tmp_path / "tars.yaml")
    whole = (out / "uids.npy").read_bytes()
    names = files_by_kind(out)
    for name in ("run.json", "manifest.parquet"):  # without them, nothing says which run it is
        shutil.copytree(out, tmp_path / name, ignore=shutil.ignore_patterns("_SUCCESS", name))
        (tmp_path / name / name).mkdir()
        done = cli("run", recipe, "--out", str(tmp_path / name))
        assert done.status == 0 or f"{tmp_path / name / name}: {IN_PLACE}" in done.err, (name, done)
    (out / "_SUCCESS").unlink()
    broken = sorted({*names} - {"run.json", "manifest.parquet"})
    for name in broken:
        (out / name).unlink()
        (out / name).mkdir()
    seen = []
    while (done := cli("run", recipe, "--out", str(out))).status:
        named = [name for name in broken if f"{out / name}: {IN_PLACE}" in done.err and (out / name).is_dir()]
        assert named, done
        seen += named
        for name in named:
            (out / name).rmdir()
    assert len(seen) >= 8, seen
    assert (out / "uids.npy").read_bytes() == whole
