"""Estimates: exact if the sample is the pool, near the truth and with an honest error if it is not."""

from collections import Counter
from dataclasses import replace
from math import inf

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
from tests.kit.whatif import warnings_of, whatif

ENTRIES = ["cat", "dog", "photo", "rare thing"]
RULES = {"seven": "caption not like '%7'", "best": {"top": 0.7, "of": "s"}}
NEAR = {"measure": {"image": {"phash": True}}, "dedup": {"by": ["uid", {"phash": {"distance": 2}}]}, "max_failed": 1.0}


@pytest.fixture(autouse=True)
def without_a_limit_of_time(monkeypatch):
    """How much is measured does not depend on the machine."""
    for name in ("_SECONDS", "_COLD_SECONDS"):
        monkeypatch.setattr(estimates, name, inf)


@pytest.fixture
def sampling(monkeypatch):
    """Units have 500 rows, and a sample about 2,000."""
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    monkeypatch.setattr(estimates, "_ROWS", 2000)


def prepare(folder, source, **recipe):
    metadata = None
    if "match" in recipe:
        metadata = read_metadata(recipe["match"]["metadata"])[0]
    parsed = parse_recipe({"input": source, **recipe})
    plan = make_plan(parsed)
    key = "" if metadata is None else ids.table_digest(metadata)
    return RunContext(parsed, plan.pool, RunStore(str(folder / "run")), metadata_key=key), plan, metadata


def pets(rows):
    rng = np.random.default_rng(7)
    nouns = rng.choice(["cat", "dog", "bird", "rare thing"], rows, p=[0.6, 0.28, 0.1, 0.02])
    captions = [f"photo of a {n} {i}" if i % 4 else f"{n} {i}" for i, n in enumerate(nouns)]
    scores = pa.array(rng.random(rows), pa.float32())
    uids = [f"{i % (rows - rows // 50):032x}" for i in rng.permutation(rows)]
    return pa.table({"caption": captions, "s": scores, "uid": uids})


def parquet(folder, table):
    pq.write_table(table, folder / "pool.parquet", row_group_size=500)
    return {"name": "pool", "format": "parquet", "path": str(folder / "pool.parquet")}


def many(folder):
    """20,000 rows without duplicates."""
    return parquet(folder, pets(20_000).drop_columns(["uid"]))


def tars(folder, samples, shards):
    return {"name": "pool", "format": "webdataset", "path": kit.write_tars(folder / "tars", samples, shards)}


def matching(folder):
    (folder / "entries.txt").write_text("\n".join(ENTRIES))
    return {"match": {"metadata": str(folder / "entries.txt")}}


def truth(context, plan, metadata):
    """What a run decides, with the expectation of balance."""
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


def estimated(folder, source, **recipe):
    context, plan, metadata = prepare(folder, source, **recipe)
    return checked(estimate(context, plan.units, metadata))


def checked(found):
    assert found is not None
    assert sum(found.verdicts.values()) == pytest.approx(found.rows)
    assert min(found.verdicts.values()) >= 0 and found.error >= 0 and found.seconds >= 0
    return found


@pytest.mark.parametrize("sections", ["", "rules", "match", "rules match balance"])
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
    source = parquet(tmp_path, pets(2000))
    found = estimated(tmp_path, source, balance={"rows": 700}, **matching(tmp_path))
    assert found.verdicts["kept"] == pytest.approx(700, abs=1)
    found = estimated(tmp_path, source, balance={"rows": 10**6}, **matching(tmp_path))
    assert found.verdicts["balance"] == pytest.approx(0, abs=1)


def test_a_random_sample_has_its_size(tmp_path, sampling):
    found = estimated(tmp_path, many(tmp_path), rules=RULES, sample={"rows": 601})
    assert found.sampled < 20_000 and (found.verdicts["kept"], found.error) == (601, 0)


