"""The layout of the run folder: the path of each file in it. Users rely on the names of files outside of `tmp`."""

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
STAGES_FILE = "logs/stages.csv"  # times of each stage, from the last command on Spark
LOGS = "logs"  # also logs of workers on a cluster, see `curate.store.worker_log`
DRIVER_LOG = "logs/driver.log"  # output of a detached driver
SUCCESS_FILE = "_SUCCESS"  # written last: it marks a finished run

# Files that publishing writes, in addition to tables, shards, the manifest and `_SUCCESS`.
PUBLISHED_FILES = (
    *(FAILURES_FILE, ENTRIES_FILE, SIZES_FILE, UIDS_FILE),
    *(RUN_FILE, CARD_FILE, CROISSANT_FILE, STATISTICS_FILE, VIEWS_FILE),
)

METADATA_FILE = "tmp/metadata.parquet"
EVALUATION_FILE = "tmp/evaluation.parquet"
EVALUATION_FACTS_FILE = "tmp/evaluation.json"
MODELS = "models"  # models that the run made: centroids of clusters
FITTED = "tmp/relate"  # partial results of relations, by unit
INPUTS = "inputs"  # copies of small local files for other machines
NEW_FILE = "tmp/new"  # exists if the folder was empty at the start, in stores with slow listings
UNITS = "tmp/units"  # units of a large plan, for workers on other machines
LISTS = "tmp/lists"  # URL lists as Parquet, for other processes
HOSTS = "tmp/hosts"  # which process may send requests to which host, if several processes download
FORGETTING_FILE = "tmp/forgetting.json"  # exists while `curate forget` runs
DESCRIBING_FILE = "tmp/describing.json"  # exists while a finished run's name or license changes; lists files to delete
LOCK_FILE = "tmp/lock"  # exists while a command runs
LEASES = "tmp/lease"  # takes the place of the lock in object stores and for detached jobs
STEPS_LOG = "tmp/steps"  # time of each unit in each step, until the run is finished
DIGESTS = "parts/digests"  # digests of written files, until the manifest has them
COMMITS = "tmp/commits"  # commits of files since the run started
FAILURES_PARTS = "tmp/failures"  # failures of each unit that has some
ATTEMPTS = "parts/attempts"  # unfinished attempts at units and at shards to download
CAPTION_ATTEMPTS = "captions"  # attempts at captions are in this folder of it
ANSWER_PARTS = "parts/answers"  # batches of answers, until the unit's table is complete
POOL = "pool"  # downloads, in img2dataset's layout


def digest_name(name: str) -> str:
    """Return the path of a file's digests, one per attempt, until the manifest has them; empty for unlisted files.

    In an object store, a digest is the name of an object in a folder. On a disk, digests are lines in files, because
    removing folders is slow.
    """
    is_below = name.startswith(("tables/", "shards/", f"{POOL}/", f"{INPUTS}/", f"{MODELS}/", ANSWER_PARTS))
    return f"{DIGESTS}/{name}" if is_below or name in (*PUBLISHED_FILES, FORGOTTEN_FILE, RETRIES_FILE) else ""


def commit_file(name: str) -> str:
    """Return the path of the commit for a file, or for several files that are committed together under a name."""
    return f"{COMMITS}/{name}"


def staged_file(lease: str) -> str:
    """Return the path of the file that has the arguments for a driver on a cluster, by its lease."""
    return f"tmp/staged-{lease}"


def failures_part(unit: int) -> str:
    """Return the path of a unit's failures. At the end, publishing combines all units' failures into one table."""
    return f"{FAILURES_PARTS}/{unit:05d}.parquet"


def unit_parts(work: str, unit: int) -> str:
    """Return the folder of checkpoints of a unit, see `curate.store.checkpoints`."""
    return f"parts/{work}/{unit:05d}"


def unit_stem(unit: int, last: int | None = None) -> str:
    """Return the name of a unit's files, without suffix; with `last`, of files with the units up to `last`."""
    return f"{unit:05d}" if last is None else f"{unit:05d}-{last:05d}"


def table_file(table: str, unit: int, last: int | None = None) -> str:
    """Return the path of a table for a unit or a chunk; see `unit_stem`."""
    return f"tables/{table}/{unit_stem(unit, last)}.parquet"


def shard_stem(index: int) -> str:
    """Return the path of the files of an output shard, without their suffixes."""
    return f"shards/{index:05d}"


def stem_of(name: str) -> str:
    """Return the path of a shard's files, without their suffixes, from its name in sizes.json."""
    return f"shards/{name.partition('.')[0]}"
