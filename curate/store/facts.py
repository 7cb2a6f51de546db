"""run.json: everything that determines a run, and the results of a finished run.

In: a run folder. Out: `RunClaim`, written when a run claims its folder, and `RunFacts`, which replaces it when the run
is published. The JSON's keys are the fields' names, in order. A `format` of a later version is refused.
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
"""A value that is not written where there is none."""


class Facts(BaseModel, frozen=True, extra="forbid"):
    """A part of run.json."""

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def columns(cls) -> pa.Schema:
        """Return the columns of a table with one row per object, for classes with texts and numbers only."""
        types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        kinds = {name: {field.annotation, *get_args(field.annotation)} for name, field in cls.model_fields.items()}
        return pa.schema([(name, next(types[kind] for kind in types if kind in kinds[name])) for name in kinds])


class MetadataFacts(Facts):
    """The metadata: the number of entries, and the digest of their table."""

    entries: int
    digest: str


class ForgottenFacts(Facts):
    """The record forgotten.parquet: its numbers of items and requests, the key of blocked items, and its digest."""

    items: int
    requests: int
    key: str
    digest: str


class RetriesFacts(Facts):
    """The record retries.parquet: its numbers of rounds and URLs, and its digest."""

    rounds: int
    rows: int
    digest: str


class InputRunFacts(Facts):
    """A run whose kept rows are a source: its name, identity, rows, and the columns that its recipe names."""

    name: str
    identity: str
    rows: int
    kept: int
    column_names: dict[str, str]  # part of a sample → column of its shards


class PoolFacts(Facts):
    """Facts about a pool that are known without its inputs."""

    images: bool  # whether it has images; otherwise it is a pool of URLs
    supplied: list[str]  # columns of `samples` that its inputs supply
    scores: list[str]  # columns of `scores` that they supply
    embeddings: dict[str, Any]  # precomputed embeddings by model, with their identity


class GroupThreshold(Facts):
    """The smallest value of a group that passed a top rule."""

    group: bool | int | str | None
    threshold: int | float


class RuleFacts(Facts):
    """A rule: SQL, or the best rows by column `of`, with the smallest value that passed (None if no row reached it).

    The best are a fraction `top` or a number `rows`, of the pool or of the rows that reached the rule (`over`), or of
    each group of column `by`.
    """

    name: str
    sql: str | None = None
    top: float | None = None
    rows: OmitIfNone[int] = None
    of: str | None = None
    over: OmitIfNone[str] = None
    by: OmitIfNone[str] = None
    threshold: int | float | None = None
    thresholds: OmitIfNone[list[GroupThreshold]] = None  # of groups, in their order
    single: OmitIfNone[bool] = None  # whether column `of` is of float32
    dedup: OmitIfNone[bool] = None  # whether it is the position of deduplication

    @property
    def expression(self) -> str:
        if self.sql or self.dedup:
            return self.sql or DEDUP
        best = f"top {self.top:.12g}" if self.rows is None else f"top {self.rows:,} rows"
        over = {None: "", "pool": " over the pool"}.get(self.over, " as a budget of the pool")
        return f"{best} of {self.of}{over}{'' if self.by is None else f' by {self.by}'}"

    @property
    def best(self) -> dict[str, Any]:
        """Return the rule as in a recipe, if it is not SQL."""
        return self.model_dump(include={"top", "rows", "of", "over", "by"}, exclude_none=True)

    def threshold_of(self, group: Any = None) -> int | float | None:
        """Return the smallest value of a group that passed, or of all rows if there are no groups."""
        if self.thresholds is None:
            return self.threshold
        return next((passed.threshold for passed in self.thresholds if passed.group == group), None)

    def show(self, threshold: float) -> str:
        """Return a threshold with all digits, so that a rule with this text keeps the same rows."""
        return all_digits(threshold, bool(self.single))


class StatisticFacts(Facts, extra="allow"):
    """A statistic in a derived column, of an expression, over `rows` with a value; other keys are its parameters."""

    function: str
    of: str
    rows: int


class DerivedFacts(Facts):
    """A derived column: its expression, and the statistics in it."""

    name: str
    sql: str
    statistics: list[StatisticFacts]


class StepFacts(Facts):
    """The work of a step: its units or shards, their rows (None if unknown), and the sum of their wall times."""

    step: str
    units: int
    rows: int | None
    seconds: float


class UsedFacts(Facts):
    """The resources used by a step, or by `start` and `engine` outside of steps; only of Python processes."""

    step: str
    cpu: float = 0.0  # core seconds
    gpu: float = 0.0  # GPU seconds
    memory: float = 0.0  # GB × seconds, summed over processes
    reads: float = 0.0  # GET and HEAD requests to the run folder's store; 0 for a local folder
    writes: float = 0.0  # PUT and LIST requests
    shuffled: float = 0.0  # bytes grouped by key
    stored: float = 0.0  # published bytes
    spread: float | None = None  # standard deviation of CPU per row between units or shards, divided by its mean

    @classmethod
    def kinds(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in ("step", "spread")]


class DownloadFacts(Facts):
    """The downloads of a run."""

    urls: int  # that were tried
    came: int
    bytes: int  # of successful downloads, as sent by the servers
    began: float  # seconds since 1970
    ended: float
    reasons: dict[str, int]  # reason of failure → downloads, the most frequent first

    @property
    def seconds(self) -> float:
        """Return the duration, at least a millisecond."""
        return max(self.ended - self.began, 1e-3)


class DriftFacts(Facts):
    """The drift of a source's kept samples from the source, by a model's embeddings (`curate.publish.drift`)."""

    source: str
    model: str
    side: str
    pool_rows: int
    kept_rows: int
    distance: float
    standard_error: float | None
    unchanged: float


class CaptionWork(Facts):
    """The work of an engine for captions of one kind."""

    kind: str
    engine: str
    model: str
    requests: int
    sent: int  # of these, those without a cached answer
    failed: int  # of these, those without an answer
    passed: int  # texts
    replaced: int  # originals in `.txt`
    tokens_in: int
    tokens_out: int
    tokens_sent: int = 0  # input and output tokens of sent requests
    seconds: float  # of the engine
    cost: float | None  # by the recipe's prices; None without prices


class NearFacts(Facts, extra="allow"):
    """A deduplication pass by nearness: its position, and how many close pairs of a sample it compared (`found`).

    What it compares is under the key of its kind, as in the recipe.
    """

    place: int
    sampled: int
    found: int


class LargeGroupFacts(Facts):
    """A group of duplicates: the uid of its representative, its rows, and its rows that reached deduplication."""

    uid: str
    rows: int
    reached: int

    def describe(self, has_near: bool) -> str:
        """Describe the group; `has_near`: whether duplicates may be near duplicates."""
        share = f"{self.rows / self.reached:.1%} of those that reached deduplication"
        remedy = "; if they differ, set a higher cosine, or a smaller distance, in dedup.by" if has_near else ""
        return f"{self.rows:,} rows ({share}) are one group, represented by {self.uid}{remedy}"


class SignalErrors(Facts):
    """Rows where a signal is null because a plugin failed on the image, or because the value was not finite."""

    signal: str  # the signal's name and package; or the name of the column that was not finite
    rows: int
    first: str


class EvaluationFacts(Facts):
    """The evaluation set of `dedup.against`: its images, and the number of unreadable ones, with an example."""

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
    """Everything that determines a run; with it a folder belongs to one recipe and one pool."""

    format: int = FORMAT
    curate: str  # the version of curate
    name: str  # of the dataset
    seed: int
    sources: list[str]  # their names
    recipe: dict[str, Any]  # as resolved, without access options
    identity: str  # digest of everything that determines the published files
    keys: dict[str, str]  # digest of the keys of each table's files, of the pool and of the shards
    unit_keys: list[str]  # in the order of units
    models: dict[str, Any]  # identity of each model of a signal
    engine_ids: dict[str, str]  # identity of each caption engine
    metadata: MetadataFacts | None  # None without `match`
    python: str
    packages: dict[str, str]  # package versions that results depend on
    started: float  # seconds since 1970
    forgotten: OmitIfNone[ForgottenFacts] = None  # None if nothing is blocked or forgotten
    retries: OmitIfNone[RetriesFacts] = None  # None if nothing was retried
    emitted: list[str]  # columns of the shards besides the fixed ones, or those of the inputs
    input_runs: OmitIfNone[dict[str, InputRunFacts]] = None  # by source; None without


class SelectionWords(Facts):
    """Texts about the selection among the remaining rows."""

    # Why a row stayed or did not, of one row; `str.format` fills in its `draw`, `probability` and `value`, and the
    # selection's `meaning`
    kept: str = ": its draw {draw} is below 1 (probability {probability})"
    dropped: str = "{meaning} (probability {probability})"
    of: str = ""  # the column that has the `value`
    card: str  # text of the dataset card under the selection's key
    summary: list[str] = []  # lines at the end of a run
    by_entries: bool = False  # whether each entry draws its rows; then `explain` shows the draws


class SelectionFacts(SelectionWords):
    """The selection of a run: its key, why it drops rows, and its label, such as t = 20,000."""

    key: str
    meaning: str
    label: str = ""
    is_uniform: bool = False  # whether all rows had the same probability, and the size was exact
    values: dict[str, Any] = {}  # numbers it chose, by name, such as t
    is_random: bool = True  # whether it is random; otherwise `decisions` has no probability
    repeats: bool = False  # whether a row may be in the set several times


class RunFacts(RunClaim):
    """A finished run."""

    evaluation: OmitIfNone[EvaluationFacts] = None  # None without `dedup.against`
    pool: PoolFacts
    units: list[tuple[str, int]]  # each source with its number of consecutive units, in order
    # Numbers of consecutive units that share files, in order; None: each unit has its own files.
    units_per_file: OmitIfNone[list[int]] = None
    rules: list[RuleFacts]
    derived: OmitIfNone[list[DerivedFacts]] = None  # None if the recipe derives no column
    selection: OmitIfNone[SelectionFacts] = None  # None if every remaining row is kept
    t: int | None  # maximum rows per entry; None without `balance`
    t_by_language: OmitIfNone[dict[str, int]] = None  # by language, if it differs; then `t` is that of the first
    expected: OmitIfNone[float] = None  # expected rows at t and at t + 1, if t was solved for `balance.rows`
    expected_above: OmitIfNone[float] = None
    steps: list[StepFacts]  # steps that had work
    used: list[UsedFacts] = []  # missing in runs of earlier versions
    downloads: OmitIfNone[DownloadFacts] = None  # None if nothing was downloaded
    # For sources of web pages: pages, images, rows, and links that are not rows, by reason
    links: OmitIfNone[dict[str, dict[str, int]]] = None
    drift: list[DriftFacts]  # empty if no embeddings are kept
    caption_work: list[CaptionWork]  # by kind and engine; empty without captions
    near: list[NearFacts]
    large_groups: OmitIfNone[list[LargeGroupFacts]] = None  # the largest groups of duplicates; None without any
    signal_errors: OmitIfNone[list[SignalErrors]] = None  # None if no signal failed
    short_texts: OmitIfNone[dict[str, int]] = None  # rule → short texts dropped by language, if many
    counts: dict[str, int]  # rows by rule, and `kept`, in the order of the funnel
    finished: float  # seconds since 1970
    seconds: float  # from start to end
    content: ContentFacts = ContentFacts()

    def verdicts(self, forgotten: bool) -> list[stages.Verdict]:
        """The run's verdicts; see `stages.run_verdicts`."""
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
        """Return a warning for each rule that dropped many short texts by language."""
        cause = "by language, which fastText alone often gets wrong; set measure.language.short to words"
        dropped = (self.short_texts or {}).items()
        return [f"{name} dropped {rows:,} short texts ({rows / self.rows:.1%}) {cause}" for name, rows in dropped]

    def changed(self, **fields: Any) -> Self:
        return self.model_copy(update=fields)


def read_claim(store: RunStore) -> RunClaim:
    """Return the claim of a run, finished or not. Raises as `read_facts`."""
    data = _read(store)
    return _parse(RunClaim, store, {name: value for name, value in data.items() if name in RunClaim.model_fields})


def read_facts(store: RunStore) -> RunFacts:
    """Return a finished run's facts. Raises DamagedError, or RunError if run.json has a later format."""
    return _parse(RunFacts, store, _read(store))


def read_forgotten(store: RunStore) -> ForgottenFacts | None:
    """Return run.json's facts about the record, in any format, because forgotten items stay forgotten; None if none."""
    if not store.exists(RUN_FILE):
        return None
    named = _read_object(store).get("forgotten")
    return None if named is None else _parse(ForgottenFacts, store, named)


def names_retries(store: RunStore) -> bool:
    """Return whether run.json names a record of retries; False if it is missing or damaged."""
    with suppress(DamagedError):
        return store.exists(RUN_FILE) and _read_object(store).get("retries") is not None
    return False


def read_unit_keys(store: RunStore) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of the run's units in order, and the paths of each source, from any format that has them.

    Only units with equal keys are reused.
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
    """Return the object in run.json, if this version reads its format."""
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
