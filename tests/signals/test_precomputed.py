"""Embeddings that a Parquet pool supplies, as columns or in an .npz beside each file; clusters, heads and more on them."""

import io
import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.base.errors import RecipeError, RunError
from curate.read.errors import EmbeddingError
from curate.read.precomputed import FileRows, read_embeddings, sidecar_fingerprint
from curate.signals.clusters import Clusters, load_clusters
from curate.signals.formulas.embedding_scores import nearest_centroid
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit
from tests.kit.precomputed import DIMENSION as D
from tests.kit.precomputed import OPTIONS, recipe, vectors, write_file

CENTROIDS = vectors(12, 7).astype(np.float32)


def clusters(folder, **more):
    np.save(folder / "centroids.npy", CENTROIDS)
    return {"cluster": {"of": "l14", "centroids": str(folder / "centroids.npy"), **more}}


def nearest(images):
    return nearest_centroid(np.asarray(images, np.float32), CENTROIDS).tolist()


def save_fortran(save, path, **arrays):
    save(path, **{name: np.asfortranarray(array) for name, array in arrays.items()})


def save_by_header(major, path, **arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, version=(major, 0))


def test_rows_have_the_embeddings_of_their_positions(tmp_path):
    saves = [np.savez, np.savez_compressed, *(partial(save_fortran, s) for s in (np.savez, np.savez_compressed))]
    saves += [partial(save_by_header, 2), partial(save_by_header, 3)]
    images = np.concatenate([write_file(tmp_path / "pool", n, save=save) for n, save in enumerate(saves)])
    np.save(tmp_path / "selected.npy", np.array([1, 5, 6]))
    measure = {"clusters": clusters(tmp_path, selected=str(tmp_path / "selected.npy"))}
    rules = {"wins": "in_selected_cluster"}
    done = kit.run_local(recipe(tmp_path / "pool", measure=measure, rules=rules), tmp_path / "out")
    kit.conserved(done)
    scores, is_selected = done.table("scores"), np.isin(nearest(images), [1, 5, 6])
    assert scores["cluster"].to_pylist() == nearest(images)
    assert scores["in_selected_cluster"].to_pylist() == is_selected.tolist()
    assert done.counts["kept"] == is_selected.sum()
    assert not (tmp_path / "out/tables/embeddings").exists()
    assert done.run["models"]["l14"] == {"brought": ["l14_img", "l14_txt"], "dimension": D}


def test_columns_are_read_too(tmp_path):
    """In one pool: lists of a fixed size, lists, lists of doubles, and one side as a column with the other in an .npz."""
    folder, images = tmp_path / "pool", []
    fixed, lists, doubles = pa.list_(pa.float32(), D), pa.list_(pa.float32()), pa.list_(pa.float64())
    for number, kind in enumerate((fixed, lists, doubles, lists)):
        images += write_file(folder, number).tolist()
        table = pq.read_table(folder / f"{number}.parquet")
        columns = ["l14_img"] if number == 3 else ["l14_img", "l14_txt"]
        for name in columns:
            # Arrow cannot read nulls among lists of a fixed size
            first = None if name == "l14_txt" and kind != fixed else images[-60]
            table = table.append_column(name, pa.array([first, *images[-59:]], kind))
        with pq.ParquetWriter(folder / f"{number}.parquet", table.schema) as writer:
            writer.write_table(table.schema.empty_table())  # an empty row group comes first
            writer.write_table(table, row_group_size=25)
        if number != 3:
            (folder / f"{number}.npz").unlink()
    done = kit.run_local(recipe(folder, measure={"embeddings": {**OPTIONS, "keep": True}}), tmp_path / "out")
    found = done.table("embeddings")
    assert found.column_names == ["unit", "row", "uid", "l14_image", "l14_text"]
    assert found["l14_image"].to_pylist() == images
    texts = [[0.0] * D if row in (60, 120) else image for row, image in enumerate(images[:180])]
    assert found["l14_text"].to_pylist()[:180] == texts


