"""The application of `mmrec explore`: that of `mmrec serve` with the page in front, once more for a second export."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrec.data.dataset import Dataset
from mmrec.explore.catalog import Catalog
from mmrec.explore.routes import STATIC, item_routes, page_routes
from mmrec.serving.app import ServeSettings, build_app

__all__ = ["build_explore_app"]

# The browser refuses whatever would come from elsewhere; blob: is a file that the reader has chosen.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A page of another site can reach this port under a name of its own; under that name it gets nothing.
_HOSTS = ["127.0.0.1", "localhost"]


def build_explore_app(
    export: Path, settings: ServeSettings, *, data: Path | str | None = None, compare: Path | None = None
) -> FastAPI:
    """The page of an export, for this machine alone.

    Args:
        export: folder made by `mmrec export`.
        settings: limits.
        data: dataset with the media; None: cards have titles and badges alone.
        compare: a second export, answered below /other.

    Raises: DataError if one of the folders cannot be used, or the dataset has none of the export's items.
    """
    dataset = None if data is None else Dataset.open(data)
    names = _names(export, compare)
    app, catalog = _with_items(export, names[0], settings, dataset, compares=compare is not None)
    app.include_router(page_routes(catalog))
    app.mount("/static", StaticFiles(directory=STATIC))
    if compare is not None:
        other, _ = _with_items(compare, names[1], settings, dataset, compares=False)
        app.mount("/other", other)
        _live_together(app, other)
    app.add_middleware(_FixedHeaders)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    return app


def _with_items(
    export: Path, name: str, settings: ServeSettings, dataset: Dataset | None, *, compares: bool
) -> tuple[FastAPI, Catalog]:
    app = build_app(export, settings)
    catalog = Catalog(app.state.live.current.engine.export, dataset)
    app.include_router(item_routes(catalog, name=name, max_upload_bytes=settings.max_upload_bytes, compares=compares))
    return app, catalog


def _names(export: Path, compare: Path | None) -> list[str]:
    """Names of the folders; with those of the folders above where they are called alike."""
    paths = [path.resolve() for path in (export, compare) if path is not None]
    short = [path.name for path in paths]
    return [str(Path(*path.parts[-2:])) for path in paths] if len(set(short)) < len(short) else short


def _live_together(app: FastAPI, mounted: FastAPI) -> None:
    """Start and end a mounted application with the one that it is mounted in, which starts itself alone."""
    own = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def both(_: FastAPI) -> AsyncIterator[None]:
        async with mounted.router.lifespan_context(mounted), own(app):
            yield

    app.router.lifespan_context = both


class _FixedHeaders:
    """Adds the same headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
