"""What Beam's client sends: the request, the options, the image, the hints, and the pipeline, whose size has a limit."""

import base64
import random
from dataclasses import replace
from pathlib import Path

import pytest
from apache_beam.portability.api import beam_runner_api_pb2 as protos

from curate import demo
from curate.base.errors import RecipeError
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import PackedUnits, Unit
from curate.recipe.recipe import parse_recipe
from curate.store.layout import UNITS
from pipelines.curate import build
from pipelines.driver import preflight
from pipelines.engines import dataflow
from pipelines.prepare import prepare
from pipelines.steps.units import BeamUnits
from tests import kit
from tests.runners.dataflow.loopback import BUCKET, IMAGE, list_files, read_pipeline, upload

pytestmark = pytest.mark.runners

CLIP = Path(demo.__file__).parent / "clip"  # without torch, whose import takes as long as all the rest
GPU = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"


def make_recipe(folder, device="cuda"):
    """With all that a pipeline has steps for."""
    kit.write_tars(folder / "tars", kit.make_samples(12), 1)
    upload(folder / "tars", f"{BUCKET}/{folder.name}/tars")
    (folder / "forgotten.txt").write_text("https://example.com/0/1.jpg\n")
    model = {"model": f"onnx:{CLIP}", "device": device, "embeddings": True}
    return parse_recipe(
        {
            "input": {"name": "pool", "format": "webdataset", "path": f"{BUCKET}/{folder.name}/tars/*.tar"},
            "match": {"metadata": kit.write_metadata(folder)},
            "measure": {"language": {}, "image": {"phash": True}, "clip": model},
            "blocklist": str(folder / "forgotten.txt"),
            "derive": {"z": "zscore(words)", "q": "quantile(clip_score)"},
            "rules": {
                "words": "words > 2",
                "wide": {"top": 0.9, "of": "width"},
                "high": {"top": 0.9, "of": "height"},
                "z": "z > -3",
                "aligned": {"top": 0.5, "of": "clip_score"},
            },
            "dedup": {"by": ["uid", "sha256", {"phash": {"distance": 4}}, {"embedding": {"cosine": 0.95}}]},
            "balance": {"rows": 5},
            "captions": {"engines": {"llm": {"vllm": {"model": "tiny/llm"}}}, "rewrite": {"engine": "llm", "styles": ["human"]}},
            "max_failed": 1.0,
        }
    )  # fmt: skip


def submit(cloud, recipe, out, units=None, **options):
    """Submit a run as the driver does, after its checks."""
    prepared = prepare(recipe, out, on=str(cloud.write_options(**options)))
    lines = []
    preflight(prepared, lines.append)
    assert lines[0].startswith("Dataflow in us-central1, project my-project-1, as job curate-run-")
    plan = prepared.plan.units if units is None else units
    rows = 10_000 * len(plan) * 10
    hints = prepared.engine.hints(prepared.context, rows, 1024)

    def add_steps(root):
        steps = BeamUnits(root, plan, replace(prepared.context, recipe=prepared.sent), hints)
        build(steps, prepared.context, plan, 1024)
        steps.finish()

    job = prepared.engine.submit(add_steps, prepared.context.store)
    assert job.handle is not None and job.handle["job"] == cloud.service.jobs[-1].id
    return cloud.service.jobs[-1]


def find_hints(pipeline):
    """The hints of steps that have some, by name."""
    environments = pipeline.components.environments
    found = {}
    for transform in pipeline.components.transforms.values():
        if transform.environment_id and (hints := environments[transform.environment_id].resource_hints):
            found[transform.unique_name] = {key.split(":")[2]: value.decode() for key, value in hints.items()}
    return found


