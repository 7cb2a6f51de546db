"""Whatever a missing extra was to bring, its message names what pip is to install."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from curate.base.errors import RecipeError
from curate.download.source import UrlsSource
from curate.match.building import tokens, wordnets
from curate.models import hugging_face, text_lines
from curate.models.clip_model import identify
from curate.pool.crawl.format import CommonCrawlInput, CrawlSource
from curate.pool.pmc.format import PmcInput, PmcSource
from curate.pool.urls.format import UrlsInput
from curate.read.listing import list_files
from curate.recipe import clouds
from curate.recipe.files import read_whole
from curate.signals import nsfw
from curate.signals.clip import Clip
from curate.store.store import RunStore
from pipelines.engines.choose import choose_engine

pytestmark = pytest.mark.slow

TESTED_ELSEWHERE = {"captions", "vllm", "regions"}  # test_openai, test_vllm, test_regions
NO_FEATURES = {"test", "runners", "all"}


def check(*words):
    return choose_engine(words).check()


def tokenize(wiki, load):
    load.cache_clear()
    return tokens.load_tokenizer(wiki)


def plan(form, kind, **source):
    return form().plan(kind.model_validate({"name": "pool", **source}), (), False)


URLS = {"format": "urls", "path": "list.csv", "network": {"contact": "me@example.org"}}
DATAFLOW = "--project=project --region=us-central1 --sdk_container_image=curate --temp_location=gs://bucket/temp"
CASES = [
    ("clip", "torch", lambda folder: identify(Clip(model="ViT-B-32"))),
    ("clip", "open_clip", lambda folder: identify(Clip(model="ViT-B-32"))),
    ("nsfw", "onnxruntime", lambda folder: nsfw._model_path()),
    ("ocr", "rapidocr", lambda folder: text_lines._model_paths()),
    ("ocr", "shapely", lambda folder: text_lines._model_paths()),
    ("img2dataset", "img2dataset", lambda folder: plan(UrlsInput, UrlsSource, **URLS)),
    ("img2dataset", "protego", lambda folder: plan(UrlsInput, UrlsSource, **URLS)),
    ("guided", "transformers", lambda folder: hugging_face.find_devices("guided x", "auto")),
    ("gcp", "gcsfs", lambda folder: RunStore("gs://bucket/run").exists("a")),
    ("gcp", "gcsfs", lambda folder: read_whole("gcs://bucket/a.txt", 100)),
    ("gcp", "apache_beam.runners.dataflow.internal.apiclient", lambda _: check("--runner=dataflow", *DATAFLOW.split())),
    ("bo", "botok", lambda folder: tokenize("bo", tokens._load_tibetan)),
    ("ja", "fugashi", lambda folder: tokenize("ja", tokens._load_japanese)),
    ("ja", "ipadic", lambda folder: tokenize("ryu", tokens._load_japanese)),
    ("km", "khmercut", lambda folder: tokens.load_tokenizer("km")),
    ("lo", "laonlp.tokenize", lambda folder: tokens.load_tokenizer("lo")),
    ("my", "burmesenlp", lambda folder: tokenize("my", tokens._load_burmese)),
    ("th", "pythainlp.tokenize", lambda folder: tokens.load_tokenizer("th")),
    ("zh", "jieba", lambda folder: tokenize("zh_yue", tokens._load_chinese)),
    ("wordnet", "wn", lambda folder: wordnets._read_lmf("omw-de.xml")),
    ("crawl", "resiliparse", lambda folder: plan(CommonCrawlInput, CrawlSource, format="commoncrawl", path="a.wat.gz")),
    ("pmc", "lxml", lambda folder: plan(PmcInput, PmcSource, format="pmc", path=str(folder))),
    ("spark", "pyspark", lambda folder: check("--runner=spark")),
    ("aws", "s3fs", lambda folder: RunStore("s3://bucket/run").exists("a")),
    ("aws", "s3fs", lambda folder: list_files(("s3a://bucket/{0..3}.tar",), {})),
]


@pytest.mark.parametrize(("extra", "package", "use"), CASES)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, extra, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    for scheme in ("gs", "gcs", "s3", "s3a"):  # as if nothing had asked for them before
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    for kind in ("S3FileSystem", "GCSFileSystem"):
        monkeypatch.delitem(vars(clouds), kind, raising=False)
    message = re.escape(f"pip install '.[{extra}]' in a checkout of curate")
    with pytest.raises((RecipeError, ImportError), match=message):
        use(tmp_path)


def test_each_extra_is_here():
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    assert {extra for extra, *_ in CASES} == {*project["optional-dependencies"]} - TESTED_ELSEWHERE - NO_FEATURES


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
from functools import partial
from curate.cli import demo
from curate.cli.main import main
small = partial(demo.write_pool, samples=150)
demo.write_pool = lambda pool, samples, seed, shards: small(pool, seed=seed, shards=shards)
main()
"""


def test_the_demo_runs_with_what_curate_alone_installs(tmp_path):
    """Packages are as they are after `pip install .`: none that only an extra asks for can be imported."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    known = {"curate"}
    while wanted - known:
        name = (wanted - known).pop()
        known.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.add(canonicalize_name(needed.name))
    by = importlib.metadata.packages_distributions()
    absent = {module for module, of in by.items() if not known & {canonicalize_name(one) for one in of}}
    absent -= {*sys.stdlib_module_names, "pipelines"}
    assert {"torch", "open_clip", "timm", "transformers"} <= absent
    command = [sys.executable, "-c", WITHOUT, ",".join(absent), "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/run/_SUCCESS").exists() and "\naligned " in done.stdout
