"""One question to any media file: can it be used, and what is it?"""

from __future__ import annotations

from pathlib import PurePath

from mmrec.errors import ConfigError, MediaError, unknown_name
from mmrec.media.audio import probe_audio
from mmrec.media.image import probe_image
from mmrec.media.info import MAX_FILE_BYTES, MediaInfo
from mmrec.media.video import probe_video

__all__ = ["check_size", "misnaming", "probe"]

_PROBES = {"image": probe_image, "audio": probe_audio, "video": probe_video}
# Names under which one format is known; a file may bear any of them.
_SAME_FORMAT = (
    {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    {"tif", "tiff"},
    {"jp2", "j2k", "jpx", "jpf"},
    {"mp4", "m4v", "mov", "m4a", "3gp", "3g2", "mp4a", "aac"},
    {"mkv", "webm", "mka"},
    {"ogg", "oga", "opus", "ogv"},
    {"aif", "aiff", "aifc"},
    {"mpg", "mpeg"},
)


def probe(modality: str, data: bytes) -> MediaInfo:
    """Decode ``data`` as ``modality`` and describe it.

    Args:
        modality: "image", "audio" or "video".

    Raises:
        MediaError: one line why the file cannot be used: empty, cut off, not of this modality, too large, too small,
            silent, without frames.
        ConfigError: if there is no such modality.
    """
    if modality not in _PROBES:
        raise ConfigError(unknown_name("media modality", modality, _PROBES))
    check_size(modality, data)
    return _PROBES[modality](data)


def check_size(modality: str, data: bytes) -> None:
    """Raises: MediaError: if there are more than ``MAX_FILE_BYTES``."""
    if len(data) > MAX_FILE_BYTES:
        raise MediaError(f"{modality} of {len(data):,} bytes is too large, at most {MAX_FILE_BYTES:,} bytes")


def misnaming(ext: str, filename: str) -> str:
    """One line on a file whose name claims another format than ``ext``, that of its content; empty for none."""
    claimed = PurePath(filename).suffix.lstrip(".").lower()
    if not claimed or claimed == ext or any({claimed, ext} <= names for names in _SAME_FORMAT):
        return ""
    return f"named .{claimed} but is {ext}; used as {ext}"