def test_the_request(cloud, tmp_path):
    out = f"{BUCKET}/{tmp_path.name}/run"
    account = "curate@my-project-1.iam.gserviceaccount.com"
    more = {"service_account_email": account, "max_num_workers": 9, "no_use_public_ips": True}
    more |= {"machine_type": "n2-standard-8", "number_of_worker_harness_threads": 8, "dataflow_accelerator": GPU}
    job = submit(cloud, make_recipe(tmp_path), out, **more)
    request = job.request
    environment = request["environment"]
    assert job.place == ("my-project-1", "us-central1") and request["name"].startswith("curate-run-")
    assert environment["serviceAccountEmail"] == account
    assert environment["tempStoragePrefix"].startswith(f"storage.googleapis.com/{out[5:]}/tmp/dataflow/curate-run-")
    assert environment["version"]["job_type"] == "FNAPI_BATCH"
    assert {"no_use_multiple_sdk_containers", "use_runner_v2"} <= set(environment["experiments"])
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    [pool] = environment["workerPools"]
    assert (pool["machineType"], pool["numThreadsPerWorker"]) == ("n2-standard-8", 8)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 9
    assert pool["ipConfiguration"] in ("WORKER_IP_PRIVATE", 2)
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    packages = [package["name"] for package in pool.get("packages", [])]
    assert packages == ["submission_environment_dependencies.txt"]  # no Beam
    pipeline, size = read_pipeline(job)
    payloads = [environment.payload for environment in pipeline.components.environments.values()]
    assert {protos.DockerPayload.FromString(payload).container_image for payload in payloads} == {IMAGE}
    assert size < 2_000_000
    expected = {"Measure": {"min_ram_bytes": "16000000000", "accelerator": GPU}}
    expected["Caption"] = {"min_ram_bytes": "32000000000", "accelerator": GPU}
    hints = find_hints(pipeline)
    steps = {name: next((step for step in expected if name.startswith(step)), "") for name in hints}
    assert {"Measure", "Caption"} <= set(steps.values())
    for name, step in steps.items():
        assert hints[name] == expected[step] if step else "Duplicates" in name


def test_gpus_and_recipe_fit_each_other(cloud, tmp_path):
    out, recipe = f"{BUCKET}/{tmp_path.name}/run", make_recipe(tmp_path)
    plain = recipe.model_copy(update={"captions": None})
    service = {"dataflow_service_options": f"worker_accelerator={GPU}"}
    submit(cloud, plain, out, **service)
    without, gpu = kit.recipe_of(f"{BUCKET}/{tmp_path.name}/tars/*.tar"), {"dataflow_accelerator": GPU}
    for of, options, match in (
        (plain, {}, r"measure.clip: device: cuda, but dataflow_accelerator is not set; accepted: e.g. type:"),
        (plain, service | gpu, "worker_accelerator too"),
        (plain, gpu | {"flexrs_goal": "COST_OPTIMIZED"}, "does not work with flexrs_goal"),
        (without, gpu, "no step of this recipe uses a GPU"),
    ):
        with pytest.raises(RecipeError, match=match):
            submit(cloud, of, out, **options)


def test_what_is_on_this_machine_is_refused(cloud, tmp_path):
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(6), 1))
    with pytest.raises(RecipeError, match=r"input 'pool': /.*tar is on this machine, not on Google Cloud"):
        submit(cloud, recipe, f"{BUCKET}/{tmp_path.name}/run")
    with pytest.raises(RecipeError, match=r"--out /.*: is on this machine"):
        submit(cloud, recipe, str(tmp_path / "run"))
    assert not cloud.service.jobs and not (tmp_path / "run").exists()


def make_units(count, parts):
    """Units of tars with a list beside each, as a bucket lists them: sizes and etags are of little use to compression."""
    rng = random.Random(1)

    def etag():
        generation = 1_700_000_000_000_000 + rng.randrange(10**13)
        return base64.b64encode(b"\x08" + generation.to_bytes(8, "little") + b"\x10\x01").decode()

    for index in range(count):
        files = []
        for i in range(parts):
            size, listed = 300_000_000 + rng.randrange(10**8), f"{rng.randrange(900_000, 1_200_000)} bytes, {etag()}"
            name = f"{BUCKET}/laion/{index * parts + i:07d}.tar"
            files.append(InputPart(name, size, etag(), listing_fingerprint=listed))
        yield Unit(index, "pool", tuple(files))


@pytest.mark.slow
def test_the_pipeline_of_the_largest_pool(cloud, tmp_path, monkeypatch):
    """130,000 units of ten tars, with the richest recipe: units that take up more are files of the run's folder."""
    out, recipe = f"{BUCKET}/{tmp_path.name}/run", make_recipe(tmp_path)
    units = PackedUnits(make_units(130_000, 10))
    monkeypatch.setattr(dataflow, "find_files", lambda *_: ())
    pipeline, size = read_pipeline(submit(cloud, recipe, out, units, dataflow_accelerator=GPU))
    print(f"pipeline.pb of 130,000 units: {size:,} bytes")
    assert size < 10_000_000 and len(list_files(f"{out}/{UNITS}")) > 100
    duplicates = [hints for name, hints in find_hints(pipeline).items() if name.startswith("Duplicates")]
    assert duplicates and all(hints == {"min_ram_bytes": "39000000000"} for hints in duplicates)
