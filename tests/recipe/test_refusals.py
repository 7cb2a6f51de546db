"""What each section of a recipe refuses: messages name the key, the value, and what is accepted."""

import pytest

from curate.base.errors import RecipeError
from curate.base.stages import RESERVED_RULES
from curate.recipe.recipe import Recipe, parse_recipe
from curate.recipe.strict_yaml import load_yaml

SOURCE = "{name: a, format: parquet, path: x"
# By section: a fragment of a recipe, the key that the message starts with, and parts of it. `@` stands for a source
# without its end, `_` for two engines, llm and api.
REFUSED = {
    "top level": [
        ("seeed: 1", "seeed", "did you mean 'seed'?"), ("outptu: {}", "outptu", "did you mean 'output'?"),
        ("zzzz: 1", "zzzz", f"; known keys: {', '.join(Recipe.model_fields)}"), ("name: 5", "name", "string", "5"),
        ("name: a b", "name", "a b"), ("seed: -1", "seed", "-1", "0"),
        ("seed: 9223372036854775808", "seed", "9223372036854775808"), ("seed: true", "seed", "integer", "True"),
        ("max_failed: 1.5", "max_failed", "less than or equal to 1", "1.5"),
        ("max_failed: -0.1", "max_failed", "greater than or equal to 0"),
        ("max_failed_files: many", "max_failed_files", "number", "many"),
        ("derive: {order: words + 1}", "derive.order.[key]", "reserved word of SQL"),
        ("derive: {both: words}", "derive.both.[key]", "reserved word of SQL"),
    ],
    "input": [
        ("input: []", "input", "at least 1"), ("input: null", "input", "list", "None"),
        ("input: [@}, @}]", "recipe", "input", "'a'"),
        ("input: {name: a, format: csv, path: x}", "input.0.format", "webdataset", "parquet", "csv"),
        ("input: {name: a, path: x}", "input.0.format", "missing"),
        ("input: {name: a, format: urls, path: x}", "input.0.network", "missing; accepted: such as {'contact': "),
        ("input: {name: a, format: parquet, path: 5}", "input.0.path", "string", "list", "5"),
        ("input: {name: a, format: parquet, path: ''}", "input.0.path", "names no file"),
        ("input: {name: a, format: parquet, path: [x, '']}", "input.0.path", "names no file"),
        ("input: @, columns: {scores: s}}", "input.0.columns.scores", "list", "'s'"),
        ("input: @, storage: 5}", "input.0.storage", "mapping", "5"),
        ("input: @, paht: x}", "input.0.paht", "did you mean 'path'?"),
        ("input: [@}, {name: b, format: parquet, path: x, colums: {}}]", "input.1.colums", "did you mean 'columns'?"),
        ("input: @, columns: {captoin: x}}", "input.0.columns.captoin", "did you mean 'caption'?"),
        ("input: @, join: {path: y, on: uid, columns: {Group: z}}}", "input.0.join.0.columns.Group.[key]",
          "reserved word of SQL"),
    ],
    "measure": [
        ("measure: 5", "measure", "mapping", "5"), ("measure: {lang: {}}", "measure.lang", "did you mean 'language'?"),
        ("measure: {image: {decode: 'yes'}}", "measure.image.decode", "boolean", "'yes'"),
        ("measure: {image: {phas: true}}", "measure.image.phas", "did you mean 'phash'?"),
        ("measure: {language: {zzzz: x}}", "measure.language.zzzz", "unknown key; known keys: text, model, short"),
        # names that the recipe gives, which are also names of sections
        ("measure: {heads: {image: {pat: x}}}", "measure.heads.image.pat", "did you mean 'path'?"),
        ("measure: {contexts: {output: {valuse: {}}}}", "measure.contexts.output.valuse", "did you mean 'values'?"),
        ("measure: {clusters: {clip: {select: x}}}", "measure.clusters.clip.select", "did you mean 'selected'?"),
    ],
    "match": [
        ("match: {}", "match.metadata", "missing"), ("match: {metadata: 5}", "match.metadata", "string", "5"),
        ("match: {metadata: m, mode: fuzzy}", "match.mode", "reference", "fuzzy"),
        ("match: {metadata: m, mod: x}", "match.mod", "did you mean 'mode'?"),
    ],
    "rules": [
        ("rules: [words > 2]", "rules", "mapping", "words > 2"),
        ("rules: {x: 5}", "rules", "x is 5", "SQL expression", "top"),
        ("rules: {x: null}", "rules", "x is None", "SQL expression"),
        ("rules: {x: {top: 0.2}}", "rules.x.of", "missing"),
        ("rules: {x: {top: 0, of: s}}", "rules.x.top", "greater than 0"),
        ("rules: {x: {top: 1.5, of: s}}", "rules.x.top", "less than or equal to 1", "1.5"),
        ("rules: {x: {rows: 0, of: s}}", "rules.x.rows", "greater than or equal to 1", "0"),
        ("rules: {x: {top: 0.1, rows: 5, of: s}}", "rules.x", "either top (a fraction) or rows"),
        ("rules: {x: {of: s}}", "rules.x", "either top (a fraction) or rows"),
        ("rules: {x: {top: 0.1, of: s, over: all}}", "rules.x.over", "'reached', 'pool' or 'budget'", "all"),
        ("rules: {x: {top: half, of: s}}", "rules.x.top", "number", "half"),
        ("rules: {a b: 'true'}", "rules", "'a b'", "letters"),
        ("rules: {'a\"b': 'true'}", "rules", "letters"), ('rules: {"a\\n": "true"}', "rules", "letters"),
        ("rules: {best: {topp: 0.2, of: s}}", "rules.best.topp", "did you mean 'top'?"),
        ("rules: {image: {topp: 0.2, of: s}}", "rules.image.topp", "did you mean 'top'?"),
        *((f"rules: {{{name}: words > 2}}", "rules", repr(name), "reserved") for name in RESERVED_RULES),
    ],
    "dedup": [
        ("dedup: {by: sha256}", "dedup.by", "list", "sha256"),
        ("dedup: {by: [md5]}", "dedup.by.0", "uid", "sha256", "phash", "md5"),
        ("dedup: {by: [phash]}", "recipe", "phash", "measure: {image: {phash: true}}"),
        ("dedup: {prefre: s}", "dedup.prefre", "did you mean 'prefer'?"),
        ("dedup: {by: [{phash: {distance: 0}}]}", "dedup.by.0.phash.distance", "greater than or equal to 1"),
        ("dedup: {by: [{embedding: {cosine: 1.5}}]}", "dedup.by.0.embedding.cosine", "less than 1", "1.5"),
        ("dedup: {by: [{phash: {distance: 4}, embedding: {cosine: 0.9}}]}", "dedup.by.0", "give either phash or"),
        ("dedup: {by: [{embedding: {cosine: 0.9, of: b}}]}", "recipe", "needs the model 'b'", "embeddings: true"),
        ("dedup: {by: [{phash: {distance: 4}}]}", "recipe", "dedup by phash needs measure"),
    ],
    "balance": [
        ("balance: {t: 5}", "recipe", "balance needs `match`"),
        ("match: {metadata: m}\nbalance: {}", "balance", "exactly one of t, rows, and tail_share"),
        ("match: {metadata: m}\nbalance: {t: 5, rows: 5}", "balance", "exactly one of t, rows, and tail_share"),
        ("match: {metadata: m}\nbalance: {t: 0}", "balance.t", "greater than or equal to 1", "0"),
        ("match: {metadata: m}\nbalance: {row: 3}", "balance.row", "did you mean 'rows'?"),
    ],
    "output": [
        ("output: {rows_per_shard: 0}", "output.rows_per_shard", "1", "0"),
        ("output: {rows_per_shard: 1000001}", "output.rows_per_shard", "1000000", "1000001"),
        ("output: {rows_per_shards: 3}", "output.rows_per_shards", "did you mean 'rows_per_shard'?"),
    ],
    "captions": [
        ("captions: {engines: {gates: {prize: {}}}}", "captions.engines.gates.prize", "did you mean 'price'?"),
        ("captions: {engines: {regions: {vllm: {modle: x}}}}", "captions.engines.regions.vllm.modle",
          "did you mean 'model'?"),
        ("captions: {_, rewrite: [{engine: llm, styles: [human]}, {engine: api, styles: [coco, human]}]}",
          "captions.rewrite.1.styles", "'human' is also written by captions.rewrite.0"),
        ("captions: {_, rewrite: [{engine: llm}, {engine: api}]}", "captions.rewrite.1.styles",
          "'chat_a' is also written by captions.rewrite.0"),
        ("captions: {_, translate: [{engine: llm, languages: [de]}, {engine: llm, languages: [de]}]}",
          "captions.translate.1.languages", "'de' is also written by captions.translate.0"),
        ("captions: {_, rewrite: [{engine: llm, styles: [human]}, {engine: apy, styles: [coco]}]}",
          "captions.rewrite.1.engine", "no engine is named 'apy'; engines: llm, api"),
        ("captions: {_, rewrite: {engine: apy}}", "captions.rewrite.engine", "no engine is named 'apy'"),
        ("captions: {_, rewrite: [{engine: llm, styles: [human]}, {engine: api, styles: [loud]}]}",
          "captions.rewrite.1.styles", "'loud' is not a style; accepted: chat_a, chat_b, human, coco"),
        ("captions: {_, rewrite: {engine: llm, examples: {own_2: own.txt}}}", "captions.rewrite.styles",
          "'own_2' ends in a number"),
        ("captions: {_, rewrite: {engine: llm, styles: [mine], examples: {own: own.txt}}}", "captions.rewrite.styles",
          "'mine' is not a style"),
        ("captions: {_, rewrite: [{engine: llm, styels: [human]}]}", "captions.rewrite.0.styels",
          "did you mean 'styles'?"),
        ("captions: {_, rewrite: [{styles: [human]}]}", "captions.rewrite.0.engine", "is missing"),
        ("captions: {_, rewrite: {engine: llm, per_row: 65}}", "captions.rewrite.per_row",
          "accepted: 1 to 64, or a SQL expression (found 65)"),
        ("captions: {_, rewrite: {engine: llm}, gates: {words: [1]}}", "captions.gates.words.1",
          "required (found [1])"),
        ("captions: {_, rewrite: []}", "captions.rewrite", "at least 1 item"),
        ("captions: {_, rewrite: llm}", "captions.rewrite", "mapping (found 'llm')"),
        ("captions: {_, fuse: [{engine: llm}]}", "captions.fuse", "mapping"),
        ("captions: {_, recaption: [{engine: llm}, {engine: api, styles: [long]}], fuse: {engine: llm, style: plain}}",
          "captions.fuse.style", "'plain' is not among the styles"),
    ],
}  # fmt: skip
ENGINE = "{openai: {base_url: 'http://localhost:1/v1', model: tiny}}"


