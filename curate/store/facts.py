"""run.json: everything that determines a run and, once the run is finished, its results.

In: a run folder. Out: `RunClaim`, written when a run claims its folder, and `RunFacts`, which replaces it when the run
is published. The JSON's keys are the names of the fields, in order. This version refuses a `format` of a later version.
"""

from contextlib import suppress
from typing import Annotated, Any, Self, TypeVar, get_args

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from curate.base import stages
from curate.base.errors import DamagedError, RunError
from curate.base.wording import all_digits
from curate.recipe.deciding import DEDUP
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore

FORMAT = 1

Kind = TypeVar("Kind", bound="Facts")
T = TypeVar("T")
OmitIfNone = Annotated[T | None, Field(exclude_if=lambda value: value is None)]
"""A value that is left out of the JSON if it is None."""


class Facts(BaseModel, frozen=True, extra="forbid"):
    """A part of run.json."""

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def columns(cls) -> pa.Schema:
        """Return the columns of a table that has one row per object. The class may have only texts and numbers."""
        types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        kinds = {name: {field.annotation, *get_args(field.annotation)} for name, field in cls.model_fields.items()}
        return pa.schema([(name, next(types[kind] for kind in types if kind in kinds[name])) for name in kinds])


class MetadataFacts(Facts):
    """The metadata: the number of entries, and the digest of their table."""

    entries: int
    digest: str


class ForgottenFacts(Facts):
    """The record forgotten.parquet: number of items and requests, key of the blocked items, and digest."""

    items: int
    requests: int
    key: str
    digest: str


class RetriesFacts(Facts):
    """The record retries.parquet: number of rounds and URLs, and digest."""

    rounds: int
    rows: int
    digest: str


class InputRunFacts(Facts):
    """Another run whose kept rows are a source: its name, identity, rows, and the columns that its recipe names."""

    name: str
    identity: str
    rows: int
    kept: int
    column_names: dict[str, str]  # role of a column in a sample → name of the column in its shards


class PoolFacts(Facts):
    """Facts about a pool that later commands need when they cannot read its inputs."""

    images: bool  # whether it has images; otherwise it is a pool of URLs
    supplied: list[str]  # columns of `samples` that its inputs supply
    scores: list[str]  # columns of `scores` that its inputs supply
    embeddings: dict[str, Any]  # precomputed embeddings by model, with their identity


class GroupThreshold(Facts):
    """The threshold of a rule with `top` in one group: the smallest value that passed."""

    group: bool | int | str | None
    threshold: int | float


class RuleFacts(Facts):
    """A rule: SQL, or the best rows by column `of` with the smallest value that passed (None if no row reached it).

    The best rows are a fraction (`top`) or a number (`rows`). They are chosen from the pool or from the rows that
    reached the rule (`over`), or in each group of column `by`.
    """

    name: str
    sql: str | None = None
    top: float | None = None
    rows: OmitIfNone[int] = None
    of: str | None = None
    over: OmitIfNone[str] = None
    by: OmitIfNone[str] = None
    threshold: int | float | None = None
    thresholds: OmitIfNone[list[GroupThreshold]] = None  # one for each group, in the order of the groups
    single: OmitIfNone[bool] = None  # whether column `of` is float32
    dedup: OmitIfNone[bool] = None  # whether deduplication happens at this rule

    @property
    def expression(self) -> str:
        if self.sql or self.dedup:
            return self.sql or DEDUP
        best = f"top {self.top:.12g}" if self.rows is None else f"top {self.rows:,} rows"
        over = {None: "", "pool": " over the pool"}.get(self.over, " as a budget of the pool")
        return f"{best} of {self.of}{over}{'' if self.by is None else f' by {self.by}'}"

    @property
    def best(self) -> dict[str, Any]:
        """Return the rule in the form that it has in a recipe, if it is not SQL."""
        return self.model_dump(include={"top", "rows", "of", "over", "by"}, exclude_none=True)

    def threshold_of(self, group: Any = None) -> int | float | None:
        """Return the smallest value that passed, for a group, or for all rows if there are no groups."""
        if self.thresholds is None:
            return self.threshold
        return next((passed.threshold for passed in self.thresholds if passed.group == group), None)

    def show(self, threshold: float) -> str:
        """Return a threshold with all digits. If you put this text into a rule, it keeps the same rows."""
        return all_digits(threshold, bool(self.single))


