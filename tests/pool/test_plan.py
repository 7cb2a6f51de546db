"""Plans cover each file and row group exactly once, in order, and equally each time; what they refuse."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.pool import plan as plans
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import PackedUnits, Unit, make_plan
from curate.recipe.recipe import parse_recipe
from curate.store.chunks import Chunk


def source(path, name="a", **more):
    return {"name": name, "format": "parquet", "path": path} | more


def tars(path, name="t"):
    return source(path, name, format="webdataset")


def plan(*sources, content=False):
    return make_plan(parse_recipe({"input": list(sources)}), content)


def refusal(*sources):
    with pytest.raises(RecipeError) as caught:
        plan(*sources)
    return str(caught.value)


def captions(rows, **columns):
    return pa.table({"caption": [f"caption {i}" for i in range(rows)], **columns})


def write(path, table, group=None):
    pq.write_table(table, str(path), row_group_size=group)
    return str(path)


def check_cover(made, files):
    """Check that each tar (groups None) and each row group occurs once, in order, in units numbered in order."""
    assert [unit.index for unit in made.units] == list(range(len(made.units)))
    assert len({unit.key for unit in made.units}) == len(made.units) and all(unit.parts for unit in made.units)
    spans = [(part.path, part.groups) for unit in made.units for part in unit.parts]
    assert files == [
        (path, group)
        for path, groups in spans
        for group in (range(*groups) if groups and groups[0] < groups[1] else [None])
    ]


# ---- units


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(1, 16),
)
def test_units_cover_every_row_group_once(tmp_path_factory, files, least, units):
    folder = tmp_path_factory.mktemp("pool")
    expected = []
    for i, (rows, group) in enumerate(files):
        path = write(folder / f"{i}.parquet", captions(rows), group)
        groups = pq.read_metadata(path).num_row_groups
        assert groups == max(1, -(-rows // group))
        expected += [(path, g) for g in range(groups)]
    paths = [f"{folder}/{i}.parquet" for i in range(len(files))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "UNIT_ROWS", (least, 2 * least))
        patch.setattr(plans, "UNITS", units)
        made = plan(source(paths))
        check_cover(made, expected)
        assert made.pool.rows == sum(rows for rows, _ in files)
        assert plan(source(paths)) == made
        for unit in made.units:  # no unit is larger than the limit, but for a single row group
            rows = sum(part.rows or 0 for part in unit.parts)
            groups = sum(part.groups[1] - part.groups[0] for part in unit.parts if part.groups)
            assert rows <= 2 * least or groups == 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40), st.integers(1, 2000))
def test_units_cover_every_tar_once(tmp_path_factory, sizes, limit):
    folder = tmp_path_factory.mktemp("pool")
    paths = [f"{folder}/{i:02d}.tar" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Path(path).write_bytes(bytes(size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "UNIT_BYTES", (limit, limit))
        made = plan(tars(f"{folder}/*.tar"))
    check_cover(made, [(path, None) for path in paths])
    assert made.pool.rows is None and made.pool.has_images
    for unit, following in zip(made.units, made.units[1:], strict=False):
        assert sum(part.size for part in unit.parts) <= limit or len(unit.parts) == 1
        size = sum(part.size for part in unit.parts)
        assert size + following.parts[0].size > limit or 4 * size >= 3 * limit  # and not much smaller than need be


SIZES = [  # (files, bytes of each, the largest number of files in a unit)
    (16, 250 << 20, 1),  # for 16 workers
    (68, 250 << 20, 4),  # 17 GiB: units of 1 GiB
    (300, 250 << 20, 8),  # 73 GiB: 2 GiB each, however large the pool is
    (40, 3 << 30, 1),  # a larger tar is a unit
    (200, 50 << 20, 5),  # 10 GiB: sizes go in steps of four, so here 256 MiB
]


@pytest.mark.parametrize(("files", "size", "per_unit"), SIZES)
def test_units_of_tars_hold_two_gigabytes(files, size, per_unit, tmp_path):
    for i in range(files):
        (tmp_path / f"{i:04d}.tar").touch()
        os.truncate(tmp_path / f"{i:04d}.tar", size)
    units = plan(tars(f"{tmp_path}/*.tar")).units
    assert all(0.75 * per_unit <= len(unit.parts) <= per_unit for unit in units[:-1])


def test_a_repaired_file_changes_few_units(tmp_path):
    for i in range(500):
        (tmp_path / f"{i:05d}.tar").touch()
        os.truncate(tmp_path / f"{i:05d}.tar", (190 << 20) + i % 7 * (1 << 20))
    repaired = {unit.key for unit in plan(tars(f"{tmp_path}/*.tar")).units}
    os.truncate(tmp_path / "00125.tar", 20 << 20)
    units = plan(tars(f"{tmp_path}/*.tar")).units
    assert len(units) < 70 and sum(unit.key not in repaired for unit in units) < 10


def test_small_files_share_a_unit_of_one_source_and_large_ones_are_split(tmp_path):
    for i in range(50):
        write(tmp_path / f"{i:02d}.parquet", captions(10))
    large = write(tmp_path / "large.parquet", captions(90_000), 5_000)
    made = plan(source(f"{tmp_path}/{{00..49}}.parquet", "one"), source(large, "two"))
    assert [(unit.source, unit.name, [part.groups for part in unit.parts]) for unit in made.units] == [
        ("one", "00000", [(0, 1)] * 50),
        *(("two", f"{n:05d}", [(i, i + 1) for i in range(5 * n - 5, min(5 * n, 18))]) for n in range(1, 5)),
    ]


def test_keys_change_with_what_they_name(tmp_path):
    """By times, or by content, which does not depend on times."""
    path = write(tmp_path / "a.parquet", captions(3))
    first, by_content = plan(source(path)), plan(source(path), content=True)
    os.utime(path, ns=(1, 1))
    touched = plan(source(path))
    assert touched.units[0].key != first.units[0].key and touched.pool.key != first.pool.key
    assert plan(source(path, "other")).units[0].key != touched.units[0].key
    assert plan(source(path), content=True) == by_content
    write(path, captions(4))
    assert plan(source(path), content=True).pool.key != by_content.pool.key


# ---- files that cannot be used


def test_bad_files_are_parts_with_a_fault(tmp_path):
    good = write(tmp_path / "a.parquet", captions(3))
    for name, content in {"b": b"", "c": b"no Parquet at all", "f": Path(good).read_bytes()[:-20]}.items():
        (tmp_path / f"{name}.parquet").write_bytes(content)
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, ["caption", "caption"])
    for name, table in {"d": pa.table({"x": [1]}), "e": pa.table({"caption": [1]}), "g": twice}.items():
        write(tmp_path / f"{name}.parquet", table)
    made = plan(source(f"{tmp_path}/*.parquet"))
    assert [part.fault and part.fault[0] for part in made.files] == [
        None, "empty_file", "not_parquet", "no_caption_column", "wrong_type", "not_parquet", "wrong_type",
    ]  # fmt: skip
    assert made.pool.rows == 3


# ---- what the pool brings


def test_images_and_imageless_sources_do_not_mix(tmp_path):
    text = write(tmp_path / "text.parquet", captions(2))
    image = write(tmp_path / "image.parquet", captions(2, image=[b"a", b"b"]))
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    tar = tars(f"{tmp_path}/a.tar")
    assert not plan(source(text)).pool.has_images
    assert all(plan(*sources).pool.has_images for sources in ([source(image)], [tar], [tar, source(image)]))
    for mixed in ([tar, source(text)], [source(image, "i"), source(text)], [source(text), tar]):
        message = refusal(*mixed)
        assert "'a' has no images" in message and "or only Parquet without images" in message
    assert "'a' has images, but source 'a' has files without" in refusal(source([text, image]))


def test_supplied_columns(tmp_path):
    path = write(tmp_path / "x.parquet", captions(1, URL=["u"], WIDTH=[1], HEIGHT=[2], similarity=[0.5], n=[3]))
    pool = plan(source(path)).pool
    assert pool.supplied == {"url", "width", "height"}
    assert pool.scores == pa.schema([("similarity", pa.float64())])
    assert pool.output is not None and pool.output.names == [
        "caption", "URL", "WIDTH", "HEIGHT", "similarity", "n",
    ]  # fmt: skip


JOINED = [  # types of a score column in two files, and the type of the joined column
    (pa.float32(), pa.float64(), pa.float64()), (pa.float64(), pa.float32(), pa.float64()),
    (pa.float16(), pa.float16(), pa.float32()), (pa.float16(), pa.float64(), pa.float64()),
    (pa.int32(), pa.int64(), pa.int64()), (pa.int32(), pa.float64(), pa.float64()),
    (pa.null(), pa.float32(), pa.float32()),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "expected"), JOINED)
def test_score_columns_of_two_types_are_joined(tmp_path, first, second, expected):
    for name, kind in (("x", first), ("y", second)):
        write(tmp_path / f"{name}.parquet", captions(1, s=pa.array([None if pa.types.is_null(kind) else 1]).cast(kind)))
    write(tmp_path / "z.parquet", captions(1))  # a file without the column
    pool = plan(source(f"{tmp_path}/{{x,y,z}}.parquet", columns={"scores": ["s"]})).pool
    assert pool.scores == pa.schema([("s", expected)])


def test_columns_that_are_no_scores(tmp_path):
    """Earlier runs' decisions, and uids of another type, unless they are named."""
    path = write(tmp_path / "x.parquet", captions(1, probability=[0.5], draw=[0.1], s=[0.1]))
    assert plan(source(path)).pool.scores.names == ["s"]
    paths = [write(tmp_path / f"{n}.parquet", captions(1, uid=[uid])) for n, uid in enumerate((5, b"x"))]
    pool = plan(source(paths)).pool
    assert pool.output is not None and pool.output.names == ["caption"] and "uid" not in pool.supplied


