"""A small trained export, and servers that answer from it on loopback, each on a port of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from mmrec.cli import main
from mmrec.serving.app import ServeSettings, build_app


@pytest.fixture(scope="session")
def served_export(tiny_dataset_path, tmp_path_factory) -> Path:
    """The export of a content model of two steps, of all raw modalities; read only."""
    folder = tmp_path_factory.mktemp("served")
    data = ["--data", str(tiny_dataset_path)]
    assert main(["train", "content", *data, "--out", str(folder / "run"), "--max-steps", "2", "--trackers"]) == 0
    assert main(["export", str(folder / "run"), *data, "--out", str(folder / "export"), "--index"]) == 0
    return folder / "export"


@contextlib.contextmanager
def running(export: Path, settings: ServeSettings) -> Iterator[httpx.Client]:
    """A server of the export, and a client of it."""
    config = uvicorn.Config(build_app(export, settings), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 60
        while not server.started and time.monotonic() < end:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def client(served_export) -> Iterator[httpx.Client]:
    """A server with the default limits, that all tests share."""
    with running(served_export, ServeSettings()) as client:
        yield client


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractContextManager[httpx.Client]]:
    """A server of its own for a test: ``with serve(export, timeout_s=1) as client``."""
    return lambda export, **settings: running(export, ServeSettings(**settings))
