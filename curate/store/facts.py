"""run.json: what determines a run, and, once it is finished, its results.

In: a run folder. Out: `RunClaim`, which is written when a run takes its folder, and `RunFacts`, which takes its place
when the run is published. Keys of the JSON are the fields' names, in order. A `format` of later versions is refused.
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
        """Return the columns of a table with a row for each of several facts of texts and numbers."""
        types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        kinds = {name: {field.annotation, *get_args(field.annotation)} for name, field in cls.model_fields.items()}
        return pa.schema([(name, next(types[kind] for kind in types if kind in kinds[name])) for name in kinds])


class MetadataFacts(Facts):
    """The metadata: how many entries, and the digest of the table that they are."""

    entries: int
    digest: str


class ForgottenFacts(Facts):
    """The record forgotten.parquet: its items and requests, the key of what was blocked, and the digest of all."""

    items: int
    requests: int
    key: str
    digest: str


class RetriesFacts(Facts):
    """The record retries.parquet: how many rounds there were, of how many URLs, and the digest of it."""

    rounds: int
    rows: int
    digest: str


class InputRunFacts(Facts):
    """A run whose kept rows are a source: its name, what identifies it, its rows, and columns that its recipe names."""

    name: str
    identity: str
    rows: int
    kept: int
    column_names: dict[str, str]  # part of a sample → column of its shards


class PoolFacts(Facts):
    """What is known of a pool without its inputs."""

    images: bool  # it has images; without, it is a pool of URLs
    supplied: list[str]  # columns of `samples` that its inputs supply
    scores: list[str]  # columns of `scores` that they supply
    embeddings: dict[str, Any]  # precomputed embeddings by model, with what identifies them


class GroupThreshold(Facts):
    """The least value of a group that passed a top rule."""

    group: bool | int | str | None
    threshold: int | float


class RuleFacts(Facts):
    """A rule: SQL, or the best of column `of`, with the least value that passed (None where no row reached it).

    The best are a fraction `top` or `rows`, `over` the pool or what reached the rule, of each group `by` a column.
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
    dedup: OmitIfNone[bool] = None  # whether it is the place of deduplication

    @property
    def expression(self) -> str:
        if self.sql or self.dedup:
            return self.sql or DEDUP
        best = f"top {self.top:.12g}" if self.rows is None else f"top {self.rows:,} rows"
        over = {None: "", "pool": " over the pool"}.get(self.over, " as a budget of the pool")
        return f"{best} of {self.of}{over}{'' if self.by is None else f' by {self.by}'}"

    @property
    def best(self) -> dict[str, Any]:
        """Return the rule as a recipe has it, where it is not SQL."""
        return self.model_dump(include={"top", "rows", "of", "over", "by"}, exclude_none=True)

    def threshold_of(self, group: Any = None) -> int | float | None:
        """Return the least value of a group that passed, or of any row where there are no groups."""
        if self.thresholds is None:
            return self.threshold
        return next((passed.threshold for passed in self.thresholds if passed.group == group), None)

    def show(self, threshold: float) -> str:
        """Return a threshold of the rule in all digits, so that a rule with this text keeps the same rows."""
        return all_digits(threshold, bool(self.single))


class StatisticFacts(Facts, extra="allow"):
    """A statistic in a derived column: of an expression, over `rows` with a value; further keys are its parameters."""

    function: str
    of: str
    rows: int


class DerivedFacts(Facts):
    """A derived column: its expression, and the statistics in it."""

    name: str
    sql: str
    statistics: list[StatisticFacts]


class StepFacts(Facts):
    """The work of a step: units or shards, their rows (None where it does not say), wall time of each, summed."""

    step: str
    units: int
    rows: int | None
    seconds: float


class UsedFacts(Facts):
    """What a step used, and `start` and `engine`, what no step did; of processes in Python alone."""

    step: str
    cpu: float = 0.0  # seconds of a core
    gpu: float = 0.0  # seconds of a GPU
    memory: float = 0.0  # GB of all processes times seconds
    reads: float = 0.0  # requests of the run folder's store, GET and HEAD; 0 for a local one
    writes: float = 0.0  # PUT and LIST
    shuffled: float = 0.0  # bytes that were brought together by key
    stored: float = 0.0  # bytes of what was published
    spread: float | None = None  # standard deviation of CPU a row between units or shards, by its mean

    @classmethod
    def kinds(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in ("step", "spread")]


class DownloadFacts(Facts):
    """What was downloaded."""

    urls: int  # that were tried
    came: int
    bytes: int  # of those that came, as servers sent them
    began: float  # seconds since 1970
    ended: float
    reasons: dict[str, int]  # why others did not come → how many, the most frequent first

    @property
    def seconds(self) -> float:
        """Return how long it took, at least a millisecond."""
        return max(self.ended - self.began, 1e-3)


