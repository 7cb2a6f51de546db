"""An S3 of the tests' own, on the loopback, whose buckets last as long as the process."""

from contextlib import contextmanager

import fsspec
import pytest

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@contextmanager
def serving_s3(address="127.0.0.1"):
    """Yields the URL of a server; skips the test where a package is missing."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def bucket_at(url):
    """Have this process find S3 at a URL; yields that of a bucket there."""
    kind = fsspec.get_filesystem_class("s3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        for name in NAMES:
            patch.setenv(name, "us-east-1")
        kind.clear_instance_cache()
        fsspec.filesystem("s3").makedirs("bucket", exist_ok=True)
        yield "s3://bucket"
        kind.clear_instance_cache()


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket."""
    with serving_s3() as url, bucket_at(url) as made:
        yield made
