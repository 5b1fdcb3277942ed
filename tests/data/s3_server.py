"""An S3 server on this machine, for tests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import fsspec
import pytest


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """URL of an empty bucket; the environment says how to reach it. Skips the test where packages are missing."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs 'moto[server]'")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install s3fs 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = server.ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        bucket = f"bucket-{port}"  # moto keeps the buckets of former servers
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"
        running.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
