"""Pictures: bytes in, RGB out, whatever the colour mode, orientation or bit depth."""

from __future__ import annotations

import functools
import io
import struct
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec.errors import MediaError
from mmrec.media.info import MAX_PIXELS, MIN_SIDE_PX, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode_image", "probe_image"]

_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
# What Pillow's decoders raise on damaged bytes (fuzzed files reach all of them).
_DECODE_ERRORS = (
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the first frame to uint8 RGB (H, W, 3), upright, transparency over white.

    Raises:
        MediaError: if the bytes are empty, no picture, cut off, larger than ``MAX_PIXELS`` or smaller than
            ``MIN_SIDE_PX`` a side.
    """
    if _is_plain_jpeg(data) and "torchvision" in sys.modules:  # its import takes longer than many pictures
        try:
            return _decode_jpeg(data)
        except RuntimeError:
            pass  # Pillow has the last word on what is damaged
    picture = _open(data)
    try:
        return np.array(_to_rgb(_upright(picture)))
    except _DECODE_ERRORS as error:
        raise MediaError(f"image is damaged or cut off: {_one_line(error)}") from error


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether this is a whole JPEG of three channels and usable size, without EXIF (which may turn it)."""
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return False
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2):  # the frame: baseline or progressive
            height, width, channels = (*struct.unpack(">HH", data[at + 5 : at + 9]), data[at + 9])
            return channels == 3 and min(height, width) >= MIN_SIDE_PX and height * width <= MAX_PIXELS
        if marker in (0xE1, 0xEE):  # EXIF, or Adobe's word on the colours
            return False
        at += 2 + length
    return False


def _decode_jpeg(data: bytes) -> np.ndarray:
    """As Pillow decodes it, bit for bit (the same library is under both), in two thirds of the time."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels: Any = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return pixels.permute(1, 2, 0).numpy()


def probe_image(data: bytes) -> MediaInfo:
    """Decode once to know that the picture can be used; width and height are those after rotation."""
    picture = _open(data)
    kind = str(picture.format)
    height, width = decode_image(data).shape[:2]
    return MediaInfo(ext=_EXTENSIONS.get(kind, kind.lower()), width=width, height=height)


def _open(data: bytes) -> Image:
    from PIL import Image

    if not data:
        raise MediaError("image is empty (0 bytes)")
    try:
        _silence_pillow()
        picture = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise MediaError(f"image is too large, at most {MAX_PIXELS:,} pixels: {_one_line(error)}") from error
    except _DECODE_ERRORS as error:
        raise MediaError(f"not a readable image ({_looks_like(data)}): {type(error).__name__}") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise MediaError(f"image of {width}x{height} is too large, at most {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise MediaError(f"image of {width}x{height} is too small, at least {MIN_SIDE_PX} pixels a side")
    return picture


@functools.cache
def _silence_pillow() -> None:
    """Pillow warns of malformed EXIF and large sizes once a file; both are judged here, and errors still raise.

    One lasting filter, because ``warnings.catch_warnings`` corrupts the filters when threads use it at once.
    """
    warnings.filterwarnings("ignore", module=r"PIL\..*")


def _upright(picture: Image) -> Image:
    from PIL import ImageOps

    picture.load()  # outside the try: a cut-off picture must raise
    try:
        return ImageOps.exif_transpose(picture)
    except _DECODE_ERRORS:  # unreadable EXIF says nothing about the orientation; the pixels are good
        return picture


def _to_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):  # no agreed range: the darkest pixel becomes black, the brightest white
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _looks_like(data: bytes) -> str:
    head = data[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like HTML or XML"
    if head.startswith(b"%pdf"):
        return "it looks like a PDF"
    if all(byte in b"\t\n\r" or byte >= 32 for byte in data[:64]) and head.isascii():
        return "it looks like text"
    return f"{len(data):,} bytes"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
