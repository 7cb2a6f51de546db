"""Commands on lists of URLs: counts, and estimates for the download."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.process import CORES
from curate.base.wording import format_bytes, pluralize
from curate.store.store import RunStore
from tests.kit import encode, picture
from tests.kit.packages import needs_img2dataset
from tests.kit.web import Web, running

pytestmark = needs_img2dataset

ROWS = 90


@pytest.fixture(scope="module")
def web():
    with running(Web({str(i): encode(picture(i, 300)) for i in range(ROWS)}, 4)) as servers:
        yield servers


@pytest.fixture(scope="module")
def recipe(web, tmp_path_factory):
    """One in ten URLs is gone, and one in ten gives no image."""
    folder = tmp_path_factory.mktemp("urls")
    kinds = {0: "gone/{}", 1: "text/{}"}
    urls = [web.url(kinds.get(i % 10, "image/{}").format(i), i % 4) for i in range(ROWS)]
    pq.write_table(pa.table({"url": urls, "text": [f"picture {i}" for i in range(ROWS)]}), folder / "list.parquet")
    path = folder / "recipe.yaml"
    path.write_text(
        "input:\n  name: web\n  format: urls\n  path: list.parquet\n  number_sample_per_shard: 30\n"
        "  network: {contact: me@example.org, allow_networks: [127.0.0.0/8]}\nrules: {few: words > 1}\nmax_failed: 1.0\n"
    )
    return path


def test_a_plan_a_run_and_a_plan_after_it(cli, recipe, web):
    out = str(recipe.parent / "run")
    planned = cli("plan", str(recipe), "--out", out)
    assert planned.status == 0 and not web.log, planned.err  # a plan sends no request
    text = " ".join(planned.out.split())
    assert f"web urls 1 file {ROWS} URLs" in text
    assert "URLs 90, 0 of them in finished shards" in text
    assert "90 URLs in 3 shards: about 63 images, 12.6 MB from the network, 12.6 MB in shards" in text
    assert "assumed no shard is finished yet: 70% yield an image, of 200 kB on average; 1.5 s per URL" in text
    assert (
        "34.5 s per shard, including its slowest URL" in text
    )  # 1.5 s of all at once, and 3 attempts of 10 s with pauses of 1 and 2 s
    at_once = pluralize(min(CORES, 3), "shard")
    assert f"on this machine, {at_once} at a time (1 per unit)" in text  # a unit is one shard, for the list is small
    assert "estimate: none yet, since nothing is downloaded" in text
    smaller = " ".join(cli("plan", str(recipe), "--set", "input.image_size=64").out.split())
    assert "12.6 MB from the network, 103 kB in shards" in smaller

    done = cli("run", str(recipe), "--out", out)
    assert done.status == 0, done.err
    size = sum(len(web.images[str(i)]) for i in range(ROWS) if i % 10 > 1)
    [said] = [line for line in done.out.splitlines() if line.startswith("downloaded: ")]
    came = re.fullmatch(r"downloaded: 72 of 90 URLs \(80\.0%\), (.*) in [\d.]+ s \(\d+ images/s, .*B/s\)", said)
    assert came and came[1] == format_bytes(size)
    facts = RunStore(out).read_json("run.json")["downloads"]
    gone = sum(i % 10 == 0 for i in range(ROWS))
    assert facts["bytes"] == size and facts["reasons"] == {"http_404": gone, "served_no_image": gone}

    asked = len(web.log)
    again = cli("plan", str(recipe), "--reuse", out, "--set", "rules.few=words > 2")
    text = " ".join(again.out.split())
    assert again.status == 0 and len(web.log) == asked
    assert "URLs 90, 90 of them in finished shards" in text and "to download" not in text
    assert "kept 0 (0.00%)" in text and "failed −18" in text
    more = recipe.parent / "more.parquet"
    table = pq.read_table(recipe.parent / "list.parquet")
    pq.write_table(table.set_column(1, "text", pa.array([f"another {i}" for i in range(ROWS)])), more)
    text = " ".join(cli("plan", str(recipe), "--reuse", out, "--set", "input.path=more.parquet").out.split())
    assert "measured 90 URLs in 3 shards: 80% yield an image, of " in text
    assert "90 URLs in 3 shards: about 72 images" in text and len(web.log) == asked


def test_the_first_recipe_runs(cli, recipe, web, tmp_path):
    """The recipe reads a list, as its comment says."""
    out = tmp_path / "urls.yaml"
    assert cli("init", "urls", "--out", str(out)).status == 0
    text = out.read_text().replace("    from: text-run ", f"    path: {recipe.parent}/list.parquet #")
    out.write_text(text)
    changes = ("input.0.network.allow_networks=[127.0.0.0/8]", "max_failed=1.0")
    options = [word for change in changes for word in ("--set", change)]
    done = cli("run", str(out), "--out", str(tmp_path / "run"), *options)
    assert done.status == 0 and "kept" in done.out, done.err
    assert "downloaded: 72 of 90 URLs" in done.out


def test_rules_on_sizes_of_squares_are_warned_of(cli, recipe):
    size = ("--set", "input.image_size=256")
    for rule, mode, told in (
        ("min_side >= 200", "border", True),
        ("min_side >= 200", "keep_ratio", False),
        ("least(original_width, original_height) >= 200", "border", False),
    ):
        done = cli("plan", str(recipe), *size, "--set", f"input.resize_mode={mode}", "--set", f"rules.size={rule}")
        assert done.status == 0 and ("makes every image 256 x 256" in done.out) == told, done.out