@pytest.mark.thorough
def test_near_duplicates_and_drift(tmp_path):
    folder = tmp_path / "pool"
    images = write_file(folder, 0)
    images[40:50] = images[:10]
    np.savez(folder / "0.npz", l14_img=images, l14_txt=images)
    near = {"by": [{"embedding": {"cosine": 0.999, "of": "l14"}}]}
    asked = recipe(folder, measure={"embeddings": {**OPTIONS, "keep": True}}, dedup=near)
    local, beam = kit.run_local(asked, tmp_path / "a"), kit.run_beam(asked, tmp_path / "b", here=False)
    assert local.counts == beam.counts == {"duplicate": 10, "kept": 50} and local.verdicts == beam.verdicts
    assert {row["model"] for row in beam.run["drift"]} == {"l14"}


# ---------------------------------------------------------------- damage
def npz_with(path, member, kind=zipfile.ZIP_STORED):
    """Write an .npz whose image array is these bytes; its texts are intact."""
    np.savez(path, l14_txt=vectors(60, 1))
    with zipfile.ZipFile(path, "a", kind) as archive:
        archive.writestr("l14_img.npy", member)


def harm_member(kind, path):
    np.save(array := io.BytesIO(), vectors(60, 1))
    npz_with(path, array.getvalue(), kind)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"l14_img.npy", 0, len(data) - 200) + 60
    data[at : at + 30] = bytes(30)
    path.write_bytes(data)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


IMAGES = vectors(60, 1)
ARRAYS = {
    "rows": IMAGES[:59], "dimension": IMAGES[:, :4], "integers": np.zeros((60, D), int), "one dimension": IMAGES.reshape(-1),
    "objects": np.array([{}] * 60, object),
}  # fmt: skip
MEMBERS = [
    b"", header(b"{'descr': ("), header(b"{1: 2, 'a': 3}"), header(b"-" * 3000 + b"1"), header(b"{'descr': __imp"),
    header(b"{'descr': (), 'fortran_order': False, 'shape': (60, 8)}"),
    header(b"{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000, 8)}"),
    b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"{" * 100_000,
    b"\x93NUMPY\x02\x00" + (5000).to_bytes(4, "little") + b" " * 5000,
]  # fmt: skip
DAMAGES = [
    Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"x" * 1000),
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: np.savez(path, b32_img=IMAGES, l14_txt=IMAGES),
    *(lambda path, array=array: np.savez(path, l14_img=array, l14_txt=IMAGES) for array in ARRAYS.values()),
    *(lambda path, member=member: npz_with(path, member) for member in MEMBERS),
]
# The checksum, at the array's end, shows them: an earlier part of the file may have embeddings.
LATE = [flip_bit, *(partial(harm_member, kind) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED))]


@pytest.mark.parametrize("first", [10, 90])
def test_rows_beside_a_damaged_npz_stay_without_embeddings(first, tmp_path):
    """The first file need not be intact, nor have rows."""
    folder, damages = tmp_path / "pool", [*DAMAGES, *LATE]
    intact = write_file(folder, first).tolist()
    for number, damage in enumerate(damages, 20):
        write_file(folder, number)
        damage(folder / f"{number}.npz")
    pq.write_table(pq.read_table(folder / f"{first}.parquet").slice(0, 0), folder / "00.parquet")
    done = kit.run_local(recipe(folder, measure={"clusters": clusters(tmp_path)}), tmp_path / "out")
    kit.conserved(done)
    assert done.counts == {"kept": 60 * (1 + len(damages))}
    lost = [row for row in done.table("failures").to_pylist() if row["reason"] == "damaged_embeddings"]
    files = {Path(row["shard"]).stem for row in lost}
    assert files - {"00"} == {str(number) for number in range(20, 20 + len(damages))}
    assert all(f"{Path(row['shard']).stem}.npz" in row["detail"] for row in lost)
    found = {}
    for shard, cluster in zip(done.table("samples")["shard"], done.table("scores")["cluster"], strict=True):
        found.setdefault(int(Path(shard.as_py()).stem), []).append(cluster.as_py())
    assert found.pop(first) == nearest(intact)
    for number, values in found.items():
        assert values.count(None) == 60 or (number >= 20 + len(DAMAGES) and values.count(None) >= 10), number