def refusal(text):
    data = load_yaml(text.replace("@", SOURCE).replace("{_,", f"{{engines: {{llm: {ENGINE}, api: {ENGINE}}},"))
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"input": load_yaml(SOURCE + "}")} | data, "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize("section", REFUSED)
def test_what_a_section_refuses(section):
    for text, key, *parts in REFUSED[section]:
        lines = [line for line in refusal(text).splitlines() if line.startswith(f"r.yaml: {key}: ")]
        assert lines and not [part for part in parts if part not in "\n".join(lines)], (text, refusal(text))


def test_all_errors_are_reported_at_once():
    lines = refusal(
        "{seed: -1, nmae: x, output: {rows_per_shard: 0}, captions: {rewrite: {engine: llm, examples: {}}}}"
    )
    keys = [line.split(": ")[1] for line in lines.splitlines()]
    assert sorted(keys) == ["captions.rewrite.examples", "nmae", "output.rows_per_shard", "seed"]


def test_a_long_value_is_cut():
    assert len(refusal(f"name: {'long name ' * 1000}")) < 300


def test_how_many_there_may_be():
    for sections, message in (
        ({"rules": {f"r{i}": "words > 1" for i in range(1001)}}, "rules: found 1,001; accepted: at most 1,000"),
        ({"input": [{"format": "parquet"}] * 1001}, "input: .*found 1,001; accepted: at most 1,000"),
        ({"derive": {f"d{i}": "words" for i in range(201)}}, "derive: found 201; accepted: at most 200"),
        (
            {"rules": {f"r{i}": "x" * 150_000 for i in range(2)}, "output": {"repeat": "words"}},
            "SQL: found 300,005; accepted: at most 300,000",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_recipe({"input": load_yaml(SOURCE + "}")} | sections)