def test_targets_out_of_reach_are_warnings(tmp_path, sampling):
    source, match = many(tmp_path), matching(tmp_path)
    found = estimated(tmp_path, source, balance={"rows": 2}, **match)
    [warning] = warnings_of(found)
    assert warning.startswith("balance.rows 2 ") and f"about {round(found.verdicts['kept']):,} rows" in warning
    assert warnings_of(estimated(tmp_path, source, balance={"rows": 4000}, **match)) == []
    for rows, part in ((20_000, "in the sample, balance.tail_share 0.9"), (2000, "balance.tail_share 0.9")):
        source = parquet(tmp_path, pets(rows).drop_columns(["uid"]))
        [warning] = warnings_of(estimated(tmp_path, source, balance={"tail_share": 0.9}, **match))
        assert warning.startswith(f"{part} is out of reach")
    nearest = float(warning.split()[-4])
    assert warnings_of(estimated(tmp_path, source, balance={"tail_share": nearest}, **match)) == []


def test_captions_without_spaces_that_words_drop_are_a_warning(tmp_path):
    texts = ["a cat on a mat", "窓辺で眠る猫の写真", "แมวนอนหลับอยู่ริมหน้าต่าง", "un chat qui dort", "猫 dog cat"] * 50
    columns = {"url": [f"http://a/{i}" for i in range(250)], "caption": texts, "code": ["en"] * 250}
    source = parquet(tmp_path, pa.table(columns))
    rules = {"japanese": "caption NOT LIKE '%写真'", "long": "words > 2", "characters": "characters > 2"}
    [warning] = warnings_of(estimated(tmp_path, source, rules=rules))
    assert warning.startswith("20.0% of the captions") and " dropped by long, " in warning
    [warning] = warnings_of(estimated(tmp_path, source, **matching(tmp_path)))
    assert warning.startswith("40.0%") and " dropped by unmatched, " in warning and "match.mode corrected" in warning
    by_language = matching(tmp_path)
    by_language["match"]["mode"] = "corrected"
    assert warnings_of(estimated(tmp_path, source | {"columns": {"language": "code"}}, **by_language)) == []
    assert warnings_of(estimated(tmp_path, source, rules={"characters": "characters > 9"})) == []


@pytest.mark.parametrize("target", [{"t": 200}, {"rows": 4000}])
def test_a_sample_is_near_the_truth_and_has_an_error(tmp_path, target, sampling):
    context, plan, metadata = prepare(tmp_path, many(tmp_path), rules=RULES, balance=target, **matching(tmp_path))
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


def test_the_error_for_a_whole_pool_is_that_of_the_draws(tmp_path):
    parts = {"balance": {"t": 100}, "output": {"rows_per_shard": 200}, **matching(tmp_path)}
    source = parquet(tmp_path, pets(2000))
    kit.run_local(parse_recipe({"input": source, **parts}), tmp_path / "run")
    context, plan, metadata = prepare(tmp_path, source, **parts)
    found, known = checked(estimate(context, plan.units, metadata)), whatif(str(tmp_path / "run"), [])
    assert (found.verdicts["kept"], found.error) == pytest.approx((known.expected, known.error))
    assert found.seconds == 0  # all tables are current
    context = replace(context, store=RunStore(str(tmp_path / "other")))
    assert checked(estimate(context, plan.units, metadata)).seconds > 0
    context = replace(context, reuse=RunStore(str(tmp_path / "run")))
    units = [replace(unit, reuse_index=unit.index) for unit in plan.units]
    assert checked(estimate(context, units, metadata)).seconds == 0


def test_nothing_to_estimate(tmp_path):
    empty = pa.table({"caption": pa.array([], pa.string()), "s": pa.array([], pa.float32())})
    context, plan, metadata = prepare(tmp_path, parquet(tmp_path, empty), rules=RULES)
    assert estimate(context, plan.units, metadata) is estimate(context, [], metadata) is None
    parts = {"rules": {"no": "false"}, "balance": {"t": 3}, **matching(tmp_path)}
    found = estimated(tmp_path, parquet(tmp_path, pets(100)), **parts)
    assert found.verdicts == {"failed": 0, "no": 100, "balance": 0, "kept": 0}
    assert warnings_of(found) == ["none of the 100 samples is kept; no drops the most, 100"]


