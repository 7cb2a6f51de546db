"""Embeddings that a Parquet pool brings, as columns or in an .npz beside each file; clusters, heads and more on them."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.base.errors import RecipeError
from curate.read.errors import EmbeddingError
from curate.read.precomputed import FileRows, read_embeddings, sidecar_fingerprint
from curate.signals.clusters import Clusters, load_clusters
from curate.signals.formulas.embedding_scores import nearest_centroid
from pipelines.prepare import prepare
from tests import kit

D = 8
ASKED = {"name": "l14", "image": "l14_img", "text": "l14_txt"}


def vectors(n, seed):
    drawn = np.random.default_rng(seed).standard_normal((n, D))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def write_file(folder, number, rows=60, groups=25, save=np.savez):
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


def recipe(folder, **sections):
    measure = {"embeddings": ASKED, **sections.pop("measure", {})}
    return kit.recipe_of(f"{folder}/*.parquet", "parquet", measure=measure, **sections)


def clusters(folder, **more):
    np.save(folder / "centroids.npy", vectors(12, 7).astype(np.float32))
    return {"cluster": {"of": "l14", "centroids": str(folder / "centroids.npy"), **more}}


def save_fortran(path, **arrays):
    np.savez(path, **{name: np.asfortranarray(array) for name, array in arrays.items()})


def save_compressed_fortran(path, **arrays):
    np.savez_compressed(path, **{name: np.asfortranarray(array) for name, array in arrays.items()})


def save_by_header(major, path, **arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, version=(major, 0))


SAVES = [np.savez, np.savez_compressed, save_fortran, save_compressed_fortran]
SAVES += [partial(save_by_header, 2), partial(save_by_header, 3)]


@pytest.mark.parametrize("save", SAVES)
def test_rows_have_the_embeddings_of_their_places(save, tmp_path):
    images = np.concatenate([write_file(tmp_path / "pool", n, save=save) for n in range(3)])
    np.save(tmp_path / "selected.npy", np.array([1, 5, 6]))
    measure = {"clusters": clusters(tmp_path, selected=str(tmp_path / "selected.npy"))}
    done = kit.run_local(
        recipe(tmp_path / "pool", measure=measure, rules={"wins": "in_selected_cluster"}), tmp_path / "out"
    )
    kit.conserved(done)
    expected = nearest_centroid(images.astype(np.float32), vectors(12, 7).astype(np.float32))
    scores = done.table("scores")
    assert scores["cluster"].to_pylist() == expected.tolist()
    assert scores["in_selected_cluster"].to_pylist() == np.isin(expected, [1, 5, 6]).tolist()
    assert done.counts["kept"] == np.isin(expected, [1, 5, 6]).sum()
    assert not (tmp_path / "out/tables/embeddings").exists()
    assert done.run["models"]["l14"] == {"brought": ["l14_img", "l14_txt"], "dimension": D}


def test_nearest_centroid_is_its_definition():
    images, centroids = vectors(500, 1).astype(np.float32), vectors(33, 2).astype(np.float32)
    assert nearest_centroid(images, centroids).tolist() == [int(np.argmax(centroids @ image)) for image in images]
    assert nearest_centroid(images[:2], np.ones((3, D), np.float32)).tolist() == [0, 0]
    assert len(nearest_centroid(images[:0], centroids)) == 0


def test_selected_may_be_embeddings(tmp_path):
    images = write_file(tmp_path / "pool", 0)
    np.save(tmp_path / "imagenet.npy", vectors(3, 5))
    measure = {"clusters": clusters(tmp_path, selected=str(tmp_path / "imagenet.npy"))}
    done = kit.run_local(recipe(tmp_path / "pool", measure=measure), tmp_path / "out")
    centroids = vectors(12, 7).astype(np.float32)
    selected = nearest_centroid(vectors(3, 5).astype(np.float32), centroids)
    expected = np.isin(nearest_centroid(images.astype(np.float32), centroids), selected)
    assert done.table("scores")["in_selected_cluster"].to_pylist() == expected.tolist()


@pytest.mark.parametrize("kind", ["fixed", "list", "double", "npz beside"])
def test_columns_bring_them_too(kind, tmp_path):
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
    done = kit.run_local(asked, tmp_path / "out")
    found = done.table("embeddings")
    assert found.column_names == ["unit", "row", "uid", "l14_image", "l14_text"]
    assert found["l14_image"].to_pylist() == images.tolist()
    if kind != "npz beside":
        assert found["l14_text"].to_pylist()[1:] == images[1:].tolist()
        assert kind == "fixed" or found["l14_text"][0].as_py() == [0.0] * D


def test_an_empty_row_group_comes_first(tmp_path):
    kinds = pa.schema([("url", pa.string()), ("caption", pa.string()), ("emb", pa.list_(pa.float32()))])
    rows = [{"url": f"http://{i}", "caption": f"a dog number {i}", "emb": [1.0, float(i), 2.0]} for i in range(5)]
    with pq.ParquetWriter(tmp_path / "0.parquet", kinds) as writer:
        writer.write_table(kinds.empty_table())
        writer.write_table(pa.Table.from_pylist(rows, kinds))
    measure = {"embeddings": {"name": "own", "image": "emb", "text": "emb", "keep": True}}
    done = kit.run_local(kit.recipe_of(str(tmp_path / "0.parquet"), "parquet", measure=measure), tmp_path / "out")
    found = np.array(done.table("embeddings")["own_image"].to_pylist())
    given = np.array([row["emb"] for row in rows])
    np.testing.assert_allclose(found, given / np.linalg.norm(given, axis=1, keepdims=True), atol=1e-3)


@pytest.mark.thorough
def test_near_duplicates_and_drift_by_them(tmp_path):
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
        kit.run_local(asked, tmp_path / "a"),
        kit.run_beam(asked, tmp_path / "b"),
        kit.run_beam(asked, tmp_path / "c", here=False),
    ]
    for done in runs:
        assert done.counts == {"duplicate": 10, "kept": 50} and done.verdicts == runs[0].verdicts
    assert {row["model"] for row in runs[1].run["drift"]} == {"l14"}


def damaged(folder, fault):
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
        case "one dimension":
            np.savez(path, l14_img=images.reshape(-1), l14_txt=images)
        case "header":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("l14_img.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': __imp")
                archive.writestr("l14_txt.npy", b"")


FAULTS = [
    *("missing", "empty", "no zip", "cut short", "a byte", "rows", "dimension", "name", "integers", "objects"),
    *("one dimension", "header"),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_damaged_npz_rows_stay_without_embeddings(fault, tmp_path):
    for n in range(3):
        write_file(tmp_path / "pool", n)
    damaged(tmp_path / "pool", fault)
    measure = {"clusters": clusters(tmp_path)}
    done = kit.run_local(recipe(tmp_path / "pool", measure=measure, rules={"known": "cluster >= 0"}), tmp_path / "out")
    kit.conserved(done)
    lost = [row for row in done.table("failures").to_pylist() if row["reason"] == "damaged_embeddings"]
    assert lost and all(row["shard"].endswith("1.parquet") and "1.npz" in row["detail"] for row in lost)
    if fault == "a byte":  # found at the end of the array, by its checksum
        assert done.counts["kept"] >= 120
    else:
        assert done.counts == {"known": 60, "kept": 120}


def test_rows_that_are_not_finite_have_none(tmp_path):
    images = write_file(tmp_path / "pool", 0)
    images[3, 2], images[4, 0], images[5] = np.nan, np.inf, 0
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=images)
    done = kit.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    found = done.table("scores")["cluster"].to_pylist()
    assert [i for i, value in enumerate(found) if value is None] == [3, 4, 5]


def test_a_changed_npz_is_measured_again(tmp_path):
    write_file(tmp_path / "pool", 0)
    asked = recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)})
    one = kit.run_local(asked, tmp_path / "a")
    same = kit.run_local(asked, tmp_path / "b", reuse=tmp_path / "a")
    assert same.table("scores").equals(one.table("scores"))
    images = vectors(60, 50)
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=images)
    other = kit.run_local(asked, tmp_path / "c", reuse=tmp_path / "a")
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
        ({"clusters": {"c": {"of": "l14", "centroids": "/nowhere/x.npy"}}}, ["clusters.c.centroids", "No such file"]),
        ({"heads": {"l14": {"of": "l14", "path": "x.pth"}}}, ["two signals", "l14"]),
    ],
)
def test_what_the_recipe_says_wrongly(measure, words, tmp_path):
    write_file(tmp_path / "pool", 0)
    with pytest.raises(RecipeError) as error:
        prepare(recipe(tmp_path / "pool", measure=measure), str(tmp_path / "out"))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("centroids", "selected", "words"),
    [
        (np.ones((3, 4), np.float32), None, ["c.npy", "[3, 4]", f"[k, {D}]"]),
        (np.zeros(D, np.float32), None, ["centroids", f"[{D}]"]),
        (np.full((3, D), np.nan), None, ["centroids", "NaN"]),
        (np.zeros((0, D)), None, ["centroids", "[0, 8]"]),
        (np.array([{}], object), None, ["centroids", "no .npy file"]),
        (np.ones((3, D)), np.array([3]), ["selected", "0 to 2"]),
        (np.ones((3, D)), np.array([-1]), ["selected", "0 to 2"]),
        (np.ones((3, D)), np.ones((2, 5)), ["selected", "[2, 5]"]),
    ],
)
def test_arrays_that_are_not_what_they_are_taken_for(centroids, selected, words, tmp_path):
    write_file(tmp_path / "pool", 0)
    np.save(tmp_path / "c.npy", centroids)
    options = {"of": "l14", "centroids": str(tmp_path / "c.npy")}
    if selected is not None:
        np.save(tmp_path / "w.npy", selected)
        options["selected"] = str(tmp_path / "w.npy")
    with pytest.raises(RecipeError) as error:
        prepare(recipe(tmp_path / "pool", measure={"clusters": {"c": options}}), str(tmp_path / "out"))
    assert all(word in str(error.value) for word in ["measure.clusters.c", *words]), str(error.value)


@pytest.mark.parametrize("selected", ["w{0..1}.pt", ["w0.pt", "w1.npy"], "w?.*", ["n.npy", "n.pt"]])
def test_selected_in_several_files(selected, tmp_path):
    """Of DataComp's kind, a dict with `image_features`; of one array; of numbers."""
    centroids, features = vectors(12, 7).astype(np.float32), vectors(4, 5).astype(np.float32)
    torch.save(centroids, tmp_path / "c.pt", pickle_protocol=4)
    torch.save({"labels": torch.arange(2), "image_features": torch.from_numpy(features[:2])}, tmp_path / "w0.pt")
    torch.save({"image_features": torch.from_numpy(features[2:])}, tmp_path / "w1.pt")
    np.save(tmp_path / "w1.npy", features[2:])
    best = np.argmax(features @ centroids.T, axis=1)
    np.save(tmp_path / "n.npy", best[:3])
    torch.save({"a": torch.from_numpy(best)}, tmp_path / "n.pt")
    names = [selected] if isinstance(selected, str) else selected
    paths = tuple(str(tmp_path / name) for name in names)
    section = Clusters(of="l14", centroids=str(tmp_path / "c.pt"), selected=paths[0] if selected in names else paths)
    loaded = load_clusters("c", section)
    assert np.array_equal(loaded.centroids, centroids)
    assert loaded.selected is not None and np.flatnonzero(loaded.selected).tolist() == sorted(set(best.tolist()))


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"a": torch.ones(3, D), "b": torch.ones(3, D)}, "several arrays"),
        ([torch.ones(3, D)], "several arrays"),
        (torch.nn.Linear(2, 2), "never code"),
        (torch.full((3, D), torch.nan), "NaN"),
    ],
)
def test_files_of_torch_that_hold_no_centroids(saved, words, tmp_path):
    torch.save(saved, tmp_path / "c.pt")
    with pytest.raises(RecipeError, match=f"measure.clusters.c.centroids: .*c.pt .*{words}"):
        load_clusters("c", Clusters(of="l14", centroids=str(tmp_path / "c.pt")))
    with pytest.raises(RecipeError, match=r"measure.clusters.c.selected: .*none.*accepted: a .npy or .pt file"):
        np.save(tmp_path / "c.npy", np.ones((3, D)))
        options = {"centroids": str(tmp_path / "c.npy"), "selected": str(tmp_path / "none{0..1}.pt")}
        load_clusters("c", Clusters(of="l14", **options))


