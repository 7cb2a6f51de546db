"""A signal of another package, that of its folder's README, installed: in runs of one and several processes; its faults."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from curate.signals.signal import BuildContext, IdentifyContext
from tests import kit
from tests.kit.packages import curate, needs_hatchling

ROOT = Path(__file__).resolve().parents[2]
pytestmark = needs_hatchling


def blocks():
    """The code of the section of the folder's README, by language."""
    page = (ROOT / "curate/signals/README.md").read_text()
    text = page.partition("## A signal of your own\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the README's package, built and installed."""
    folder = tmp_path_factory.mktemp("blur")
    (folder / "package").mkdir()
    (folder / "package" / "curate_blur.py").write_text(blocks()["python"])
    (folder / "package" / "pyproject.toml").write_text(blocks()["toml"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--target", folder / "site", folder / "package"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def recipe(tmp_path):
    """A pool of small pictures, one of them of noise, and the README's sections."""
    samples = [kit.Sample(f"{i}", kit.encode(kit.picture(i)), f"a caption number {i}") for i in range(12)]
    path = kit.write_tars(tmp_path / "tars", [*samples, kit.Sample("bad", b"no image", "a caption")], 3)
    sections = yaml.safe_load(blocks()["yaml"])
    sections |= {"input": {"name": "pool", "format": "webdataset", "path": path}, "max_failed": 1.0}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections))
    return str(tmp_path / "r.yaml")


@pytest.mark.slow
def test_editors_know_its_section(site):
    done = curate(site, "schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["$defs"]["Blur"]["properties"]["side"]["type"] == "integer"


@pytest.mark.slow
def test_the_reference_is_of_this_packages_keys(site):
    code = "from tests.recipe.reference import reference_pages; print(reference_pages()['measure.md'], end='')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "pipelines/recipes/measure.md").read_text()


@pytest.mark.slow
def test_the_readmes_signal_is_a_column(site, recipe, tmp_path):
    values = []
    for out, options in (
        ("one", []),
        ("several", ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]),
    ):
        done = curate(site, "run", recipe, "--out", str(tmp_path / out), *options)
        assert done.returncode == 0, done.stderr
        sql = "SELECT key, blur, rule FROM measured JOIN decisions USING (unit, row) ORDER BY key"
        told = curate(site, "sql", str(tmp_path / out), sql, "--format", "json")
        assert told.returncode == 0, told.stderr
        values.append(json.loads(told.stdout))
    assert values[0] == values[1]
    rows = {row["key"]: row for row in values[0]}
    assert rows.pop("bad")["blur"] is None and len(rows) == 12
    assert all(row["blur"] >= 0 and (row["rule"] == "sharp") == (row["blur"] <= 100) for row in rows.values())
    assert len(np.unique([row["blur"] for row in rows.values()])) > 1
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["models"]["blur"] == "blur 1, side 256" and run["recipe"]["measure"]["blur"] == {"side": 256}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "status", "message"),
    [
        (
            "import numpy as np",
            "import numpy_of_no_one",
            2,
            "signal 'blur' of package curate-blur 0.1: .*cannot be loaded",
        ),
        (
            'key="blur"',
            'key="blurr"',
            2,
            "package curate-blur 0.1: .* is SignalKind.*'blurr'.*; accepted: a kind .* with the entry point's name",
        ),
        (
            "options.side}",
            "options.sides}",
            1,
            "signal 'blur' of package curate-blur 0.1: AttributeError: .*sides.* at curate_blur.py:[0-9]+ in <lambda>",
        ),
        ("Sharpness(options.side)", "Sharpness()", 1, "signal 'blur' of package curate-blur 0.1: TypeError: .*side"),
        (
            "[image_signal(name, Sharpness(options.side), built.identities[name])]",
            "(image_signal(name, Sharpness(), built.identities[name]) for _ in range(1))",
            1,
            "signal 'blur' of package curate-blur 0.1: TypeError: .*side",
        ),
        (
            "image.convert",
            "image.to_grey",
            1,
            r"signal 'blur' of package curate-blur 0.1: AttributeError: .*to_grey.* at curate_blur.py:\d+ in observe, image 0 of \S+0.tar",
        ),
        ("[pa.array(observed", "[pa.arrays(observed", 1, "signal 'blur' of package curate-blur 0.1: AttributeError"),
        (
            'pa.schema([("blur", pa.float32())])',
            '"blur"',
            1,
            "signal 'blur' of package curate-blur 0.1: its columns are .*; accepted: fields of Arrow",
        ),
        (
            'f"blur 1, side {options.side}"',
            '__import__("functools").reduce(lambda inner, _: [inner], range(5000), [])',
            2,
            "signal 'blur' of package curate-blur 0.1: identify returned what is no plain JSON data",
        ),
        (
            "grey = np.asarray",
            'grey = open("/no/such/weights") and np.asarray',
            1,
            "signal 'blur' of package curate-blur 0.1: FileNotFoundError: .*/no/such/weights",
        ),
    ],
)
def test_a_fault_of_the_package_names_it(old, new, status, message, site, recipe, tmp_path):
    code = blocks()["python"]
    assert code.count(old) == 1
    faulty = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (faulty / "curate_blur.py").write_text(code.replace(old, new))
    done = curate(faulty, "run", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == status and re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def changed(site, folder, old, new):
    """The package installed in another folder, with other code."""
    other = shutil.copytree(site, folder, ignore=shutil.ignore_patterns("__pycache__"))
    code = (other / "curate_blur.py").read_text()
    assert code.count(old) == 1
    (other / "curate_blur.py").write_text(code.replace(old, new))
    return other


@pytest.mark.slow
def test_images_that_it_fails_on_are_counted(site, recipe, tmp_path):
    """In the run's summary; also where what was measured is reused, and where it is an older run's."""
    some = changed(
        site, tmp_path / "site", "grey = np", "image.getpixel((0, 0))[0] < 128 and int('x')\n        grey = np"
    )
    told = r"warning: signal 'blur' of package curate-blur 0.1: null in (\d+) of 12 readable images, where it fails \(first: ValueError"
    first = curate(some, "run", recipe, "--out", str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    options = ["--reuse", str(tmp_path / "first"), "--set", "rules.sharp=blur > 5"]
    second = curate(some, "run", recipe, "--out", str(tmp_path / "second"), *options)
    options = ["--reuse", str(tmp_path / "second"), "--set", "measure.language={}"]
    third = curate(some, "run", recipe, "--out", str(tmp_path / "third"), *options)
    counts = [re.findall(told, done.stdout) for done in (first, second, third)]
    sql = "SELECT count(*) AS n FROM measured WHERE blur IS NULL AND status = 'ok'"
    nulls = json.loads(curate(some, "sql", str(tmp_path / "third"), sql, "--format", "json").stdout)[0]["n"]
    assert 0 < nulls < 12 and counts == [[str(nulls)]] * 3, (counts, nulls)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_values_that_are_not_finite_pass_no_rule(site, recipe, tmp_path, value):
    """They are null, and the run says how many; so does one that reuses them."""
    code = f"pa.array([v and float('{value}') if n % 2 else v for n, v in enumerate(observed)], pa.float32())"
    some = changed(site, tmp_path / "site", "pa.array(observed, pa.float32())", code)
    rule = ["--set", "rules.sharp=blur >= 0", "--set", "dedup.by=[]"]
    first = curate(some, "run", recipe, "--out", str(tmp_path / "first"), *rule)
    assert first.returncode == 0, first.stderr
    options = ["--reuse", str(tmp_path / "first"), *rule, "--set", "measure.language={}"]
    second = curate(some, "run", recipe, "--out", str(tmp_path / "second"), *options)
    told = r"warning: blur: null in (\d+) of 12 readable images, where it fails \(first: NaN or infinity\)"
    counts = [re.findall(told, done.stdout) for done in (first, second)]
    sql = "SELECT count(*) FILTER (blur IS NULL) AS n, count(*) FILTER (kept) AS kept FROM verdicts WHERE status = 'ok'"
    [row] = json.loads(curate(some, "sql", str(tmp_path / "second"), sql, "--format", "json").stdout)
    assert 0 < row["n"] == 12 - row["kept"] and counts == [[str(row["n"])]] * 2, (counts, row)


@pytest.mark.slow
def test_a_signal_that_fails_on_every_image_ends_the_run(site, recipe, tmp_path):
    """And once it is repaired, it is measured again."""
    broken = changed(site, tmp_path / "site", "grey = np", "raise ValueError('no')\n        grey = np")
    done = curate(broken, "run", recipe, "--out", str(tmp_path / "out"))
    message = (
        r"signal 'blur' of package curate-blur 0.1: fails on each of 12 images, the first time with ValueError: no at"
    )
    assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    done = curate(site, "run", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == 0 and "signal 'blur'" not in done.stdout, done.stderr
    sql = "SELECT count(blur) AS n FROM measured"
    assert json.loads(curate(site, "sql", str(tmp_path / "out"), sql, "--format", "json").stdout) == [{"n": 12}]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_it(site, recipe, tmp_path):
    slow = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)\n        grey ="
    hanging = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (hanging / "curate_blur.py").write_text(blocks()["python"].replace("grey =", slow, 1))
    command = ["env", "--default-signal=INT", sys.executable, "-m", "curate", "run", recipe]
    command += ["--out", str(tmp_path / "out")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(hanging), str(ROOT)])}
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        while not (tmp_path / "begun").exists():
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=300)
    assert running.returncode == 130 and "interrupted in signal 'blur' of package curate-blur 0.1\n" in said, said


