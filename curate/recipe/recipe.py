"""The recipe: a user's YAML file, which pydantic checks before curate reads any input.

If a key is unknown, the error names the nearest known key. This module does not look at the pool. `curate.pool.plan`
and `curate.expressions` check what depends on the pool, such as columns and the types of rules.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from curate.base.errors import RecipeError
from curate.base.registry import warn_of_broken
from curate.base.stages import RESERVED_RULES, Verdict, run_verdicts
from curate.base.wording import did_you_mean
from curate.recipe import section as fields
from curate.recipe.captions import Captions
from curate.recipe.deciding import DEDUP, FORMS, SELECTIONS, Balance, Dedup, Rule, Sample, Top
from curate.recipe.errors import explain_faults, shorten
from curate.recipe.files import read_mapping
from curate.recipe.measure import Measure
from curate.recipe.output import Output
from curate.recipe.relate import Relate
from curate.recipe.section import BuiltFrom, Column, ColumnName, Expression, KindsSection, Name, Section
from curate.recipe.source import AnySource
from curate.recipe.strict_yaml import MAX_DEPTH, find_surrogate, load_yaml, say_yaml_error

_log = logging.getLogger(__name__)

_MAX = {"rules": 1000, "derive": 200, "characters of SQL": 300_000}  # checking this many takes about ten seconds


@cache
def _one_of() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Return keys that exclude each other: patterns of keys for `--set`, each with the keys that it replaces."""
    forms = tuple(FORMS.kinds())
    return (
        (re.compile(r"balance\.(t|rows|tail_share)"), ("t", "rows", "tail_share")),
        (re.compile(r"rules\.[^.]+\.(top|rows)"), ("top", "rows")),
        (re.compile(r"sample\.(rows|weights)"), forms),
        (re.compile(rf"sample\.({'|'.join(forms)})"), ("rows", "weights", *forms)),
    )


REFERENCE: Literal["reference"] = "reference"
CORRECTED: Literal["corrected"] = "corrected"


class Match(Section):
    """Finds metadata entries in captions, as MetaCLIP does. A caption without an entry is dropped as `unmatched`.

    `mode` decides when an entry matches a caption:

    - `reference` works exactly as MetaCLIP does, and is case-sensitive. It puts spaces around `, . ; : ? !` and the
      backtick. An entry matches if it is in the caption with a space before it and after it. So the entry アメリカ does
      not match inside a Japanese sentence. See the
      [differences](README.md#differences-from-the-published-systems).
    - `worldwide` works exactly as MetaCLIP 2's code does. It strips white space at both ends of the caption. A caption
      matches only entries in its own language. If its language has no entries, it matches the entries of the language
      `other`. An entry that begins with a Chinese, Thai, Lao, Burmese, Khmer, or Tibetan character, or with ASCII
      punctuation, needs no space before it. An entry that ends with such a character needs no space after it.
    - `corrected` works like `worldwide`, with three corrections. Kana, Bopomofo, and other scripts without spaces count
      as such characters, too. It also puts spaces around full-width marks and `، ؟ ۔ । ।`. It normalizes captions and
      entries to Unicode's NFC.

    `worldwide` and `corrected` need each caption's language. The language comes from `measure.language`, or from the
    pool's column that you name in `input.columns.language`. The column may have codes from lid.176, ISO 639, or BCP 47.
    On each machine, matching needs about 50 bytes per entry in the folder `TMPDIR`. `curate metadata show` counts the
    entries that curate drops, and those that can never match.
    """

    gives = (
        Column("matches", "entry_ids", "list<int32>", "Ids of the caption's entries (see `entries.parquet`), sorted."),
        Column("matches", "language_key", "string", "Language of the entries to match. Not if `mode: reference`."),
    )

    metadata: fields.UserPath = Field(examples=["metadata.json"])
    """File with the entries: a JSON list, a text file with one entry per line, or Parquet. Limits: 2^25 entries, 1 GiB,
    and 32,767 bytes per entry."""
    mode: Literal["reference", "worldwide", "corrected"] = Field(REFERENCE, examples=["worldwide"])
    """How to match: like MetaCLIP (`reference`), MetaCLIP 2 (`worldwide`), or MetaCLIP 2 with fixes (`corrected`)."""