class StatisticFacts(Facts, extra="allow"):
    """A statistic in a derived column: its expression and the `rows` that have a value.

    Other keys are its parameters.
    """

    function: str
    of: str
    rows: int


class DerivedFacts(Facts):
    """A derived column: its expression, and the statistics that it uses."""

    name: str
    sql: str
    statistics: list[StatisticFacts]


class StepFacts(Facts):
    """The work of a step: its units or shards, their rows (None if unknown), and the total of their wall times."""

    step: str
    units: int
    rows: int | None
    seconds: float


class UsedFacts(Facts):
    """Resources that Python processes used in a step, or, for `start` and `engine`, outside of steps."""

    step: str
    cpu: float = 0.0  # core seconds
    gpu: float = 0.0  # GPU seconds
    memory: float = 0.0  # GB × seconds, summed over processes
    reads: float = 0.0  # GET and HEAD requests to the run folder's store; 0 for a local folder
    writes: float = 0.0  # PUT and LIST requests
    shuffled: float = 0.0  # bytes grouped by key
    stored: float = 0.0  # published bytes
    spread: float | None = None  # standard deviation of CPU time per row between units or shards, divided by its mean

    @classmethod
    def kinds(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in ("step", "spread")]


class DownloadFacts(Facts):
    """The downloads of a run."""

    urls: int  # URLs that were tried
    came: int
    bytes: int  # of successful downloads, as sent by the servers
    began: float  # seconds since 1970
    ended: float
    reasons: dict[str, int]  # reason of failure → downloads, the most frequent first

    @property
    def seconds(self) -> float:
        """Return the duration in seconds, which is at least a millisecond."""
        return max(self.ended - self.began, 1e-3)


class DriftFacts(Facts):
    """How far a source's kept samples drifted from the source, by a model's embeddings (`curate.publish.drift`)."""

    source: str
    model: str
    side: str
    pool_rows: int
    kept_rows: int
    distance: float
    standard_error: float | None
    unchanged: float


class CaptionWork(Facts):
    """What an engine did for one kind of captions."""

    kind: str
    engine: str
    model: str
    requests: int
    sent: int  # requests that had no answer in the cache
    failed: int  # sent requests that got no answer
    passed: int  # captions that passed all gates
    replaced: int  # passed captions that replaced the original in `.txt`
    tokens_in: int
    tokens_out: int
    tokens_sent: int = 0  # input and output tokens of sent requests
    seconds: float  # time in the engine
    cost: float | None  # from the recipe's prices; None without prices


class NearFacts(Facts, extra="allow"):
    """A deduplication pass by nearness: its position, and how many close pairs per sample it compared (`found`).

    The key of the pass's kind, as in the recipe, says what it compares.
    """

    place: int
    sampled: int
    found: int


class LargeGroupFacts(Facts):
    """A group of duplicates: its representative's uid, its rows, and the number of rows that reached deduplication."""

    uid: str
    rows: int
    reached: int

    def describe(self, has_near: bool) -> str:
        """Describe the group. `has_near` says whether its members may be near-duplicates."""
        share = f"{self.rows / self.reached:.1%} of those that reached deduplication"
        remedy = "; if they are not duplicates, set a higher cosine or smaller distance in dedup.by" if has_near else ""
        return f"{self.rows:,} rows ({share}) are one group of duplicates, represented by {self.uid}{remedy}"


class SignalErrors(Facts):
    """Rows without a signal's value, because a plugin failed on the image, or because the value was not finite."""

    signal: str  # name and package of the signal, or name of the column with the value
    rows: int
    first: str


class EvaluationFacts(Facts):
    """The evaluation set in `dedup.against`: its number of images, and of unreadable ones, with an example."""

    images: int
    unread: int
    such_as: str | None


class ContentFacts(Facts):
    """Facts about the kept samples."""

    languages: dict[str, int] = {}  # code → samples, the most frequent first; empty if not measured
    files: dict[str, int] = {}  # suffix in the tars → samples; empty without images
    shards: int = 0
    bytes: int = 0  # of all shards
    digest: str = ""  # digest of the shards' names and sha256
    means: dict[str, float] = {}  # means of words, width and height, if known
    json_dtype: Any = None  # types of the samples' json fields, see `merge_dtypes`; None if unknown
    # By license column: license → samples, the most frequent first; empty text: no license
    licences: OmitIfNone[dict[str, dict[str, int]]] = None


