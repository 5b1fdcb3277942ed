"""What the page asks beside the routes of `mmrec serve`: cards, thumbnails, media, the map."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from mmrec.errors import DataError
from mmrec.explore.byte_range import ranged_response
from mmrec.explore.catalog import Catalog
from mmrec.explore.space import make_map, spread_items
from mmrec.serving.refusals import RefusedError

__all__ = ["item_routes", "page_routes"]

STATIC = Path(__file__).parent / "static"

# An item's media do not change while the server runs; another server on this port may have others.
_KEEP = {"Cache-Control": "private, max-age=300"}
_QUERIED = ("text", "image", "audio", "video")


@contextlib.contextmanager
def _not_found() -> Iterator[None]:
    """404 for what is named and not there."""
    try:
        yield
    except DataError as error:
        raise RefusedError(404, str(error)) from error


class CardsRequest(BaseModel):
    """Items to show."""

    item_ids: list[str] = Field(max_length=1000)


def item_routes(catalog: Catalog, *, name: str, max_upload_bytes: int, compares: bool) -> APIRouter:
    """Routes that each of two exports has.

    Args:
        name: what the page calls the export.
        max_upload_bytes: size of a file that is taken.
        compares: whether there is a second export beside it.
    """
    router = APIRouter()
    make = functools.cache(lambda: make_map(catalog))

    @router.get("/about")
    def about() -> dict[str, Any]:
        """What the export is, and what it can be asked by."""
        manifest = catalog.export.manifest
        return {
            "name": name,
            "dataset": manifest["dataset"]["name"],
            "model_hash": manifest["model_hash"],
            "num_items": len(catalog.rows),
            "dim": catalog.export.dim,
            "modalities": manifest["modalities"],
            "queried_by": [modality for modality in _QUERIED if modality in manifest["modalities"]],
            "has_media": catalog.dataset is not None,
            "max_upload_bytes": max_upload_bytes,
            "compares": compares,
        }

    @router.post("/cards")
    def cards(request: CardsRequest) -> dict[str, Any]:
        """Title, modalities, attributes and media of items."""
        with _not_found():
            return {"cards": catalog.cards(request.item_ids)}

    @router.get("/map")
    def space() -> dict[str, Any]:
        """All items in two dimensions."""
        return make()

    @router.get("/spread")
    def spread(k: int = Query(24, ge=1, le=200), seed: int = Query(0, ge=0, lt=2**31)) -> dict[str, Any]:
        """Items that differ, to begin with."""
        return {"item_ids": spread_items(catalog, k, seed)}

    return router


def page_routes(catalog: Catalog) -> APIRouter:
    """The page itself, and the media of the dataset."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @router.get("/thumbnail/{item_id:path}")
    def thumbnail(item_id: str) -> Response:
        """A JPEG of the item's picture, clip or sound."""
        data = catalog.thumbnail(item_id)
        if data is None:
            raise RefusedError(404, f"item {item_id!r} has nothing that can be pictured")
        return Response(data, media_type="image/jpeg", headers=_KEEP)

    @router.get("/media/{item_id:path}/{modality}")
    def media(item_id: str, modality: str, range: str | None = Header(None)) -> Response:  # noqa: A002 - its name
        """A medium as it is stored, or a part of it."""
        with _not_found():
            medium = catalog.medium(item_id, modality)
        return ranged_response(medium.data, medium.content_type, range, _KEEP)

    return router
