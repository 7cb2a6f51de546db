"""What-if against the definition, row by row, and against reruns of the changed recipe."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.ask.whatif.answer import FACTS, FUNNEL, LANGUAGES, SOURCES
from curate.base.errors import RecipeError, RunError
from curate.publish.forget.forget import forget
from curate.recipe.recipe import change_recipe, parse_recipe
from curate.store.items import Items
from tests import kit
from tests.ask.whatif import naive
from tests.kit import Ran, embedded
from tests.kit.whatif import whatif


def words(n):
    return lambda row: row["words"] > n


def side(n):
    return lambda row: row["width"] >= n


def recipe_of(run):
    return parse_recipe(run.run["recipe"])


def funnel(found, column="whatif"):
    """Numbers by stage, without their sign."""
    return {row["rule"]: abs(row[column]) for row in found.funnel.to_pylist() if row[column] is not None}


def facts(found, column="whatif"):
    return dict(zip(found.facts["fact"].to_pylist(), found.facts[column].to_pylist(), strict=True))


RULES = {"words": words(2), "best": (0.7, "clip_score"), "side": side(150)}
# Overrides, then the same for the definition: rules, prefer, t
TEXT_CASES = {
    "unchanged": ([], RULES, None, 40),
    "t": (["balance.t=7"], RULES, None, 7),
    "t above all counts": (["balance.t=5000"], RULES, None, 5000),
    "no balance": (["balance=null"], RULES, None, None),
    "a threshold": (["rules.words=words > 4"], RULES | {"words": words(4)}, None, 40),
    "looser": (["rules.side=width >= 1"], RULES | {"side": side(1)}, None, 40),
    "a fraction": (["rules.best.top=0.25", "balance.t=10"], RULES | {"best": (0.25, "clip_score")}, None, 10),
    "removed": (["rules.best=null"], {"words": words(2), "side": side(150)}, None, 40),
    "all rules removed": (["rules=null"], {}, None, 40),
    "added": (["rules.long=characters > 20"], RULES | {"long": lambda row: row["characters"] > 20}, None, 40),
    "another top": (["rules.wide={top: 0.5, of: width}"], RULES | {"wide": (0.5, "width")}, None, 40),
    "prefer": (["dedup.prefer=clip_score"], RULES, "clip_score", 40),
    "nothing is left": (["rules.words=words > 99"], RULES | {"words": words(99)}, None, 40),
}


@pytest.mark.parametrize("case", TEXT_CASES)
def test_text_is_as_defined(text_run, case):
    overrides, rules, prefer, t = TEXT_CASES[case]
    check(text_run, overrides, naive.decide(naive.read_rows(text_run.folder), rules, ["uid"], prefer, t), t)


@pytest.mark.parametrize(
    ("overrides", "least", "by", "prefer", "t"),
    [
        ([], 2, ["uid", "sha256"], None, 12), (["dedup.by=[uid]"], 2, ["uid"], None, 12),
        (["dedup.by=[phash]"], 2, ["uid", "phash"], None, 12), (["dedup.prefer=bytes"], 2, ["uid", "sha256"], "bytes", 12),
        (["dedup.by=[phash, uid]", "balance.t=3"], 2, ["phash", "uid"], None, 3),
        (["rules.words=words > 4", "dedup.by=[sha256]", "dedup.prefer=words"], 4, ["uid", "sha256"], "words", 12),
        (["rules.words=words > 0"], 0, ["uid", "sha256"], None, 12),
    ],
)  # fmt: skip
def test_images_are_as_defined(image_run, overrides, least, by, prefer, t):
    rows = naive.read_rows(image_run.folder)
    check(image_run, overrides, naive.decide(rows, {"words": words(least)}, by, prefer, t), t)


def check(run, overrides, expected, t):
    found = whatif(str(run.folder), overrides)
    verdicts = funnel(found)
    for name in ("failed", "unmatched", "duplicate", *(n for n in expected.verdicts if n != "alive")):
        assert verdicts[name] == expected.verdicts[name], name
    assert found.t == t
    assert found.expected == verdicts["kept"] == pytest.approx(float(expected.rows), abs=1e-6)
    assert sum(verdicts.values()) - verdicts["pool"] == pytest.approx(verdicts["pool"])
    assert found.error == pytest.approx(float(expected.variance) ** 0.5, abs=1e-6)
    assert {row["source"]: row["whatif"] for row in found.sources.to_pylist()} == pytest.approx(
        {"pool": 0.0} | {name: float(pi) for name, pi in expected.by("source").items()}
    )
    assert facts(found)["survivors"] == len(expected.survivors)
    assert facts(found)["entries"] == sum(count > 0 for count in expected.counts.values())
    if t is not None and expected.counts:
        whole = sum(count for count in expected.counts.values() if count <= t)
        tail = sum(count for count in expected.counts.values() if count < t)
        assert facts(found)["tail_share"] == pytest.approx(tail / expected.counts.total())
        assert facts(found)["whole_share"] == pytest.approx(whole / expected.counts.total())
        kept = {True: 0.0, False: 0.0}
        for row, pi in expected.survivors:
            for entry in row["entry_ids"]:
                kept[expected.counts[entry] <= t] += float(pi)
        assert facts(found)["whole_share_kept"] == pytest.approx(kept[True] / sum(kept.values()))


@pytest.mark.parametrize("change", ["balance.t=7", "balance.rows=60", "rules.words=words > 4", "balance=null"])
def test_the_share_of_the_tail_in_the_run_is_shown(text_run, change):
    same, found = (whatif(str(text_run.folder), overrides) for overrides in ([], [change]))
    share, smallest = (facts(same)[name] for name in ("tail_share", "smallest_tail_share"))
    assert 0 < smallest <= share < 1
    assert (facts(same, "run")["tail_share"], facts(same, "run")["smallest_tail_share"]) == (share, smallest)
    assert facts(found, "run")["tail_share"] == share
    assert facts(found, "run").get("smallest_tail_share", smallest) == smallest


def test_the_run_beside_it(text_run):
    overrides = ("balance.t=7", "rules.best=null", "rules.long=characters > 20")
    found, counts = whatif(str(text_run.folder), overrides), text_run.run["counts"]
    assert funnel(found, "run") == {"pool": sum(counts.values()), **counts}
    stages = "pool failed words best side long unmatched duplicate balance kept"
    assert found.funnel["rule"].to_pylist() == stages.split() and found.changes == overrides
    rows = {row["rule"]: row for row in found.funnel.to_pylist()}
    assert rows["best"]["whatif"] is None and rows["long"]["run"] is None
    assert rows["best"]["change"] == counts["best"] and rows["long"]["change"] == rows["long"]["whatif"] < 0
    for column in ("run", "run_expected", "whatif"):  # dropped rows are negative
        numbers = found.funnel[column].drop_null().to_pylist()
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1]) and all(n <= 0 for n in numbers[1:-1])
    assert found.sources["whatif"].to_pylist() == pytest.approx([found.expected])
    assert found.sources["run"].to_pylist() == [counts["kept"]] and found.expected == rows["kept"]["whatif"]
    assert rows["kept"]["error"] == rows["balance"]["error"] == found.error and rows["words"]["error"] == 0
    assert facts(found, "run")["t"] == 40
    schemas = {"funnel": FUNNEL, "facts": FACTS, "sources": SOURCES, "languages": LANGUAGES}
    assert {name: getattr(found, name).schema for name in schemas} == schemas


def test_chance_is_no_change(text_run):
    """The rows that a run drew differ from their expectation; unchanged rows are compared with the expectation."""
    url = str(text_run.folder)
    for override, is_same in (
        ("rules.words=words >= 3", True), ("rules.more=words > 0", True), ("rules.words=words > 3", False),
        ("balance.t=39", False), ("balance=null", False),
    ):  # fmt: skip
        found = whatif(url, [override])
        assert found.is_same == is_same, override
        changes = [*funnel(found, "change").values(), *found.sources["change"].to_pylist()]
        assert any(changes) != is_same, override
    same = whatif(url, [])
    counts, expected = text_run.run["counts"], funnel(same, "run_expected")
    assert same.is_same and expected == funnel(same) and expected["kept"] != counts["kept"]
    drawn = ("kept", "balance", "pool")
    assert {n: v for n, v in expected.items() if n not in drawn} == {n: v for n, v in counts.items() if n not in drawn}
    assert funnel(whatif(url, ["balance=null"]), "change")["kept"] == same.facts["run"][1].as_py() - same.expected


def test_gained_and_lost_entries(text_run):
    rows = naive.read_rows(text_run.folder)
    before = naive.decide(rows, RULES, ["uid"], t=40).counts
    for case in ("a threshold", "looser", "all rules removed"):
        overrides, rules, *_ = TEXT_CASES[case]
        after = naive.decide(rows, rules, ["uid"], t=40).counts
        found = facts(whatif(str(text_run.folder), overrides))
        gained_and_lost = len(after.keys() - before), len(before.keys() - after)
        assert (found["entries_gained"], found["entries_lost"]) == gained_and_lost


# ---- against reruns

CHANGES = [
    ("text_run", ["balance.rows=300"]), ("text_run", ["rules.best.top=0.3", "balance.t=15"]),
    ("text_run", ["rules.side=null", "dedup.prefer=width", "rules.long=characters % 2 = 0"]),
    ("image_run", ["rules.words=words > 3", "dedup.by=[uid, phash]", "balance.t=3"]),
    ("image_run", ["rules.words=words > 0", "dedup.by=[{phash: {distance: 12}}, sha256]", "dedup.prefer=bytes"]),
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(("run", "overrides"), CHANGES)
def test_a_rerun_agrees(run, overrides, request, tmp_path):
    agrees(request.getfixturevalue(run), overrides, tmp_path)


def agrees(run, overrides, out):
    """Rows that are not drawn are equal; drawn ones are within 4 standard errors, for each seed and on average."""
    found = whatif(str(run.folder), overrides)
    verdicts, drawn = funnel(found), []
    for seed in range(3):
        changed = change_recipe(recipe_of(run), [*overrides, f"seed={seed}"])
        again = kit.run_local(changed, out / str(seed), reuse=run.folder)
        counts = again.run["counts"]
        assert {name: n for name, n in counts.items() if name not in ("kept", "balance")} == {
            name: n for name, n in verdicts.items() if name not in ("kept", "balance", "pool")
        }
        assert again.run["t"] == found.t
        assert abs(counts["kept"] - found.expected) <= 4 * found.error + 1e-6
        drawn.append(counts["kept"])
        same = whatif(str(again.folder), [])
        assert (same.expected, same.error, same.t) == (found.expected, found.error, found.t)
    assert abs(sum(drawn) / len(drawn) - found.expected) <= 4 * found.error / len(drawn) ** 0.5 + 1e-6
    assert found.error == 0 or len(set(drawn)) > 1


@pytest.mark.thorough
def test_near_duplicates_are_found_again(tmp_path):
    """Chains depend on the rows left: without a link in the middle, the ends are no group."""
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(60), 3)
    near = {"by": ["uid", {"phash": {"distance": 16}}]}
    asked = kit.recipe_of(path, measure={"image": {"phash": True}}, rules={"words": "words > 1"}, dedup=near)
    run = kit.run_local(asked, tmp_path / "run")

    def check(overrides):
        again = kit.run_local(change_recipe(asked, overrides), tmp_path / f"again {overrides}", reuse=run.folder)
        found = whatif(str(run.folder), overrides)
        assert funnel(found)["duplicate"] == again.counts["duplicate"] and found.error == 0
        assert found.expected == again.counts["kept"]
        return again.counts["duplicate"]

    for overrides in (["rules.words=words > 5"], ["rules.words=null"], ["dedup.by=[uid, {phash: {distance: 10}}]"]):
        check(overrides)
    lost = run.table("decisions").filter(pc.equal(run.table("decisions")["rule"], "duplicate"))["uid"].to_pylist()
    forget(str(run.folder), Items.of({"uid": map(bytes.fromhex, lost[::5])}))
    assert check([]) != run.counts["duplicate"] + run.counts["forgotten"]


@pytest.mark.thorough
def test_near_duplicates_by_embeddings(tmp_path):
    path = embedded.write_pool(tmp_path / "pool", 3, *embedded.make_embeddings(80, 4))
    near = {"by": [{"embedding": {"cosine": 0.95, "of": "l14"}}]}
    asked = parse_recipe(embedded.recipe_of(path, {}, dedup=near))
    run = kit.run_local(asked, tmp_path / "run")
    for override in (
        "rules.even=NOT regexp_matches(url, '[13579].jpg')",
        "dedup.by=[{embedding: {cosine: 0.9, of: l14}}]",
    ):
        again = kit.run_local(change_recipe(asked, [override]), tmp_path / override, reuse=run.folder)
        assert funnel(whatif(str(run.folder), [override]))["duplicate"] == again.run["counts"]["duplicate"] > 0
    assert not (run.folder / "tmp").exists()


# ---- kinds of runs


def test_a_run_without_entries(plain_run):
    found = whatif(str(plain_run.folder), ["rules.words=words > 3"])
    expected = naive.decide(naive.read_rows(plain_run.folder), {"words": words(3)}, ["uid"])
    assert (found.expected, found.error, found.t) == (len(expected.survivors), 0, None)
    assert list(funnel(found)) == ["pool", "failed", "words", "duplicate", "kept"]
    assert facts(found) == {"t": None, "survivors": len(expected.survivors)}
    with pytest.raises(RecipeError, match="balance needs `match`"):
        whatif(str(plain_run.folder), ["balance.t=5"])


def test_languages_and_sources(tmp_path):
    table = kit.make_rows(300)
    languages = pa.array(["en", "de", "en", None], pa.string()).take(pa.array([i % 4 for i in range(len(table))]))
    table = table.append_column("language", languages)
    sources = [
        {"name": name, "format": "parquet", "path": kit.write_parquets(tmp_path / name, rows, 1, 50)}
        for name, rows in (("one", table.slice(0, 100)), ("two", table.slice(100)))
    ]
    match, rules = {"metadata": kit.write_metadata(tmp_path)}, {"words": "words > 2"}
    recipe = parse_recipe({"input": sources, "max_failed": 1.0, "match": match, "balance": {"t": 9}, "rules": rules})
    run = kit.run_local(recipe, tmp_path / "run")
    rows = naive.read_rows(run.folder)
    found = whatif(str(run.folder), ["rules.words=words > 3", "balance.t=5"])
    expected = naive.decide(rows, {"words": words(3)}, ["uid"], t=5)
    was = naive.decide(rows, {"words": words(2)}, ["uid"], t=9)
    kept = {row["uid"] for row in run.table("decisions").to_pylist() if row["kept"]}
    for column, part in (("source", found.sources), ("language", found.languages)):
        by_part = {row[column]: row for row in part.to_pylist()}
        assert by_part.keys() == {row[column] for row in rows}
        for name, row in by_part.items():
            assert row["pool"] == sum(own[column] == name for own in rows)
            assert row["whatif"] == pytest.approx(float(expected.by(column).get(name, 0)))
            assert row["run_expected"] == pytest.approx(float(was.by(column).get(name, 0)))
            assert row["change"] == pytest.approx(row["whatif"] - row["run_expected"])
        assert sum(part["run"].to_pylist()) == len(kept)
    assert found.languages["language"].to_pylist()[0] == "en"


@pytest.mark.thorough
def test_the_evaluation_set(tmp_path):
    """Rows that the run compared keep their verdicts; an answer about other rows is refused."""
    samples = kit.make_samples(60)
    path = kit.write_tars(tmp_path / "pool", samples, 3)
    (tmp_path / "evaluation").mkdir()
    for i in (1, 2, 3, 4):
        (tmp_path / "evaluation" / f"{i}.jpg").write_bytes(samples[i].image or b"")
    against = {"images": f"{tmp_path}/evaluation/*", "phash": {"distance": 2}}
    dedup = {"by": ["sha256"], "against": against}
    asked = kit.recipe_of(path, measure={"image": {"phash": True}}, rules={"words": "words > 3"}, dedup=dedup)
    run = kit.run_local(asked, tmp_path / "run")
    assert run.counts["contaminated"] > 0
    for overrides in (["rules.words=words > 5"], ["dedup.by=[phash]"], ["dedup.against=null", "rules.words=null"]):
        again = kit.run_local(change_recipe(asked, overrides), tmp_path / overrides[0], reuse=run.folder)
        assert {"pool": 0, **again.run["counts"]} == {**funnel(whatif(str(run.folder), overrides)), "pool": 0}
    with pytest.raises(RecipeError, match=r"\d+ rows would reach dedup.against. The run did not compare"):
        whatif(str(run.folder), ["rules.words=words > 2"])
    with pytest.raises(RecipeError, match="accepted: the run's own value, or"):
        whatif(str(run.folder), ["dedup.against.phash.distance=5"])


def change_decisions(folder, change):
    """Change the decisions of each unit; `change` gets its rows."""
    for file in sorted((folder / "tables/decisions").glob("*.parquet")):
        rows = pq.read_table(file).to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)


def test_forgotten_rows_stay_out(text_run, tmp_path):
    folder = Path(shutil.copytree(text_run.folder, tmp_path / "run"))
    forgotten = {"kept": False, "rule": "forgotten", "duplicate_of": None, "probability": 0.0, "draw": None}
    recorded = set()  # rows left before the draw

    def change(rows):
        for row in rows[::3]:
            row.update(forgotten)
        recorded.update((row["unit"], row["row"]) for row in rows if row["rule"] in (None, "balance"))

    change_decisions(folder, change)
    pool = naive.read_rows(folder)
    gone, left = sum(row["row"] % 3 == 0 for row in pool), [row for row in pool if row["row"] % 3]
    as_recorded = [row for row in left if (row["unit"], row["row"]) in recorded]  # duplicates of forgotten rows too
    for overrides, expected in (
        (["balance.t=10"], naive.decide(as_recorded, {}, [], t=10)),
        (["rules=null"], naive.decide(left, {}, ["uid"], t=40)),
        (["rules=null", "dedup.prefer=width"], naive.decide(left, {}, ["uid"], "width", 40)),
    ):
        found = whatif(str(folder), overrides)
        verdicts = funnel(found)
        assert verdicts["forgotten"] == funnel(found, "run")["forgotten"] == gone
        assert sum(verdicts.values()) == pytest.approx(2 * len(pool))
        assert found.expected == pytest.approx(float(expected.rows), abs=1e-6)
        assert "rules=null" not in overrides or verdicts["duplicate"] == expected.verdicts["duplicate"]


@pytest.mark.thorough
def test_fractions_are_of_the_rows_that_are_not_forgotten(text_run, tmp_path):
    folder = Path(shutil.copytree(text_run.folder, tmp_path / "run"))
    decisions = text_run.table("decisions", ["uid", "kept"])
    kept = decisions["uid"].filter(decisions["kept"]).to_pylist()
    forget(str(folder), Items.of({"uid": map(bytes.fromhex, kept[::2])}))
    agrees(Ran(folder), ["balance.t=7"], tmp_path)


# ---- what is refused


REFUSED = [
    ("measure.language={}", ["--set measure.language={}", "cannot be changed without a run", "accepted: balance.t"]),
    ("match.mode=reference", ["match cannot be changed"]), ("input.0.path=x", ["input cannot be changed"]),
    ("output.rows_per_shard=5", ["output cannot be changed"]), ("max_failed=1", ["max_failed cannot be changed"]),
    ("captions=null", ["captions cannot be changed"]), ("seed=4", ["a seed changes which rows are drawn"]),
    ("balanse.t=4", ["'balanse'", "did you mean 'balance'?"]), ("balance.tt=4", ["balance.tt", "did you mean"]),
    ("balance.t=0", ["balance.t", "found 0"]), ("balance.t", ["write key=value"]),
    ("rules.nope=null", ["no rule 'nope' to remove", "words, best, side"]),
    ("rules.english=language = 'en'", ["rules.english: no column 'language'", "measure: {language: {}}", "columns:"]),
    ("rules.sharp=aesthetic > 5", ["no column 'aesthetic'", "clip_score", "measure: {heads: {aesthetic: {path:"]),
    ("rules.safe=NSFW < 1", ["no column 'NSFW'", "to get NSFW, add measure: {nsfw: {}}"]),
    ("rules.best={top: 0.5, of: sharpness}", ["rules.best: no column 'sharpness'"]),
    ("rules.best.top=1.5", ["rules.best.top", "less than or equal to 1"]),
    ("rules.x=words > 2; COPY samples TO '/tmp/stolen'", ["is not a SQL expression"]),
    ("rules.x=words > (SELECT 1)", ["a subquery is not accepted"]),
    ("rules.x=words IN (SELECT 1 FROM read_csv('/etc/passwd'))", ["a subquery is not accepted"]),
    ("rules.x=count(*) > 1", ["is an aggregate"]), ("rules.x=random() < 0.5", ["must be deterministic"]),
    ("rules.x=words", ["is of type INTEGER"]), ("rules.x=true) OR (SELECT 1", ["rules.x"]),
    ("rules.kept=words > 2", ["reserved"]), ("dedup.by=[sha256]", ["sha256 needs images"]),
    ("dedup.by=[phash]", ["dedup by phash needs measure"]), ("dedup.by=[nothing]", ["dedup.by"]),
    ("dedup.prefer=caption", ["dedup.prefer: column 'caption' is string; accepted: numbers"]),
    ("dedup.prefer=sharpness", ["dedup.prefer: no column 'sharpness'"]),
]  # fmt: skip


@pytest.mark.parametrize(("override", "parts"), REFUSED, ids=[override for override, _ in REFUSED])
def test_refusals(text_run, override, parts):
    with pytest.raises(RecipeError) as refused:
        whatif(str(text_run.folder), [override])
    assert not [part for part in parts if part not in str(refused.value)], refused.value


def test_runs_without_an_answer(tmp_path, text_run):
    with pytest.raises(RunError, match="even t = 1"):
        whatif(str(text_run.folder), ["balance.rows=2"])
    with pytest.raises(RecipeError, match="no such folder"):
        whatif(str(tmp_path / "nothing"), [])
    folder = Path(shutil.copytree(text_run.folder, tmp_path / "run"))
    change_decisions(folder, lambda rows: rows[0].update(rule="strange"))
    with pytest.raises(RunError, match="contains rules that the run's recipe does not have"):
        whatif(str(folder), [])
    (folder / "_SUCCESS").unlink()
    with pytest.raises(RunError, match="not finished"):
        whatif(str(folder), [])


def test_nothing_is_written(text_run):
    before = kit.files_of(text_run.folder)
    whatif(str(text_run.folder), ["rules.words=words > 3"])
    assert kit.files_of(text_run.folder) == before
