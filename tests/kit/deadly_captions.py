"""A package whose caption engine works in its process, and ends it at the caption `a deadly caption`, as an installer lays it out.

With MACHINE in the environment it does not; where that is `taken away`, the worker is killed at each second batch, where it is `dies` at each.
DEATH is how the caption ends it.
"""

import pyarrow.parquet as pq

from tests import kit

CODE = """
import os, signal, sys, time
from curate.plugins import Answer, Engine, EngineKind, EngineOptions


class Deadly(EngineOptions):
    is_local = True

    def open(self):
        return DeadlyEngine()


class DeadlyEngine(Engine):
    model, batches = "deadly", 0

    def check(self):
        pass

    def answers(self, requests):
        self.batches += 1
        if os.environ.get("MACHINE") == "dies" or (self.batches > 1 and os.environ.get("MACHINE") == "taken away"):
            is_apart = "serve(" in sys.orig_argv[-1]
            os.kill(os.getppid() if is_apart else os.getpid(), signal.SIGKILL)
            os._exit(1)  # and answers nothing
        for place, request in enumerate(requests):
            if "a deadly caption" in request.prompt and "MACHINE" not in os.environ:
                exec(os.environ.get("DEATH", "os.kill(os.getpid(), signal.SIGKILL)"))
                time.sleep(60)  # the signal may end another thread first
            yield place, Answer("a thing that somebody saw")


DEADLY = EngineKind("deadly", Deadly)
"""


def install(folder):
    """Lay the package out in folder/site, and write folder/recipe.yaml for 13 samples, of which the eighth is deadly."""
    info = folder / "site/curate_deadly_engine-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: curate-deadly-engine\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[curate.caption_engines]\ndeadly = curate_deadly_engine:DEADLY\n")
    (folder / "site/curate_deadly_engine.py").write_text(CODE)
    samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), f"a caption {i}") for i in range(13)]
    samples[7] = kit.Sample("deadly", samples[7].image, "a deadly caption")
    path = kit.write_tars(folder / "pool", samples, 1)
    captions = "{engines: {it: {deadly: {}}}, rewrite: {engine: it, styles: [human], batch: 5}, gates: {off: [numbers, names]}}"
    source = f"input: {{name: pool, format: webdataset, path: '{path}'}}\n"
    (folder / "recipe.yaml").write_text(f"{source}captions: {captions}\nmax_failed: 0.1\n")


def check(run, end="was ended by signal 9"):
    """That the deadly request failed with its reason, and all others were answered; the sample is kept."""
    samples = pq.read_table(run / "tables/samples/00000.parquet", columns=["uid", "key"]).to_pydict()
    keys = dict(zip(samples["uid"], samples["key"], strict=True))
    rows = pq.read_table(run / "tables/captions/00000.parquet").to_pylist()
    [failed] = [row for row in rows if row["status"] != "ok"]
    assert len(rows) == 13 and (keys[failed["uid"]], failed["status"]) == ("deadly", "worker_died")
    detail = f"3 processes died while they captioned the unit, and a process that had only this request or image {end}"
    assert failed["error"] == detail and failed["text"] is None
    assert {row["text"] for row in rows if row is not failed} == {"a thing that somebody saw"}
    assert not (run / "parts").exists()
