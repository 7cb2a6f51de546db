"""Google Dataflow, through Beam's own runner. Invalid names are reported before anything is staged.

A job runs one Python process per machine, whose threads share models and entries, as in the local engine. If a step
needs more than the others, its resource hints make Dataflow run it on separate machines ("right fitting"). All attempts
at a run use the same job name, so that Dataflow refuses a second active job.
"""

import logging
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions, PipelineOptions, WorkerOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState, create_runner

from curate.ask.costs.model import Workers
from curate.base import ids
from curate.base.errors import RecipeError, RunError, needing, reraised
from curate.decide.settings import DecideSettings
from curate.pool.plan import Unit
from curate.recipe.captions import Captions
from curate.run.context import RunContext
from curate.signals.registry import find_signals
from curate.signals.signal import ModelSignal
from curate.store.store import RunStore
from pipelines.engines.base import PipelineEngine, Report
from pipelines.engines.job import Job
from pipelines.engines.workers import find_files
from pipelines.spark.context import StageCost

_log = logging.getLogger(__name__)
_BETWEEN = 5.0  # seconds between two polls of a job
_TIMEOUT, _PATIENCE = 30, 600  # seconds: limit for one request, and for the time without any answer while following
_GB = 1_000_000_000
_MODELS, _CAPTIONS = 16 * _GB, 32 * _GB  # bytes of memory for machines that load models for signals, and for captions
_GROUPED = 2000  # bytes of memory per row of a bucket, one bucket per thread; 119 bytes a row are shuffled (measured)
_NEAR = 16, 1 << 31, 3  # bytes per near-duplicate that all workers get, their limit, and copies in memory
_ENOUGH = 4 * _GB  # memory that each machine has for these anyway
_DISK = 25  # GB, Google's default for a batch job's machine
_GB_A_CORE = {"n1-standard": 3.75, "n2-standard": 4, "e2-standard": 4, "n2-highmem": 8}  # Google's
_LOCAL = "localhost"  # in the address of a test service, which needs no credentials

# The service's metrics of a job, as Beam's `DataflowCostBenchmark` reads them: in vCPU-seconds, MB-seconds, …
_METRICS = {
    "vCPUs": ("TotalVcpuTime", 1.0),
    "GPUs": ("TotalGpuTime", 1.0),
    "GB of memory": ("TotalMemoryUsage", 1e-3),
    "GB of disk": ("TotalPdUsage", 1.0),
}

# Google's rules for the values of options, and their texts in messages; `bucket` is for all options with a bucket.
_RULES = tomllib.loads(files("pipelines.engines").joinpath("dataflow.toml").read_text("utf-8"))