class Recipe(KindsSection):
    """A recipe needs only `input`; every other key is optional. Paths are relative to the recipe's folder.

    - A path is a local path or an fsspec URL (`s3://…`, `gs://…`). To name several files, write a range such as
      `{00000..01242}`, a glob, or a list.
    - A rule is a [SQL expression](rules.md#expressions), or a [section](rules.md#rulesname) that keeps the rows with
      the largest values in a column. The rule `NAME: dedup` runs deduplication at its position among the rules. Without
      it, deduplication runs after all rules.
    - A recipe may have at most 1,000 sources, 1,000 rules, 200 derived columns, and 300,000 characters of SQL.
    - A `blocklist` file is a text file with one item per line, or the `forgotten.parquet` of a run. curate drops the
      listed samples as `forgotten`.
    """

    registry = SELECTIONS

    name: Name = Field("curated", examples=["my-pool"])
    """Name of the dataset. Its card and report show it."""
    license: str = Field("unknown", examples=["cc-by-4.0"], pattern=r"^[a-z0-9][a-z0-9.+-]*$", max_length=64)
    """License of the dataset, for its card: an identifier that the Hugging Face Hub uses, such as `cc-by-4.0`."""
    seed: int = Field(0, examples=[1], ge=0, lt=2**63, strict=True)
    """Seed for everything random: `relate`, `balance`, `sample`, and language models."""
    input: Annotated[tuple[AnySource, ...], Field(min_length=1), fields.one_or_several(AnySource, 1)] = Field(
        examples=[{"name": "cc12m", "format": "webdataset", "path": "cc12m/{00000..01242}.tar"}]
    )
    """Where samples come from: one source, or a list of sources."""
    measure: Annotated[Measure, BuiltFrom(Measure.full)] = Field({}, examples=[Measure.example], validate_default=True)
    """Signals to measure, such as languages and scores. Each signal adds columns that rules and SQL can use."""
    match: Match | None = Field(None, examples=[{"metadata": "metadata.json"}])
    """List of words and titles (metadata entries) to find in captions (MetaCLIP). null: do not match captions."""
    relate: Annotated[Relate, BuiltFrom(Relate.full)] = Field(
        {}, examples=[Relate.example], validate_default=True, exclude_if=lambda relate: not relate.requested
    )
    """Columns that depend on the whole pool, such as clusters and s-CLIPLoss."""
    derive: dict[ColumnName, Expression] = Field({}, examples=[{"quality": "zscore(clip_score) + zscore(aesthetic)"}])
    """New columns by name. Each is a SQL expression over measured columns and the derived columns above it."""
    rules: dict[str, Rule] = Field({}, examples=[{"en": "language = 'en'", "best": {"top": 0.3, "of": "clip_score"}}])
    """Filters by name, which curate applies in this order. The first rule that a row fails drops the row."""
    dedup: Dedup = Field(Dedup(), examples=[{"by": ["uid", "sha256", "phash"]}])
    """How to drop duplicates, and images of evaluation sets (decontamination)."""
    balance: Balance | None = Field(None, examples=[{"t": 20000}])
    """Balanced sampling (MetaCLIP) over metadata entries, or over the values of a column. null: do not balance."""
    sample: Annotated[Sample, BuiltFrom(Sample.full)] | None = Field(None, examples=[{"rows": 100000}])
    """Draw a fixed number of rows, instead of `balance`. null: do not sample."""
    captions: Annotated[Captions, BuiltFrom(Captions.full)] | None = Field(None, examples=[Captions.example])
    """Write synthetic captions for kept samples. null: write none."""
    output: Output = Field(Output(), examples=[{"rows_per_shard": 1000}])
    """Format and columns of the shards."""
    blocklist: fields.UserPaths | None = Field(None, examples=["gone.txt"])
    """Files that list samples to drop before any rule, by uid, by URL, or by sha256 of the image. null: none."""
    max_failed: float = Field(0.05, examples=[0.2], ge=0, le=1, strict=True)
    """The run stops with an error if more than this share of samples cannot be read, or if more than this share of
    caption requests gets no answer. Samples that were not downloaded do not count here."""
    max_missing: float = Field(1.0, examples=[0.5], ge=0, le=1, strict=True)
    """The run stops with an error if more than this share of the samples could not be downloaded. 1 means no limit."""
    max_failed_files: float = Field(0.05, examples=[0.2], ge=0, le=1, strict=True)
    """The run stops with an error if more than this share of the input files cannot be read."""

    @field_validator("measure", "match", "relate", "derive", "rules", "dedup", "output", mode="before")
    @classmethod
    def _empty_section(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].get_default(call_default_factory=True) if value is None else value

    @field_validator("rules", mode="before")
    @classmethod
    def _rule_forms(cls, rules: Any) -> Any:
        for name, rule in rules.items() if isinstance(rules, dict) else ():
            if not isinstance(rule, (str, dict, Top)):
                raise ValueError(f"{name} is {rule!r}; accepted: a SQL expression, or {{top: fraction, of: column}}")
            if name in (reserved := (*RESERVED_RULES, *SELECTIONS.kinds())):
                raise ValueError(f"rule name {name!r} is reserved (reserved: {', '.join(reserved)})")
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", str(name)):
                raise ValueError(f"rule name {name!r} is not a plain name (letters, digits, _ and -)")
        return rules

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if twice := fields.find_twice(source.name for source in self.input):
            raise ValueError(f"input: two sources are named {twice!r}; names identify sources")
        if len(names := [name for name, rule in self.rules.items() if rule == DEDUP]) > 1:
            raise ValueError(f"rules: {' and '.join(names)} are {DEDUP}, which may appear only once; leave one out")
        sizes = len(self.rules), len(self.derive), sum(map(len, self.expressions))
        for (counted, limit), size in zip(_MAX.items(), sizes, strict=True):
            if size > limit:
                raise ValueError(f"{counted}: found {size:,}; accepted: at most {limit:,}; for long lists, use join")
        named = [selection.kind for selection in self.requested]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both draw rows; leave one out")
        if self.selector and self.selector.needs_match and not self.match:
            or_of = ", or `balance.of: COLUMN` to balance a column" if named[0] == "balance" else ""
            raise ValueError(f"{named[0]} needs `match`, which finds metadata entries{or_of}")
        if self.selector and self.selector.has_repeats and self.output.repeat:
            raise ValueError(f"output.repeat and {named[0]} both repeat rows; leave one out")
        self.relate.check_measured(self.measure)
        self.dedup.check_measured(self.measure)
        if self.captions:
            models = {model.name: model for model in self.measure.kept if model.encodes}
            self.captions.gates.check_needs(self.match is not None, models)
        return self

    def has(self, section: str) -> bool:
        """Return whether the recipe has a section with this dotted name, which is not empty; True for an empty name."""
        value: Any = self
        for name in filter(None, section.split(".")):
            value = getattr(value, name, None)
        return bool(value)

    def verdicts(self, forgotten: bool) -> list[Verdict]:
        """Return the verdicts that rows can have in a run of this recipe; see `curate.base.stages.run_verdicts`."""
        selection = (self.selector.key, self.selector.meaning) if self.selector else None
        return run_verdicts(list(self.rules), self.has, forgotten, self.dedup_place, selection)

    @property
    def selection(self) -> tuple[str, Any] | None:
        """The key and section of the final selection, such as `balance`; None if all remaining rows are kept."""
        return next(((kind, section) for kind, _, section in self.requested), None)

    @property
    def selector(self) -> Any:
        """The `Selection` that makes the final selection; None if all remaining rows are kept."""
        return SELECTIONS.find(self.selection[0]).form(self.selection[1]) if self.selection else None

    @property
    def repeats(self) -> bool:
        return self.output.repeat is not None or bool(self.selector and self.selector.has_repeats)

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        """Return the selections from other packages. curate's own selections are fields of this class."""
        return tuple(kind for key, kind in SELECTIONS.kinds().items() if key not in Recipe.model_fields)

    @property
    def expressions(self) -> list[str]:
        per_row = [task.section.per_row for task in self.captions.requested] if self.captions else []
        weights = self.sample.weights if self.sample else None
        candidates = [*self.rules.values(), *self.derive.values(), self.output.repeat, weights, *per_row]
        return [sql for sql in candidates if isinstance(sql, str) and sql != DEDUP]

    @property
    def dedup_place(self) -> int | None:
        """The position of deduplication among the rules; None if it runs after all rules."""
        return next((index for index, rule in enumerate(self.rules.values()) if rule == DEDUP), None)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe. `overrides` are texts `key=value`, as after `--set`: a dotted key, and a YAML value.

    Raises RecipeError, which names the file, the wrong key or value, and what is accepted.
    """
    data, _ = read_mapping(path, path, "recipe", "a YAML mapping with key input, as `curate init` writes it")
    for override in overrides:
        _set(data, override)
    base = path.rpartition("/")[0] if "://" in path else str(Path(path).resolve().parent)
    if find_surrogate(base):
        raise RecipeError(f"{ascii(base)[1:-1]}: the recipe's folder has a name that is not UTF-8; accepted: UTF-8")
    return parse_recipe(data, path, lambda file: file if "://" in file or file.startswith("/") else f"{base}/{file}")


def change_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe with overrides, as in `load_recipe`. New rules come after all others. Raises RecipeError."""
    data = json.loads(recipe.model_dump_json())
    for override in overrides:
        _set(data, override)
    return parse_recipe(data)


