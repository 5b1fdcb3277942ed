"""What ingestion records about one media file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "MAX_CHANNELS",
    "MAX_DURATION_S",
    "MAX_FILE_BYTES",
    "MAX_FRAME_PIXELS",
    "MAX_PACKETS",
    "MAX_PIXELS",
    "MAX_TEXT_BYTES",
    "MIN_SIDE_PX",
    "MediaInfo",
]

# A picture of 20,000 x 20,000 needs 1.2 GB as RGB; sizes are read from the header, before anything is decoded.
MAX_PIXELS = 100_000_000
# Tracking pixels and placeholders carry nothing, and convolutional towers cannot take them.
MIN_SIDE_PX = 8
# Media are read whole: a worker holds one file at a time.
MAX_FILE_BYTES = 1 << 30
# A frame of 8K film has 35 million pixels; a decoder keeps up to sixteen frames at once.
MAX_FRAME_PIXELS = 40_000_000
# Longer claims are those of damaged headers; film and radio of a whole day are no media of one item.
MAX_DURATION_S = 86_400.0
# The largest layout that FFmpeg names has 24 channels (22.2); a block of samples is as wide as its channels.
MAX_CHANNELS = 64
# Four hours at 60 frames a second. Tables in a header can name the same bytes as any number of packets.
MAX_PACKETS = 1_000_000
# 150,000 words, beyond the context of any text encoder; a text column with more holds something else.
MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """Facts of a usable file; fields that do not apply to its modality are None.

    Attributes:
        ext: extension that fits the content, without a dot, whatever the file was called.
        status: "ok", or "partial" where some of the content cannot be decoded and the rest is used.
        note: one line on anything odd ("3 packets do not decode; the rest is used"), empty for a plain good file.
        source_ext: ``ext`` of the file as it came, where normalisation has made another of it.
    """

    ext: str
    width: int | None = None
    height: int | None = None
    sample_rate: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    num_frames: int | None = None
    status: str = "ok"
    note: str = ""
    source_ext: str | None = None
