"""A request that is not answered, and the one line that says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mmrec.errors import ConfigError, DataError, MediaError
from mmrec.media.isolated import IsolationError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["RefusedError", "handle_refusals", "refusal_body"]

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}


class RefusedError(Exception):
    """Answered with ``status`` and {"error": message}."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def headers(self) -> dict[str, str]:
        return _HEADERS.get(self.status, {})


def refusal_body(message: str) -> bytes:
    """{"error": one line of at most 500 characters}"""
    line = " ".join(message.split())
    line = line if len(line) <= 500 else line[:499] + "…"
    return json.dumps({"error": line}).encode()


def handle_refusals(app: FastAPI) -> None:
    """Turn what is raised while a request is answered into its status and one line, never a traceback."""
    from fastapi import Request, Response
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def respond(status: int, message: str, headers: Any = None) -> Response:
        return Response(refusal_body(message), status, dict(headers or {}), "application/json")

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return respond(error.status, error.message, error.headers)

    @app.exception_handler(HTTPException)
    async def by_the_framework(_: Request, error: HTTPException) -> Response:
        return respond(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def of_another_shape(_: Request, error: RequestValidationError) -> Response:
        return respond(422, shape_error(error.errors()))

    @app.exception_handler(IsolationError)
    async def decoder_failed(_: Request, error: IsolationError) -> Response:
        slow = "took longer" in str(error)
        return respond(408 if slow else 415, f"the file cannot be decoded: {error}")

    @app.exception_handler(MediaError)
    async def unusable_medium(_: Request, error: MediaError) -> Response:
        return respond(415, str(error))

    @app.exception_handler(ConfigError)
    @app.exception_handler(DataError)
    async def bad_value(request: Request, error: Exception) -> Response:
        folder = str(request.app.state.live.current.engine.export.path)
        return respond(400, str(error).replace(folder, "the export"))

    @app.exception_handler(Exception)  # raised again behind it, upon which the server logs it and closes the connection
    async def defect(_: Request, error: Exception) -> Response:
        return respond(500, "a defect of the server; its log tells more", {"connection": "close"})


def shape_error(errors: Any) -> str:
    """The first of pydantic's findings: where, and what was expected."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place or 'body'}: {first['msg']}{more}"
