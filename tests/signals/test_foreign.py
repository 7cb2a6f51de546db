"""The signals on this folder's page, as installed packages: what only signals have (see tests/test_foreign_kinds.py)."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from curate.signals.signal import BuildContext, IdentifyContext
from tests import kit
from tests.kit.commands import run_command
from tests.kit.packages import ROOT, change, curate, installed, lay_out_example
from tests.kit.waiting import wait_until

PAGE = (ROOT / "curate/signals/README.md").read_text()
SECTION = PAGE.partition("## A signal of your own\n")[2].partition("\n## ")[0]
OBSERVE = "gray = np.asarray"
WHERE = "signal 'blur' of package curate-blur 0.1: "


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the page's package."""
    return lay_out_example(tmp_path_factory.mktemp("blur"), SECTION)


@pytest.fixture
def recipe(tmp_path):
    """The page's recipe, over 12 pictures and a file that is none."""
    samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), f"a caption number {i}") for i in range(12)]
    path = kit.write_tars(tmp_path / "tars", [*samples, kit.Sample("bad", b"no image", "a caption")], 3)
    sections = yaml.safe_load(re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[1])
    sections |= {"input": {"name": "pool", "format": "webdataset", "path": path}, "max_failed": 1.0}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections))
    return str(tmp_path / "r.yaml")


def command(site, *words):
    """Run a command in this process, with the packages there; return what it printed."""
    with installed(site):
        done = run_command(*map(str, words))
    assert done.status == 0, done.err
    return done.out


def query(site, out, sql):
    return json.loads(command(site, "sql", out, sql, "--format", "json"))


@pytest.mark.slow
def test_the_signal_of_the_page_is_a_column(site, recipe, tmp_path):
    several = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    values = []
    for out, options in (("one", []), ("several", several)):
        done = curate(site, "run", recipe, "--out", str(tmp_path / out), *options)
        assert done.returncode == 0, done.stderr
        sql = "SELECT key, blur, rule FROM measured JOIN decisions USING (unit, row) ORDER BY key"
        values.append(query(site, tmp_path / out, sql))
    assert values[0] == values[1]
    rows = {row["key"]: row for row in values[0]}
    assert rows.pop("bad")["blur"] is None and len(rows) == 12
    assert all(row["blur"] >= 0 and (row["rule"] == "sharp") == (row["blur"] <= 100) for row in rows.values())
    assert len({row["blur"] for row in rows.values()}) > 1
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["models"]["blur"] == "blur 1, side 256" and run["recipe"]["measure"]["blur"] == {"side": 256}


DEEP = '__import__("functools").reduce(lambda inner, _: [inner], range(5000), [])'


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image.convert", "image.to_grey", r"AttributeError: .*to_grey.* at curate_blur.py:\d+ in observe, image 0 of \S+0.tar"),
        ('pa.schema([("blur", pa.float32())])', '"blur"', "its columns are .*; accepted: Arrow fields"),
        ('f"blur 1, side {options.side}"', DEEP, "identify returned something that JSON cannot represent"),
        (OBSERVE, f"raise ValueError('no')\n        {OBSERVE}", "fails on each of 12 images; the first error is ValueError: no at"),
    ],
)  # fmt: skip
def test_errors_that_only_signals_make(old, new, message, site, recipe, tmp_path):
    with installed(change(site, tmp_path / "site", "curate_blur", (old, new))):
        done = run_command("run", recipe, "--out", str(tmp_path / "out"))
    assert done.status in (1, 2) and re.search(WHERE + f".*({message})", done.err), done.err
    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.slow
