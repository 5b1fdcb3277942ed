"""Pictures: bytes in, RGB out, whatever the colour mode, orientation or bit depth."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmrec.errors import MediaError
from mmrec.media.info import MAX_PIXELS, MIN_SIDE_PX, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode_image", "decode_to_shrink", "probe_image"]

_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
# MPO is opened as JPEG. Of what else Pillow opens, PostScript would be run as a program; the rest is never met.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "DIB", "TIFF", "JPEG2000", "ICO", "PPM", "TGA", "PCX")
# Pixels that are brought to RGB at once.
_STRIP_PIXELS = 1 << 20
# A progressive JPEG has some ten scans; each one of a hostile thousand costs as much as a whole picture.
_SCAN, _MAX_SCANS = b"\xff\xda", 100
# What brings an array (H, W, C) upright, by EXIF orientation.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
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
    return _decode(data, None)


def _decode(data: bytes, picture: Image | None) -> np.ndarray:
    """``picture`` is what ``_open`` gave, where it was called already."""
    if "torchvision" in sys.modules:  # its import takes longer than many pictures
        frame = _plain_jpeg(data)
        if frame is not None:
            turn = _orientation(picture or _open(data)) if frame.has_exif else 1
            try:
                return np.ascontiguousarray(_TURNS[turn](_decode_jpeg(data)))
            except RuntimeError:
                pass  # Pillow has the last word on what is damaged
    picture = picture or _open(data)
    with _damage():
        picture.load()  # before the EXIF, which makes a PNG load itself and would hide that it is cut off
        return np.ascontiguousarray(_TURNS[_orientation(picture)](_rgb_pixels(picture)))


def decode_to_shrink(data: bytes, short_side_px: int) -> tuple[MediaInfo, np.ndarray]:
    """Decode once, both to check the picture as ``probe_image`` does and to scale it down to ``short_side_px``.

    A JPEG that is at least three times as large as wanted is decoded at the half, quarter or eighth of its size that
    still has 1.5 times the wanted pixels a side, which costs a fraction of a whole decode; it is read to its end.

    Returns:
        Facts of the picture itself, and uint8 RGB (H, W, 3) as ``decode_image`` gives, but for that reduction.

    Raises:
        MediaError: as :func:`decode_image`.
    """
    frame = _plain_jpeg(data)
    if frame is not None and not frame.has_exif and short_side_px < frame.short_side_px < 3 * short_side_px:
        with contextlib.suppress(RuntimeError):  # Pillow has the last word on what is damaged
            pixels = _decode_jpeg(data)
            return MediaInfo(ext="jpg", width=pixels.shape[1], height=pixels.shape[0]), pixels
    picture = _open(data)
    if min(picture.size) > short_side_px:
        import torchvision  # noqa: F401  (so that the decoder does not depend on what was imported before)
    if picture.format != "JPEG" or min(picture.size) < 3 * short_side_px:
        pixels = _decode(data, picture)
        return _info(picture, pixels.shape[:2]), pixels
    turn = _orientation(picture)  # of a JPEG it is known before the pixels are
    info = _info(picture, picture.size[::-1] if turn < 5 else picture.size)
    wanted = 1.5 * short_side_px / min(picture.size)
    with _damage():
        picture.draft("RGB", (math.ceil(picture.size[0] * wanted), math.ceil(picture.size[1] * wanted)))
        return info, np.ascontiguousarray(_TURNS[turn](_rgb_pixels(picture)))


def _info(picture: Image, shape: tuple[int, ...]) -> MediaInfo:
    kind = str(picture.format)
    return MediaInfo(ext=_EXTENSIONS.get(kind, kind.lower()), width=shape[1], height=shape[0])


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Whatever Pillow raises of damaged pixels is a MediaError."""
    try:
        yield
    except MemoryError as error:
        raise MediaError("image needs more memory than there is") from error
    except _DECODE_ERRORS as error:
        raise MediaError(f"image is damaged or cut off: {_one_line(error)}") from error


