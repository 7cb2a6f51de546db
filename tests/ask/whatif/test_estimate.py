"""Estimates: exact where the sample is the pool, near and honest about it where it is not."""

import io
import tarfile
from collections import Counter
from dataclasses import replace
from math import inf

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.ask.whatif import estimate as estimates
from curate.ask.whatif.estimate import estimate
from curate.base import ids
from curate.base.stages import CODES
from curate.decide.draw import inclusion
from curate.decide.select_rows import count_alive
from curate.decide.settings import DecideSettings
from curate.match.metadata import read_metadata
from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from tests import kit
from tests.ask.whatif.asked import warnings_of, whatif
from tests.kit import run_local

ENTRIES = ["cat", "dog", "photo", "rare thing"]


@pytest.fixture(autouse=True)
def without_a_limit_of_time(monkeypatch):
    """How much is measured does not depend on the machine."""
    for name in ("_SECONDS", "_COLD_SECONDS"):
        monkeypatch.setattr(estimates, name, inf)


def prepare(folder, source, **recipe):
    metadata = None
    if "match" in recipe:
        metadata = read_metadata(recipe["match"]["metadata"])[0]
    checked = parse_recipe({"input": source, **recipe})
    plan = make_plan(checked)
    key = "" if metadata is None else ids.table_digest(metadata)
    return RunContext(checked, plan.pool, RunStore(str(folder / "run")), metadata_key=key), plan, metadata


def pets(rows):
    rng = np.random.default_rng(7)
    nouns = rng.choice(["cat", "dog", "bird", "rare thing"], rows, p=[0.6, 0.28, 0.1, 0.02])
    return pa.table(
        {
            "caption": [f"photo of a {n} {i}" if i % 4 else f"{n} {i}" for i, n in enumerate(nouns)],
            "s": pa.array(rng.random(rows), pa.float32()),
            "uid": [f"{i % (rows - rows // 50):032x}" for i in rng.permutation(rows)],
        }
    )


def parquet(folder, table, group=500):
    pq.write_table(table, folder / "pool.parquet", row_group_size=group)
    return {"name": "pool", "format": "parquet", "path": str(folder / "pool.parquet")}


def matching(folder):
    (folder / "entries.txt").write_text("\n".join(ENTRIES))
    return {"match": {"metadata": str(folder / "entries.txt")}}


def truth(context, plan, metadata):
    """What a run decides, the balance in expectation."""
    kit.measure_and_match(context, plan.units, metadata)
    settings = DecideSettings.of(context)
    units = kit.decide_in_process(settings, context, plan.units)
    states = units.elements
    names = {**{code: name for name, code in CODES.items()}, **dict(enumerate(context.recipe.rules))}
    counted = dict(Counter(names[int(code)] for state in states for code in state.verdicts))
    target = context.recipe.balance
    if target and target.t:
        p = inclusion.probabilities(units.value(count_alive(units, settings)), np.array([target.t]))
        matches = [settings.rows_left(settings.tables(state.unit), state).matches for state in states]
        kept = sum(float(inclusion.inclusion_probability(part, p).sum()) for part in matches)
        counted |= {"balance": counted["kept"] - kept, "kept": kept}
    return counted


def checked(found):
    assert found is not None
    assert sum(found.verdicts.values()) == pytest.approx(found.rows)
    assert min(found.verdicts.values()) >= 0 and found.error >= 0 and found.seconds >= 0
    return found


RULES = {"seven": "caption not like '%7'", "best": {"top": 0.7, "of": "s"}}


@pytest.mark.parametrize("sections", ["", "rules", "match", "rules match", "rules match balance"])
def test_the_whole_pool_is_exact(tmp_path, sections):
    recipe = {"rules": RULES} if "rules" in sections else {}
    recipe |= matching(tmp_path) if "match" in sections else {}
    recipe |= {"balance": {"t": 40}} if "balance" in sections else {}
    context, plan, metadata = prepare(tmp_path, parquet(tmp_path, pets(2000)), **recipe)
    found = checked(estimate(context, plan.units, metadata))
    assert (found.units, found.sampled, found.rows, found.bytes) == (len(plan.units), 2000, 2000, None)
    assert context.store.files() == []  # nothing is written into the run
    assert found.verdicts == pytest.approx({"failed": 0} | truth(context, plan, metadata), abs=1e-6)
    assert ("duplicate" in found.verdicts) and ("unmatched" in found.verdicts) is ("match" in recipe)