class DataflowOptions(PipelineOptions):
    """Options that Beam lacks."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--dataflow_accelerator", help="GPUs for the steps with models, as in Dataflow's hint.")


class Dataflow(PipelineEngine):
    """Google Dataflow."""

    key = "dataflow"
    runner = "DataflowRunner"
    defaults = ("--sdk_location=container",)

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        super().__init__(options, runner)
        self.name = "Dataflow"
        self._cloud = options.view_as(GoogleCloudOptions)
        self._accelerator = options.view_as(DataflowOptions).dataflow_accelerator

    @classmethod
    def find_runner(cls, options: PipelineOptions, out: str | None) -> PipelineRunner:
        """Complete the options, and return the runner. Beam's own check of buckets, which asks Google, is skipped."""
        cloud, debug = options.view_as(GoogleCloudOptions), options.view_as(DebugOptions)
        if out and out.startswith("gs://"):
            cloud.temp_location = cloud.temp_location or f"{out}/tmp/dataflow"
        cloud.staging_location = cloud.staging_location or cloud.temp_location
        if not cloud.job_name:
            word = re.sub("[^a-z0-9]+", "-", (out or "").rpartition("/")[2].lower()).strip("-")
            cloud.job_name = "-".join(filter(None, ("curate", word[:40], ids.digest([out])[:8])))
        if "use_multiple_sdk_containers" not in (debug.experiments or ()):
            debug.add_experiment("no_use_multiple_sdk_containers")
        if errors := list(_find_faults(options, out)):
            raise RecipeError("\n".join(errors))
        return create_runner(cls.runner)

    @property
    def workers(self) -> Workers:
        """The maximum number of machines, one process each; cores and memory from the machine type's name."""
        options = self.options.view_as(WorkerOptions)
        machines, kind = options.max_num_workers or options.num_workers or 0, options.machine_type or ""
        shape = re.fullmatch(r"(\w+-(?:standard|highmem|highcpu))-(\d+)", kind)
        cores = machines * int(shape[2]) if shape else 0
        memory = cores * _GB_A_CORE[shape[1]] if shape and shape[1] in _GB_A_CORE else None
        missing = "give max_num_workers, and a machine_type such as n2-standard-8"
        disk = machines * (options.disk_size_gb or _DISK)
        return Workers(self.key, cores or None, machines or 1, memory, missing, self.overhead, self.seconds, disk)

    def check(self) -> None:
        with needing("Dataflow needs more packages", "'.[gcp]' in a checkout of curate"):
            from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient  # noqa: F401

    def check_folder(self, folder: RunStore) -> None:
        if folder.is_local:
            raise RecipeError(f"--out {folder.url}: is on this machine, not on Google Cloud; accepted: gs://BUCKET/…")

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Raise RecipeError if workers could not read an input, or if the GPU options do not match the recipe."""
        for key, path, _ in find_files(context, units):
            if "://" not in path or path.startswith("file://"):
                raise RecipeError(f"{key}: {path} is on this machine, not on Google Cloud; accepted: a URL")
        cuda = [f"measure.{name}" for name, device in _devices(context).items() if device.startswith("cuda")]
        is_service = any("worker_accelerator" in option for option in self._cloud.dataflow_service_options or ())
        unused = "no step of this recipe uses a GPU; accepted: device: cuda for a model, or no accelerator"
        if self._accelerator and is_service:
            raise RecipeError("dataflow_accelerator: dataflow_service_options set worker_accelerator too; remove one")
        if self._accelerator and self._cloud.flexrs_goal:
            raise RecipeError("dataflow_accelerator: does not work with flexrs_goal; remove one of them")
        if self._accelerator and not (cuda or _has_model(context.recipe.captions)):
            raise RecipeError(f"dataflow_accelerator: {unused}")
        if cuda and not (self._accelerator or is_service):
            example = _RULES["dataflow_accelerator"]["accepted"].partition(",")[0]
            raise RecipeError(f"{cuda[0]}: device: cuda, but dataflow_accelerator is not set; accepted: e.g. {example}")
        report(f"Dataflow in {self._cloud.region}, project {self._cloud.project}, as job {self._cloud.job_name}")

    def hints(self, context: RunContext, rows: int, n_buckets: int) -> Mapping[str, Mapping[str, Any]]:
        """Return memory and GPUs for models, and memory for deduplication, unless every machine has enough."""
        hints: dict[str, dict[str, Any]] = {}
        gpu = {"accelerator": self._accelerator} if self._accelerator else {}
        if self._cloud.flexrs_goal:
            return hints
        signals = find_signals(context.recipe.measure, context.models)
        if any(isinstance(signal, ModelSignal) for signal in signals):
            is_cuda = any(device.startswith("cuda") for device in _devices(context).values())
            hints["Measure"] = {"min_ram": _MODELS} | (gpu if is_cuda else {})
        if _has_model(context.recipe.captions):
            hints["Caption"] = {"min_ram": _CAPTIONS} | gpu
        of_row, most, copies = _NEAR
        near = copies * min(of_row * rows, most) if DecideSettings.of(context).near else 0
        if (needed := _GROUPED * rows // n_buckets + near) > _ENOUGH:
            hints["Duplicates"] = {"min_ram": 2 * _ENOUGH + needed // _GB * _GB}
        return hints

    def submit(self, add_steps: Callable[[beam.Pipeline], object], store: RunStore) -> Job:
        """Stage the pipeline and create the job. Raises RunError if the run already has an active job."""
        from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError

        try:
            return super().submit(add_steps, store)
        except DataflowJobAlreadyExistsError as error:
            job = re.search(r"with id: (\S+?)\.? ", str(error))
            named = f"{self._cloud.job_name}{f': {_page(self._cloud, job[1])}' if job else ''}"
            raise RunError(f"Dataflow already has an active job {named}; wait for it, or cancel it") from None

    def follow(self, result: PipelineResult) -> Job:
        return _DataflowJob(self._cloud, result.job_id())

    # ---- jobs continue without this process

    @property
    def outlasts_driver(self) -> bool:
        return True

    def name_job(self, store: RunStore) -> Mapping[str, str]:
        """Return the handle of the job that `submit` will create: its name, which starts with a letter."""
        return _handle(self._cloud, str(self._cloud.job_name))

    @classmethod
    def attach(cls, handle: Mapping[str, str]) -> Job:
        """Return the job for a handle: by ID, or else the latest job with its name."""
        words = [f"--{key}={value}" for key, value in handle.items() if key != "job"]
        options = PipelineOptions([*words, *["--no_auth"] * _is_local(handle.get("dataflow_endpoint"))])
        return _DataflowJob(options.view_as(GoogleCloudOptions), handle["job"])


class _DataflowJob(Job):
    """A job that any process can query and cancel, through the service's API."""

    def __init__(self, cloud: GoogleCloudOptions, job: str) -> None:
        from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

        self.engine, self._cloud = "Dataflow", cloud
        self._client = DataflowApplicationClient(cloud)
        self._id = job  # its ID; empty if there is no such job
        if not job[0].isdigit():
            jobs = [each for each in self._ask("list_jobs", "ListJobsRequest", name=job) if each.name == job]
            self._id = str(max(jobs, key=lambda each: each.create_time).id) if jobs else ""

    def _ask(self, method: str, request: str, **of_job: Any) -> Any:
        """Return the service's answer without Beam's ten minutes of retries. Raises RunError."""
        from google.cloud import dataflow

        region = {"project_id": self._cloud.project, "location": self._cloud.region}
        with reraised(RunError, "Dataflow", *_google_errors()):
            message = getattr(dataflow, request)(**region, **of_job)
            return getattr(self._client._jobs_client, method)(message, timeout=_TIMEOUT)

    @property
    def handle(self) -> Mapping[str, str]:
        return _handle(self._cloud, self._id)

    @property
    def logs(self) -> str:
        return _page(self._cloud, self._id)

    @property
    def state(self) -> str:
        from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult

        if not self._id:
            return str(PipelineState.UNKNOWN)
        job = self._ask("get_job", "GetJobRequest", job_id=self._id)
        return str(DataflowPipelineResult.api_jobstate_to_pipeline_state(job.current_state))

    @property
    def costs(self) -> list[StageCost]:
        """The service's metrics of the job so far: a row per resource, in amount times seconds."""
        values: dict[str, float] = {}
        with suppress(*_google_errors()):  # metrics are a minute late, and a run does not fail without them
            for metric in self._client.get_job_metrics(self._id).metrics:
                if metric.name.origin.startswith("dataflow") and "tentative" not in metric.name.context:
                    values[metric.name.name] = float(metric.scalar)
        shuffled = int(values.pop("TotalShuffleDataProcessed", 0))
        used = {label: values[name] * unit for label, (name, unit) in _METRICS.items() if name in values}
        rows = [StageCost(f"(job: {label})", 0, 0.0, seconds, 0, 0) for label, seconds in used.items()]
        return [*rows, *([StageCost("(job: shuffles)", 0, 0.0, 0.0, shuffled, 0)] if shuffled else [])]

    def follow(self, on_costs: Callable[[], None]) -> None:
        state = self._look_until_ended(on_costs, _BETWEEN, _PATIENCE)
        if state != PipelineState.DONE:
            _log.error("Dataflow: the job is %s; see %s", state, self.logs)
            raise RuntimeError(self.fault or f"Dataflow: the job is {state}")

    def _end(self) -> None:
        self._ask("update_job", "UpdateJobRequest", job_id=self._id, job={"requested_state": "JOB_STATE_CANCELLED"})

    @property
    def fault(self) -> str | None:
        """The service's error message."""
        with suppress(*_google_errors()):
            messages, _ = self._client.list_messages(self._id, minimum_importance="JOB_MESSAGE_ERROR")
            texts = (str(message.message_text) for message in messages)
            # Prefer a worker's traceback to the message that an item was retried too often.
            return max(texts, key=lambda text: ("Traceback" in text, "item was attempted" not in text), default=None)
        return None


