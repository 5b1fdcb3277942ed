"""A small trained world behind the page, and one headless Chromium that looks at it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import uvicorn

from mmrec.cli import main
from mmrec.engine import Engine
from mmrec.explore.app import build_explore_app
from mmrec.serving.app import ServeSettings
from mmrec.serving.server import server_config

EVIL_TITLE = "<img src=x onerror=\"document.body.dataset.hacked='yes'\">"
EVIL_CATEGORY = "<b>red</b>"


@pytest.fixture(scope="session")
def world(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny dataset with a title and a category of markup; exports of a hybrid and of ids alone, barely trained."""
    root = tmp_path_factory.mktemp("explored")
    source = shutil.copytree(tiny_source, root / "source")
    items = pl.read_csv(source / "items.csv")
    first = pl.col("item_id") == "i00"
    items.with_columns(
        pl.when(first).then(pl.lit(EVIL_TITLE)).otherwise("title").alias("title"),
        pl.when(first).then(pl.lit(EVIL_CATEGORY)).otherwise("category").alias("category"),
    ).write_csv(source / "items.csv")
    paths = {name: root / name for name in ("dataset", "hybrid", "ids")}
    tables = ["--items", str(source / "items.csv"), "--interactions", str(source / "interactions.csv")]
    texts = ["--text-columns", "title", "description"]
    assert main(["ingest", *tables, *texts, "--out", str(paths["dataset"])]) == 0
    data = ["--data", str(paths["dataset"])]
    for preset, name in (("hybrid", "hybrid"), ("id", "ids")):
        run = str(root / f"run-{name}")
        assert main(["train", preset, *data, "--out", run, "--max-steps", "2", "--trackers"]) == 0
        assert main(["export", run, *data, "--out", str(paths[name]), "--index"]) == 0
    return paths


@pytest.fixture(scope="session")
def engine(world: dict[str, Path]) -> Engine:
    """Answers to compare with those on the page."""
    return Engine.open(world["hybrid"])


@contextlib.contextmanager
def running(export: Path, settings: ServeSettings | None = None, **more: Any) -> Iterator[str]:
    """The page of an export; its address."""
    settings = settings or ServeSettings(timeout_s=60, num_decoders=1)
    server = uvicorn.Server(server_config(build_explore_app(export, settings, **more), settings))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        end = time.monotonic() + 60
        while not server.started and time.monotonic() < end:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def explore() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """A server of its own for a test: ``with explore(export, data=...) as address``."""
    return running


@pytest.fixture(scope="module")
def address(world: dict[str, Path]) -> Iterator[str]:
    """The page of the hybrid, with media, beside the model of ids."""
    with running(world["hybrid"], data=world["dataset"], compare=world["ids"]) as address:
        yield address


@pytest.fixture(scope="module")
def bare_address(world: dict[str, Path]) -> Iterator[str]:
    """The page of the hybrid alone, without media, for files of 2 MB at most."""
    with running(world["hybrid"], ServeSettings(timeout_s=60, num_decoders=1, max_upload_mb=2)) as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine (chromium, chromium-browser or google-chrome on the path)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """A new tab at an address, ready; at the end: no error in it, and no request left this machine."""
    pages, errors, requested = [], [], []

    def open_at(address: str, hash_: str = "", **options: Any) -> Any:
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        page = context.new_page()
        page.set_default_timeout(60_000)  # a shared machine may be slow; what is there is found at once
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        pages.append(page)
        page.goto(f"{address}/{hash_}")
        ready(page)
        return page

    yield open_at
    for page in pages:
        page.context.close()
    assert errors == []
    local = ("http://127.0.0.1:", "blob:http://127.0.0.1:")
    assert [url for url in requested if not url.startswith(local)] == []


def ready(page: Any) -> None:
    page.wait_for_selector('main[aria-busy="false"]', state="attached")