class RunClaim(Facts):
    """Everything that determines a run. A folder with this claim accepts only this recipe and pool."""

    format: int = FORMAT
    curate: str  # the version of curate
    name: str  # name of the dataset
    seed: int
    sources: list[str]  # names of the sources
    recipe: dict[str, Any]  # the recipe after defaults are filled in, without access options
    identity: str  # digest of everything that determines the published files
    keys: dict[str, str]  # for each table, for the pool and for the shards: a digest of its keys
    unit_keys: list[str]  # one for each unit, in the order of units
    models: dict[str, Any]  # identity of each signal's model
    engine_ids: dict[str, str]  # identity of each caption engine
    metadata: MetadataFacts | None  # None without `match`
    python: str
    packages: dict[str, str]  # package versions that results depend on
    started: float  # seconds since 1970
    forgotten: OmitIfNone[ForgottenFacts] = None  # None if nothing is blocked or forgotten
    retries: OmitIfNone[RetriesFacts] = None  # None if nothing was retried
    emitted: list[str]  # columns of the shards in addition to the fixed ones and to those of the inputs
    input_runs: OmitIfNone[dict[str, InputRunFacts]] = None  # by source; None if no source is a run


class SelectionWords(Facts):
    """Texts about the selection, for reports and the dataset card."""

    # Why a row was kept or dropped. `str.format` fills in the row's `draw`, `probability` and `value`, and the
    # `meaning` of the selection.
    kept: str = ": its draw {draw} is below 1 (probability {probability})"
    dropped: str = "{meaning} (probability {probability})"
    of: str = ""  # the column with the `value`
    card: str  # text in the dataset card, under the selection's key
    summary: list[str] = []  # lines that a run prints at its end
    by_entries: bool = False  # whether each entry draws its own rows; then `explain` shows these draws


class SelectionFacts(SelectionWords):
    """The selection in a run: its key, why it drops rows, and a label such as t = 20,000."""

    key: str
    meaning: str
    label: str = ""
    is_uniform: bool = False  # whether all rows had the same probability and the number of kept rows is exact
    values: dict[str, Any] = {}  # numbers that the selection computed, by name, such as t
    is_random: bool = True  # whether rows are drawn at random; otherwise `decisions` has no probability
    repeats: bool = False  # whether the set may have a row several times


class RunFacts(RunClaim):
    """A finished run."""

    evaluation: OmitIfNone[EvaluationFacts] = None  # None without `dedup.against`
    pool: PoolFacts
    units: list[tuple[str, int]]  # name and number of units of each source; the units of a source are consecutive
    # Numbers of consecutive units that share files, in order; None if each unit has its own files.
    units_per_file: OmitIfNone[list[int]] = None
    rules: list[RuleFacts]
    derived: OmitIfNone[list[DerivedFacts]] = None  # None if the recipe derives no column
    selection: OmitIfNone[SelectionFacts] = None  # None if every remaining row is kept
    t: int | None  # maximum rows per entry; None without `balance`
    t_by_language: OmitIfNone[dict[str, int]] = None  # if languages have different t; then `t` is that of the first
    expected: OmitIfNone[float] = None  # if t was solved for `balance.rows`: expected rows at t and at t + 1
    expected_above: OmitIfNone[float] = None
    steps: list[StepFacts]  # steps that did some work
    used: list[UsedFacts] = []  # missing in runs of earlier versions
    downloads: OmitIfNone[DownloadFacts] = None  # None if nothing was downloaded
    # For each source of web pages: number of pages, images and rows, and, by reason, of links that gave no row
    links: OmitIfNone[dict[str, dict[str, int]]] = None
    drift: list[DriftFacts]  # empty if no embeddings are kept
    caption_work: list[CaptionWork]  # by kind and engine; empty without captions
    near: list[NearFacts]
    large_groups: OmitIfNone[list[LargeGroupFacts]] = None  # the largest groups of duplicates; None if there are none
    signal_errors: OmitIfNone[list[SignalErrors]] = None  # None if no signal failed
    short_texts: OmitIfNone[dict[str, int]] = None  # rule → short texts that it dropped by language, if there are many
    counts: dict[str, int]  # number of rows by rule, and as `kept`, in the order of the funnel
    finished: float  # seconds since 1970
    seconds: float  # from start to end
    content: ContentFacts = ContentFacts()

    def verdicts(self, forgotten: bool) -> list[stages.Verdict]:
        """The verdicts that are possible in this run; see `stages.run_verdicts`."""
        recipe = {**self.recipe, "dedup.against": (self.recipe.get("dedup") or {}).get("against")}
        recipe["balance.one_per"] = (self.recipe.get("balance") or {}).get("one_per")
        has = {name for name, section in recipe.items() if section is not None}.__contains__
        position = next((position for position, rule in enumerate(self.rules) if rule.dedup), None)
        selection = (self.selection.key, self.selection.meaning) if self.selection else None
        return stages.run_verdicts([rule.name for rule in self.rules], has, forgotten, position, selection)

    @property
    def kept(self) -> int:
        return self.counts.get(stages.KEPT, 0)

    @property
    def repeats(self) -> bool:
        return bool((self.recipe.get("output") or {}).get("repeat")) or bool(self.selection and self.selection.repeats)

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @property
    def language_warnings(self) -> list[str]:
        """Return a warning for each rule that dropped many short texts by their language."""
        cause = "by language, but fastText often gets short texts wrong; set measure.language.short to words"
        dropped = (self.short_texts or {}).items()
        return [f"{name} dropped {rows:,} short texts ({rows / self.rows:.1%}) {cause}" for name, rows in dropped]

    def changed(self, **fields: Any) -> Self:
        return self.model_copy(update=fields)


