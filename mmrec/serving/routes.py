"""What can be asked: /recommend, /similar, /search, /embed, /items, /health, /metrics, /reload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from mmrec.engine import History, Query
from mmrec.item_inputs import Sample
from mmrec.serving.refusals import RefusedError
from mmrec.serving.schemas import (
    EmbedRequest,
    ErrorBody,
    Health,
    HistoryBody,
    ItemBody,
    QueryBody,
    RecommendRequest,
    ReloadBody,
    Results,
    SearchRequest,
    SimilarRequest,
    Vectors,
)
from mmrec.serving.uploads import UploadedQuery, body_of, form_or_json

if TYPE_CHECKING:
    from mmrec.engine.engine import Where
    from mmrec.index import Hit
    from mmrec.serving.decoding import UploadDecoder
    from mmrec.serving.live import LiveExport, OpenExport
    from mmrec.serving.settings import ServeSettings

__all__ = ["answer", "router"]

# Of each answer, the most important first.
MAX_REASONS = 5

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "A value that is not allowed."},
    401: {"model": ErrorBody, "description": "The token is missing or wrong."},
    404: {"model": ErrorBody, "description": "An item that the export does not have."},
    408: {"model": ErrorBody, "description": "The request came, or could be answered, too slowly."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "A file that cannot be used as what it was given for."},
    421: {"model": ErrorBody, "description": "Asked for under a name that the server does not answer to."},
    422: {"model": ErrorBody, "description": "A body of another shape."},
    429: {"model": ErrorBody, "description": "Too many requests at once; see Retry-After."},
}

router = APIRouter(responses=_ERRORS)


@router.post("/recommend", response_model=Results, tags=["questions"])
async def recommend(body: RecommendRequest, request: Request) -> Response:
    """Items for users, one list for each history: what they may take next, without what they have taken."""
    settings: ServeSettings = request.app.state.settings
    _check_batch("histories", body.histories, settings)
    return await answer(request, _recommend, body, settings)


@router.post("/similar", response_model=Results, tags=["questions"])
async def similar(body: SimilarRequest, request: Request) -> Response:
    """Items like others: one list for each item, without itself."""
    settings: ServeSettings = request.app.state.settings
    _check_batch("items", body.items, settings)
    return await answer(request, _similar, body, settings)


@router.post("/search", response_model=Results, tags=["questions"], openapi_extra=form_or_json(SearchRequest))
async def search(request: Request) -> Response:
    """Items near to a text, items and histories (JSON, many questions), or to a text, items and files (a form, one)."""
    settings: ServeSettings = request.app.state.settings
    body = await body_of(request, SearchRequest)
    if isinstance(body, UploadedQuery):
        decoder = request.app.state.decoder
        return await answer(request, _search_uploaded, body, settings, decoder, has_media=bool(body.media))
    _check_batch("queries", body.queries, settings)
    return await answer(request, _search, body, settings)


@router.post("/embed", response_model=Vectors, tags=["questions"], openapi_extra=form_or_json(EmbedRequest))
async def embed(request: Request) -> Response:
    """Unit vectors of new items: of texts (JSON), or of one item with text and files (a form)."""
    body = await body_of(request, EmbedRequest)
    if isinstance(body, UploadedQuery):
        return await answer(request, _embed_uploaded, body, request.app.state.decoder, has_media=bool(body.media))
    _check_batch("records", body.records, request.app.state.settings)
    return await answer(request, _embed, [{"text": record.text} for record in body.records])


@router.get("/items/{item_id:path}", response_model=ItemBody, tags=["questions"])
async def item(item_id: str, request: Request) -> Response:
    """What the export knows of an item."""
    return await answer(request, _item, item_id)


@router.get("/health", response_model=Health, tags=["operation"])
async def health(request: Request) -> Response:
    """What is served. Needs no token."""
    live: LiveExport = request.app.state.live
    current = live.current
    manifest = current.engine.export.manifest
    body = {
        "status": "ok" if live.error is None else "reload failed",
        "reload_error": live.error,
        "export": current.identity,
        "model_hash": manifest["model_hash"],
        "num_items": manifest["num_items"],
        "dim": manifest["dim"],
        "modalities": manifest["modalities"],
    }
    return _json(body, current)


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    text, kind = request.app.state.metrics.text()
    return Response(text, headers={"content-type": kind})


@router.post("/reload", response_model=ReloadBody, tags=["operation"])
async def reload(request: Request) -> Response:
    """Serve the export that lies there now. A damaged one is refused (400), and the old one goes on."""
    if request.app.state.settings.token is None:
        raise RefusedError(401, "only a server with a token reloads for a client; start it with one, or --reload-s")
    live: LiveExport = request.app.state.live
    reloaded = await asyncio.get_running_loop().run_in_executor(None, live.reload)
    if live.error is not None:
        raise RefusedError(400, f"the new export is not used: {live.error}")
    return _json({"reloaded": reloaded, "export": live.current.identity}, live.current)


async def answer(
    request: Request, function: Callable[..., dict[str, Any]], *args: Any, has_media: bool = False
) -> Response:
    """What ``function(export, *args)``, called in a thread, says of the current export, as JSON.

    Uploads have threads of their own, so that files which are slow to decode hold up nothing but each other.
    """
    state = request.app.state
    current: OpenExport = state.live.current  # once: the whole answer is of this export
    workers = state.upload_workers if has_media else state.workers
    return await workers.run(lambda: _json(function(current, *args), current))


def _json(body: dict[str, Any], export: OpenExport) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(text.encode(), media_type="application/json", headers={"X-Export": export.identity})


def _recommend(export: OpenExport, body: RecommendRequest, settings: ServeSettings) -> dict[str, Any]:
    _check_k(body.k, settings)
    histories = [_history(export, history, settings) for history in body.histories]
    results = export.engine.recommend_many(histories, body.k, where=body.where, rerank=body.rerank)
    if not body.explain:
        return {"results": [_hits(hits) for hits in results]}
    explained = []
    for history, hits in zip(histories, results, strict=True):
        reasons = export.engine.explain(history, hits)
        why = [[asdict(reason) for reason in some[:MAX_REASONS]] for some in reasons]
        made_of = export.engine.shares(hits)
        told = zip(hits, why, made_of, strict=True)
        explained.append([vars(hit) | {"why": parts, "made_of": shares} for hit, parts, shares in told])
    return {"results": explained}


def _similar(export: OpenExport, body: SimilarRequest, settings: ServeSettings) -> dict[str, Any]:
    _check_k(body.k, settings)
    _check_known(export, body.items)
    queries = [Query(items=[item_id]) for item_id in body.items]
    return _found(export, queries, body.k, body.where)


def _search(export: OpenExport, body: SearchRequest, settings: ServeSettings) -> dict[str, Any]:
    _check_k(body.k, settings)
    queries = [_query(export, query, settings) for query in body.queries]
    return _found(export, queries, body.k, body.where)


def _search_uploaded(
    export: OpenExport, body: UploadedQuery, settings: ServeSettings, decoder: UploadDecoder
) -> dict[str, Any]:
    _check_k(body.k, settings)
    _check_known(export, body.items)
    query = Query(items=body.items, record=_record(export, body, decoder))
    return _found(export, [query], body.k, None)


def _found(export: OpenExport, queries: Sequence[Query], k: int, where: Where | None) -> dict[str, Any]:
    return {"results": [_hits(hits) for hits in export.engine.search_many(queries, k, where=where)]}


def _embed(export: OpenExport, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"vectors": export.engine.encode_items(records).tolist()}


def _embed_uploaded(export: OpenExport, body: UploadedQuery, decoder: UploadDecoder) -> dict[str, Any]:
    return _embed(export, [_record(export, body, decoder)])


def _record(export: OpenExport, body: UploadedQuery, decoder: UploadDecoder) -> dict[str, Any]:
    """The new item, its files decoded by ``decoder``."""
    record: dict[str, Any] = {} if body.text is None else {"text": body.text}
    for name in [*record, *body.media]:
        if name not in export.preprocessings:
            known = ", ".join(export.preprocessings) or "nothing"
            raise RefusedError(400, f"this model does not encode {name!r} of new items; it encodes {known}")
    return record | {name: Sample(decoder(export.preprocessings[name], data)) for name, data in body.media.items()}


def _item(export: OpenExport, item_id: str) -> dict[str, Any]:
    _check_known(export, [item_id])
    folder = export.engine.export
    row = folder.item_index(item_id)
    return {
        "item_id": item_id,
        "title": folder.title_column[row].as_py(),
        "modalities": folder.modalities_of(row),
        "attributes": folder.attributes_of(row),
    }


def _history(export: OpenExport, body: HistoryBody, settings: ServeSettings) -> History:
    if len(body.items) + len(body.disliked) > settings.max_history:
        raise RefusedError(400, f"a history has at most {settings.max_history:,} items, liked or disliked")
    _check_known(export, [*body.items, *body.disliked])
    return History(items=body.items, times=body.times, at=body.at, disliked=body.disliked)


def _query(export: OpenExport, body: QueryBody, settings: ServeSettings) -> Query:
    if len(body.items) > settings.max_history:
        raise RefusedError(400, f"a query has at most {settings.max_history:,} items")
    _check_known(export, body.items)
    return Query(
        items=body.items,
        record={} if body.text is None else {"text": body.text},
        history=None if body.history is None else _history(export, body.history, settings),
    )


def _hits(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [vars(hit) for hit in hits]


def _check_batch(what: str, given: Sequence[Any], settings: ServeSettings) -> None:
    if len(given) > settings.max_batch:
        raise RefusedError(400, f"{len(given):,} {what} are too many for one request; at most {settings.max_batch:,}")


def _check_k(k: int, settings: ServeSettings) -> None:
    if k > settings.max_k:
        raise RefusedError(400, f"k is {k:,}; at most {settings.max_k:,}")


def _check_known(export: OpenExport, item_ids: Iterable[str]) -> None:
    for item_id in item_ids:
        if item_id not in export.item_ids:
            raise RefusedError(404, f"unknown item {item_id!r}")