def test_odd_rows(tmp_path):
    """Any length is scaled to 1; rows that are not finite, zero, or of another length have no embedding."""
    folder = tmp_path / "pool"
    images, texts = write_file(folder, 0).astype(np.float32), vectors(60, 100).astype(np.float32)
    scales = np.repeat(np.float32([1e-30, 1e-6, 1, 1e6, 1e30]), 12)[:, None]
    odd = images * scales
    odd[3, 2], odd[4, 0], odd[5], texts[6] = np.nan, np.inf, 0, np.nan
    np.savez(folder / "0.npz", l14_img=odd, l14_txt=texts)
    others = list(write_file(folder, 1).astype(np.float32))
    (folder / "1.npz").unlink()
    others[0], others[7] = np.ones(D + 1, np.float32), np.ones(0, np.float32)
    table = pq.read_table(folder / "1.parquet")
    for name in ("l14_img", "l14_txt"):
        table = table.append_column(name, pa.array(others, pa.list_(pa.float32())))
    pq.write_table(table, folder / "1.parquet", row_group_size=25)
    torch.save({"weight": torch.randn(1, D), "bias": torch.ones(1)}, tmp_path / "head.pt")
    heads = {side: {"of": "l14", "path": str(tmp_path / "head.pt"), "input": side} for side in ("image", "text")}
    heads = {f"of_{side}": options for side, options in heads.items()}
    measure = {"embeddings": {**OPTIONS, "keep": True}, "clusters": clusters(tmp_path), "heads": heads}
    done = kit.run_local(recipe(folder, measure=measure), tmp_path / "out")
    scores = done.table("scores")
    lacking = {name: np.flatnonzero(scores[name].is_null()).tolist() for name in ("cluster", "of_image", "of_text")}
    assert lacking == {"cluster": [3, 4, 5, 60, 67], "of_image": [3, 4, 5, 60, 67], "of_text": [6, 60, 67]}
    kept, good = np.array(done.table("embeddings")["l14_image"].to_pylist())[:60], np.isfinite(odd).all(1) & odd.any(1)
    assert np.abs(kept - images)[good].max() < 2e-3
    assert (scores["cluster"].to_numpy()[:60] == nearest(images))[good].mean() > 0.95
    assert done.run["models"]["l14"]["dimension"] == D


def test_files_without_embeddings_count_as_unread(tmp_path):
    for n in range(5):
        write_file(tmp_path / "pool", n)
        if n:
            (tmp_path / f"pool/{n}.npz").unlink()
    asked = recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)}, max_failed_files=0.5)
    with pytest.raises(RunError, match=r"4 of 5 files .* could not be read(.|\n)*damaged_embeddings 4"):
        kit.run_local(asked, tmp_path / "out")


# ---------------------------------------------------------------- reuse
def test_a_changed_npz_is_measured_again(tmp_path):
    write_file(tmp_path / "pool", 0)
    asked = recipe(tmp_path / "pool", measure={"clusters": clusters(tmp_path)})
    one = kit.run_local(asked, tmp_path / "a")
    same = kit.run_local(asked, tmp_path / "b", reuse=tmp_path / "a")
    assert same.table("scores").equals(one.table("scores"))
    images = vectors(60, 50)
    np.savez(tmp_path / "pool/0.npz", l14_img=images, l14_txt=images)
    other = kit.run_local(asked, tmp_path / "c", reuse=tmp_path / "a").table("scores")["cluster"].to_pylist()
    assert other == nearest(images) != one.table("scores")["cluster"].to_pylist()
    prepared = prepare(asked, str(tmp_path / "out"))
    claim_folder(prepared)
    np.savez(tmp_path / "pool/0.npz", l14_img=vectors(60, 8), l14_txt=images)
    with pytest.raises(RunError, match=r"0\.npz: the file changed during the run"):
        kit.measure(prepared.context, prepared.plan.units[0])