def test_a_pool_of_tars(tmp_path, monkeypatch):
    """The number of rows is estimated from sizes; bytes are those of the kept images."""
    images = [kit.encode(kit.picture(i)) for i in range(120)]
    samples = [kit.sample(f"{i:03d}", "two words" if i % 3 else "one", image=image) for i, image in enumerate(images)]
    source = tars(tmp_path, samples, 10)
    assert estimated(tmp_path, source, rules={"none": "false"}).bytes is None
    context, plan, _ = prepare(tmp_path, source, rules={"words": "words = 2"})
    monkeypatch.setattr(estimates, "_BYTES", 3.5 / 10 * sum(part.size for unit in plan.units for part in unit.parts))
    found = checked(estimate(context, plan.units, None))
    assert found.units == 4 and found.sampled == 48 and found.rows == pytest.approx(120, abs=6)
    assert found.verdicts == pytest.approx({"failed": 0, "words": 40, "kept": 80}, rel=0.05)
    assert found.bytes == pytest.approx(sum(map(len, images)) * 2 / 3, rel=0.1)


def test_too_many_near_duplicates_are_a_warning(tmp_path):
    context, plan, _ = prepare(tmp_path, tars(tmp_path, kit.make_samples(40), 20), **NEAR)

    def warnings(rows):
        found = estimate(context, plan.units, None, rows=rows)
        assert found and found.verdicts["duplicate"]
        return [warning for warning in warnings_of(found) if "near-duplicates" in warning]

    assert not warnings(134_217_728)
    [warning] = warnings(134_217_728_000)
    assert warning.startswith("step duplicates: ") and "134,217,728" in warning


@pytest.mark.thorough
def test_kernels_that_are_not_compiled_are_interpreted(tmp_path, monkeypatch):
    """The estimate is the same, except for its time; afterwards the process has its kernels again."""
    recipe = NEAR | matching(tmp_path) | {"rules": {"words": "words > 1"}, "balance": {"t": 5}}
    context, plan, metadata = prepare(tmp_path, tars(tmp_path, kit.make_samples(40), 4), **recipe)
    compiled = checked(estimate(context, plan.units, metadata))
    monkeypatch.setattr(estimates, "is_compiled", lambda kernel: False)
    before = estimates.kernel.match_texts
    interpreted = checked(estimate(context, plan.units, metadata))
    assert interpreted.compiling and not compiled.compiling
    assert interpreted.verdicts == pytest.approx(compiled.verdicts) and interpreted.sampled == compiled.sampled
    assert estimates.kernel.match_texts is before and not numba.config.DISABLE_JIT
    monkeypatch.setattr(estimates, "_COLD_ENTRIES", 1)
    with pytest.raises(estimates.NotCompiledError, match="kernels are not compiled yet"):
        estimate(context, plan.units, metadata)


@pytest.mark.parametrize("kind", ["tars", "parquet"])
def test_a_sample_may_end_within_a_unit(kind, tmp_path, monkeypatch):
    """Its rows are complete; the rows of the pool follow from the bytes that they take."""
    source = tars(tmp_path, kit.make_samples(200)[:200], 1) if kind == "tars" else parquet(tmp_path, pets(200))
    for name in ("_SECONDS", "_COLD_SECONDS"):
        monkeypatch.setattr(estimates, name, 1e-9)
    found = estimated(tmp_path, source)
    assert (found.sampled, found.units, found.is_counted) == (8, 1, kind == "parquet")
    assert found.rows == (200 if kind == "parquet" else pytest.approx(200, rel=0.1)) and not found.verdicts["failed"]