class DriftFacts(Facts):
    """How far what is kept of a source has drifted from it, by a model's embeddings (`curate.publish.drift`)."""

    source: str
    model: str
    side: str
    pool_rows: int
    kept_rows: int
    distance: float
    standard_error: float | None
    unchanged: float


class CaptionWork(Facts):
    """What the captions of a kind took of an engine."""

    kind: str
    engine: str
    model: str
    requests: int
    sent: int  # of these, since no answer was cached
    failed: int  # of these, without an answer
    passed: int  # texts
    replaced: int  # originals in `.txt`
    tokens_in: int
    tokens_out: int
    tokens_sent: int = 0  # in and out, of what was sent
    seconds: float  # of the engine
    cost: float | None  # by the recipe's price; None without one


class NearFacts(Facts, extra="allow"):
    """A deduplication pass by nearness: its place, and how many of a sample's close pairs it compared (`found`).

    What it compares is under the key of its kind, as in the recipe.
    """

    place: int
    sampled: int
    found: int


class LargeGroupFacts(Facts):
    """A group of duplicates: the uid of the row that represents it, its rows, and those that reached deduplication."""

    uid: str
    rows: int
    reached: int

    def describe(self, has_near: bool) -> str:
        """Return the group in words; `has_near`: whether duplicates may be near ones."""
        share = f"{self.rows / self.reached:.1%} of those that reached deduplication"
        remedy = "; if they differ, set a higher cosine, or a smaller distance, in dedup.by" if has_near else ""
        return f"{self.rows:,} rows ({share}) are one group, represented by {self.uid}{remedy}"


class SignalErrors(Facts):
    """Rows of which a signal is null: of a package's on which images it failed, of any where it was not finite."""

    signal: str  # its name and package, in words; or the name of the column that was not finite
    rows: int
    first: str


class EvaluationFacts(Facts):
    """The evaluation set of `dedup.against`: images, and how many more could not be read, with an example."""

    images: int
    unread: int
    such_as: str | None


class ContentFacts(Facts):
    """What the kept samples are."""

    languages: dict[str, int] = {}  # code → samples, the most frequent first; empty where none was measured
    files: dict[str, int] = {}  # suffix in the tars → samples; empty without images
    shards: int = 0
    bytes: int = 0  # of all shards
    digest: str = ""  # of the shards' names and sha256
    means: dict[str, float] = {}  # of words, width and height, as far as they are known
    json_dtype: Any = None  # of the samples' jsons, as `merge_dtypes` has it; None where it is not known
    # By column that states them: license → samples, the most frequent first; empty text: none is stated
    licences: OmitIfNone[dict[str, dict[str, int]]] = None


class RunClaim(Facts):
    """What determines a run; with it a folder belongs to one recipe and one pool."""

    format: int = FORMAT
    curate: str  # the version that made it
    name: str  # of the dataset
    seed: int
    sources: list[str]  # their names
    recipe: dict[str, Any]  # as resolved, without access options
    identity: str  # digest of all that decides what the run publishes
    keys: dict[str, str]  # digest of the keys of each table's files, and of the pool and the shards
    unit_keys: list[str]  # in the order of units
    models: dict[str, Any]  # what identifies each model that measures
    engine_ids: dict[str, str]  # what identifies each engine that writes captions
    metadata: MetadataFacts | None  # None without `match`
    python: str
    packages: dict[str, str]  # versions that results depend on
    started: float  # seconds since 1970
    forgotten: OmitIfNone[ForgottenFacts] = None  # None where nothing is blocked or taken out
    retries: OmitIfNone[RetriesFacts] = None  # None where nothing was tried again
    emitted: list[str]  # columns of the shards besides the fixed ones, or those of the inputs
    input_runs: OmitIfNone[dict[str, InputRunFacts]] = None  # by source; None without


class SelectionWords(Facts):
    """What people are told of the last choice among the rows left."""

    # Why a row stayed or did not, of one row; `str.format` fills in its `draw`, `probability` and `value`, and the
    # selection's `meaning`
    kept: str = ": its draw {draw} is below 1 (probability {probability})"
    dropped: str = "{meaning} (probability {probability})"
    of: str = ""  # the column that has the `value`
    card: str  # what the dataset card says under the selection's key
    summary: list[str] = []  # lines at the end of a run
    by_entries: bool = False  # whether each entry draws its rows: `explain` then shows their draws