@pytest.mark.slow
def test_an_unknown_key_of_its_section(site, recipe, tmp_path):
    done = curate(site, "run", recipe, "--out", str(tmp_path / "out"), "--set", "measure.blur.sied=3")
    assert done.returncode == 2
    assert "measure.blur.sied: unknown key; did you mean 'side'? known keys: side" in done.stderr


@pytest.mark.slow
def test_without_the_package_there_is_no_such_signal(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    done = curate(tmp_path / "empty", "run", recipe, "--out", str(tmp_path / "out"), "--set", "measure.tiny={}")
    assert done.returncode == 2 and re.search(
        r"yaml: measure.blur: unknown key, or a signal of a package that is not installed; known keys: image, language, .*\n\S*: measure.tiny: unknown key, or a signal of a package that is not installed\n$",
        done.stderr,
    )


@pytest.mark.slow
def test_a_finished_run_without_the_package(site, recipe, tmp_path):
    """Is verified, and samples are taken out of all its tables; what would measure asks for the package."""
    out, empty = str(tmp_path / "out"), tmp_path / "empty"
    empty.mkdir()
    assert curate(site, "run", recipe, "--out", out).returncode == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["packages"]["curate-blur"] == "0.1"
    assert curate(empty, "verify", out).returncode == 0
    sql = "SELECT uid FROM measured WHERE blur IS NOT NULL ORDER BY key LIMIT 1"
    [row] = json.loads(curate(empty, "sql", out, sql, "--format", "json").stdout)
    (tmp_path / "uids.txt").write_text(row["uid"])
    done = curate(empty, "forget", out, "--uids", str(tmp_path / "uids.txt"))
    assert done.returncode == 0, done.stderr
    assert curate(empty, "verify", out).returncode == 0
    sql = "SELECT count(blur) AS n, count(*) AS rows FROM scores"
    assert json.loads(curate(empty, "sql", out, sql, "--format", "json").stdout) == [{"n": 11, "rows": 13}]
    done = curate(empty, "whatif", out, "--set", "rules.sharp=blur > 5")
    assert done.returncode == 2 and done.stderr == (
        f"curate: {out}: this run used signal blur of package curate-blur 0.1, which is not installed; install it\n"
    )
    options = ["--set", "measure.blur=null", "--set", "rules.sharp=null"]
    assert curate(site, "run", recipe, "--out", str(tmp_path / "unused"), *options).returncode == 0
    assert curate(empty, "whatif", str(tmp_path / "unused"), "--set", "rules.w=words > 2").returncode == 0


@pytest.mark.slow
def test_a_plan_measures_only_what_is_not_reused(site, recipe, tmp_path):
    """Nothing of an older run with the same signals; with another version of one, that alone."""
    counting = changed(site, tmp_path / "one", "grey = np", "open('observed', 'a').write('x')\n        grey = np")
    run, measure = str(tmp_path / "run"), ["--set", "measure.language={}"]
    assert curate(counting, "run", recipe, "--out", run, *measure).returncode == 0
    observed = (counting / "observed").stat().st_size
    done = curate(counting, "plan", recipe, "--reuse", run, *measure, "--set", "rules.sharp=blur > 5")
    assert done.returncode == 0 and "everything is measured and matched already" in done.stdout, (
        done.stdout + done.stderr
    )
    assert (counting / "observed").stat().st_size == observed == 12

    other = changed(counting, tmp_path / "two", "blur 1,", "blur 2,")
    done = curate(other, "plan", recipe, "--reuse", run, *measure)
    assert re.search(
        r"scores +0 of (\d) units done \(signals to measure: blur \1/\1; columns of the others", done.stdout
    )
    done = curate(other, "run", recipe, "--out", run, *measure)
    assert (
        done.returncode == 2
        and "holds a run of the same recipe with another identity (model, file or version) of blur." in done.stderr
    )


def test_the_example_of_a_signal_of_captions(tmp_path):
    """That of the folder's README."""
    path = tmp_path / "weights.json"
    path.write_text('{"good": 1, "bad": -1}')
    signal = build_example("tone", path)
    found = signal.compute(pa.array(["good good dog", None, "bad cat"]))
    assert [column.to_pylist() for column in found] == [[2, None, -1]]


@pytest.mark.slow
def test_the_example_of_a_signal_of_images(tmp_path):
    """That of the folder's README; a file that holds no model is reported when it is loaded, before a run."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3 * 32 * 32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    torch.save(model.state_dict(), path)
    signal = build_example("liked", path)
    part = signal.start(pa.array(["a caption"] * 2))
    part.add(1, part.observe(Image.new("RGB", (40, 50), (255, 0, 0))))
    [column] = part.finish().columns
    expected = model(torch.tensor([1.0, 0.0, 0.0]).repeat(32 * 32)).item()
    assert column[0].as_py() is None and column[1].as_py() == pytest.approx(expected, abs=1e-6)
    path.write_text("no model")
    with pytest.raises(pickle.UnpicklingError):  # which commands report with the package's name
        build_example("liked", path).load()


def build_example(key, weights):
    """The signal of this key in the section of the folder's README on weights, of these."""
    page = (ROOT / "curate/signals/README.md").read_text().partition("## A signal with a file of weights\n")[2]
    [code] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f'SignalKind("{key}"' in code]
    names = {}
    exec(code, names)
    options = names["KIND"].section(weights=str(weights))
    identity = names["KIND"].identify(key, options, IdentifyContext({}, {}, True))
    [signal] = names["KIND"].build(key, options, BuildContext({key: identity}, {}))
    return signal