class _JpegFrame(NamedTuple):
    short_side_px: int
    has_exif: bool


def _plain_jpeg(data: bytes) -> _JpegFrame | None:
    """The frame of a whole JPEG of three channels (luma and chroma) and usable size; None for anything else."""
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return None
    at, has_exif = 2, False
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2):  # the frame: baseline or progressive
            height, width, channels = (*struct.unpack(">HH", data[at + 5 : at + 9]), data[at + 9])
            usable = channels == 3 and min(height, width) >= MIN_SIDE_PX and height * width <= MAX_PIXELS
            usable = usable and data.count(_SCAN) <= _MAX_SCANS
            return _JpegFrame(min(height, width), has_exif) if usable else None
        if marker == 0xEE and data[at + 4 : at + 9] == b"Adobe" and data[at + 15 : at + 16] != b"\x01":
            return None  # Adobe's word that the channels are RGB or something else
        has_exif = has_exif or marker == 0xE1
        at += 2 + length
    return None


def _decode_jpeg(data: bytes) -> np.ndarray:
    """As Pillow decodes it, bit for bit (the same library is under both), in two thirds of the time."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels: Any = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return pixels.permute(1, 2, 0).numpy()


def probe_image(data: bytes) -> MediaInfo:
    """Decode once to know that the picture can be used; width and height are those after rotation."""
    picture = _open(data)
    return _info(picture, _decode(data, picture).shape[:2])


def _open(data: bytes) -> Image:
    from PIL import Image

    if not data:
        raise MediaError("image is empty (0 bytes)")
    try:
        _silence_pillow()
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\d+", str(error))
        size = f" of {int(claimed[0]):,} pixels" if claimed else ""
        raise MediaError(f"image{size} is too large, at most {MAX_PIXELS:,} pixels") from error
    except _DECODE_ERRORS as error:
        raise MediaError(f"not a readable image ({_looks_like(data)}): {type(error).__name__}") from error
    if picture.format in ("JPEG", "MPO") and data.count(_SCAN) > _MAX_SCANS:
        raise MediaError(f"image of more than {_MAX_SCANS} scans, each as dear as a picture of its own")
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


def _orientation(picture: Image) -> int:
    """EXIF orientation, 1 to 8."""
    try:
        turn = picture.getexif().get(0x0112, 1)
    except _DECODE_ERRORS:  # unreadable EXIF says nothing about the orientation; the pixels are good
        return 1
    return turn if turn in _TURNS else 1


def _rgb_pixels(picture: Image) -> np.ndarray:
    """The picture as it lies, uint8 RGB (H, W, 3).

    Strip by strip where it is large: Pillow takes four bytes a pixel for each step between a palette, or transparency,
    and an array, which of a hundred million pixels would be two gigabytes and more.
    """
    width, height = picture.size
    if width * height <= _STRIP_PIXELS or picture.mode[:1] in "IF":  # of these the range of all values counts
        return np.array(_to_rgb(picture))
    pixels = np.empty((height, width, 3), np.uint8)
    num_rows = max(_STRIP_PIXELS // width, 1)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        pixels[top:bottom] = np.asarray(_to_rgb(picture.crop((0, top, width, bottom))))
    return pixels


def _to_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(picture))).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _stretched(values: np.ndarray) -> np.ndarray:
    """Values without an agreed range (H, W) as uint8: the darkest becomes black, the brightest white."""
    lines = [np.nan_to_num(line, posinf=0.0, neginf=0.0) for line in values] if values.dtype.kind == "f" else values
    low, high = float(np.min([line.min() for line in lines])), float(np.max([line.max() for line in lines]))
    out = np.zeros(values.shape, np.uint8)
    if high > low:
        for row, line in enumerate(lines):  # one by one: the whole in float64 would be eight times its size
            out[row] = ((line.astype(np.float64) - low) * (255.0 / (high - low))).round()
    return out


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
