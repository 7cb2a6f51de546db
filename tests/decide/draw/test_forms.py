"""Each form of a selection: the same rows in 1, 7 and 17 shards in any order, in this process and on Beam."""

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import search, sweep
from curate.ask.whatif.swept_number import parse_swept_number
from curate.base.errors import RecipeError
from tests import kit
from tests.kit.commands import run_command
from tests.pipelines.graphs import build_graph, count_stages

FORMS = {
    "weights": {"sample": {"weights": "exp(clip_score * 3)", "rows": 500}},
    "mixture": {"sample": {"mixture": {"of": "words", "rows": 500, "shares": {3: 3, 4: 1, 5: 0.1}}}},
    "quotas": {
        "sample": {"quotas": {"of": "words", "rows": 500, "by": "size", "keep": "farthest", "distance": "clip_score"}}
    },
    "balance of": {"balance": {"of": "words", "rows": 500}},
    "soft cap": {"sample": {"soft_cap": {"of": "clip_score", "draws": 2000, "batch": 300}}},
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("pools"), kit.make_rows(1500)
    mixed = rows.take(pa.array(np.random.default_rng(5).permutation(len(rows))))
    return {n: kit.write_parquets(folder / str(n), mixed if n == 7 else rows, n, group=20) for n in (1, 7, 17)}


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_any_sharding_gives_the_same_rows(form, layouts, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (20, 100))
    recipes = {n: kit.recipe_of(path, "parquet", **FORMS[form]) for n, path in layouts.items()}
    runs = {n: kit.run_local(recipe, tmp_path / str(n)) for n, recipe in recipes.items()}
    columns = ["uid", "kept", "rule", "probability", "draw"]
    columns += ["repeats"] if "repeats" in runs[1].table("decisions").column_names else []
    decided = {n: sorted(map(str, run.table("decisions", columns).to_pylist())) for n, run in runs.items()}
    assert decided[1] == decided[7] == decided[17] and runs[1].kept == runs[7].kept == runs[17].kept
    assert runs[1].counts["kept"] and sum(runs[1].counts.get(key, 0) for key in ("sample", "balance"))
    beam = kit.run_beam(recipes[7], tmp_path / "beam")
    assert kit.lasting_files(beam.folder) == kit.lasting_files(runs[7].folder)
    kit.conserved(beam)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that draws nothing."""
    folder = tmp_path_factory.mktemp("forms")
    path = kit.write_parquets(folder / "pool", kit.make_rows(300), 2, 200)
    return open_finished(str(kit.run_local(kit.recipe_of(path, "parquet"), folder / "run").folder))


SAMPLES = {form: f"sample={of['sample']}" for form, of in FORMS.items() if "sample" in of}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("weights", "sample.rows=20..100"), ("mixture", "sample.mixture.rows=20..100"),
        ("quotas", "sample.quotas.rows=20..100"), ("quotas", "sample.quotas.most=0..60"),
        ("quotas", "sample.quotas.least=0,5,100"), ("soft cap", "sample.soft_cap.draws=20..400"),
        ("soft cap", "sample.soft_cap.batch=20,50"),
    ],
)  # fmt: skip
def test_numbers_of_rows_are_swept(form, text, finished):
    base, number = [SAMPLES[form].replace("500", "90").replace("2000", "200")], parse_swept_number(text)
    if "most=0" in text:
        with pytest.raises(RecipeError, match="greater than or equal to 1"):
            list(sweep(finished, base, number))
        return
    points = list(sweep(finished, base, number, 3))
    assert "least" in text or len({point.expected for point in points}) == len(points) > 1
    for point in points:
        if point.fault:
            assert point.fault.startswith("sample.quotas.least is 100") and point.expected is None
        else:
            alone = answer(finished, [*base, number.override(point.value)])
            assert (point.expected, point.error) == (alone.expected, alone.error)


@pytest.mark.parametrize("form", SAMPLES)
def test_a_size_is_that_of_the_form(form, finished):
    url = finished.context.store.url
    done = run_command("whatif", url, "--set", SAMPLES[form], "--rows", "60")
    size = {"weights": "rows", "soft cap": "soft_cap.draws"}.get(form, f"{form}.rows")
    assert done.status == 0 and f"--set sample.{size}=60" in done.out, done.err
    assert "60 in uids.npy" in done.out if form == "soft cap" else "expected: 60 rows" in done.out
    with pytest.raises(RecipeError, match=rf"sample.{size} is .*, so no value of rules.x keeps more"):
        search(finished, [SAMPLES[form]], parse_swept_number("rules.x={top: {0.1..0.9}, of: words}"), 10**6)


def test_the_graph_stays_small(layouts, tmp_path):
    """A selection adds two barriers, and two for each round that counts keys: quotas have four, and two to be solved."""
    plain = count_stages(build_graph(kit.recipe_of(layouts[1], "parquet"), tmp_path / "plain"))
    for form, sections in FORMS.items():
        stages = count_stages(build_graph(kit.recipe_of(layouts[1], "parquet", **sections), tmp_path / form))
        assert stages <= plain + (12 if form == "quotas" else 9), form
