"""From a crawl to shards: sites on loopback, their pages in a WARC, a run over it, and one that downloads what it kept."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.api import Run
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.pool.crawl.links import COLUMNS, REFUSED
from tests.kit import (
    METADATA,
    Ran,
    crawls,
    encode,
    forked,
    picture,
    recipe_of,
    run_local,
    watch_measuring,
    write_metadata,
)
from tests.kit.web import Web, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

PAGES, IMAGES = 24, 5


@pytest.fixture(scope="module")
def web():
    servers = Web({str(i): encode(picture(i, 160)) for i in range(PAGES * IMAGES)}, 4)
    servers.robots = {"127.0.0.3": (200, "User-agent: *\nDisallow: /image\n")}
    with running(servers) as served:
        yield served


def write_crawl(web, folder):
    """Write two WARCs of drawn pages; return the URLs whose images are kept: of English pairs, of pages without opt-outs."""
    sites, expected = [], set()
    for page in range(PAGES):
        host = page % 4
        opts_out = page % 6 == 5
        images = []
        for place in range(IMAGES):
            n = page * IMAGES + place
            gone, lazy, german = n % 13 == 12, n % 3 == 1, n % 7 == 6
            path = f"{'gone' if gone else 'image'}/{n}"
            text = (
                f"ein altes Haus am Meer mit einem roten Dach {n}"
                if german
                else f"a {METADATA[n % 9]} by the sea, number {n}"
            )
            source = f'src="placeholder.gif" data-src="/{path}"' if lazy else f'src="/{path}"'
            images.append(f'<img {source} alt="{text}"><img src="/spacer.gif">')
            if not (gone or german or opts_out or host == 2):  # whose robots.txt forbids images
                expected.add(web.url(path, host))
        head = '<meta name="robots" content="noimageai">' if opts_out else ""
        html = f"<html><head>{head}</head><body>{''.join(images)}</body></html>".encode()
        sites.append(crawls.Site(web.url(f"page/{page}", host), html=html))
    for name, some in (("a.warc.gz", sites[::2]), ("b.warc.gz", sites[1::2])):
        records = (record for n, site in enumerate(some) for record in crawls.warc_records(site, n))
        crawls.pack(folder / name, [crawls.info(name), *records])
    return expected


def first_recipe(folder, **sections):
    """Recipe `metaclip-crawl`, with fewer entries."""
    source = {"name": "crawl", "format": "commoncrawl", "path": str(folder / "*.warc.gz")}
    match = {"metadata": write_metadata(folder)}
    rules = {"opt_out": "NOT noai AND NOT noimageai", "reserved": "tdm_reservation IS DISTINCT FROM '1'"}
    rules |= {"english": "language = 'en'"}
    own = {"input": [source], "match": match, "measure": {"language": {}}, "rules": rules, "balance": {"t": 1000}}
    return own | {"output": {"rows_per_shard": 20}} | sections


def second_recipe(first, crawl):
    """Recipe `urls`, over what the first run kept, balanced again."""
    network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "pause": 0.01}
    source = {"name": "web", "format": "urls", "from": str(first), "network": network, "number_sample_per_shard": 20}
    own = {"input": [source], "measure": {"image": {"phash": True}}, "rules": {"side": "min_side >= 100"}}
    own |= {"dedup": {"by": ["sha256", "phash"]}, "match": {"metadata": str(crawl / "metadata.json")}}
    return own | {"balance": {"t": 1000}, "max_failed": 1.0, "output": {"rows_per_shard": 20}}


def run_both(folder, out, first, *options):
    """Run both recipes over the crawl in a folder, the second over what the run `first` kept."""
    for name, recipe in (("first", first_recipe(folder)), ("second", second_recipe(first, folder))):
        (out / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        ended = forked.run("run", out / f"{name}.yaml", "--out", out / name, *options)
        assert ended.returncode == 0, ended.stderr


def test_from_a_crawl_to_shards(web, tmp_path):
    expected = write_crawl(web, tmp_path)
    run_both(tmp_path, tmp_path, tmp_path / "first")
    run = Ran(tmp_path / "second")
    kept = run.table("samples").filter(run.table("decisions")["kept"])
    assert set(kept["url"].to_pylist()) == expected
    assert len(expected) > 40
    assert verify_run(str(tmp_path / "second"))[1] == []
    links = {
        row["uid"]: row for shard in sorted((tmp_path / "first/shards").glob("*.parquet")) for row in _rows_of(shard)
    }
    fields = [
        json.loads(text) for shard in sorted((tmp_path / "second/shards").glob("*.tar")) for text in _json_of(shard)
    ]
    assert {field["url"] for field in fields} == expected
    for field in fields:
        link = links[field["uid"]]
        assert {"page_url", "crawl_date", "position", "noai", "warc_file", "licence_url"} <= field.keys() & link.keys()
        told = {
            name: str(link[name]) if name == "crawl_date" else link[name] for name in COLUMNS.names if name != "key"
        }
        assert {name: field[name] for name in told} == told


def _rows_of(path):
    return pq.read_table(path).to_pylist()


def _json_of(path):
    with tarfile.open(path) as tar:
        members = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
        return [member.read() for member in members if member]


def test_pages_are_joined(tmp_path):
    """What somebody knows of pages is looked up by `page_url`; a change of it reads no WAT again."""
    sites = crawls.draw_sites(60, seed=4)
    records = [crawls.info("x"), *(record for n, site in enumerate(sites) for record in crawls.wat_records(site, n))]
    crawls.pack(tmp_path / "a.wat.gz", records)
    expected = crawls.naive_rows(sites)
    runs = []
    for place, bad in enumerate((sites[::3], sites[::2])):
        pq.write_table(
            pa.table({"page_url": [site.url for site in bad], "bad": [True] * len(bad)}), tmp_path / "bad.parquet"
        )
        join = {"path": str(tmp_path / "bad.parquet"), "on": "page_url", "columns": {"bad": "bad"}}
        source = {"join": join}
        recipe = recipe_of(str(tmp_path / "a.wat.gz"), "commoncrawl", source=source, rules={"good": "bad IS NULL"})
        with pytest.MonkeyPatch.context() as patched:
            read = watch_measuring(patched)
            runs.append(run_local(recipe, tmp_path / f"run{place}", reuse=runs[0].folder if runs else None))
        kept = runs[-1].table("samples").filter(runs[-1].table("decisions")["kept"])
        urls = {site.url for site in bad}
        wanted = {row[1:] for row in expected if row[0] not in urls}
        assert set(zip(kept["url"].to_pylist(), kept["caption"].to_pylist(), strict=True)) == wanted
        assert bool(read) == (place == 0)
    with pytest.raises(RecipeError, match="no file of the source has a column 'page'"):
        recipe = recipe_of(str(tmp_path / "a.wat.gz"), "commoncrawl", source={"join": join | {"on": "page"}})
        run_local(recipe, tmp_path / "never")


def test_damage_and_links_are_told(tmp_path):
    """Of 30 damaged members each is a row that failed; all else is read; the numbers of links are those of a naive reader."""
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
    lost = {record for n in damaged for record in [records[n]]}
    whole = [site for n, site in enumerate(sites) if not lost & set(crawls.wat_records(site, n)[1:2])]
    assert len(whole) < len(sites)
    expected = crawls.naive_rows(whole, with_title=True)
    rows = ran.table("samples").filter(pa.compute.equal(ran.table("samples")["status"], "ok"))
    assert list(zip(rows["url"].to_pylist(), rows["caption"].to_pylist(), strict=True)) == [row[1:] for row in expected]
    links = {row["outcome"]: row["links"] for row in Run(tmp_path / "run").sql("links").to_pylist()}
    assert links["row"] == len(expected)
    assert links.keys() == {"row", *REFUSED}
    assert verify_run(str(tmp_path / "run"))[1] == []
