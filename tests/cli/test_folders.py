"""A folder in a file's place in a run: each command names it, and what to do; once that is done, a run goes on."""

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, write_pool

pytestmark = pytest.mark.thorough
IN_PLACE = "is a folder in a file's place; remove it, or move it away"


def test_a_folder_in_the_place_of_each_kind_of_file(cli: Cli, tmp_path: Path) -> None:
    write_pool(tmp_path)
    recipe, out = str(tmp_path / "tars.yaml"), tmp_path / "out"
    assert cli("run", recipe, "--out", str(out)).status == 0
    names = {re.sub(r"\d+", "N", name): name for name in sorted(str(p.relative_to(out)) for p in out.rglob("*.*"))}
    assert len(names) >= 17
    (tmp_path / "uids.txt").write_text("0" * 32)
    for name in names.values():
        for command in ("run", "verify", "sql", "whatif", "diff", "forget"):
            broken = tmp_path / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(out, broken)
            (broken / name).unlink()
            (broken / name).mkdir()
            if command == "run":
                (broken / "_SUCCESS").unlink()
            arguments = {
                "run": ["run", recipe, "--out", str(broken)],
                "verify": ["verify", str(broken)],
                "sql": ["sql", str(broken), "FROM kept LIMIT 1"],
                "whatif": ["whatif", str(broken), "--set", "rules.words=words > 3"],
                "diff": ["diff", str(broken), str(out)],
                "forget": ["forget", str(broken), "--uids", str(tmp_path / "uids.txt")],
            }
            done = cli(*arguments[command])
            if done.status != 0:
                assert f"{broken / name}: {IN_PLACE}" in done.err, (name, command, done)
            if command == "run" and done.status != 0:
                (broken / name).rmdir()
                done = cli("run", recipe, "--out", str(broken))
                assert done.status == 0 or name in ("run.json", "manifest.parquet"), (name, done)
            assert done.status == 0 or command != "verify" or name == "manifest.parquet" or "a folder" in done.err
