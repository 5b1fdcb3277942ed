"""A part of a file over HTTP, so that a player can jump to any time of a sound or clip."""

from __future__ import annotations

import re

from starlette.responses import Response

__all__ = ["ranged_response"]

_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def ranged_response(data: bytes, content_type: str, asked: str | None, headers: dict[str, str]) -> Response:
    """All of ``data``, or the one range of it that the header ``Range`` asks for.

    Several ranges, and a header in another form, are answered with all, as RFC 9110 14.2 has it.

    Args:
        asked: the header's value; None where there was none.

    Returns: 200, 206, or 416 where the range begins behind the end.
    """
    headers = {**headers, "Accept-Ranges": "bytes"}
    match = _ONE_RANGE.fullmatch(asked.strip()) if asked else None
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return Response(data, media_type=content_type, headers=headers)
    if first:
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
    else:  # the last so many bytes
        start, stop = max(len(data) - int(last), 0), len(data)
    if start >= stop:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response(data[start:stop], status_code=206, media_type=content_type, headers=headers)
