"""Pictures of every kind become upright RGB, or a one-line error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmrec.errors import MediaError
from mmrec.media.image import decode_image, probe_image

# Pillow's own warnings of damage; mmrec silences them, pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore")


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_a_lossless_picture_comes_back_exactly():
    pixels = noise(12, 20)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(pixels), "PNG")), pixels)


def test_exif_orientation_is_applied():
    pixels = noise(12, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to view"
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data), np.rot90(pixels, -1))
    assert (probe_image(data).width, probe_image(data).height) == (12, 20)


def test_transparency_lies_over_white():
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    decoded = decode_image(encode(Image.fromarray(pixels), "PNG"))
    assert (decoded[:, :4] == (255, 0, 0)).all()
    assert (decoded[:, 4:] == 255).all()


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    decoded = decode_image(encode(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((values // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_every_colour_mode_becomes_three_bytes_a_pixel(mode):
    source = Image.fromarray(noise(9, 10))
    picture = Image.fromarray(noise(9, 10, 2)[..., 0].astype(np.uint16)) if mode == "I;16" else source.convert(mode)
    decoded = decode_image(encode(picture, "TIFF"))
    assert (decoded.shape, decoded.dtype) == ((9, 10, 3), np.uint8)


def test_a_truncated_picture_is_an_error_wherever_it_ends():
    data = encode(Image.fromarray(noise(16, 16)), "PNG")
    for length in range(1, len(data) - 24, 7):  # the last 24 bytes are checksums and the end mark, no pixels
        with pytest.raises(MediaError):
            decode_image(data[:length])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "ICO"])
def test_flipped_bytes_never_raise_anything_but_a_media_error(kind):
    data = bytearray(encode(Image.fromarray(noise(16, 16)), kind))
    generator = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data), 3):
            damaged[position] = int(generator.integers(0, 256))
        with contextlib.suppress(MediaError):
            assert decode_image(bytes(damaged)).ndim == 3


def test_an_empty_file_is_an_error():
    with pytest.raises(MediaError, match="empty"):
        probe_image(b"")


def test_a_web_page_named_jpg_is_an_error_that_says_so():
    with pytest.raises(MediaError, match="looks like HTML"):
        probe_image(b"<!DOCTYPE html><html><body>404</body></html>")


def test_a_picture_of_one_pixel_is_too_small():
    with pytest.raises(MediaError, match="1x1 is too small, at least 8"):
        probe_image(encode(Image.new("RGB", (1, 1)), "PNG"))


def test_a_picture_of_20000_by_20000_is_refused_from_its_header():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side, words in ((20_000, "too large"), (11_000, "11000x11000 is too large")):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(MediaError, match=words):
            probe_image(data)
