"""Runs over articles: verdicts, provenance, and images of all rows; joined columns; and articles in a bucket."""

import json
from collections import Counter
from html import escape
from importlib.resources import files

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.ask.opened import connected
from curate.ask.report.galleries import read_originals
from curate.demo.samples import make_samples
from curate.pool.pmc.format import COLUMNS
from curate.recipe.files import shipped_folder
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests.kit import Sample, conserved, loads, recipe_of, run_local, watch_measuring, write_tar
from tests.kit.articles import (
    ARTICLES,
    DAMAGED,
    HIGHEST,
    RULES,
    Drawn,
    fig,
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


@pytest.mark.slow
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


def scores_of(run):
    """CLIP score and concept by key."""
    with connected(str(run.folder)) as opened:
        rows = opened.rows("SELECT key, clip_score, concept FROM measured WHERE status = 'ok'")
    return {row["key"]: (row["clip_score"], row["concept"]) for row in rows}


@pytest.mark.slow
def test_figures_have_scores_and_concepts(tmp_path, monkeypatch):
    """Recipe `biomedica` with its commented options; the figures are the demo's scenes, half with a wrong caption."""
    scenes = [scene for scene in make_samples(150, 1) if not scene.defect and scene.suffix == "jpg"][:60]
    texts = [str(scene.text) for scene in scenes]
    texts[::2] = [*texts[2::2], texts[0]]
    figures = [fig(f"f{n % 3}", f"<p>{escape(text)}</p>", f"g{n % 3}") for n, text in enumerate(texts)]
    articles = [Drawn(n // 3 + 1, f"<body>{''.join(figures[n : n + 3])}</body>") for n in range(0, 60, 3)]
    keys = [f"PMC{n // 3 + 1}-{n % 3}" for n in range(60)]
    write_folders(tmp_path / "pmc", articles)
    for n, scene in enumerate(scenes):
        (tmp_path / f"pmc/PMC{n // 3 + 1}.1/g{n % 3}.jpg").write_bytes(scene.image)
    sections = yaml.safe_load((shipped_folder("pipelines") / "recipes/biomedica.yaml").read_text())
    sections["input"][0]["path"] = str(tmp_path / "pmc")
    sections["measure"] = {"clip": {"model": f"onnx:{files('curate.demo') / 'clip'}", "embeddings": True}}
    sections["relate"] = {"clusters": {"concept": {"of": "clip", "k": 4}}}
    sections["rules"]["aligned"] = "clip_score >= 0.4"
    first = run_local(parse_recipe(sections), tmp_path / "first")
    scores = scores_of(first)
    kept = {key for key, outcome in first.by_key.items() if outcome == "kept"}
    assert kept == {key for key, (score, _) in scores.items() if score >= 0.4}
    assert len(kept & {*keys[1::2]}) >= 28 and len(kept & {*keys[::2]}) <= 3
    samples = [Sample(key, scene.image, text) for key, scene, text in zip(keys, scenes, texts, strict=True)]
    write_tar(tmp_path / "0.tar", samples)
    tars = {"input": [{"name": "tars", "format": "webdataset", "path": str(tmp_path / "0.tar")}], "rules": {}}
    assert scores_of(run_local(parse_recipe(sections | tars), tmp_path / "tars")) == scores
    measured = watch_measuring(monkeypatch)
    sections["rules"]["concepts"] = "concept IN (1, 3)"
    second = run_local(parse_recipe(sections), tmp_path / "second", reuse=tmp_path / "first")
    assert not measured and {concept for _, concept in scores.values()} == {0, 1, 2, 3}
    assert {*loads(second)} == {key for key in kept if scores[key][1] in (1, 3)}
