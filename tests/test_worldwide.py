"""The recipe `metaclip-worldwide` follows a plain definition: three languages and `other`, with two texts for each image."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base import schema
from curate.recipe.recipe import load_recipe
from tests.kit import Sample, encode, picture, run_local, write_tars

pytestmark = pytest.mark.thorough

RECIPE = Path(__file__).parents[1] / "pipelines/recipes/metaclip_worldwide.yaml"
TEXTS = {
    "de": "Das ist ein schönes Foto von {} an einem sonnigen Nachmittag im Garten",
    "ja": "これは庭にいる{}の美しい写真です。今日はとても良い天気でした",
    "en": "This is a beautiful photograph of {} on a sunny afternoon in the garden",
    "sw": "Hii ni picha nzuri ya {} wakati wa mchana kwenye bustani ya nyumbani",
}
THINGS = {
    "de": ["einem Hund", "der Katze", "Kühen", "Vögeln"],
    "ja": ["犬", "猫", "アメリカの車", "鳥"],
    "en": ["a dog", "the cat", "cows", "birds"],
    "sw": ["mbwa", "paka", "ng'ombe", "ndege"],
}
ENTRIES = {
    "de": ["Foto", "Hund", "Katze", "Kühen", "dog"],
    "ja": ["写真", "犬", "猫", "アメリカ"],
    "en": ["photograph", "dog", "cat", "cows", "Hund"],
    "other": ["picha", "mbwa", "paka", "dog"],
}
KEYS = {"de": "de", "ja": "ja", "en": "en", "sw": "other"}
IMAGES, T = 60, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worldwide")
    rng, samples = np.random.default_rng(0), []
    for n in range(IMAGES):
        image = encode(picture(n, 96))
        for place, language in enumerate(rng.permutation(list(TEXTS))[:2]):
            thing = THINGS[language][min(3, rng.geometric(0.5) - 1)]
            samples.append(Sample(f"{n:04}{place}", image, TEXTS[language].format(thing), url=f"https://h.example/{n}"))
    write_tars(folder / "pool", samples, 4)
    rows = [(entry, language) for language, entries in ENTRIES.items() for entry in entries]
    entries, languages = zip(*rows, strict=True)
    columns = [range(len(rows)), entries, ["test"] * len(rows), languages]
    table = pa.table([pa.array(list(column)) for column in columns], names=schema.METADATA.names).cast(schema.METADATA)
    pq.write_table(table, folder / "metadata.parquet")
    (folder / "recipe.yaml").write_text(RECIPE.read_text())
    return folder


def test_what_is_kept(folder, tmp_path):
    recipe = load_recipe(str(folder / "recipe.yaml"), [f"balance.t={T}"])
    ran = run_local(recipe, tmp_path / "run")
    samples, decisions, matches = (ran.table(name) for name in ("samples", "decisions", "matches"))
    captions, rules = samples["caption"].to_pylist(), decisions["rule"].to_pylist()
    of_text = {text: language for language in TEXTS for text in map(TEXTS[language].format, THINGS[language])}
    languages = [KEYS[of_text[caption]] for caption in captions]
    assert matches["language_key"].to_pylist() == languages
    names = [(entry, language) for language, entries in ENTRIES.items() for entry in entries]
    matched = [[names[i] for i in row] for row in matches["entry_ids"].to_pylist()]
    spaced = {"ja": "{}", **dict.fromkeys(("de", "en", "other"), " {} ")}
    expected = [
        [(e, key) for e in ENTRIES[key] if spaced[key].format(e) in (text if key == "ja" else f" {text} ")]
        for text, key in zip(captions, languages, strict=True)
    ]
    assert matched == expected
    safe = [rule != "safe" for rule in rules]
    counts = Counter(entry for row, is_safe in zip(matched, safe, strict=True) if is_safe for entry in row)
    ts = limits(counts)
    assert len({*ts.values()}) > 2
    table = Run(tmp_path / "run").sql("language_balance").to_pylist()
    assert {row["language"]: row["t"] for row in table} == ts
    images = defaultdict(list)
    for row, sha256 in enumerate(samples["sha256"].to_pylist()):
        if safe[row] and matched[row]:
            images[sha256].append(row)
    drawable = {row for rows in images.values() for row in rows if rules[row] != "other_text"}
    assert len(drawable) == len(images)
    for row in drawable:
        p = [min(1, ts[entry[1]] / counts[entry]) for entry in matched[row]]
        pi = (1 - np.prod([1 - one for one in p])) / len(images[samples["sha256"][row].as_py()])
        assert decisions["probability"][row].as_py() == pytest.approx(pi)
    kept = sum(decisions["kept"].to_pylist())
    assert 10 < kept < len(drawable)


def limits(counts):
    """The t of each language, by the definition: the count whose cumulative share is nearest to English's share of its tail."""
    of = {key: sorted(n for (_, language), n in counts.items() if language == key) for key in ENTRIES}
    share = sum(n for n in of["en"] if n < T) / sum(of["en"])
    ts = {"en": T}
    for key in ("de", "ja", "other"):
        shares = np.cumsum(of[key]) / sum(of[key])
        ts[key] = of[key][int(np.argmin(np.abs(shares - share)))]
    return ts
