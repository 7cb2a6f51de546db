"""Runs over articles: verdicts, provenance, and images of all rows; joined columns; and articles in a bucket."""

import json
from collections import Counter

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.opened import connected
from curate.ask.report.galleries import read_originals
from curate.pool.pmc.format import COLUMNS
from pipelines.prepare import prepare
from tests.kit import conserved, loads, recipe_of, run_local
from tests.kit.articles import (
    ARTICLES,
    DAMAGED,
    HIGHEST,
    RULES,
    naive_rows,
    write_archives,
    write_folders,
    write_inventory,
)
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.store_proxy import store_proxy
from tests.kit.written_runs import run_query


def recipe(path, **more):
    return recipe_of(str(path), "pmc", **{"rules": RULES, "output": {"rows_per_shard": 5}} | more)


def test_each_row_has_its_verdict_and_its_provenance(tmp_path):
    run = run_local(recipe(write_folders(tmp_path / "pool", [*ARTICLES, *DAMAGED])), tmp_path / "run")
    conserved(run)
    expected = {row["key"]: "kept" for article in HIGHEST for row in naive_rows(article)}
    expected |= dict.fromkeys(("PMC105-0", "PMC106-1"), "licensed") | {"PMC105-2": "not_lent"}
    expected |= dict.fromkeys(("PMC104-0", "PMC104-1", "PMC104-2"), "not_retracted")
    expected |= {"PMC106-0": "no_image", "PMC106-2": "no_caption", "PMC106-3": "not_an_image"}
    assert run.by_key == expected | {article.name: "damaged_article" for article in DAMAGED}
    assert run.run["links"] == {"pool": {"pages": 10, "images": 27, "rows": 24, "no_figure": 3, "no_graphic": 1}}
    samples = loads(run)
    for article in HIGHEST:
        for row in naive_rows(article):
            if expected[row["key"]] == "kept":
                members = samples[row["key"]]
                fields = json.loads(members.pop("json"))
                assert members.pop("txt").decode() == row["caption"]
                (image,) = members.items()
                assert image == (row["file"].lower().rpartition(".")[2], article.image(row["file"]))
                assert (fields["pmcid"], fields.get("label"), fields.get("context")) == (
                    article.pmcid, row["label"], row["context"]
                )  # fmt: skip
    sidecar = pq.read_table(sorted((run.folder / "shards").glob("*.parquet"))[0])
    assert {*COLUMNS.names} <= {*sidecar.column_names}
    with connected(str(run.folder)) as opened:  # the report shows images of dropped rows, too
        rows = opened.rows("SELECT * FROM samples JOIN decisions USING (unit, row) WHERE sha256 IS NOT NULL")
        images = read_originals(opened, rows)
    assert len(images) == len(rows) > run.counts["kept"] and None not in images.values()


def test_columns_are_joined_and_licenses_counted(tmp_path):
    """By key and by PMID; the query counts licenses in the pool and among the kept rows."""
    joins = []
    for on, values in (("key", ["PMC102-0", "PMC103-2"]), ("pmid", ["1001", "9"])):
        pq.write_table(pa.table({on: values, "concept": ["plot", "map"]}), tmp_path / f"{on}.parquet")
        joins.append({"path": str(tmp_path / f"{on}.parquet"), "on": on, "columns": {f"by_{on}": "concept"}})
    pool = write_archives(tmp_path / "pool", HIGHEST[:3])
    known = "by_key IS NOT NULL OR by_pmid IS NOT NULL"
    run = run_local(recipe(pool, source={"join": joins}, rules={"known": known}), tmp_path / "run")
    assert {*loads(run)} == {"PMC101-0", "PMC101-1", "PMC102-0", "PMC103-2"}
    rows = {row[:2]: row[2:4] for row in run_query(str(run.folder), "licences", {}).rows}
    for article in HIGHEST[:3]:
        keys = [row["key"] for row in naive_rows(article)]
        kept = sum(key in loads(run) for key in keys)
        assert rows["license", f"CC {article.license.upper()}"] == (len(keys), kept)


@pytest.mark.thorough
def test_a_bucket_by_its_inventory(tmp_path):
    """Planning requests no article; reading lists each, and fetches its XML, json, and images."""
    folder = write_folders(tmp_path / "pool", ARTICLES)
    local = run_local(recipe(folder), tmp_path / "local")
    path = write_inventory(tmp_path / "inventory.csv.gz", ARTICLES)
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url) as bucket:
        fsspec.filesystem("s3").put(f"{folder}/", f"{bucket}/", recursive=True)
        listed = {"prefix": f"{bucket}/", "storage": {"default_block_size": 1 << 20}}
        from_list = recipe(path, source=listed)
        proxy.requests.clear()
        prepare(from_list, str(tmp_path / "planned"))
        assert not proxy.requests
        run = run_local(from_list, tmp_path / "listed")
        requests = Counter(request.name.rpartition(".")[2] or "/" for request in proxy.requests)
        whole = run_local(recipe(bucket), tmp_path / "whole")
    conserved(run)
    assert run.by_key == whole.by_key == local.by_key
    assert run.kept == whole.kept == local.kept and run.members == whole.members == local.members
    assert not {"txt", "xlsx", "eps"} & {*requests}, requests
