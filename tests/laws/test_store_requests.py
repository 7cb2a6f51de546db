"""The number of requests of a unit if the run folder is in an object store."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.publish import publish
from curate.recipe.recipe import parse_recipe
from curate.store import checkpoints
from tests import kit
from tests.kit import languages
from tests.kit.embedded import make_embeddings, recipe_of, write_pool
from tests.kit.llm_server import FaultServer
from tests.kit.store_requests import count_each, sum_kinds
from tests.kit.web import Web, running

pytestmark = pytest.mark.slow


def check_requests(each, tables, most=20, more=4):
    """A PUT a table and at most `more`; at most `most` GET and HEAD; at most two names in listings."""
    text = "\n".join(f"{kind} {name}: {number:.2f}" for (kind, name), number in each.items() if number)
    written = {name for kind, name in each if kind in ("PUT", "COPY") and each[kind, name] and "tables/" in name}
    written = {name for name in written if name.endswith(".parquet")}
    assert written == {f"tables/{table}/N.parquet" for table in tables}, text
    for name in written:
        assert each.get(("PUT", name), 0) + each.get(("COPY", name), 0) == 1, text
    assert sum_kinds(each, "PUT", "COPY", "PART") <= len(tables) + more, text
    assert sum_kinds(each, "GET", "HEAD") <= most, text
    check_listed(each)


def check_listed(each):
    """A store lists 1,000 names at a time: two listings take 2,000 names of 1,000 units."""
    listed = {name: number for (kind, name), number in each.items() if kind == "LIST" and number}
    assert sum(listed.values()) <= 2, listed


def test_requests_of_a_unit():
    check_requests(count_each(), {"samples", "scores", "members", "decisions"})


def make_balanced(folder, units):
    sizes = {"en": 40 * units, "de": 30 * units, "ja": 20 * units}
    pool = languages.write_pool(folder, languages.make_texts(0, sizes), units)
    return languages.recipe_of(pool, languages.write_entries(folder, sizes), t=20, one_per="url")


def test_balancing_by_language():
    """With one text of an image."""
    check_requests(count_each(make=make_balanced), {"samples", "matches", "decisions"})


def make_related(folder, units, rounds=3):
    path = write_pool(folder / "pool", units, *make_embeddings(units * 40, 16))
    relate = {"clusters": {"topic": {"of": "l14", "k": 4, "rounds": rounds}}, "negclip": {"s_clip": {"of": "l14"}}}
    quotas = {"of": "topic", "rows": units * 20, "by": "complexity", "keep": "farthest"}
    return parse_recipe(recipe_of(path, relate, sample={"quotas": quotas}))


def test_rounds_of_relations_read_no_unit():
    """Embeddings are read three times, regardless of the rounds; quotas of clusters take three passes of their own."""
    each = count_each(make=make_related)
    of_input = each["GET", "tables/embeddings/N.parquet"]
    assert of_input <= 4  # and once for drift
    check_requests(each, {"samples", "embeddings", "related", "decisions"}, most=18 + of_input)
    assert not each.get(("GET", "tables/scores/N.parquet"))  # which the run does not have


@pytest.mark.parametrize("is_slow", [False, True])
def test_captions_come_once_a_minute(is_slow, monkeypatch):
    """The first answers stay, and captions follow from them: neither is staged first.

    Checkpoints of slow work, and tables of many units that are put together, are not listed.
    """
    if is_slow:
        monkeypatch.setattr(publish, "MIN_UNITS", 2)
        monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    with FaultServer() as server:
        engines = {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}}

        def make(folder, units):
            path = kit.write_tars(folder / "pool", kit.make_samples(units * 8), units)
            captions = {"engines": engines, "rewrite": {"engine": "llm", "styles": ["human"], "batch": 4}}
            return kit.recipe_of(path, captions=captions, max_failed=1.0)

        each = count_each(make=make)
    if not is_slow:
        check_requests(each, {"samples", "members", "decisions", "answers", "captions"})
    check_listed(each)


def test_downloads():
    """A shard is downloaded, and is the unit's input then.

    Its three files are output of the download, beside the unit's tables. They have to be of one attempt, so they are put
    staged first and then copied, by their commit: 4 PUT. The attempt at the shard has a file, and what it gave a
    line of a log, of which each is a PUT here. Reading tar and Parquet file is reading input, whose sizes a HEAD tells.
    """
    pytest.importorskip("img2dataset")
    images = {str(number): kit.encode(kit.picture(number, 64)) for number in range(20)}
    with running(Web(images)) as web:

        def make(folder, units):
            urls = [web.url(f"image/{number % 20}?{number}") for number in range(units * 20)]
            captions = [f"a picture of number {number}" for number in range(len(urls))]
            pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
            network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"]}
            source = {"network": network, "number_sample_per_shard": 20}
            return kit.recipe_of(str(folder / "list.parquet"), "urls", source=source)

        each = count_each(make=make)
    for end in (".tar", ".parquet", "_stats.json"):
        assert each.pop(("COPY", f"pool/N{end}")) == 1
    read = {end: sum(each.pop((kind, f"pool/N{end}"), 0) for kind in ("GET", "HEAD")) for end in (".tar", ".parquet")}
    assert read[".tar"] <= 5 and read[".parquet"] <= 2, read
    check_requests(each, {"samples", "members", "decisions"}, more=8)
    assert not each.get(("LIST", "pool/"))
