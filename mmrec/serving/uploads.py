"""Forms with files: read in memory, never under a name that the client chose; told by content, not by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from mmrec.serving.file_types import check_type
from mmrec.serving.refusals import RefusedError

__all__ = ["UploadedQuery", "body_of", "form_or_json"]

Body = TypeVar("Body", bound=BaseModel)
_MEDIA = ("image", "audio", "video")
_MAX_TEXT_BYTES = 100_000
_MAX_ITEMS = 100


@dataclass(frozen=True, kw_only=True)
class UploadedQuery:
    """One question or one new item, as a form gives it."""

    text: str | None = None
    media: Mapping[str, bytes] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    k: int = 10


_FORM = {
    "text": {"type": "string", "examples": ["a red lamp"]},
    "image": {"type": "string", "format": "binary", "examples": ["@lamp.jpg"]},
    "audio": {"type": "string", "format": "binary"},
    "video": {"type": "string", "format": "binary"},
    "item": {"type": "array", "items": {"type": "string"}, "description": "Ids of items; /search alone."},
    "k": {"type": "integer", "default": 10, "description": "Number of answers; /search alone."},
}


def form_or_json(body: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes this JSON body or the form."""
    content = {
        "application/json": {"schema": body.model_json_schema()},
        "multipart/form-data": {"schema": {"type": "object", "properties": _FORM}},
    }
    return {"requestBody": {"required": True, "content": content}}


async def body_of(request: Request, body: type[Body]) -> Body | UploadedQuery:
    """The JSON body, or the form.

    Raises:
        RefusedError: 415 if the content type is neither, or a file is not of the modality that it was given for; 400
            if a field is unknown, given twice, or no value of its kind.
        RequestValidationError: if the JSON is of another shape.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            return body.model_validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error
    if kind == "multipart/form-data":
        return await _form(request)
    raise RefusedError(415, f"content type {kind or 'none'!r}; send application/json or multipart/form-data")


async def _form(request: Request) -> UploadedQuery:
    values: dict[str, str] = {}
    media: dict[str, bytes] = {}
    items: list[str] = []
    async with request.form(max_files=len(_MEDIA), max_fields=_MAX_ITEMS + 2, max_part_size=_MAX_TEXT_BYTES) as form:
        for name, value in form.multi_items():
            if name in media or name in values:
                raise RefusedError(400, f"{name!r} is given twice; give it once")
            if name in _MEDIA:
                media[name] = await _file(name, value)
            elif isinstance(value, UploadFile):
                raise RefusedError(400, f"a file was given for {name!r}; files are {', '.join(_MEDIA)}")
            elif name == "item":
                items.append(value)
            elif name in ("text", "k"):
                values[name] = value
            else:
                raise RefusedError(400, f"unknown field {name!r}; a form has text, image, audio, video, item and k")
    k = _number(values["k"]) if "k" in values else 10
    return UploadedQuery(text=values.get("text") or None, media=media, items=tuple(items), k=k)


async def _file(name: str, value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise RefusedError(415, f"{name!r} is no file; send it as one")
    data = await value.read()
    check_type(name, data)
    return data


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < len(value) <= 9 and int(value) > 0):
        raise RefusedError(400, f"k is {value[:20]!r}; give a number from 1")
    return int(value)