def test_faults_are_listed_whatever_is_reused(tmp_path):
    folder = tmp_path / "pool"
    for n in range(2):
        write_file(folder, n)
    arrays = {name: vectors(60, seed) for seed, name in enumerate(("l14_img", "l14_txt", "b32_img", "b32_txt"))}
    np.savez(folder / "0.npz", **arrays)
    b32 = {"name": "b32", "image": "b32_img", "text": "b32_txt"}
    one = recipe(folder, measure={"clusters": clusters(tmp_path)})
    both = {**clusters(tmp_path), "own": {"of": "b32", "centroids": str(tmp_path / "centroids.npy")}}
    two = recipe(folder, measure={"embeddings": [OPTIONS, b32], "clusters": both})
    plain, before = kit.recipe_of(f"{folder}/*.parquet", "parquet"), None
    for number, (asked, expected) in enumerate([(one, []), (two, ["1"]), (two, ["1"]), (plain, [])]):
        before = (done := kit.run_local(asked, tmp_path / str(number), reuse=before)).folder
        rows = done.table("failures").to_pylist()
        assert [Path(row["shard"]).stem for row in rows if row["reason"] == "damaged_embeddings"] == expected
        assert asked is not two or done.table("scores")["own"].null_count == 60


# ---------------------------------------------------------------- what is refused
WRONG_RECIPES = [
    ({"embeddings": {**OPTIONS, "image": "nope"}}, ["l14", "nope", "arrays: l14_img, l14_txt"]),
    ({"embeddings": {**OPTIONS, "image": "uid"}}, ["l14", "uid", "lists of numbers"]),
    ({"contexts": {"c": {"of": "l14", "values": {"a": "x", "b": "y"}}}}, ["c:", "encodes prompts", "heads, clusters"]),
    ({"clusters": {"c": {"of": "b32", "centroids": "x.npy"}}}, ["c:", "b32", "l14"]),
    ({"clusters": {"c": {"of": "l14", "centroids": "/nowhere/x.npy"}}}, ["clusters.c.centroids", "No such file"]),
    ({"heads": {"l14": {"of": "l14", "path": "x.pth"}}}, ["two signals", "l14"]),
]


def refused(folder, measure, words):
    write_file(folder / "pool", 0)
    with pytest.raises(RecipeError) as error:
        prepare(recipe(folder / "pool", measure=measure), str(folder / "out"))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_wrong_recipes(tmp_path):
    for case in WRONG_RECIPES:
        refused(tmp_path, *case)


def test_other_pools_are_refused(tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(10), 2)
    with pytest.raises(RecipeError, match="has format webdataset, which supplies no embeddings"):
        prepare(kit.recipe_of(path, measure={"embeddings": OPTIONS}), str(tmp_path / "out"))
    write_file(tmp_path / "pool", 0)
    (tmp_path / "pool/0.npz").unlink()
    os.mkfifo(tmp_path / "pool/0.npz")
    with pytest.raises(RecipeError, match=r"0\.npz: is not a regular file"):
        prepare(recipe(tmp_path / "pool"), str(tmp_path / "out"))


def saved(value, path):
    np.save(path, value) if isinstance(value, np.ndarray) else torch.save(value, path)
    return str(path)


