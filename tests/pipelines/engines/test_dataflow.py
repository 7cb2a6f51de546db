"""curate checks Dataflow's options before Beam contacts Google, and requests memory for a recipe's steps."""

import pytest
from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions

from curate.base.errors import RecipeError
from curate.store.store import RunStore
from pipelines.engines.choose import choose_engine
from pipelines.engines.dataflow import Dataflow
from pipelines.prepare import prepare
from tests import kit

IMAGE = "europe-west4-docker.pkg.dev/my-project-1/curate/curate:1"
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
GIVEN = {"runner": "dataflow", "project": "my-project-1", "region": "europe-west4", "sdk_container_image": IMAGE}
OUT = "gs://my-bucket/runs/Run 1"


def choose(out=OUT, **changes):
    given = {key: value for key, value in (GIVEN | changes).items() if value is not None}
    engine = choose_engine([f"--{key}={value}" for key, value in given.items()], out=out)
    assert isinstance(engine, Dataflow)
    return engine


def test_what_is_not_set_has_a_default():
    engine = choose()
    cloud = engine.options.view_as(GoogleCloudOptions)
    assert cloud.temp_location == cloud.staging_location == f"{OUT}/tmp/dataflow"
    assert cloud.job_name.startswith("curate-run-1-") and len(cloud.job_name) == len("curate-run-1-") + 8
    assert choose().options.view_as(GoogleCloudOptions).job_name == cloud.job_name  # so a run has one job
    assert choose("gs://my-bucket/run-1").options.view_as(GoogleCloudOptions).job_name != cloud.job_name
    assert engine.options.view_as(DebugOptions).experiments == ["no_use_multiple_sdk_containers"]
    several = choose(experiments="use_multiple_sdk_containers").options.view_as(DebugOptions).experiments
    assert several == ["use_multiple_sdk_containers"]
    assert choose(temp_location="gs://temp").options.view_as(GoogleCloudOptions).staging_location == "gs://temp"


def test_machines_have_cores_memory_and_disks():
    workers = choose(max_num_workers="9", machine_type="n2-standard-8", disk_size_gb="100").workers
    assert (workers.cores, workers.processes, workers.memory, workers.disk) == (72, 9, 288, 900)
    assert choose(max_num_workers="9").workers.disk == 225  # as the service gives a batch job
    assert choose().workers.cores is None and choose().workers.disk == 0


@pytest.mark.parametrize(
    ("option", "accepted", "refused"),
    [
        ("project", ["abc123", "example.com:abcdef"], [None, "Project", "123456", "abcde", "a" * 31, "my-project-"]),
        ("region", ["us-central1", "northamerica-northeast2"], [None, "us", "us-central1-a", "US-CENTRAL1"]),
        ("job_name", ["a", "run-1"], ["Run", "1run", "run-", "a_b", "run 1"]),
        ("service_account_email", ["curate@my-project-1.iam.gserviceaccount.com"], ["me@example.org", "curate"]),
        ("service_account_email", ["123-compute@developer.gserviceaccount.com"], ["compute@developer.gserviceaccount.com"]),
        ("sdk_container_image", ["curate", "host:5000/a/b_c:1.2", f"{IMAGE}@sha256:{'0' * 64}"], [None, "Curate", "a b", "a:", "-a"]),
        ("temp_location", ["gs://bucket", "gs://a.b-c_d/e f"], ["/tmp", "gs://", "gs://Bucket/a", "gs://ab", "gs://-ab", "gs://1.2.3.4"]),
        ("staging_location", ["gs://bucket/a"], ["s3://bucket/a", "gs://google/a", f"gs://{'a' * 64}", "gs://a..b"]),
        ("dataflow_accelerator", [GPU, "type:nvidia-l4;count:2;machine_type:g2-standard-24"], ["nvidia-l4", "type:a;count:x"]),
    ],
)  # fmt: skip
def test_names_by_googles_rules(option, accepted, refused):
    for value in accepted:
        choose(**{option: value})
    for value in refused:
        with pytest.raises(RecipeError) as error:
            choose(**{option: value})
        text = str(error.value)
        what = f"{option}: is not set" if value is None else f"{option}: found {value!r}"
        assert f"{what}; accepted: " in text and "\n" not in text, text


def test_all_faults_are_listed_at_once():
    with pytest.raises(RecipeError) as error:
        choose("gs://My-Bucket/run", project="My Project", region=None)
    lines = str(error.value).splitlines()
    assert [line.partition("; accepted: ")[0].rpartition("1: ")[2] for line in lines] == [
        "project: found 'My Project'",
        "region: is not set",
        "--out gs://My-Bucket/run: not a valid bucket",
    ]


def test_a_local_folder():
    engine = choose("/shared/out")
    with pytest.raises(RecipeError, match=r"--out /shared/out: is on this machine, .*; accepted: gs://"):
        engine.check_folder(RunStore("/shared/out"))
    engine.check_folder(RunStore("memory://out"))
    choose_engine(["--runner=spark"]).check_folder(RunStore("/shared/out"))


def test_memory_for_deduplication_grows_with_the_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(Dataflow, "check", lambda engine: None)  # Google's packages may be missing
    path, engine = kit.write_tars(tmp_path / "pool", kit.make_samples(6), 1), choose()

    def make(**sections):
        words = [f"--{key}={value}" for key, value in GIVEN.items()]
        return prepare(kit.recipe_of(path, **sections), str(tmp_path / "run"), options=words).context

    plain = make()
    assert engine.hints(plain, 1_000_000, 4) == engine.hints(plain, 250_000_000, 1000) == {}
    assert engine.hints(plain, 12_800_000_000, 1024) == {"Duplicates": {"min_ram": 33_000_000_000}}
    near = make(measure={"image": {"phash": True}}, dedup={"by": ["uid", {"phash": {"distance": 4}}]})
    assert engine.hints(near, 1_000_000, 4) == {}
    assert engine.hints(near, 1_000_000_000, 1024) == {"Duplicates": {"min_ram": 16_000_000_000}}
