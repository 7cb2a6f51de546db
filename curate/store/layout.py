"""The run folder's layout: where each file lies, relative to the folder. Users rely on the names outside `tmp`."""

RUN_FILE = "run.json"
ENTRIES_FILE = "entries.parquet"
FAILURES_FILE = "failures.parquet"
FORGOTTEN_FILE = "forgotten.parquet"
RETRIES_FILE = "retries.parquet"
UIDS_FILE = "uids.npy"
SIZES_FILE = "shards/sizes.json"
MANIFEST_FILE = "manifest.parquet"
STATISTICS_FILE = "stats.duckdb"
VIEWS_FILE = "views.sql"
CARD_FILE = "README.md"
CROISSANT_FILE = "croissant.json"
REPORT_FILE = "report.html"
STAGES_FILE = "logs/stages.csv"  # of the last command on Spark: what each stage took
LOGS = "logs"  # of workers on a cluster too, see `curate.store.worker_log`
DRIVER_LOG = "logs/driver.log"  # what a driver said that left its shell
SUCCESS_FILE = "_SUCCESS"  # the last one: with it the run is finished

# What publishing writes beside tables and shards, but the manifest and `_SUCCESS`.
PUBLISHED_FILES = (
    *(FAILURES_FILE, ENTRIES_FILE, SIZES_FILE, UIDS_FILE),
    *(RUN_FILE, CARD_FILE, CROISSANT_FILE, STATISTICS_FILE, VIEWS_FILE),
)

METADATA_FILE = "tmp/metadata.parquet"
EVALUATION_FILE = "tmp/evaluation.parquet"
EVALUATION_FACTS_FILE = "tmp/evaluation.json"
MODELS = "models"  # that a run made: centroids of clusters
FITTED = "tmp/relate"  # what relations asked of all units, for each of them
INPUTS = "inputs"  # small local files, which other machines are to read
NEW_FILE = "tmp/new"  # there where the folder was empty when the run started, in stores that take long to list
UNITS = "tmp/units"  # the units of a large plan, for workers on other machines
LISTS = "tmp/lists"  # lists of URLs, as Parquet, which other processes are to read
HOSTS = "tmp/hosts"  # which process may ask which host, where several download
FORGETTING_FILE = "tmp/forgetting.json"  # there while `curate forget` is at work
DESCRIBING_FILE = "tmp/describing.json"  # there while a finished run gets another name or license: its drops
LOCK_FILE = "tmp/lock"  # there while a command is at work
LEASES = "tmp/lease"  # likewise in object stores, and while a job works that was handed over
STEPS_LOG = "tmp/steps"  # what each unit took in each step, until the run is finished
DIGESTS = "parts/digests"  # of what was written, until the manifest has it
COMMITS = "tmp/commits"  # of files that were put into place since the run started
FAILURES_PARTS = "tmp/failures"  # of each unit that has some
ATTEMPTS = "parts/attempts"  # at units and at shards to download, which did not end
CAPTION_ATTEMPTS = "captions"  # those at captions of units, below these
ANSWER_PARTS = "parts/answers"  # batches of answers, until the unit's table is there
POOL = "pool"  # what was downloaded, in img2dataset's layout


def digest_name(name: str) -> str:
    """Return where a file's digests are, of each attempt, until the manifest has it; empty for what it never has.

    In an object store they are names in a folder. On a disk they are lines of files, for folders take long to remove.
    """
    is_below = name.startswith(("tables/", "shards/", f"{POOL}/", f"{INPUTS}/", f"{MODELS}/", ANSWER_PARTS))
    return f"{DIGESTS}/{name}" if is_below or name in (*PUBLISHED_FILES, FORGOTTEN_FILE, RETRIES_FILE) else ""


def commit_file(name: str) -> str:
    """Return the commit of a file, or of files that are put into place together under a name."""
    return f"{COMMITS}/{name}"


def staged_file(lease: str) -> str:
    """Return the file of what a driver on a cluster is to run, for a lease."""
    return f"tmp/staged-{lease}"


def failures_part(unit: int) -> str:
    """Return the file of a unit's failures, until those of all units are one table."""
    return f"{FAILURES_PARTS}/{unit:05d}.parquet"


def unit_parts(work: str, unit: int) -> str:
    """Return the folder of what slow work on a unit has given so far, see `curate.store.checkpoints`."""
    return f"parts/{work}/{unit:05d}"


def unit_stem(unit: int, last: int | None = None) -> str:
    """Return the name of a unit's files without suffix; with `last`, of files that hold all units up to that one."""
    return f"{unit:05d}" if last is None else f"{unit:05d}-{last:05d}"


def table_file(table: str, unit: int, last: int | None = None) -> str:
    """Return the file of a unit's table, or of a table of units as of `unit_stem`."""
    return f"tables/{table}/{unit_stem(unit, last)}.parquet"


def shard_stem(index: int) -> str:
    """Return the path of an output shard's files, without their suffixes."""
    return f"shards/{index:05d}"


def stem_of(name: str) -> str:
    """Return the path of a shard's files, without their suffixes, by its name in sizes.json."""
    return f"shards/{name.partition('.')[0]}"