ONES = np.ones((3, D))
WRONG = [
    (np.ones((3, 4), np.float32), None, ["c.npy", "[3, 4]", f"[k, {D}]"]), (np.zeros(D), None, ["centroids", f"[{D}]"]),
    (np.full((3, D), np.nan), None, ["centroids", "NaN"]), (np.zeros((0, D)), None, ["centroids", "[0, 8]"]),
    (np.array([{}], object), None, ["centroids", "not a .npy file"]), (ONES, np.array([3]), ["selected", "0 to 2"]),
    (ONES, np.array([-1]), ["selected", "0 to 2"]), (ONES, np.ones((2, 5)), ["selected", "[2, 5]"]),
    (ONES, "none{0..1}.pt", ["selected", "none", "accepted: a .npy or .pt file"]),
    ({"a": torch.ones(3, D), "b": torch.ones(3, D)}, None, ["centroids", "c.pt", "exactly one array"]),
    ([torch.ones(3, D)], None, ["centroids", "c.pt", "exactly one array"]),
    (torch.nn.Linear(2, 2), None, ["centroids", "c.pt", "no code"]),
    (torch.full((3, D), torch.nan), None, ["centroids", "c.pt", "NaN"]),
]  # fmt: skip


@pytest.mark.parametrize(("centroids", "selected", "words"), WRONG)
def test_wrong_arrays(centroids, selected, words, tmp_path):
    suffix = "npy" if isinstance(centroids, np.ndarray) else "pt"
    options = {"of": "l14", "centroids": saved(centroids, tmp_path / f"c.{suffix}")}
    if selected is not None:
        is_path = isinstance(selected, str)
        options["selected"] = f"{tmp_path}/{selected}" if is_path else saved(selected, tmp_path / "w.npy")
    refused(tmp_path, {"clusters": {"c": options}}, ["measure.clusters.c", *words])


@pytest.mark.parametrize("selected", ["w{0..1}.pt", ["w0.pt", "w1.npy"], "w?.*", ["n.npy", "n.pt"]])
def test_selected_in_several_files(selected, tmp_path):
    """DataComp's kind, a dict with `image_features`; one array; cluster numbers."""
    features = vectors(4, 5).astype(np.float32)
    torch.save(CENTROIDS, tmp_path / "c.pt", pickle_protocol=4)
    torch.save({"labels": torch.arange(2), "image_features": torch.from_numpy(features[:2])}, tmp_path / "w0.pt")
    torch.save({"image_features": torch.from_numpy(features[2:])}, tmp_path / "w1.pt")
    np.save(tmp_path / "w1.npy", features[2:])
    best = np.argmax(features @ CENTROIDS.T, axis=1)
    np.save(tmp_path / "n.npy", best[:3])
    torch.save({"a": torch.from_numpy(best)}, tmp_path / "n.pt")
    is_one = isinstance(selected, str)
    paths = f"{tmp_path}/{selected}" if is_one else tuple(f"{tmp_path}/{name}" for name in selected)
    loaded = load_clusters("c", Clusters(of="l14", centroids=str(tmp_path / "c.pt"), selected=paths))
    assert np.array_equal(loaded.centroids, CENTROIDS)
    assert np.flatnonzero(loaded.selected).tolist() == sorted(set(best.tolist()))


def test_blocks_of_rows_and_more_than_are_read(tmp_path, monkeypatch):
    """2 million rows of zeros, of 3 MB, took 12 GB."""
    arrays = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", e=arrays)
    fingerprint = sidecar_fingerprint(str(tmp_path / "a.parquet"), {}, False)
    file_rows = FileRows(str(tmp_path / "a.parquet"), 0, 10, fingerprint, {})
    rows = pa.table({"x": range(10)}), np.arange(10) != 7
    whole = read_embeddings(("e", "e"), 4, rows, file_rows)
    monkeypatch.setattr("curate.read.precomputed._BLOCK", 3)
    assert read_embeddings(("e", "e"), 4, rows, file_rows) == whole
    monkeypatch.setattr("curate.read.precomputed._MAX_BYTES", 159)
    with pytest.raises(EmbeddingError, match="10 rows take more than 159 bytes; accepted: at most that"):
        read_embeddings(("e", "e"), 4, rows, file_rows)
