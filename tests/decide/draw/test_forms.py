"""Each form of a selection keeps the same rows in any sharding and on Beam; what-if expects them, and explain gives the reason."""

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.explain import explain_sample
from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import search, sweep
from curate.ask.whatif.swept_number import parse_swept_number
from curate.base.errors import RecipeError
from curate.recipe.recipe import change_recipe
from tests import kit
from tests.kit.commands import run_command

QUOTAS = {"of": "words", "rows": 200, "by": "size", "keep": "farthest", "distance": "clip_score"}
FORMS = {
    "rows": {"sample": {"rows": 200}},
    "weights": {"sample": {"weights": "exp(clip_score * 3)", "rows": 200}},
    "mixture": {"sample": {"mixture": {"of": "words", "rows": 200, "shares": {3: 3, 4: 1, 5: 0.1}}}},
    "quotas": {"sample": {"quotas": QUOTAS}},
    "balance of": {"balance": {"of": "words", "rows": 200}},
    "soft cap": {"sample": {"soft_cap": {"of": "clip_score", "draws": 800, "batch": 100}}},
}
SIZES = {"rows": "sample.rows", "weights": "sample.rows", "soft cap": "sample.soft_cap.draws"}
SIZES |= {"mixture": "sample.mixture.rows", "quotas": "sample.quotas.rows", "balance of": "balance.rows"}
SAMPLES = {form: f"sample={of['sample']}" for form, of in FORMS.items() if "sample" in of}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("pools"), kit.make_rows(300)
    mixed = rows.take(pa.array(np.random.default_rng(5).permutation(len(rows))))
    return {n: kit.write_parquets(folder / str(n), mixed if n == 3 else rows, n, group=20) for n in (1, 3)}


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_any_sharding_gives_the_same_rows(form, layouts, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (100, 100))
    recipes = {n: kit.recipe_of(path, "parquet", **FORMS[form]) for n, path in layouts.items()}
    runs = {n: kit.run_local(recipe, tmp_path / str(n)) for n, recipe in recipes.items()}
    columns = ["uid", "kept", "rule", "probability", "draw", *["repeats"] * (form == "soft cap")]
    decided = {n: sorted(map(str, run.table("decisions", columns).to_pylist())) for n, run in runs.items()}
    assert decided[1] == decided[3] and runs[1].kept == runs[3].kept
    beam = kit.run_beam(recipes[3], tmp_path / "beam")
    assert kit.lasting_files(beam.folder) == kit.lasting_files(runs[3].folder)
    kit.conserved(beam)

    folder, finished = str(beam.folder), open_finished(str(beam.folder))
    smaller = f"{SIZES[form]}=60"
    fewer = kit.run_local(change_recipe(recipes[3], [smaller]), tmp_path / "fewer")
    for run, changes in ((beam, []), (fewer, [smaller])):
        expected = run.counts["kept"] if form in SAMPLES else sum(run.table("decisions")["probability"].to_pylist())
        assert answer(finished, changes).expected == pytest.approx(expected, abs=1e-6)
    assert answer(finished, []).is_same
    stage = next(iter(FORMS[form]))
    for is_kept, verdict in ((True, "verdict: kept"), (False, f"verdict: dropped by {stage}")):
        rows = beam.table("decisions").to_pylist()
        row = next(row for row in rows if row["kept"] == is_kept and row["rule"] in (None, stage))
        assert verdict in " ".join(str(explain_sample(folder, row["uid"])).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run without a selection."""
    folder = tmp_path_factory.mktemp("forms")
    path = kit.write_parquets(folder / "pool", kit.make_rows(300), 2, 200)
    return open_finished(str(kit.run_local(kit.recipe_of(path, "parquet"), folder / "run").folder))


def test_numbers_of_rows_are_swept(finished):
    for form, text in (
        ("weights", "sample.rows=20..100"), ("mixture", "sample.mixture.rows=20..100"),
        ("quotas", "sample.quotas.rows=20..100"), ("quotas", "sample.quotas.least=0,5,100"),
        ("soft cap", "sample.soft_cap.draws=20..400"), ("soft cap", "sample.soft_cap.batch=20,50"),
    ):  # fmt: skip
        base, number = [SAMPLES[form].replace("200", "90")], parse_swept_number(text)
        points = list(sweep(finished, base, number, 3))
        assert "least" in text or len({point.expected for point in points}) == len(points) > 1
        for point in points:
            if point.fault:
                assert point.fault.startswith("sample.quotas.least is 100") and point.expected is None
            else:
                alone = answer(finished, [*base, number.override(point.value)])
                assert (point.expected, point.error) == (alone.expected, alone.error)
    with pytest.raises(RecipeError, match="greater than or equal to 1"):
        list(sweep(finished, [SAMPLES["quotas"]], parse_swept_number("sample.quotas.most=0..60")))


@pytest.mark.parametrize("form", SAMPLES)
def test_a_size_is_that_of_the_form(form, finished):
    url = finished.context.store.url
    done = run_command("whatif", url, "--set", SAMPLES[form], "--rows", "60")
    assert done.status == 0 and f"--set {SIZES[form]}=60" in done.out, done.err
    with pytest.raises(RecipeError, match=rf"{SIZES[form]} is .*, so no value of rules.x keeps more"):
        search(finished, [SAMPLES[form]], parse_swept_number("rules.x={top: {0.1..0.9}, of: words}"), 10**6)
