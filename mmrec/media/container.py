"""Opening audio and video containers that lie in memory, and nothing beside them."""

from __future__ import annotations

import io
from typing import Any

from mmrec.errors import MediaError

__all__ = ["extension", "open_container"]

# Playlists make FFmpeg open other files and addresses; nothing but the bytes at hand is ever read.
_PLAYLISTS = ("hls", "concat", "dash", "applehttp", "imf", "webm_dash_manifest", "sdp", "rtsp")


def open_container(data: bytes) -> Any:
    """Open ``data`` with FFmpeg (PyAV). It is a context manager.

    Raises:
        MediaError: if the bytes are a still picture or a playlist.
        av.error.FFmpegError: if FFmpeg does not know the format.
    """
    import av

    container = av.open(io.BytesIO(data), metadata_errors="ignore", options={"protocol_whitelist": "none"})
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        container.close()
        raise MediaError(f"a still picture ({name.removesuffix('_pipe')}), neither audio nor video")
    if any(part in _PLAYLISTS for part in name.split(",")):
        container.close()
        raise MediaError(f"a playlist ({name}), which names media but holds none")
    return container


def extension(container: Any, names: dict[str, str]) -> str:
    """Extension of the container's format: from ``names``, else FFmpeg's own first name for it."""
    name = str(container.format.name)
    return names[name] if name in names else name.split(",")[0]
