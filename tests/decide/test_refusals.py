"""Recipes that are refused for derived columns, rules, duplicates, and selections: sections → parts of the message."""

import re

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import RecipeError
from pipelines.prepare import prepare
from tests import kit
from tests.kit import languages

TOP, SOFT = {"top": 0.5, "of": "clip_score"}, {"of": "clip_score", "draws": 10, "batch": 5}
COMPLEX = {"of": "cluster", "rows": 3, "by": "complexity"}
FORMS = "accepted: {rows: …} or {weights: …, rows: …}"


def derive(sql, **others):
    return {"derive": {"x": sql, **others}}


def sample(**section):
    return {"sample": section}


def mixture(of="words", **shares):
    return {"sample": {"mixture": {"of": of, "rows": 3, "shares": shares}}}


def balance(**section):
    return {"balance": section}


def by_language(**section):
    return {"balance": {"scheme": "per_language"} | section, "match": {"metadata": "entries.parquet"}}


CASES = [
    (derive("1", words="2"), "derive.words: a column words already exists"),
    (derive("1", kept="2"), "derive.kept: a column kept already exists"),
    (derive("c"), "derive.x: no column 'c'"), (derive("y", y="words"), "derive.x: no column 'y'"),
    (derive("zscore(words, 1)"), "zscore() takes one argument"),
    (derive("zscore(minmax(words))"), "zscore() takes one argument, which must not contain zscore, minmax, quantile"),
    (derive("zscore(caption)"), "zscore() needs a number; caption is VARCHAR"),
    (derive("avg(words)"), "avg() is an aggregate"), (derive("words +"), "is not a SQL expression"),
    (derive("[words]"), "is of type INTEGER[]; accepted: numbers, text, and booleans"),
    (derive("random()"), "deterministic"),

    ({"rules": {"a": "dedup", "b": "dedup"}}, "rules: a and b are dedup, which may appear only once"),
    ({"rules": {"best": TOP | {"by": "clip_score"}}}, "by needs a column of text, integers, or booleans", "is float"),
    ({"rules": {"best": TOP | {"by": "word"}}}, "rules.best: no column 'word'; did you mean 'words'"),
    ({"dedup": {"by": ["hots"]}}, "dedup.by.0: no deduplication key is named 'hots'", "accepted: uid, sha256, phash"),
    ({"dedup": {"by": [{"phsh": {}}]}}, "did you mean 'phash'"),

    (sample(), "sample: has no key", FORMS), (sample(weights="words"), "sample: has weights", FORMS),
    (sample(weights="caption", rows=3), "sample.weights: 'caption' is of type VARCHAR; accepted: a number"),
    (sample(weights="sum(words)", rows=3), "sample.weights: 'sum(words)': sum() is an aggregate"),
    (sample(weights="wrods", rows=3), "no column 'wrods'; did you mean 'words'"),
    (sample(rows=1, **mixture(a=1)["sample"]), "sample: has mixture, rows; accepted"),
    (mixture("clip_score", a=1), "sample.mixture.of: column 'clip_score' is float; accepted"),
    (mixture("word", a=1), "sample.mixture.of: no column 'word'; did you mean 'words'"),
    (mixture(), "sample.mixture.shares: "), (mixture(a=0), "sample.mixture.shares.a: ", "greater than 0"),
    (mixture(a=float("inf")), "sample.mixture.shares.a: ", "finite number"),
    (sample(quotas=COMPLEX | {"centroids": "zeros.npy"}), "centroids: ", "has only zeros in row 4; accepted"),
    (sample(quotas=COMPLEX | {"centroids": "flat.npy"}), "centroids: ", "is float64 [5]; accepted"),
    (sample(quotas=COMPLEX | {"centroids": "no.npy"}), "sample.quotas.centroids: ", "No such"),
    (sample(quotas=COMPLEX), "needs the centroids of 'cluster'; accepted: "),
    (sample(quotas=COMPLEX | {"by": "sizes"}), "sample.quotas.by: ", "'equal', 'size' or 'complexity'"),
    (sample(quotas={"of": "words", "rows": 3, "keep": "farthest"}), "quotas.distance: no column 'words_distance'"),
    (sample(soft_cap=SOFT) | {"output": {"repeat": "2"}}, "output.repeat and sample both repeat rows"),
    (sample(soft_cap=SOFT | {"penalty": float("inf")}), "sample.soft_cap.penalty: Input should be a finite number"),
    (sample(soft_cap=SOFT | {"of": "caption"}), "sample.soft_cap.of: column 'caption' is string; accepted: numbers"),

    (by_language(t=5) | sample(rows=3), "balance and sample both draw rows"),
    (balance(t=3), "balance needs `match`", "balance.of: COLUMN"),
    (balance(of="note", t=3, counts="run1"), "balance: `counts` are for metadata entries"),
    (balance(of="tags", t=3), "balance.of: no column 'tags'; columns: ", ", note, "),
    (by_language(t=2, scheme="metclip"), "balance.scheme: no balancing scheme is named 'metclip'", "'metaclip'"),
    (by_language(), "give exactly one of t, rows, and tail_share"),
    (by_language(t=3, of="cluster"), "`per_language` needs metadata entries"),
    (by_language(t={"de": 3}), "balance.t: found numbers for de; accepted: one number; with", "one for en"),
    (by_language(t={"en": 3}, scheme="metaclip"), "balance.t: found numbers for en; accepted: ", "with scheme: per_language"),
    (by_language(t=3, language="de", scheme="metaclip"), "balance.language: is only used with scheme: per_language"),
    (by_language(t={"en": 0}), "balance.t.en: ", "greater than or equal to 1"),
    (by_language(t=3, language="fr"), "balance.language: the metadata has no entries in language 'fr'; its languages: en, de"),
    (by_language(t={"en": 3, "jp": 2}), "balance.t: the metadata has no entries in language 'jp'; its languages: en, de"),
    (by_language(t=3, one_per="image"), "balance.one_per: image needs images, but the pool has none; accepted: url"),
    (by_language(t=3, one_per="uid"), "balance.one_per: ", "'url' or 'image'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("refusals"), kit.make_rows(30)
    for name, kind in (("cluster", pa.int32()), ("cluster_distance", pa.float32())):
        rows = rows.append_column(name, pa.array([n % 5 for n in range(len(rows))], kind))
    kit.write_parquets(folder / "pool", rows, 1)
    languages.write_entries(folder)
    np.save(folder / "zeros.npy", np.eye(5, 4))
    np.save(folder / "flat.npy", np.ones(5))
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\W+", " ", str(case[0])).strip())
def test_what_is_refused(case, folder, monkeypatch):
    sections, *parts = case
    monkeypatch.chdir(folder)
    with pytest.raises(RecipeError) as error:
        prepare(kit.recipe_of("pool/*.parquet", "parquet", source={"columns": {"language": "note"}}, **sections), "run")
    assert not [part for part in parts if part not in str(error.value)], error.value
