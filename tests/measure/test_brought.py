"""Embeddings that a Parquet pool brings, as columns or in an .npz beside each file; clusters, heads and more on them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import RecipeError
from curate.measure.embedding_signals import nearest_centroid
from pipelines.run import prepare
from tests.laws import pools

D = 8
ASKED = {"name": "l14", "image": "l14_img", "text": "l14_txt"}


def vectors(n: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((n, D))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def write_file(folder: Path, number: int, rows: int = 60, groups: int = 25, save: Any = np.savez) -> np.ndarray:
    """A Parquet file of several row groups and its .npz; returns the image embeddings."""
    folder.mkdir(exist_ok=True)
    table = pa.table(
        {
            "uid": [f"{number * 1000 + i:032x}" for i in range(rows)],
            "url": [f"https://x/{number}/{i}" for i in range(rows)],
            "text": [f"caption {number} {i}" for i in range(rows)],
        }
    )
    pq.write_table(table, folder / f"{number}.parquet", row_group_size=groups)
    images = vectors(rows, number)
    save(folder / f"{number}.npz", l14_img=images, l14_txt=vectors(rows, 100 + number))
    return images


def recipe(folder: Path, **sections: Any) -> Any:
    measure = {"embeddings": ASKED, **sections.pop("measure", {})}
    return pools.recipe_of(f"{folder}/*.parquet", "parquet", measure=measure, **sections)


def clusters(folder: Path, **more: Any) -> dict[str, Any]:
    np.save(folder / "centroids.npy", vectors(12, 7).astype(np.float32))
    return {"cluster": {"of": "l14", "centroids": str(folder / "centroids.npy"), **more}}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_have_the_embeddings_of_their_places(save: Any, tmp_path: Path) -> None:
    images = np.concatenate([write_file(tmp_path / "pool", n, save=save) for n in range(3)])
    np.save(tmp_path / "winners.npy", np.array([1, 5, 6]))
    measure = {"clusters": clusters(tmp_path, winners=str(tmp_path / "winners.npy"))}
    done = pools.run_local(recipe(tmp_path / "pool", measure=measure, rules={"wins": "cluster_wins"}), tmp_path / "out")
    pools.conserved(done)
    expected = nearest_centroid(images.astype(np.float32), vectors(12, 7).astype(np.float32))
    scores = done.table("scores")
    assert scores["cluster"].to_pylist() == expected.tolist()
    assert scores["cluster_wins"].to_pylist() == np.isin(expected, [1, 5, 6]).tolist()
    assert done.counts["kept"] == np.isin(expected, [1, 5, 6]).sum()
    assert not (tmp_path / "out/tables/embeddings").exists()
    assert done.run["models"]["l14"] == {"brought": ["l14_img", "l14_txt"], "dimension": D}


def test_nearest_centroid_is_its_definition() -> None:
    images, centroids = vectors(500, 1).astype(np.float32), vectors(33, 2).astype(np.float32)
    assert nearest_centroid(images, centroids).tolist() == [int(np.argmax(centroids @ image)) for image in images]
    assert nearest_centroid(images[:2], np.ones((3, D), np.float32)).tolist() == [0, 0]
    assert len(nearest_centroid(images[:0], centroids)) == 0
    with pytest.raises(ValueError, match="no centroids"):
        nearest_centroid(images, centroids[:0])


def test_winners_may_be_embeddings(tmp_path: Path) -> None:
    images = write_file(tmp_path / "pool", 0)
    np.save(tmp_path / "imagenet.npy", vectors(3, 5))
    measure = {"clusters": clusters(tmp_path, winners=str(tmp_path / "imagenet.npy"))}
    done = pools.run_local(recipe(tmp_path / "pool", measure=measure), tmp_path / "out")
    centroids = vectors(12, 7).astype(np.float32)
    winners = nearest_centroid(vectors(3, 5).astype(np.float32), centroids)
    expected = np.isin(nearest_centroid(images.astype(np.float32), centroids), winners)
    assert done.table("scores")["cluster_wins"].to_pylist() == expected.tolist()


@pytest.mark.parametrize("kind", ["fixed", "list", "double", "npz beside"])
def test_columns_bring_them_too(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    images = write_file(folder, 0)
    if kind != "npz beside":
        (folder / "0.npz").unlink()
    value = pa.float64() if kind == "double" else pa.float32()
    of = pa.list_(value, D) if kind == "fixed" else pa.list_(value)
    table = pq.read_table(folder / "0.parquet")
    table = table.append_column("l14_img", pa.array(list(images.astype(np.float32)), of))
    if kind != "npz beside":
        texts = list(images.astype(np.float32))
        # Arrow cannot read nulls among lists of a fixed size.
        table = table.append_column("l14_txt", pa.array(texts if kind == "fixed" else [None, *texts[1:]], of))
    pq.write_table(table, folder / "0.parquet", row_group_size=25)
    asked = recipe(folder, measure={"embeddings": {**ASKED, "keep": True}})
    done = pools.run_local(asked, tmp_path / "out")
    found = done.table("embeddings")
    assert found.column_names == ["unit", "row", "uid", "l14_image", "l14_text"]
    assert found["l14_image"].to_pylist() == images.tolist()
    if kind != "npz beside":
        assert found["l14_text"].to_pylist()[1:] == images[1:].tolist()
        assert kind == "fixed" or found["l14_text"][0].as_py() == [0.0] * D


def test_near_duplicates_and_drift_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    images = write_file(folder, 0)
    images[40:50] = images[:10]
    np.savez(folder / "0.npz", l14_img=images, l14_txt=images)
    asked = recipe(
        folder,
        measure={"embeddings": {**ASKED, "keep": True}},
        dedup={"by": [{"embedding": {"cosine": 0.999, "of": "l14"}}]},
    )
    runs = [
        pools.run_local(asked, tmp_path / "a"),
        pools.run_beam(asked, tmp_path / "b"),
        pools.run_beam(asked, tmp_path / "c", here=False),
    ]
    for done in runs:
        assert done.counts == {"duplicate": 10, "kept": 50} and done.verdicts == runs[0].verdicts
    assert {row["model"] for row in runs[1].run["drift"]} == {"l14"}


def damaged(folder: Path, fault: str) -> None:
    path = folder / "1.npz"
    good = path.read_bytes()
    images = vectors(60, 1)
    match fault:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "no zip":
            path.write_bytes(b"x" * 1000)
        case "cut short":
            path.write_bytes(good[: len(good) // 2])
        case "a byte":
            path.write_bytes(good[:300] + bytes([good[300] ^ 1]) + good[301:])
        case "rows":
            np.savez(path, l14_img=images[:59], l14_txt=images)
        case "dimension":
            np.savez(path, l14_img=images[:, :4], l14_txt=images)
        case "name":
            np.savez(path, b32_img=images, l14_txt=images)
        case "integers":
            np.savez(path, l14_img=np.zeros((60, D), int), l14_txt=images)
        case "objects":
            np.savez(path, l14_img=np.array([{}] * 60, object), l14_txt=images)
        case "fortran":
            np.savez(path, l14_img=np.asfortranarray(images), l14_txt=images)
        case "one dimension":
            np.savez(path, l14_img=images.reshape(-1), l14_txt=images)
        case "header":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("l14_img.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': __imp")
                archive.writestr("l14_txt.npy", b"")


FAULTS = [
    *("missing", "empty", "no zip", "cut short", "a byte", "rows", "dimension", "name", "integers", "objects"),
    *("fortran", "one dimension", "header"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_damaged_npz_rows_stay_without_embeddings(fault: str, tmp_path: Path) -> None:
    for n in range(3):
        write_file(tmp_path / "pool", n)
    damaged(tmp_path / "pool", fault)
    measure = {"clusters": clusters(tmp_path)}
    done = pools.run_local(
        recipe(tmp_path / "pool", measure=measure, rules={"known": "cluster >= 0"}), tmp_path / "out"
    )
    pools.conserved(done)
    lost = [row for row in done.table("failures").to_pylist() if row["reason"] == "damaged_embeddings"]
    assert lost and all(row["shard"].endswith("1.parquet") and "1.npz" in row["detail"] for row in lost)
    if fault == "a byte":  # found at the end of the array, by its checksum
        assert done.counts["kept"] >= 120
    else:
        assert done.counts == {"known": 60, "kept": 120}


def test_rows_that_are_not_finite_have_none(tmp_path: Path) -> None:
    images = write_file(tmp_path / "pool", 0)
    images[3, 2], images[4, 0], images[5] = np.nan, np.inf, 0
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=images)
    done = pools.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    found = done.table("scores")["cluster"].to_pylist()
    assert [i for i, value in enumerate(found) if value is None] == [3, 4, 5]


def test_a_changed_npz_is_measured_again(tmp_path: Path) -> None:
    write_file(tmp_path / "pool", 0)
    asked = recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)})
    one = pools.run_local(asked, tmp_path / "a")
    same = pools.run_local(asked, tmp_path / "b", reuse=tmp_path / "a")
    assert same.table("scores").equals(one.table("scores"))
    images = vectors(60, 50)
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=images)
    other = pools.run_local(asked, tmp_path / "c", reuse=tmp_path / "a")
    expected = nearest_centroid(images.astype(np.float32), vectors(12, 7).astype(np.float32))
    assert other.table("scores")["cluster"].to_pylist() == expected.tolist()
    assert other.table("scores")["cluster"].to_pylist() != one.table("scores")["cluster"].to_pylist()


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ({"embeddings": {**ASKED, "image": "nope"}}, ["l14", "nope", "arrays: l14_img, l14_txt"]),
        ({"embeddings": {**ASKED, "image": "uid"}}, ["l14", "uid", "lists of numbers"]),
        (
            {"contexts": {"c": {"of": "l14", "values": {"a": "x", "b": "y"}}}},
            ["c:", "encode prompts", "heads, clusters"],
        ),
        ({"clusters": {"c": {"of": "b32", "centroids": "x.npy"}}}, ["c:", "b32", "l14"]),
        ({"clusters": {"c": {"of": "l14", "centroids": "/nowhere/x.npy"}}}, ["clusters.c.centroids", "no such file"]),
        ({"heads": {"l14": {"of": "l14", "path": "x.pth"}}}, ["two signals", "l14"]),
    ],
)
def test_what_the_recipe_says_wrongly(measure: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    write_file(tmp_path / "pool", 0)
    with pytest.raises(RecipeError) as error:
        prepare(recipe(tmp_path / "pool", measure=measure), str(tmp_path / "out"))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("centroids", "winners", "words"),
    [
        (np.zeros((3, 4), np.float32), None, ["c.npy", "[3, 4]", f"[k, {D}]"]),
        (np.zeros(D, np.float32), None, ["centroids", f"[{D}]"]),
        (np.full((3, D), np.nan), None, ["centroids", "NaN"]),
        (np.zeros((0, D)), None, ["centroids", "[0, 8]"]),
        (np.array([{}], object), None, ["centroids", "no .npy file"]),
        (np.ones((3, D)), np.array([3]), ["winners", "0 to 2"]),
        (np.ones((3, D)), np.array([-1]), ["winners", "0 to 2"]),
        (np.ones((3, D)), np.ones((2, 5)), ["winners", "[2, 5]"]),
    ],
)
def test_arrays_that_are_not_what_they_are_taken_for(
    centroids: Any, winners: Any, words: list[str], tmp_path: Path
) -> None:
    write_file(tmp_path / "pool", 0)
    np.save(tmp_path / "c.npy", centroids)
    options = {"of": "l14", "centroids": str(tmp_path / "c.npy")}
    if winners is not None:
        np.save(tmp_path / "w.npy", winners)
        options["winners"] = str(tmp_path / "w.npy")
    with pytest.raises(RecipeError) as error:
        prepare(recipe(tmp_path / "pool", measure={"clusters": {"c": options}}), str(tmp_path / "out"))
    assert all(word in str(error.value) for word in ["measure.clusters.c", *words]), str(error.value)


def test_tars_bring_none(tmp_path: Path) -> None:
    path = pools.write_tars(tmp_path / "tars", pools.make_samples(10), 2)
    with pytest.raises(RecipeError, match="of tars, which bring none"):
        prepare(pools.recipe_of(path, measure={"embeddings": ASKED}), str(tmp_path / "out"))
