"""From a crawl to shards: sites on loopback, WARCs of their pages, a run over these, and one that downloads."""

import pytest
import yaml

from tests.kit import crawls, forked
from tests.kit.pools import METADATA, encode, picture, write_metadata
from tests.kit.web import Web, running

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
