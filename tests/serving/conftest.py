"""A small trained export, and servers that answer from it on loopback, each on a port of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import APIRouter

from mmrec.cli import main
from mmrec.serving.app import ServeSettings, build_app
from mmrec.serving.server import server_config

# What a test gives a busy machine; nothing here takes a tenth of it.
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def served_export(tiny_dataset_path, tmp_path_factory) -> Path:
    """The export of a content model of a few steps, of all raw modalities; read only."""
    folder = tmp_path_factory.mktemp("served")
    data = ["--data", str(tiny_dataset_path)]
    assert main(["train", "content", *data, "--out", str(folder / "run"), "--max-steps", "2", "--trackers"]) == 0
    assert main(["export", str(folder / "run"), *data, "--out", str(folder / "export"), "--index"]) == 0
    return folder / "export"


@contextlib.contextmanager
def running(export: Path, settings: ServeSettings, pages: Sequence[APIRouter] = ()) -> Iterator[httpx.Client]:
    """A server of the export, and a client of it."""
    server = uvicorn.Server(server_config(build_app(export, settings, pages), settings))
    server.config.port = 0
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while not server.started and time.monotonic() < end:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def client(served_export) -> Iterator[httpx.Client]:
    """A server with the default limits, but for the time, that all tests share."""
    with running(served_export, ServeSettings(timeout_s=PATIENCE_S / 2)) as client:
        yield client


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[httpx.Client]]:
    """A server of its own for a test: ``with serve(export, timeout_s=1) as client``."""

    def start(
        export: Path, *, pages: Sequence[APIRouter] = (), **settings
    ) -> contextlib.AbstractContextManager[httpx.Client]:
        return running(export, ServeSettings(**settings), pages)

    return start