def read_claim(store: RunStore) -> RunClaim:
    """Return the claim of a run, whether the run is finished or not. Raises the same errors as `read_facts`."""
    data = _read(store)
    return _parse(RunClaim, store, {name: value for name, value in data.items() if name in RunClaim.model_fields})


def read_facts(store: RunStore) -> RunFacts:
    """Return a finished run's facts. Raises DamagedError, or RunError if run.json has a later format."""
    return _parse(RunFacts, store, _read(store))


def read_forgotten(store: RunStore) -> ForgottenFacts | None:
    """Return what run.json, in any format, says about the record of forgotten items; None if it says nothing.

    Old formats count too, because forgotten items must stay forgotten.
    """
    if not store.exists(RUN_FILE):
        return None
    named = _read_object(store).get("forgotten")
    return None if named is None else _parse(ForgottenFacts, store, named)


def names_retries(store: RunStore) -> bool:
    """Return whether run.json says that there is a record of retries; False if run.json is missing or damaged."""
    with suppress(DamagedError):
        return store.exists(RUN_FILE) and _read_object(store).get("retries") is not None
    return False


def read_unit_keys(store: RunStore) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of the run's units, in order, and the paths of each source, from any format that has them.

    A run can reuse only units that have the same keys.
    """
    run = _read_object(store)
    sources = [source for source in (run.get("recipe") or {}).get("input") or [] if "path" in source]
    return list(run.get("unit_keys") or []), {source["name"]: source["path"] for source in sources}


def write_facts(store: RunStore, facts: RunClaim) -> None:
    """Write run.json."""
    store.write_json(RUN_FILE, facts.to_json())


def _read_object(store: RunStore) -> dict[str, Any]:
    data = store.read_json(RUN_FILE)
    if not isinstance(data, dict):
        raise DamagedError(f"{store.url}: {RUN_FILE} is damaged: it is not a JSON object")
    return data


def _read(store: RunStore) -> dict[str, Any]:
    """Return the object in run.json. Raises RunError if this version cannot read its format."""
    data = _read_object(store)
    format = data.get("format", FORMAT)
    if not isinstance(format, int) or format > FORMAT:
        version = f"curate {data.get('curate')}"
        reason = f"{RUN_FILE} has format {format}, of {version}; this version reads formats up to {FORMAT}"
        raise RunError(f"{store.url}: {reason}: open the run with {version} or later")
    return data


def _parse(kind: type[Kind], store: RunStore, data: Any) -> Kind:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        errors = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()[:5])
        raise DamagedError(f"{store.url}: {RUN_FILE} is damaged ({errors})") from None