REFUSED = [  # tables, or a path; columns in the recipe; parts of the message
    ([pa.table({"x": [1], "y": [2]})], {}, ["'pool'", "any of 1 files", "0.parquet", "no caption column", "columns: x, y"]),
    *(
        ([captions(2, s=[0.1, 0.2])], columns, ["link", "columns: caption, s"])
        for columns in ({"url": "link"}, {"scores": ["s", "link"]}, {"caption": "link"})
    ),
    *((path, {}, ["'pool'", path]) for path in ("nothing://x/y.parquet", "/no/such/file.parquet", "/no/such/*.parquet")),
    ([captions(1, s=[0.5]), captions(1, s=["high"])], {"scores": ["s"]}, ["'s'", "string", "double"]),
    ([captions(1, s=[0.5]), captions(1, s=["high"])], {}, ["use one type"]),
    ([captions(1, s=[0.5]), captions(1, S=[0.5])], {}, ["'s'", "'S'"]),
    ([captions(1, draw=[0.5])], {"scores": ["draw"]}, ["'draw'"]),
    *(  # names of columns that curate writes
        ([captions(1, **{name: [0.5], "s": [0.1]})], {}, [repr(name), "columns.scores"])
        for name in ("words", "Words", "row", "unit", "status", "bytes", "SHA256", "Kept", "rule", "repeats")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tables", "columns", "parts"), REFUSED)
def test_refused_sources(tmp_path, tables, columns, parts):
    paths = (
        [tables] if isinstance(tables, str) else [write(tmp_path / f"{n}.parquet", one) for n, one in enumerate(tables)]
    )
    message = refusal(source(paths, "pool", columns=columns))
    assert not [part for part in parts if part not in message], message


def test_packed_units_are_a_sequence():
    units = [Unit(i, "a", (InputPart(f"ü{i // 10}.parquet", i, "f", (i % 10, i % 10 + 1), 8),)) for i in range(1100)]
    fault = InputPart("b.parquet", 0, "g", None, None, ("empty_file", "0 bytes"), "s")
    units[3] = Unit(3, "b", (fault, *units[3].parts), 7, Chunk(5, 9), Chunk(3, 4), 11)
    packed = PackedUnits(iter(units))
    assert len(packed) == len(units) and list(packed) == units
    assert [packed[i] for i in (0, 511, 512, 1099, -1)] == [units[i] for i in (0, 511, 512, 1099, -1)]
    assert packed[500:530:7] == units[500:530:7]
    with pytest.raises(IndexError):
        packed[1100]


FORMATS = {"webdataset": "tar", "parquet": "parquet", "urls": "parquet", "commoncrawl": "wat.gz", "pmc": "tar.gz"}


@pytest.mark.parametrize(("form", "suffix"), FORMATS.items())
def test_what_a_glob_finds_and_is_no_file_is_a_part_with_a_fault(tmp_path, form, suffix):
    write(tmp_path / f"a.{suffix}", captions(3, url=["https://x.example/1"] * 3))
    (tmp_path / f"gone.{suffix}").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / f"pipe.{suffix}")  # which would be waited for
    network = {"network": {"contact": "us@curate.example"}} if form == "urls" else {}
    parts = plan(source(f"{tmp_path}/*.{suffix}", format=form, **network)).files
    faults = {part.path: part.fault for part in parts if part.fault}
    assert faults == {
        f"{tmp_path}/gone.{suffix}": ("not_a_file", f"a link to {str(tmp_path / 'nowhere')!r}, which is not a file"),
        f"{tmp_path}/pipe.{suffix}": ("not_a_file", "not a regular file"),
    }
    assert len(parts) == 3