class SelectionFacts(SelectionWords):
    """The selection of a run: its key, why it drops rows (of all of them), and its label, such as t = 20,000."""

    key: str
    meaning: str
    label: str = ""
    is_uniform: bool = False  # whether each row left had the same probability, and the number of rows was exact
    values: dict[str, Any] = {}  # numbers that it chose, by name, such as t
    is_random: bool = True  # whether rows were kept by chance; else `decisions` have no probability
    repeats: bool = False  # whether a row may be in the set several times


class RunFacts(RunClaim):
    """A finished run."""

    evaluation: OmitIfNone[EvaluationFacts] = None  # None without `dedup.against`
    pool: PoolFacts
    units: list[tuple[str, int]]  # how many consecutive units each source has, in order
    # How many consecutive units share files, in order; None: each has its own.
    units_per_file: OmitIfNone[list[int]] = None
    rules: list[RuleFacts]
    derived: OmitIfNone[list[DerivedFacts]] = None  # None where the recipe derives no column
    selection: OmitIfNone[SelectionFacts] = None  # None where every row that was left is kept
    t: int | None  # rows that an entry may have; None without `balance`
    t_by_language: OmitIfNone[dict[str, int]] = None  # where it differs by language; then `t` is that of the first
    expected: OmitIfNone[float] = None  # rows with this t, and with t + 1: where t was solved for `balance.rows`
    expected_above: OmitIfNone[float] = None
    steps: list[StepFacts]  # those that had work
    used: list[UsedFacts] = []  # not of runs of earlier versions
    downloads: OmitIfNone[DownloadFacts] = None  # None where nothing was
    # Of sources whose rows are links of pages: pages, images, rows, and links that are no rows, by reason
    links: OmitIfNone[dict[str, dict[str, int]]] = None
    drift: list[DriftFacts]  # empty where no embeddings are kept
    caption_work: list[CaptionWork]  # by kind and engine; empty without captions
    near: list[NearFacts]
    large_groups: OmitIfNone[list[LargeGroupFacts]] = None  # of duplicates, see `Dedup`; None without any
    signal_errors: OmitIfNone[list[SignalErrors]] = None  # None where no signal failed
    short_texts: OmitIfNone[dict[str, int]] = None  # by rule: short texts that it dropped by language, where many
    counts: dict[str, int]  # rows by rule, and `kept`, in the order of the funnel
    finished: float  # seconds since 1970
    seconds: float  # from start to finish
    content: ContentFacts = ContentFacts()

    def verdicts(self, forgotten: bool) -> list[stages.Verdict]:
        """Return the run's verdicts; see `stages.run_verdicts`."""
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
        """Return a sentence for each rule that dropped many short texts by their language."""
        cause = "by language, which fastText alone often gets wrong; set measure.language.short to words"
        dropped = (self.short_texts or {}).items()
        return [f"{name} dropped {rows:,} short texts ({rows / self.rows:.1%}) {cause}" for name, rows in dropped]

    def changed(self, **fields: Any) -> Self:
        return self.model_copy(update=fields)


def read_claim(store: RunStore) -> RunClaim:
    """Return what determines the run, finished or not. Raises as `read_facts` does."""
    data = _read(store)
    return _parse(RunClaim, store, {name: value for name, value in data.items() if name in RunClaim.model_fields})


def read_facts(store: RunStore) -> RunFacts:
    """Return a finished run's facts. Raises DamagedError, and RunError where run.json has a later format."""
    return _parse(RunFacts, store, _read(store))


def read_forgotten(store: RunStore) -> ForgottenFacts | None:
    """Return what run.json, of any format, says of the record: what was taken out stays out; None if it names none."""
    if not store.exists(RUN_FILE):
        return None
    named = _read_object(store).get("forgotten")
    return None if named is None else _parse(ForgottenFacts, store, named)


def names_retries(store: RunStore) -> bool:
    """Return whether run.json says that something was tried again; not where it is missing or damaged."""
    with suppress(DamagedError):
        return store.exists(RUN_FILE) and _read_object(store).get("retries") is not None
    return False


def read_unit_keys(store: RunStore) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of the run's units in order, and the path or paths of each source, of any format that has them.

    Only units of equal keys are reused.
    """
    run = _read_object(store)
    sources = [source for source in (run.get("recipe") or {}).get("input") or [] if "path" in source]
    return list(run.get("unit_keys") or []), {source["name"]: source["path"] for source in sources}


def write_facts(store: RunStore, facts: RunClaim) -> None:
    """Put run.json into place."""
    store.write_json(RUN_FILE, facts.to_json())


def _read_object(store: RunStore) -> dict[str, Any]:
    data = store.read_json(RUN_FILE)
    if not isinstance(data, dict):
        raise DamagedError(f"{store.url}: {RUN_FILE} is damaged: it is not a JSON object")
    return data


def _read(store: RunStore) -> dict[str, Any]:
    """Return the object in run.json, if it is of a format that this version reads."""
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
