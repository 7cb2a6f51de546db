"""Code of other packages that raises when it is imported, or does not return: its package is named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.cli.common import PLANNING
from tests import kit
from tests.kit.packages import lay_out

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


def start(folder, *arguments, top="", body="pass"):
    """Start curate with a package of one signal, as an installer lays it out, and a pool with two recipes."""
    if not (folder / "site").exists():
        lay_out(folder / "site", "curate-evil", "signals", {"evil": "curate_evil:KIND"}, "0.1")
        samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), f"a caption {i}") for i in range(8)]
        path = kit.write_tars(folder / "tars", samples, 2)
        (folder / "clean.yaml").write_text(f"input: {{name: pool, format: webdataset, path: '{path}'}}\n")
        (folder / "evil.yaml").write_text((folder / "clean.yaml").read_text() + "measure: {evil: {}}\n")
    (folder / "site" / "curate_evil.py").write_text(CODE.replace("TOP", top).replace("BODY", body))
    env = os.environ | {"PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
    # A job in the background ignores interrupts, and so would its children.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "curate", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def curate(folder, *arguments, **code):
    """Run it; return its status and what it printed on standard error."""
    running = start(folder, *arguments, **code)
    _, err = running.communicate(timeout=300)
    assert "Traceback" not in err
    return running.returncode, err.replace(f"{PLANNING}\n", "")  # on a crowded machine


@pytest.mark.thorough
def test_one_that_cannot_be_imported_fails_only_what_uses_it(tmp_path):
    warning = f"curate: warning: {PACKAGE}curate_evil:KIND cannot be loaded: RuntimeError: no at curate_evil.py:"
    status, err = curate(tmp_path, "run", "clean.yaml", "--out", "out", top="raise RuntimeError('no')")
    assert status == 0 and err.startswith(warning), (status, err)
    status, err = curate(tmp_path, "plan", "evil.yaml", top="raise RuntimeError('no')")
    assert status == 2 and err.startswith(f"curate: evil.yaml: measure.evil: {PACKAGE}"), (status, err)
    assert err.count("cannot be loaded") == 1


@pytest.mark.slow
def test_an_interrupt_names_what_does_not_return(tmp_path):
    running = start(tmp_path, "run", "evil.yaml", "--out", "out", body="open('began', 'w'); time.sleep(1000)")
    while not (tmp_path / "began").exists():
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=600)
    assert running.returncode == 130 and f"curate: interrupted in {PACKAGE[:-2]}\n" in err, err