def test_a_target_number_of_rows_is_met(tmp_path):
    context, plan, metadata = prepare(
        tmp_path, parquet(tmp_path, pets(2000)), balance={"rows": 700}, **matching(tmp_path)
    )
    found = checked(estimate(context, plan.units, metadata))
    assert found.verdicts["kept"] == pytest.approx(700, abs=1)
    context, plan, metadata = prepare(
        tmp_path, parquet(tmp_path, pets(2000)), balance={"rows": 10**6}, **matching(tmp_path)
    )
    everything = checked(estimate(context, plan.units, metadata))
    assert everything.verdicts["balance"] == pytest.approx(0, abs=1)


def test_a_random_sample_has_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (700, 700))
    monkeypatch.setattr(estimates, "_ROWS", 2000)
    source = parquet(tmp_path, pets(20_000).drop_columns(["uid"]))
    context, plan, metadata = prepare(tmp_path, source, rules=RULES, sample={"rows": 601})
    found = checked(estimate(context, plan.units, metadata))
    assert found.sampled < 20_000 and (found.verdicts["kept"], found.error) == (601, 0)
    assert sum(found.verdicts.values()) == pytest.approx(20_000)


def test_a_target_size_out_of_reach_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    monkeypatch.setattr(estimates, "_ROWS", 2000)
    source = parquet(tmp_path, pets(20_000).drop_columns(["uid"]))
    context, plan, metadata = prepare(tmp_path, source, balance={"rows": 2}, **matching(tmp_path))
    found = checked(estimate(context, plan.units, metadata))
    smallest = round(found.verdicts["kept"])
    [warning] = warnings_of(found)
    assert warning.startswith("balance.rows 2 is probably out of reach") and f"about {smallest:,} rows" in warning
    context, plan, metadata = prepare(tmp_path, source, balance={"rows": 4000}, **matching(tmp_path))
    assert warnings_of(checked(estimate(context, plan.units, metadata))) == []