def parse_recipe(data: dict[str, Any], where: str = "recipe", absolute: Callable[[str], str] | None = None) -> Recipe:
    """Return a recipe from plain data. `absolute` converts its paths. Raises RecipeError with one line per error."""
    try:
        recipe = Recipe.full().model_validate(data, context=absolute)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {line}" for line in explain_faults(error, data))) from None
    warn_of_broken()
    return recipe


def _set(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}: write key=value, such as --set balance.t=20000")
    if find_surrogate(override):
        raise RecipeError(f"--set {ascii(override)[1:-1]}: contains bytes that are not UTF-8; accepted: UTF-8")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        shown = override if len(override) <= 80 else f"{override[:77]}..."
        raise RecipeError(f"--set {shown}: {shorten(text)} is not a YAML value: {say_yaml_error(error)}") from None
    *parents, last = _input_keys(data, key.split("."))
    if len(parents) >= MAX_DEPTH:
        raise RecipeError(f"--set {key[:77]}...: a key of {len(parents) + 1:,} parts; accepted: at most {MAX_DEPTH}")
    if parents[:1] == ["rules"] and isinstance(rules := data.get("rules") or {}, dict):
        _note_rule(rules, [*parents, last][1], value)
    section: Any = data
    for part in parents:
        if isinstance(section, dict) and section.get(part) is None:
            section[part] = {}
        section = section[_find_index(section, part, override)]
    index = _find_index(section, last, override)
    if parents == ["rules"] and value is None and text.strip():
        if last not in section:
            raise RecipeError(f"--set {override}: no rule {last!r} to remove; rules: {', '.join(section) or 'none'}")
        del section[last]
        return
    section[index] = value
    for keys, names in _one_of():  # it replaces the others
        if keys.fullmatch(key) and value is not None:
            for other in {*names} - {last}:
                section.pop(other, None)