def test_tars_bring_none(tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(10), 2)
    with pytest.raises(RecipeError, match="of format webdataset, which supplies none"):
        prepare(kit.recipe_of(path, measure={"embeddings": ASKED}), str(tmp_path / "out"))


def npz_with(path, member, kind=zipfile.ZIP_STORED):
    """An .npz whose array of images is these bytes; its texts are sound."""
    np.savez(path, l14_txt=vectors(60, 1))
    with zipfile.ZipFile(path, "a", kind) as archive:
        archive.writestr("l14_img.npy", member)


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "unfinished": header(b"{'descr': ("),
    "mixed keys": header(b"{1: 2, 'a': 3}"),
    "no type": header(b"{'descr': (), 'fortran_order': False, 'shape': (60, 8)}"),
    "deep": header(b"-" * 3000 + b"1"),
    "huge header": b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"{" * 100_000,
    "long header": b"\x93NUMPY\x02\x00" + (5000).to_bytes(4, "little") + b" " * 5000,
    "huge shape": header(b"{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000, 8)}"),
    "nothing": b"",
}


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_an_npz_holds_rows_stay(name, which, tmp_path):
    for n in range(2):
        write_file(tmp_path / "pool", n)
    (tmp_path / f"pool/{which}.npz").unlink()
    npz_with(tmp_path / f"pool/{which}.npz", HOSTILE[name])
    done = kit.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    kit.conserved(done)
    lost = [row for row in done.table("failures").to_pylist() if row["reason"] == "damaged_embeddings"]
    assert {Path(row["shard"]).name for row in lost} == {f"{which}.parquet"} and len(lost) == 1
    assert done.counts == {"kept": 120} and done.table("scores")["cluster"].null_count == 60


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_damage_to_any_kind_of_member_costs_embeddings_alone(kind, tmp_path):
    for n in range(2):
        write_file(tmp_path / "pool", n)
    import io

    array = io.BytesIO()
    np.save(array, vectors(60, 1))
    path = tmp_path / "pool/1.npz"
    npz_with(path, array.getvalue(), kind)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"l14_img.npy", 0, len(data) - 200) + 60
    data[at : at + 30] = bytes(30)
    path.write_bytes(bytes(data))
    done = kit.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    assert done.counts == {"kept": 120}
    assert done.table("scores")["cluster"].null_count >= 10


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    for n in range(2):
        write_file(tmp_path / "pool", n)
    (tmp_path / "pool/1.npz").unlink()
    os.mkfifo(tmp_path / "pool/1.npz")
    with pytest.raises(RecipeError, match=r"1\.npz: is not a regular file"):
        prepare(recipe(tmp_path / "pool"), str(tmp_path / "out"))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_embeddings_may_be_of_any_length(scale, tmp_path):
    images = write_file(tmp_path / "pool", 0).astype(np.float32)
    np.savez(tmp_path / "pool/0.npz", l14_img=(images * np.float32(scale)), l14_txt=images)
    measure = {"embeddings": {**ASKED, "keep": True}, "clusters": clusters(tmp_path)}
    done = kit.run_local(recipe(tmp_path / "pool", measure=measure), tmp_path / "out")
    found = np.array(done.table("embeddings")["l14_image"].to_pylist())
    assert np.abs(found - images).max() < 2e-3
    expected = nearest_centroid(images, vectors(12, 7).astype(np.float32))
    assert (np.array(done.table("scores")["cluster"].to_pylist()) == expected).mean() > 0.98