@pytest.mark.parametrize("enough", [2000, 20_000])
def test_a_share_of_the_tail_out_of_reach_is_told(enough, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    monkeypatch.setattr(estimates, "_ROWS", enough)
    source = parquet(tmp_path, pets(20_000).drop_columns(["uid"]))
    context, plan, metadata = prepare(tmp_path, source, balance={"tail_share": 0.9}, **matching(tmp_path))
    [warning] = warnings_of(checked(estimate(context, plan.units, metadata)))
    where = "in the sample, " if enough < 20_000 else ""
    assert warning.startswith(f"{where}balance.tail_share 0.9 is out of reach; the nearest: 0.")
    near = float(warning.split()[-4])
    context, plan, metadata = prepare(tmp_path, source, balance={"tail_share": near}, **matching(tmp_path))
    assert warnings_of(checked(estimate(context, plan.units, metadata))) == []


def test_captions_without_spaces_are_told_where_words_drop_them(tmp_path):
    texts = ["a cat on a mat", "窓辺で眠る猫の写真", "แมวนอนหลับอยู่ริมหน้าต่าง", "un chat qui dort", "猫 dog cat"] * 50
    columns = {"url": [f"http://a/{i}" for i in range(250)], "caption": texts, "code": ["en"] * 250}
    source = parquet(tmp_path, pa.table(columns))
    rules = {"japanese": "caption NOT LIKE '%写真'", "long": "words > 2", "characters": "characters > 2"}
    context, plan, metadata = prepare(tmp_path, source, rules=rules)
    [warning] = warnings_of(checked(estimate(context, plan.units, metadata)))
    assert (
        warning.startswith("20.0% of the captions are in scripts without spaces")
        and " dropped by long, which" in warning
    )
    context, plan, metadata = prepare(tmp_path, source, **matching(tmp_path))
    [warning] = warnings_of(checked(estimate(context, plan.units, metadata)))
    assert warning.startswith("40.0%") and " dropped by unmatched, " in warning
    assert warning.endswith("`characters` is for every language, and so is match.mode corrected")
    by_language = matching(tmp_path)
    by_language["match"]["mode"] = "corrected"
    context, plan, metadata = prepare(tmp_path, source | {"columns": {"language": "code"}}, **by_language)
    assert warnings_of(checked(estimate(context, plan.units, metadata))) == []
    context, plan, metadata = prepare(tmp_path, source, rules={"characters": "characters > 9"})
    assert warnings_of(checked(estimate(context, plan.units, metadata))) == []


@pytest.mark.parametrize("target", [{"t": 200}, {"rows": 4000}])
def test_a_sample_comes_near_and_says_how_near(tmp_path, target, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    monkeypatch.setattr(estimates, "_ROWS", 2000)
    table = pets(20_000).drop_columns(["uid"])
    context, plan, metadata = prepare(
        tmp_path, parquet(tmp_path, table), rules=RULES, balance=target, **matching(tmp_path)
    )
    assert len(plan.units) == 40
    found = checked(estimate(context, plan.units, metadata))
    assert (found.units, found.sampled, found.rows) == (4, 2000, 20_000)
    assert 0 < found.error < 0.2 * found.verdicts["kept"]
    if "rows" in target:
        assert found.verdicts["kept"] == pytest.approx(4000, rel=0.02)
    else:
        real = truth(context, plan, metadata)
        assert abs(found.verdicts["kept"] - real["kept"]) < 5 * found.error
        for name in ("seven", "best", "unmatched", "balance"):
            assert found.verdicts[name] == pytest.approx(real[name], rel=0.3), name


def test_of_a_whole_pool_the_error_is_that_of_the_draws(tmp_path):
    parts = {"balance": {"t": 100}, "output": {"rows_per_shard": 200}, **matching(tmp_path)}
    source = parquet(tmp_path, pets(2000))
    run_local(parse_recipe({"input": source, **parts}), tmp_path / "run")
    context, plan, metadata = prepare(tmp_path, source, **parts)
    found, known = checked(estimate(context, plan.units, metadata)), whatif(str(tmp_path / "run"), [])
    assert (found.verdicts["kept"], found.error) == pytest.approx((known.expected, known.error))
    assert found.seconds == 0  # all stands
    context = replace(context, store=RunStore(str(tmp_path / "other")))
    assert checked(estimate(context, plan.units, metadata)).seconds > 0
    context = replace(context, reuse=RunStore(str(tmp_path / "run")))
    units = [replace(unit, reuse_index=unit.index) for unit in plan.units]
    assert checked(estimate(context, units, metadata)).seconds == 0


def test_units_are_spread_over_the_pool(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    monkeypatch.setattr(estimates, "_ROWS", 2000)
    context, plan, _ = prepare(tmp_path, parquet(tmp_path, pets(20_000)))
    assert [unit.index for unit in estimates._choose(context, plan.units)] == [5, 15, 25, 35]
    assert [unit.index for unit in estimates._choose(context, plan.units[:2])] == [0, 1]
    assert [unit.index for unit in estimates._choose(context, plan.units[:3])] == [0, 1, 2]
    monkeypatch.setattr(estimates, "_ROWS", 400)
    assert [unit.index for unit in estimates._choose(context, plan.units)] == [20]
    monkeypatch.setattr(estimates, "_ROWS", 20_000)
    assert estimates._choose(context, plan.units) == list(plan.units)


def test_nothing_to_estimate(tmp_path):
    empty = pa.table({"caption": pa.array([], pa.string()), "s": pa.array([], pa.float32())})
    context, plan, metadata = prepare(tmp_path, parquet(tmp_path, empty), rules=RULES)
    assert estimate(context, plan.units, metadata) is None
    assert estimate(context, [], metadata) is None


def test_everything_is_dropped(tmp_path):
    context, plan, metadata = prepare(
        tmp_path, parquet(tmp_path, pets(100)), rules={"no": "false"}, balance={"t": 3}, **matching(tmp_path)
    )
    found = checked(estimate(context, plan.units, metadata))
    assert found.verdicts == {"failed": 0, "no": 100, "balance": 0, "kept": 0}
    assert warnings_of(found) == ["none of the 100 samples is kept; no drops most, 100"]


def test_a_pool_of_tars(tmp_path, monkeypatch):
    """The number of rows is not known before, so it is estimated by size; bytes are of the kept images."""
    rng = np.random.default_rng(3)
    sizes = []
    for shard in range(10):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(12):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(out, "JPEG")
                sizes.append(len(out.getvalue()))
                for suffix, data in (("jpg", out.getvalue()), ("txt", b"one" if i % 3 == 0 else b"two words")):
                    info = tarfile.TarInfo(f"{shard}-{i}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    source = {"name": "pool", "format": "webdataset", "path": f"{tmp_path}/*.tar"}
    context, plan, _ = prepare(tmp_path, source, rules={"none": "false"})
    assert checked(estimate(context, plan.units, None)).bytes is None
    context, plan, _ = prepare(tmp_path, source, rules={"words": "words = 2"})
    monkeypatch.setattr(estimates, "_BYTES", 3.5 / 10 * sum(part.size for unit in plan.units for part in unit.parts))
    found = checked(estimate(context, plan.units, None))
    assert found.units == 4 and found.sampled == 48
    assert found.rows == pytest.approx(120, abs=2)
    assert found.verdicts == pytest.approx({"failed": 0, "words": 40, "kept": 80}, rel=0.02)
    assert found.bytes == pytest.approx(sum(sizes) * 2 / 3, rel=0.05)


def test_more_near_duplicates_than_a_process_can_be_sent_are_a_warning(tmp_path):
    source = {
        "name": "pool",
        "format": "webdataset",
        "path": kit.write_tars(tmp_path / "tars", kit.make_samples(40), 20),
    }
    near = {"measure": {"image": {"phash": True}}, "dedup": {"by": [{"phash": {"distance": 2}}]}, "max_failed": 1.0}
    context, plan, _ = prepare(tmp_path, source, **near)

    def warnings(rows):
        estimated = estimate(context, plan.units, None, rows=rows)
        assert estimated and estimated.verdicts["duplicate"]
        return [warning for warning in warnings_of(estimated) if "near-duplicates" in warning]

    assert not warnings(134_217_728)
    [warning] = warnings(134_217_728_000)
    assert warning.startswith("step duplicates: ") and "at 134,217,728: run parts of the pool" in warning


@pytest.mark.thorough
def test_kernels_that_are_not_compiled_are_interpreted(tmp_path, monkeypatch):
    """The estimate is the same, but for its time; afterwards the process has its kernels again."""
    source = {
        "name": "pool",
        "format": "webdataset",
        "path": kit.write_tars(tmp_path / "tars", kit.make_samples(40), 4),
    }
    (tmp_path / "entries.txt").write_text("\n".join(ENTRIES))
    recipe = {
        "measure": {"image": {"phash": True}},
        "match": {"metadata": str(tmp_path / "entries.txt")},
        "rules": {"words": "words > 1"},
        "dedup": {"by": ["uid", {"phash": {"distance": 2}}]},
        "balance": {"t": 5},
        "max_failed": 1.0,
    }
    context, plan, metadata = prepare(tmp_path, source, **recipe)
    compiled = checked(estimate(context, plan.units, metadata))
    monkeypatch.setattr(estimates, "is_compiled", lambda kernel: False)
    before = estimates.kernel.match_texts
    interpreted = checked(estimate(context, plan.units, metadata))
    assert interpreted.compiling and not compiled.compiling
    assert interpreted.verdicts == pytest.approx(compiled.verdicts) and interpreted.sampled == compiled.sampled
    assert estimates.kernel.match_texts is before and not numba.config.DISABLE_JIT


@pytest.mark.parametrize("kind", ["tars", "parquet"])
def test_a_sample_ends_within_a_unit_where_its_time_is_over(kind, tmp_path, monkeypatch):
    """Its rows are whole, and those of the pool follow from the bytes that they take."""
    if kind == "tars":
        path = kit.write_tars(tmp_path / "tars", kit.make_samples(200)[:200], 1)
        source = {"name": "pool", "format": "webdataset", "path": path}
    else:
        source = parquet(tmp_path, pets(200))
    context, plan, metadata = prepare(tmp_path, source)
    monkeypatch.setattr(estimates, "_SECONDS", 1e-9)
    monkeypatch.setattr(estimates, "_COLD_SECONDS", 1e-9)
    found = checked(estimate(context, plan.units, metadata))
    assert (found.sampled, found.units, found.is_counted) == (8, 1, kind == "parquet")
    assert found.rows == (200 if kind == "parquet" else pytest.approx(200, rel=0.1)) and not found.verdicts["failed"]


def test_a_sample_that_needs_kernels_is_not_waited_for(tmp_path, monkeypatch):
    context, plan, metadata = prepare(tmp_path, parquet(tmp_path, pets(200)), **matching(tmp_path))
    monkeypatch.setattr(estimates, "is_compiled", lambda kernel: False)
    monkeypatch.setattr(estimates, "_COLD_ENTRIES", 1)
    with pytest.raises(estimates.NotCompiledError, match="kernels are not compiled yet"):
        estimate(context, plan.units, metadata)
