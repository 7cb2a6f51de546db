"""Code of other packages that ends the process, closes its descriptors or never returns, in runs: its package is named."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.base import foreign
from curate.base.errors import RunError
from curate.base.foreign import ForeignKind, find_running, guard, naming_packages
from curate.cli.common import PLANNING
from tests.laws import pools
from tests.packages import lay_out

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys, time
import pyarrow as pa
from curate.plugins import Section, SignalKind, image_signal

TOP

class Evil(Section):
    pass

class Observer:
    columns = pa.schema([("evil", pa.float32())])

    def observe(self, image):
        BODY
        return 1.0

    def finish(self, observed, captions):
        return [pa.array(observed, pa.float32())]

KIND = SignalKind(
    "evil", Evil, lambda name, section, known: 1,
    lambda name, section, built: [image_signal(name, Observer(), built.identities[name])],
)
"""
PACKAGE = "signal 'evil' of package curate-evil 0.1: "


def start(folder: Path, *arguments: str, top: str = "", body: str = "pass", seconds: str = "") -> subprocess.Popen[str]:
    """Start curate with a package of one signal, as an installer lays it out, and a pool with two recipes."""
    if not (folder / "site").exists():
        lay_out(folder / "site", "curate-evil", "signals", {"evil": "curate_evil:KIND"}, "0.1")
        samples = [pools.Sample(f"{i}", pools.encode(pools.picture(i)), f"a caption {i}") for i in range(8)]
        path = pools.write_tars(folder / "tars", samples, 2)
        (folder / "clean.yaml").write_text(f"input: {{name: pool, format: webdataset, path: '{path}'}}\n")
        (folder / "evil.yaml").write_text((folder / "clean.yaml").read_text() + "measure: {evil: {}}\n")
    (folder / "site" / "curate_evil.py").write_text(CODE.replace("TOP", top).replace("BODY", body))
    env = os.environ | {"PYTHONPATH": f"{folder / 'site'}:{ROOT}", "CURATE_PACKAGE_SECONDS": seconds}
    # A job in the background ignores interrupts, and so would its children.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "curate", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def curate(folder: Path, *arguments: str, **code: str) -> tuple[int, str]:
    """Run it; return its status and what it printed on standard error."""
    running = start(folder, *arguments, **code)
    _, err = running.communicate(timeout=300)
    assert "Traceback" not in err
    return running.returncode, err.replace(f"{PLANNING}\n", "")  # on a crowded machine


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("top", "why"),
    [
        ("raise SystemExit(7)", "SystemExit: 7 at"),
        pytest.param("raise KeyboardInterrupt", "KeyboardInterrupt at", marks=pytest.mark.slow),
        pytest.param("os._exit(7)", "SystemExit: 7 at curate_evil.py:6 in <module>", marks=pytest.mark.slow),
        pytest.param(
            "time.sleep(1000)",
            "TimeoutError: has not returned within 2 s; CURATE_PACKAGE_SECONDS sets the limit;",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_one_that_ends_the_process_when_imported_fails_only_what_uses_it(tmp_path: Path, top: str, why: str) -> None:
    seconds = "2" if "sleep" in top else "120"  # on a crowded machine imports take longer
    every = top == "os._exit(7)"  # commands; of the other ways one shows that they are told alike
    if every:
        status, err = curate(tmp_path, "run", "clean.yaml", "--out", "out", top="")
        done = "measure 2/2 units  decide 2/2 units  emit 1 shard\n"
        assert status == 0 and err.endswith(done) and "warning" not in err
    warning = f"curate: warning: {PACKAGE}curate_evil:KIND cannot be loaded: {why}"
    for words in [["schema"], ["run", "clean.yaml", "--out", "out"]] if every else [["plan", "clean.yaml"]]:
        status, err = curate(tmp_path, *words, top=top, seconds=seconds)
        assert status == 0 and err.startswith(warning), (words, status, err)
    words = ["run", "evil.yaml", "--out", "other"] if every else ["plan", "evil.yaml"]
    status, err = curate(tmp_path, *words, top=top, seconds=seconds)
    assert status == 2 and err.startswith(f"curate: evil.yaml: measure.evil: {PACKAGE}"), (words, status, err)
    assert err.count("cannot be loaded") == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit(7)", PACKAGE + "SystemExit: 7 at curate_evil.py:"),
        ("os._exit(7)", PACKAGE + r"os\._exit\(7\)"),
        pytest.param("raise KeyboardInterrupt", PACKAGE + "KeyboardInterrupt at curate_evil.py:", marks=pytest.mark.slow),
        pytest.param("raise GeneratorExit", PACKAGE + "GeneratorExit at curate_evil.py:", marks=pytest.mark.slow),
        pytest.param("os.close(2)", PACKAGE + "it closed standard error", marks=pytest.mark.slow),
        pytest.param("os.close(1)", "package(s in use:)? curate-evil 0.1", marks=pytest.mark.slow),
        pytest.param("os.closerange(3, 200)", "package(s in use:)? curate-evil 0.1", marks=pytest.mark.slow),
        pytest.param(
            "time.sleep(1000)",
            PACKAGE + "observe has not returned within 10 s; CURATE_PACKAGE_SECONDS sets the limit, image",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_run_that_it_ends_names_it(tmp_path: Path, body: str, message: str) -> None:
    status, err = curate(
        tmp_path, "run", "evil.yaml", "--out", "out", body=body, seconds="10" if "sleep" in body else "120"
    )
    assert status == 1 and re.search(f"curate: .*{message}", err), (status, err)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["top", "body"])
def test_an_interrupt_names_what_does_not_return(tmp_path: Path, place: str) -> None:
    code = {place: "open('began', 'w'); time.sleep(1000)"}
    running = start(tmp_path, "run", "evil.yaml", "--out", "out", **code)
    while not (tmp_path / "began").exists():
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=600)
    assert running.returncode == 130 and f"curate: interrupted in {PACKAGE[:-2]}\n" in err, err


@pytest.mark.slow
@pytest.mark.parametrize("place", ["top", "body"])
def test_the_line_that_holds_the_interpreter_is_printed(tmp_path: Path, place: str) -> None:
    """By a thread that needs none of it, as no thread of Python's runs while a pattern is matched."""
    code = {place: "import re; re.match('(a+)+$', 40 * 'a' + 'b')"}
    running = start(tmp_path, "run", "evil.yaml", "--out", "out", seconds="1", **code)
    assert running.stderr is not None
    line = next((line for line in running.stderr if "curate_evil.py" in line), "")
    running.kill()
    running.communicate()
    assert re.search(r"site/curate_evil.py\", line \d+ in (observe|<module>)$", line)


@pytest.mark.slow
def test_a_process_that_it_forks_ends_by_itself(tmp_path: Path) -> None:
    body = "process = os.fork(); process or os._exit(0); os.waitpid(process, 0)"
    assert curate(tmp_path, "run", "evil.yaml", "--out", "out", body=body)[0] == 0


def test_a_descriptor_that_was_closed_elsewhere_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ForeignKind("gate", "shut", "my-gates 1", "my_gates", object())
    monkeypatch.setattr(foreign, "FOREIGN", {("gate", "shut"): kind})
    with pytest.raises(RunError, match=r"\[Errno 9\] no: code closed a .* in use: my-gates 1"), naming_packages():
        raise OSError(errno.EBADF, "no")
    with pytest.raises(OSError, match="other"), naming_packages():
        raise OSError(errno.EIO, "other")


def test_descriptors_that_it_opens_and_closes_are_its_own() -> None:
    def read() -> int:
        os.close(os.open(os.devnull, os.O_RDONLY))
        return 3

    assert guard(read, "here")() == 3 and find_running() == ""
