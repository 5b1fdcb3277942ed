"""The application: an export, its routes and its limits. `mmrec serve` runs it; any ASGI server can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, FastAPI

from mmrec.serving.decoding import UploadDecoder
from mmrec.serving.docs import add_docs
from mmrec.serving.gate import Gate
from mmrec.serving.live import LiveExport
from mmrec.serving.metrics import ServerMetrics
from mmrec.serving.refusals import handle_refusals
from mmrec.serving.routes import router
from mmrec.serving.settings import ServeSettings
from mmrec.serving.workers import Workers

__all__ = ["ServeSettings", "build_app"]


def build_app(export: Path, settings: ServeSettings | None = None, pages: Sequence[APIRouter] = ()) -> FastAPI:
    """The application that answers from an export.

    Handlers find in ``request.app.state``: ``settings``; ``live``, whose ``current`` is the export to answer from,
    taken once a request; ``workers`` and ``upload_workers``, whose ``run`` computes in a thread.

    Args:
        export: folder made by `mmrec export`, or a link to one.
        settings: limits and token.
        pages: routes of others, answered under the same limits.

    Raises: DataError if the export cannot be used.
    """
    settings = settings or ServeSettings()
    app = FastAPI(
        title="mmrec",
        version=version("mmrec"),
        description="Questions to an export: what a user may take next, what is like an item, a text or a file.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.decoder = UploadDecoder(settings.timeout_s, settings.num_decoders)
    app.state.live = LiveExport(export)
    app.state.metrics = ServerMetrics(app.state.live)
    handle_refusals(app)
    app.include_router(router)
    for page in pages:
        app.include_router(page)
    add_docs(app)
    app.add_middleware(Gate, settings=settings, metrics=app.state.metrics)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Threads and the watch over the export, from the start of the server to its end."""
    settings: ServeSettings = app.state.settings
    app.state.workers = Workers(settings.num_threads, settings.max_concurrent)
    app.state.upload_workers = Workers(settings.num_decoders, settings.max_concurrent)
    watch = asyncio.create_task(_watch(app.state.live, settings.reload_s)) if settings.reload_s else None
    try:
        yield
    finally:
        if watch is not None:
            watch.cancel()
        for workers in (app.state.workers, app.state.upload_workers):
            workers.close()
        app.state.decoder.close()


async def _watch(live: LiveExport, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(live.reload_if_changed)
