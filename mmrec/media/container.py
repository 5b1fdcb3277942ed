"""Opening audio and video containers that lie in memory, and nothing beside them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from mmrec.errors import MediaError
from mmrec.media.info import MAX_FRAME_PIXELS, MAX_PACKETS

__all__ = ["extension", "limit_decoder", "open_container", "packets_of"]

# Playlists make FFmpeg open other files and addresses; nothing but the bytes at hand is ever read.
_PLAYLISTS = ("hls", "concat", "dash", "applehttp", "imf", "webm_dash_manifest", "sdp", "rtsp")
# FFmpeg decodes a little while it opens a file; a size that only the coded frames tell is bounded there too.
_LIMITS = {"max_pixels": str(MAX_FRAME_PIXELS)}
_MAX_STREAMS = 64


def open_container(data: bytes) -> Any:
    """Open ``data`` with FFmpeg (PyAV). It is a context manager.

    Raises:
        MediaError: if the bytes are a still picture or a playlist.
        av.error.FFmpegError: if FFmpeg does not know the format.
    """
    import av

    options = {"protocol_whitelist": "none", "max_streams": str(_MAX_STREAMS), **_LIMITS}
    container = av.open(io.BytesIO(data), metadata_errors="ignore", options=options)
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        container.close()
        raise MediaError(f"a still picture ({name.removesuffix('_pipe')}), neither audio nor video")
    if any(part in _PLAYLISTS for part in name.split(",")):
        container.close()
        raise MediaError(f"a playlist ({name}), which names media but holds none")
    return container


def limit_decoder(codec: Any) -> None:
    """Bound what one decoder may allocate for a frame, and keep it to one thread: files are decoded in parallel."""
    codec.options = dict(_LIMITS)
    codec.thread_count = 1


def packets_of(container: Any, stream: Any, num_bytes: int) -> Iterator[Any]:
    """Packets of one stream of a file of ``num_bytes`` bytes, in the order of the file.

    Raises:
        MediaError: at more packets, or more bytes in them, than the file can hold.
        av.error.FFmpegError: where the container ends in the middle of a packet.
    """
    total = 0
    for count, packet in enumerate(container.demux(stream)):
        total += packet.size
        if count >= MAX_PACKETS:
            raise MediaError(f"more than {MAX_PACKETS:,} packets in one stream")
        if total > 2 * num_bytes + (1 << 20):
            raise MediaError(f"packets of more than {total:,} bytes in a file of {num_bytes:,} bytes")
        yield packet


def extension(container: Any, names: dict[str, str]) -> str:
    """Extension of the container's format: from ``names``, else FFmpeg's own first name for it."""
    name = str(container.format.name)
    return names[name] if name in names else name.split(",")[0]