def _google_errors() -> tuple[type[Exception], ...]:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return GoogleAPIError, GoogleAuthError, OSError


def _find_faults(options: PipelineOptions, out: str | None) -> Iterator[str]:
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    needed = {"project": cloud.project, "region": cloud.region, "sdk_container_image": worker.sdk_container_image}
    others = {"job_name": cloud.job_name, "service_account_email": cloud.service_account_email}
    others["dataflow_accelerator"] = options.view_as(DataflowOptions).dataflow_accelerator
    for name, value in (needed | others).items():
        if value is None and name in needed:
            yield f"{name}: is not set; accepted: {_RULES[name]['accepted']}"
        elif value is not None and not re.fullmatch(_RULES[name]["pattern"], value):
            yield f"{name}: found {value!r}; accepted: {_RULES[name]['accepted']}"
    if _is_local(cloud.dataflow_endpoint):
        return
    bucket, accepted = _RULES["bucket"].values()
    if out and out.startswith("gs://") and not re.fullmatch(bucket, out):
        yield f"--out {out}: not a valid bucket; accepted: {accepted}"
        return
    for name in ("temp_location", "staging_location"):
        value = getattr(cloud, name)
        if value and not re.fullmatch(bucket, value) and (name, value) != ("staging_location", cloud.temp_location):
            yield f"{name}: found {value!r}; accepted: {accepted}"


def _handle(cloud: GoogleCloudOptions, job: str) -> dict[str, str]:
    keys = ("project", "region", *["dataflow_endpoint"] * (cloud.dataflow_endpoint != cloud.DATAFLOW_ENDPOINT))
    return {key: getattr(cloud, key) for key in keys} | {"job": job}


def _page(cloud: GoogleCloudOptions, job: str) -> str:
    return f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job}?project={cloud.project}"


def _is_local(endpoint: str | None) -> bool:
    return _LOCAL in (endpoint or "")


def _devices(context: RunContext) -> dict[str, str]:
    models = {name: model for name, model in context.models.items() if isinstance(model, dict)}
    return {name: str(model["device"]) for name, model in models.items() if "device" in model}


def _has_model(captions: Captions | None) -> bool:
    """Return whether a model in the worker's process writes captions, on any device."""
    if captions is None:
        return False
    used = {task.section.engine for task in captions.requested}
    sections = [captions.engines[name].section for name in used if captions.engines[name].section.is_local]
    return bool(captions.regions) or any(getattr(section, "device", "auto") != "cpu" for section in sections)