def _input_keys(data: dict[str, Any], keys: list[str]) -> list[str]:
    """Turn a single source or join into a list, and return the keys with its index: `input.path` is `input.0.path`."""
    section: Any = data
    for depth, name in ((0, "input"), (2, "join")):
        if keys[depth : depth + 1] != [name] or len(keys) < depth + 2 or not isinstance(section, dict):
            break
        if isinstance(section.get(name), dict):
            section[name] = [section[name]]
        items: Any = section.get(name) if isinstance(section.get(name), list) else []
        if len(items) == 1 and not keys[depth + 1].removeprefix("-").isdigit():
            keys = [*keys[: depth + 1], "0", *keys[depth + 1 :]]
        section = next((item for number, item in enumerate(items) if keys[depth + 1] == str(number)), None)
    return keys


def _note_rule(rules: dict[str, Any], name: str, value: Any) -> None:
    if name not in rules and value is not None:
        hint = did_you_mean(name, rules).strip()
        _log.warning("rules.%s adds a new rule, after all other rules%s", name, f"; {hint}" if hint else "")
    elif rules.get(name) == DEDUP and value is None:
        leave = "to leave out its passes: --set 'dedup.by=[uid]'"
        _log.warning("--set rules.%s=null: deduplication now comes after all rules; %s", name, leave)


def _find_index(section: Any, part: str, override: str) -> str | int:
    if isinstance(section, dict):
        return part
    if isinstance(section, list) and part.isdecimal() and len(part) < 10 and int(part) < len(section):
        return int(part)
    keys = override.partition("=")[0].split(".")
    accepted = f"a position below {len(section)}" if isinstance(section, list) else "no key inside it"
    if isinstance(section, list) and keys[0] == "input" and not part.isdecimal():
        accepted += f", such as input.0.{part}"
    if keys[:2] == ["balance", "t"]:
        accepted = f"numbers by language, such as --set 'balance.t={{en: {section}, {part}: …}}'"
    if keys[0] == "rules" and keys[2:] == ["top"]:
        accepted = f"another expression, or --set '{keys[0]}.{keys[1]}={{top: 0.3, of: COLUMN}}'"
    raise RecipeError(f"--set {override}: {part!r} does not fit {shorten(section)}; accepted: {accepted}")


class Change(NamedTuple):
    """A dotted key, with its value in two recipes; None if a recipe does not have the key."""

    key: str
    old: Any
    new: Any


def changes(old: Any, new: Any, at: str = "") -> list[Change]:
    """Return the keys in which two recipes differ. Lists of equal length are compared by item, rules also by order."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        inner = [c for key in keys for c in changes(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))]
        if not inner and at == "rules" and list(old) != list(new):
            return [Change("the order of rules", list(old), list(new))]
        return inner
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [f for i, pair in enumerate(zip(old, new, strict=True)) for f in changes(*pair, f"{at}.{i}")]
    return [] if old == new else [Change(at, old, new)]