def test_a_row_may_lack_a_side(tmp_path):
    import torch
    from safetensors.torch import save_file

    images, texts = write_file(tmp_path / "pool", 0), vectors(60, 100)
    images[3], texts[4] = np.nan, np.nan
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=texts)
    save_file({"weight": torch.randn(1, D), "bias": torch.ones(1)}, tmp_path / "head.safetensors")
    path = str(tmp_path / "head.safetensors")
    measure = {
        "heads": {"of_image": {"of": "l14", "path": path}, "of_text": {"of": "l14", "path": path, "input": "text"}}
    }
    done = kit.run_local(recipe(tmp_path / "pool", measure=measure), tmp_path / "out")
    for name, lacking in (("of_image", 3), ("of_text", 4)):
        found = done.table("scores")[name].to_pylist()
        assert [i for i, value in enumerate(found) if value is None] == [lacking]


def test_rows_of_another_length_have_none(tmp_path):
    images = list(write_file(tmp_path / "pool", 0).astype(np.float32))
    (tmp_path / "pool/0.npz").unlink()
    images[0], images[7] = np.ones(D + 1, np.float32), np.ones(0, np.float32)
    table = pq.read_table(tmp_path / "pool/0.parquet")
    for name in ("l14_img", "l14_txt"):
        table = table.append_column(name, pa.array(images, pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "pool/0.parquet", row_group_size=25)
    done = kit.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    found = done.table("scores")["cluster"].to_pylist()
    assert [i for i, value in enumerate(found) if value is None] == [0, 7]
    assert done.run["models"]["l14"]["dimension"] == D


def test_the_first_file_need_not_be_sound(tmp_path):
    for n in range(3):
        write_file(tmp_path / "pool", n)
    (tmp_path / "pool/0.npz").unlink()
    pq.write_table(pq.read_table(tmp_path / "pool/1.parquet").slice(0, 0), tmp_path / "pool/00.parquet")
    done = kit.run_local(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    assert done.table("scores")["cluster"].null_count == 60


def test_files_without_embeddings_count_as_unread(tmp_path):
    for n in range(5):
        write_file(tmp_path / "pool", n)
    for n in range(1, 5):
        (tmp_path / f"pool/{n}.npz").unlink()
    asked = recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}, max_failed_files=0.5)
    from curate.base.errors import RunError

    with pytest.raises(RunError, match=r"4 of 5 files .* could not be read(.|\n)*damaged_embeddings 4"):
        kit.run_local(asked, tmp_path / "out")


