"""From a crawl to shards: sites on loopback, their pages in a WARC, a run over it, and one that downloads what it kept."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.verify import verify_run
from curate.pool.crawl.links import COLUMNS, REFUSED
from tests.kit import Ran, crawls, recipe_of, run_local, watch_measuring
from tests.kit.crawl_runs import run_both, web, write_crawl

__all__ = ["web"]
pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")


@pytest.mark.slow
def test_from_a_crawl_to_shards(web, tmp_path):
    expected = write_crawl(web, tmp_path)
    run_both(tmp_path, tmp_path, tmp_path / "first")
    run = Ran(tmp_path / "second")
    kept = run.table("samples").filter(run.table("decisions")["kept"])
    assert set(kept["url"].to_pylist()) == expected
    assert len(expected) > 40
    assert verify_run(str(tmp_path / "second"))[1] == []
    shards = [pq.read_table(path) for path in (tmp_path / "first/shards").glob("*.parquet")]
    links = {row["uid"]: row for shard in shards for row in shard.to_pylist()}
    fields = [json.loads(data) for name, data in run.members if name.endswith(".json")]
    assert {field["url"] for field in fields} == expected
    for field in fields:
        link = links[field["uid"]]
        assert {"page_url", "crawl_date", "position", "noai", "warc_file", "licence_url"} <= field.keys() & link.keys()
        link["crawl_date"] = str(link["crawl_date"])
        assert all(field[name] == link[name] for name in COLUMNS.names if name != "key")


def test_pages_are_joined(tmp_path):
    """A table about pages is joined by `page_url`; if it changes, no WAT is read again."""
    sites = crawls.draw_sites(60, seed=4)
    records = [crawls.info("x"), *(record for n, site in enumerate(sites) for record in crawls.wat_records(site, n))]
    crawls.pack(tmp_path / "a.wat.gz", records)
    expected = crawls.naive_rows(sites)
    runs = []
    for place, bad in enumerate((sites[::3], sites[::2])):
        table = pa.table({"page_url": [site.url for site in bad], "bad": [True] * len(bad)})
        pq.write_table(table, tmp_path / "bad.parquet")
        source = {"join": {"path": str(tmp_path / "bad.parquet"), "on": "page_url", "columns": {"bad": "bad"}}}
        recipe = recipe_of(str(tmp_path / "a.wat.gz"), "commoncrawl", source=source, rules={"good": "bad IS NULL"})
        with pytest.MonkeyPatch.context() as patched:
            read = watch_measuring(patched)
            runs.append(run_local(recipe, tmp_path / f"run{place}", reuse=runs[0].folder if runs else None))
        kept = runs[-1].table("samples").filter(runs[-1].table("decisions")["kept"])
        urls = {site.url for site in bad}
        wanted = {row[1:] for row in expected if row[0] not in urls}
        assert set(zip(kept["url"].to_pylist(), kept["caption"].to_pylist(), strict=True)) == wanted
        assert bool(read) == (place == 0)


def test_damage_and_links_are_told(tmp_path):
    """Each of 30 damaged members is a failed row; all other links are those that a naive reader finds."""
    sites = crawls.draw_sites(400, seed=3)
    records = [crawls.info("x"), *(record for n, site in enumerate(sites) for record in crawls.wat_records(site, n))]
    path = tmp_path / "a.wat.gz"
    offsets = crawls.pack(path, records)
    content = bytearray(path.read_bytes())
    damaged = range(7, len(offsets), len(offsets) // 30)
    for n in damaged:
        content[(offsets[n] + offsets[n + 1]) // 2] ^= 0x55
    path.write_bytes(content)
    ran = run_local(recipe_of(str(path), "commoncrawl", source={"texts": "alt+title"}), tmp_path / "run")
    failed = ran.table("samples").filter(pa.compute.not_equal(ran.table("samples")["status"], "ok"))
    assert failed["status"].to_pylist() == ["damaged_record"] * len(damaged)
    assert failed["key"].to_pylist() == [str(offsets[n]) for n in damaged]
    lost = {records[n] for n in damaged}
    whole = [site for n, site in enumerate(sites) if not lost & set(crawls.wat_records(site, n)[1:2])]
    assert len(whole) < len(sites)
    expected = crawls.naive_rows(whole, with_title=True)
    rows = ran.table("samples").filter(pa.compute.equal(ran.table("samples")["status"], "ok"))
    assert list(zip(rows["url"].to_pylist(), rows["caption"].to_pylist(), strict=True)) == [row[1:] for row in expected]
    links = {row["outcome"]: row["links"] for row in Run(tmp_path / "run").sql("links").to_pylist()}
    assert links["row"] == len(expected)
    assert links.keys() == {"row", *REFUSED}
    assert verify_run(str(tmp_path / "run"))[1] == []
