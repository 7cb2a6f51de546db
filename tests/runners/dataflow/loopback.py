"""The rest of a cloud on loopback: Cloud Storage, which is fake-gcs-server, and machines, which are Prism and Beam's boot."""

import os
import subprocess
import urllib.request
from contextlib import contextmanager, suppress

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2 as protos
from apache_beam.runners.portability.prism_runner import PrismRunner

from tests.kit.waiting import wait_until
from tests.runners.clusters import find_go_program, free_port

BUCKET = "gs://my-bucket"
IMAGE = "us-central1-docker.pkg.dev/my-project-1/curate/curate:1"


def variables(url):
    """By which Beam and gcsfs find a store; gcsfs asks by gRPC for a bucket's layout, which the server does not know."""
    return {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@contextmanager
def serving_storage():
    """The address of Cloud Storage with one bucket, in memory."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory", "-log-level=error"]
    words += [f"-external-url={url}", f"-public-host=127.0.0.1:{port}"]
    server = subprocess.Popen([find_go_program("fake-gcs-server"), *words])
    try:
        body = f'{{"name": "{BUCKET[5:]}"}}'.encode()
        request = urllib.request.Request(f"{url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"})

        def has_bucket():
            with suppress(OSError), urllib.request.urlopen(request, timeout=60):
                return True
            return False

        wait_until(has_bucket, lambda: server.poll() is None)
        yield url
    finally:
        server.kill()
        server.wait()


def open_store():
    """The bucket's file system: the plain one, whatever gcsfs was imported for before."""
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem(token="anon", skip_instance_cache=True, use_listings_cache=False)


def read_pipeline(job):
    """The pipeline that a job's request names, from the store, and its bytes."""
    data = open_store().cat_file(job.request["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"])
    return protos.Pipeline.FromString(data), len(data)


def start_on_prism(pipeline, boot):
    """Run a staged pipeline in processes that boot starts; in Google's machines, boot is the image's entry point."""
    with_store = {name: os.environ[name] for name in variables("")}
    for environment in pipeline.components.environments.values():
        assert environment.urn == "beam:env:docker:v1"
        environment.urn = "beam:env:process:v1"
        environment.payload = protos.ProcessPayload(command=boot, env=with_store).SerializeToString()
        del environment.dependencies[:]  # a list of the driver's packages, for a warning
    words = [f"--prism_location={find_go_program('prism')}", "--job_server_timeout=3600", "--experiments=beam_fn_api"]
    return PrismRunner().run_portable_pipeline(pipeline, PipelineOptions(words))


def list_files(url):
    """The files of a folder of the bucket."""
    return list(open_store().find(url))


def download(url, folder):
    """A folder of the bucket as one here."""
    store, prefix = open_store(), url.removeprefix("gs://").rstrip("/") + "/"
    for name in store.find(prefix):
        path = folder / name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.cat_file(name))


def upload(folder, url):
    """The files of a folder into the bucket."""
    store = open_store()
    for path in folder.iterdir():
        store.pipe_file(f"{url}/{path.name}", path.read_bytes())