def test_faults_are_told_whatever_is_reused(tmp_path):
    folder = tmp_path / "pool"
    for n in range(2):
        write_file(folder, n)
    np.savez(
        folder / "0.npz", l14_img=vectors(60, 0), l14_txt=vectors(60, 9), b32_img=vectors(60, 3), b32_txt=vectors(60, 4)
    )
    b32 = {"name": "b32", "image": "b32_img", "text": "b32_txt"}
    of_b32 = {"own": {"of": "b32", "centroids": str(tmp_path / "centroids.npy")}}
    plain = kit.recipe_of(f"{folder}/*.parquet", "parquet")
    one = recipe(folder, measure={"clusters": clusters(tmp_path)})
    two = recipe(folder, measure={"embeddings": [ASKED, b32], "clusters": {**clusters(tmp_path), **of_b32}})

    def faults(done):
        rows = done.table("failures").to_pylist()
        return [Path(row["shard"]).name for row in rows if row["reason"] == "damaged_embeddings"]

    runs = {
        "plain": kit.run_local(plain, tmp_path / "plain"),
        "one": kit.run_local(one, tmp_path / "one", reuse=tmp_path / "plain"),
        "two": kit.run_local(two, tmp_path / "two", reuse=tmp_path / "one"),
        "again": kit.run_local(two, tmp_path / "again", reuse=tmp_path / "two"),
        "back": kit.run_local(plain, tmp_path / "back", reuse=tmp_path / "again"),
    }
    assert {name: faults(done) for name, done in runs.items()} == {
        "plain": [],
        "one": [],
        "two": ["1.parquet"],
        "again": ["1.parquet"],
        "back": [],
    }
    assert runs["two"].table("scores")["own"].null_count == 60


