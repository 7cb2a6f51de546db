"""A package whose signals end their process or take all memory, at images of 31 by 31 pixels or at a caption, as an installer lays it out.

DEATH in the environment is how.
"""

import numpy as np
import pyarrow.parquet as pq

from tests import kit
from tests.kit.packages import lay_out

CODE = """
import os, signal, time
import pyarrow as pa
from curate.plugins import Section, SignalKind, TextSignal, image_signal


class Deadly(Section):
    pass


class Observer:
    columns = pa.schema([("deadly", pa.float32())])

    def observe(self, image):
        if image.size == (31, 31):
            exec(os.environ.get("DEATH", "os.kill(os.getpid(), signal.SIGKILL)"))
            time.sleep(60)  # the signal may end another thread first
        return 1.0

    def finish(self, observed, captions):
        return [pa.array(observed, pa.float32())]


class Hungry(Observer):
    columns = pa.schema([("hungry", pa.float32())])

    def observe(self, image):
        taken = []
        while image.size == (31, 31):
            taken.append(bytearray(b"1" * (1 << 26)))
        return 1.0


class DeadlyText(Section):
    pass


def score(captions):
    if "a deadly caption" in captions.to_pylist():
        exec(os.environ.get("DEATH", "os.kill(os.getpid(), signal.SIGKILL)"))
        time.sleep(60)  # the signal may end another thread first
    return [pa.array([None if text is None else 1.0 for text in captions.to_pylist()], pa.float32())]


TEXT = SignalKind(
    "deadly_text", DeadlyText, lambda name, section, known: 1,
    lambda name, section, built: [
        TextSignal(name, (pa.field("deadly_text", pa.float32()),), built.identities[name], compute=score)
    ],
)
HUNGRY = SignalKind(
    "hungry", Deadly, lambda name, section, known: 1,
    lambda name, section, built: [image_signal(name, Hungry(), built.identities[name])],
)
KIND = SignalKind(
    "deadly", Deadly, lambda name, section, known: 1,
    lambda name, section, built: [image_signal(name, Observer(), built.identities[name])],
)
"""


def install(folder, name):
    """Lay the package out in folder/site, and write folder/recipe.yaml for 13 samples, of which the eighth ends that signal."""
    names = {"deadly": "KIND", "deadly_text": "TEXT", "hungry": "HUNGRY"}
    kinds = {kind: f"curate_deadly:{name}" for kind, name in names.items()}
    lay_out(folder / "site", "curate-deadly", "signals", kinds, "0.1", curate_deadly=CODE)
    samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), f"a caption {i}") for i in range(12)]
    samples.insert(7, kit.Sample("deadly", kit.encode(kit.picture(0).resize((31, 31))), "a deadly caption"))
    path = kit.write_tars(folder / "pool", samples, 1)
    source = f"input: {{name: pool, format: webdataset, path: '{path}'}}\n"
    (folder / "recipe.yaml").write_text(f"{source}measure: {{{name}: {{}}}}\nmax_failed: 0.1\n")


def check(run, name, end="was ended by signal 9"):
    """That the deadly sample failed with its reason, and all others were measured and kept."""
    [failed] = pq.read_table(run / "failures.parquet").to_pylist()
    assert (failed["key"], failed["reason"]) == ("deadly", "worker_died")
    detail = f"3 processes died while they measured the unit, and one that had only this row {end}"
    assert failed["detail"] == detail
    scores = pq.read_table(run / "tables/scores/00000.parquet")[name].to_pylist()
    assert scores == [1.0] * 7 + [None] + [1.0] * 5
    assert len(np.load(run / "uids.npy")) == 12 and not (run / "parts").exists()