def test_images_on_which_it_fails_are_null_and_counted(site, recipe, tmp_path):
    """Also by runs that reuse the values."""
    failing = (OBSERVE, f"image.getpixel((0, 0))[0] < 128 and int('x')\n        {OBSERVE}")
    infinite = "pa.array([v and float('inf') if n % 2 else v for n, v in enumerate(observed)], pa.float32())"
    for name, what, changes in (
        ("raises", "signal 'blur' of package curate-blur 0.1", failing),
        ("infinite", "blur", ("pa.array(observed, pa.float32())", infinite)),
    ):
        some, out = change(site, tmp_path / name, "curate_blur", changes), tmp_path / f"{name}_out"
        more = (["--set", "rules.sharp=blur >= 0"], ["--set", "measure.language={}"])
        options = [more[0], [*more[0], *more[1], "--reuse", f"{out}0"], [*more[0], "--reuse", f"{out}1"]]
        printed = [command(some, "run", recipe, "--out", f"{out}{i}", *options[i]) for i in range(3)]
        text = rf"warning: {what}: null in (\d+) of 12 readable images, which it could not measure"
        [row] = query(some, f"{out}2", "SELECT count(*) FILTER (blur IS NULL) AS n FROM verdicts WHERE status = 'ok'")
        assert 0 < row["n"] < 12 and [re.findall(text, out) for out in printed] == [[str(row["n"])]] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_it(site, recipe, tmp_path):
    begun = tmp_path / "begun"
    slow = (OBSERVE, f"import pathlib, time; pathlib.Path('{begun}').touch(); time.sleep(600)\n        {OBSERVE}")
    hanging = change(site, tmp_path / "site", "curate_blur", slow)
    command = ["env", "--default-signal=INT", sys.executable, "-m", "curate", "run", recipe]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(hanging), str(ROOT)])}
    out = ["--out", str(tmp_path / "out")]
    with subprocess.Popen([*command, *out], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        wait_until(begun.exists, lambda: running.poll() is None)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=300)
    assert running.returncode == 130 and f"interrupted in {WHERE[:-2]}\n" in err, err


@pytest.mark.slow
def test_a_finished_run_without_the_package_and_with_another_version(site, recipe, tmp_path):
    """You can verify it, and take samples out of all its tables. What-if needs the package only if the recipe uses it."""
    out, empty, measure = tmp_path / "out", tmp_path / "empty", ["--set", "measure.language={}"]
    empty.mkdir()
    command(site, "run", recipe, "--out", out, *measure)
    other = change(site, tmp_path / "other", "curate_blur", ("blur 1,", "blur 2,"))
    plan = command(other, "plan", recipe, "--reuse", out, *measure)
    assert re.search(r"scores +0 of (\d) units done \(signals to measure: blur \1/\1; columns of the others", plan)
    command(empty, "verify", out)
    [row] = query(empty, out, "SELECT uid FROM measured WHERE blur IS NOT NULL ORDER BY key LIMIT 1")
    (tmp_path / "uids.txt").write_text(row["uid"])
    command(empty, "forget", out, "--uids", tmp_path / "uids.txt")
    command(empty, "verify", out)
    assert query(empty, out, "SELECT count(blur) AS n, count(*) AS rows FROM scores") == [{"n": 11, "rows": 13}]
    unused = ["--set", "measure.blur=null", "--set", "rules.sharp=null"]
    command(site, "run", recipe, "--out", tmp_path / "unused", *unused)
    command(empty, "whatif", tmp_path / "unused", "--set", "rules.w=words > 2")


def build_example(key, weights):
    """The signal with this key in the page's section on weights, with these weights."""
    page = PAGE.partition("## A signal with a file of weights\n")[2]
    [code] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f'SignalKind("{key}"' in code]
    names = {}
    exec(code, names)
    options = names["KIND"].section(weights=str(weights))
    identity = names["KIND"].identify(key, options, IdentifyContext({}, {}, True))
    [signal] = names["KIND"].build(key, options, BuildContext({key: identity}, {}))
    return signal


def test_the_example_of_a_signal_of_captions(tmp_path):
    (tmp_path / "weights.json").write_text('{"good": 1, "bad": -1}')
    [column] = build_example("tone", tmp_path / "weights.json").compute(pa.array(["good good dog", None, "bad cat"]))
    assert column.to_pylist() == [2, None, -1]


@pytest.mark.slow
def test_the_example_of_a_signal_of_images(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3 * 32 * 32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    torch.save(model.state_dict(), path)
    part = build_example("liked", path).start(pa.array(["a caption"] * 2))
    part.add(1, part.observe(Image.new("RGB", (40, 50), (255, 0, 0))))
    [column] = part.finish().columns
    expected = model(torch.tensor([1.0, 0.0, 0.0]).repeat(32 * 32)).item()
    assert column[0].as_py() is None and column[1].as_py() == pytest.approx(expected, abs=1e-6)
    path.write_text("no model")
    with pytest.raises(pickle.UnpicklingError):
        build_example("liked", path).load()