def test_an_npz_that_changes_during_the_run_is_told(tmp_path):
    from curate.base.errors import RunError
    from pipelines.claim import claim_folder

    write_file(tmp_path / "pool", 0)
    prepared = prepare(recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}), str(tmp_path / "out"))
    claim_folder(prepared)
    np.savez(tmp_path / "pool/0.npz", l14_img=vectors(60, 8), l14_txt=vectors(60, 8))
    with pytest.raises(RunError, match=r"0\.npz: the file changed during the run"):
        kit.measure(prepared.context, prepared.plan.units[0])


def test_ties_go_to_the_first_centroid_whatever_is_computed_together(monkeypatch):
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((33, 64)).astype(np.float32)
    centroids[-1] = centroids[0]
    images = (centroids[0] + 0.1 * rng.standard_normal((400, 64))).astype(np.float32)
    found = nearest_centroid(images, centroids)
    assert set(found.tolist()) == {0}
    assert found.tolist() == [int(nearest_centroid(image[None], centroids)[0]) for image in images]
    others = rng.standard_normal((400, 64)).astype(np.float32)
    found = nearest_centroid(others, centroids)
    for cells in (1, 20, 1000):  # centroids in parts too
        monkeypatch.setattr("curate.signals.formulas.embedding_scores.CELLS", cells)
        assert set(nearest_centroid(images, centroids).tolist()) == {0}
        assert (nearest_centroid(others, centroids) == found).all()


def test_blocks_of_rows_and_more_than_are_read(tmp_path, monkeypatch):
    """2 million rows of zeros, of 3 MB, took 12 GB."""
    arrays = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", e=arrays)
    fingerprint = sidecar_fingerprint(str(tmp_path / "a.parquet"), {}, False)
    place = FileRows(str(tmp_path / "a.parquet"), 0, 10, fingerprint, {})
    rows = pa.table({"x": range(10)}), np.arange(10) != 7
    whole = read_embeddings(("e", "e"), 4, rows, place)
    monkeypatch.setattr("curate.read.precomputed._BLOCK", 3)
    assert read_embeddings(("e", "e"), 4, rows, place) == whole
    monkeypatch.setattr("curate.read.precomputed._MAX_BYTES", 159)
    with pytest.raises(EmbeddingError, match="10 rows take more than 159 bytes; accepted: at most that"):
        read_embeddings(("e", "e"), 4, rows, place)
