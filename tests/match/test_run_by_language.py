"""A run that matches by language: its matches, keys, counts, rules, and queries follow the naive matcher."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base.errors import RecipeError
from curate.match.languages import keys_of
from pipelines.prepare import prepare
from tests import kit
from tests.match.by_language import oracle

ROWS = [
    *[("en", "a dog in the house"), ("de-AT", "ein Hund im Haus"), ("ja", "南アメリカ人の犬"), ("zh-Hant", "一只狗。")],
    *[("th", "สุนัขในบ้าน"), ("gan", "狗"), (None, "dog"), ("de", "a dog"), ("en", "ein Hund"), ("jpn", "犬！")],
] * 6
ENTRIES = [
    ("dog", "en"), ("house", "en"), ("Hund", "de"), ("dog", "de"), ("Haus", "de"), ("犬", "ja"), ("アメリカ", "ja"),
]  # fmt: skip
ENTRIES += [("狗", "zh"), ("สุนัข", "th"), ("狗", "other"), ("dog", "other"), ("Haus", "de")]


def recipe_parts(folder):
    names = ["entry", "language"]
    metadata = pa.table(dict(zip(names, map(list, zip(*ENTRIES, strict=True)), strict=True)))
    metadata = metadata.append_column("entry_id", pa.array(range(len(ENTRIES)), pa.int32()))
    pq.write_table(metadata.append_column("source", pa.array(["s"] * len(ENTRIES))), folder / "metadata.parquet")
    captions = [f"{caption} {i}" for i, (_, caption) in enumerate(ROWS)]
    columns = {"url": [f"https://a.example/{i}" for i in range(len(ROWS))], "caption": captions}
    pq.write_table(pa.table(columns | {"lang": [code for code, _ in ROWS]}), folder / "pool.parquet")
    return str(folder / "pool.parquet"), str(folder / "metadata.parquet")


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["worldwide", "corrected"])
def test_run(tmp_path, mode):
    pool, metadata = recipe_parts(tmp_path)
    sections = {"source": {"columns": {"language": "lang"}}, "match": {"metadata": metadata, "mode": mode}}
    recipe = kit.recipe_of(pool, "parquet", rules={"not_thai": "language_key <> 'th'"}, balance={"t": 4}, **sections)
    ran = kit.run_beam(recipe, tmp_path / "run")
    run = Run(str(ran.folder))
    rows = run.sql("SELECT * FROM measured JOIN matches USING (unit, row, language_key) ORDER BY row").to_pylist()
    entries, keys = zip(*ENTRIES[:-1], strict=True)  # the last one is there already
    codes = [row["language"] for row in rows]
    assert [row["language_key"] for row in rows] == keys_of(pa.array(codes), keys).to_pylist()
    expected = oracle(entries, keys, [row["caption"] for row in rows], codes, mode)
    assert [row["entry_ids"] for row in rows] == expected
    assert (expected[2] == [5, 6]) == (mode == "corrected")  # アメリカ is within other characters
    pool_counts = Counter(entry for row in expected for entry in row)
    listed = {row["entry_id"]: row for row in run.sql("SELECT * FROM entries").to_pylist()}
    assert [(row["entry"], row["language"]) for row in listed.values()] == ENTRIES[:-1]
    assert {entry: row["pool"] for entry, row in listed.items()} == {entry: pool_counts[entry] for entry in range(11)}
    dropped = Counter(run.sql("SELECT rule FROM decisions").column("rule").to_pylist())
    assert dropped["not_thai"] == 6 and dropped["unmatched"] == sum(not row for row in expected)
    dogs = run.sql("entry_samples", entry="dog", limit=1000).num_rows
    assert dogs == sum(pool_counts[entry] for entry in (0, 3, 10))
    assert run.sql("entry_samples", entry="dog", language="de", limit=1000).num_rows == pool_counts[3]
    assert run.sql("entry_funnel", entry="dog", language="de")["rows"].to_pylist()[0] == pool_counts[3]


def test_a_recipe_without_languages_is_refused_and_the_reference_keeps_each_entry_once(tmp_path):
    pool, metadata = recipe_parts(tmp_path)
    with pytest.raises(RecipeError, match=r"match\.mode: worldwide .* by their languages.*measure: \{language: \{\}\}"):
        prepare(kit.recipe_of(pool, "parquet", match={"metadata": metadata, "mode": "worldwide"}), str(tmp_path / "x"))
    reference = prepare(kit.recipe_of(pool, "parquet", match={"metadata": metadata}), str(tmp_path / "run"))
    assert reference.metadata is not None and reference.metadata["entry"].to_pylist().count("dog") == 1
