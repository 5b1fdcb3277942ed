"""What a small file may claim, and what is refused before memory or time is spent on it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmrec.errors import MediaError
from mmrec.media import container, image, video
from mmrec.media.audio import probe_audio
from mmrec.media.image import decode_image, probe_image
from mmrec.media.video import decode_video, probe_video

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's own


def save(kind: str, size: tuple[int, int] = (16, 16), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind, **options)
    return buffer.getvalue()


def clip(size_px: int = 32, num_frames: int = 4, codec: str = "libx264") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi" if codec == "rawvideo" else "mp4") as out:
        stream = out.add_stream(codec, rate=8, options={} if codec == "rawvideo" else {"threads": "1", "bf": "0"})
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        for n in range(num_frames):
            pixels = np.full((size_px, size_px, 3), 20 * n, dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claim_size(kind: str, side: int) -> bytes:
    """A picture of 16 x 16 whose header says ``side`` x ``side``."""
    data = bytearray(save(kind))
    if kind == "GIF":
        struct.pack_into("<HH", data, 6, side, side)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, side, side)
    elif kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    elif kind == "JPEG2000":
        struct.pack_into(">II", data, data.index(b"ihdr") + 4, side, side)
    elif kind == "TIFF":
        at = struct.unpack_from("<I", data, 4)[0]
        for n in range(struct.unpack_from("<H", data, at)[0]):
            entry = at + 2 + 12 * n
            if struct.unpack_from("<H", data, entry)[0] in (256, 257):  # ImageWidth, ImageLength
                struct.pack_into("<HII", data, entry + 2, 4, 1, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "JPEG", "JPEG2000", "TIFF"])
def test_a_claim_of_30000_pixels_a_side_is_refused_from_the_header(kind):
    data = claim_size(kind, 30_000)
    tracemalloc.start()
    with pytest.raises(MediaError, match="too large"):
        probe_image(data)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_text_that_unpacks_to_a_gigabyte_is_refused_or_skipped():
    squeezer = zlib.compressobj(9)
    bomb = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(256)) + squeezer.flush()
    data = save("PNG")
    text = png_chunk(b"zTXt", b"Comment\0\0" + bomb)
    with pytest.raises(MediaError):
        decode_image(data[:33] + text + data[33:])


def test_a_jpeg_of_a_thousand_scans_is_refused():
    data = save("JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    with pytest.raises(MediaError, match="more than 100 scans"):
        probe_image(data[:at] + data[at:-2] * 1_000 + data[-2:])


def test_only_the_first_of_many_frames_is_decoded():
    frames = [Image.new("RGB", (64, 64), (n, 0, 0)) for n in range(200)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        assert decode_image(buffer.getvalue()).shape == (64, 64, 3)


def transparent(mode: str, size: tuple[int, int]) -> bytes:
    """A PNG of ``mode`` with every colour and opacity that the mode has."""
    generator = np.random.default_rng(0)
    channels = {"RGBA": 4, "LA": 2, "RGB": 3, "L": 1, "P": 1, "1": 1}[mode]
    pixels = generator.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    if mode in ("P", "1"):
        image = Image.fromarray(pixels[..., 0]).convert(mode)
        options = {"transparency": bytes(generator.integers(0, 256, 256, dtype=np.uint8))} if mode == "P" else {}
    else:
        image, options = Image.fromarray(pixels.squeeze()), {}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "P", "1"])
def test_a_picture_that_is_brought_to_rgb_strip_by_strip_is_the_same(mode, monkeypatch):
    data = transparent(mode, (50, 37))
    whole = decode_image(data)
    for pixels in (1, 50, 333, 50 * 36):
        monkeypatch.setattr(image, "_STRIP_PIXELS", pixels)
        decoded = decode_image(data)
        assert decoded.flags.writeable
        np.testing.assert_array_equal(decoded, whole)


PEAK = """
import sys
from mmrec.media.image import decode_image
decode_image(open(sys.argv[2], "rb").read())
open("/proc/self/clear_refs", "w").write("5")
def kib(name): return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
before = kib("VmRSS")
decode_image(open(sys.argv[1], "rb").read())
print(kib("VmHWM") - before)
"""


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_memory_for_transparency_is_that_of_the_picture_and_its_array(tmp_path, kind):
    """16 million transparent pixels: 64 MB as Pillow has them (an animated WebP three times), 48 MB as an array.

    Each step of the way for the whole picture at once would be another 64 MB, four of them.
    """
    if kind == "PNG":
        Image.new("RGBA", (4_000, 4_000), (1, 2, 3, 4)).save(tmp_path / "large", kind)
    else:  # a frame of 16 x 16 on a canvas of any size: 200 bytes
        still = save("WEBP")[12:]
        side, frame = (3_999).to_bytes(3, "little") * 2, bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + still
        chunks = {b"VP8X": b"\2\0\0\0" + side, b"ANIM": bytes(6), b"ANMF": frame}
        body = b"".join(name + struct.pack("<I", len(chunk)) + chunk for name, chunk in chunks.items())
        (tmp_path / "large").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)
    Image.new("RGBA", (16, 16)).save(tmp_path / "small", kind)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < {"PNG": 160e6, "WEBP": 270e6}[kind]


def test_postscript_is_no_picture_and_never_run():
    with pytest.raises(MediaError, match="not a readable image"):
        probe_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")


def test_values_without_a_range_are_stretched_without_copies_of_the_whole():
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.inf
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    decoded = decode_image(buffer.getvalue())[..., 0]
    assert (decoded[0, 1], decoded[7, 7]) == (0, 255)


def test_a_clip_of_30000_pixels_a_side_is_refused_from_the_header():
    for side, words in ((8_192, r"(more than|at most) 40,000,000 pixels a frame"), (30_000, "")):
        data = f"YUV4MPEG2 W{side} H{side} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(100_000_000)
        with pytest.raises(MediaError, match=words):  # FFmpeg itself has no word for the second
            probe_video(data)


def test_frames_larger_than_the_header_says_are_not_allocated(monkeypatch):
    data = clip(size_px=256)
    monkeypatch.setitem(container._LIMITS, "max_pixels", "40000")
    with pytest.raises(MediaError):
        decode_video(data, 2)


def test_a_clip_of_more_than_a_day_is_refused(monkeypatch):
    monkeypatch.setattr(video, "MAX_DURATION_S", 0.3)
    with pytest.raises(MediaError, match="too long"):
        probe_video(clip())


def test_packets_that_hold_more_bytes_than_their_file_are_refused():
    words = r"packets of more than .* bytes in a file of 1,000 bytes"
    data = clip(size_px=256, num_frames=12, codec="rawvideo")
    with container.open_container(data) as opened, pytest.raises(MediaError, match=words):
        list(container.packets_of(opened, opened.streams.video[0], num_bytes=1_000))


def test_no_more_packets_are_read_than_a_clip_can_have(monkeypatch):
    monkeypatch.setattr(container, "MAX_PACKETS", 3)
    with pytest.raises(MediaError, match="more than 3 packets"):
        probe_video(clip(num_frames=8))


def test_sound_of_hundreds_of_channels_is_refused():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full((100, 256), 0.5), 8_000, format="WAV")
    with pytest.raises(MediaError, match="256 channels; usable are 1 to 64"):
        probe_audio(buffer.getvalue())


def test_sound_of_weeks_is_refused_though_its_file_is_small():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(8_000 * 700) / 5).astype(np.float32), 8_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[21] = (data[21] & 0xF0) | 0xF  # the total number of samples, 36 bits
    data[22:26] = b"\xff\xff\xff\xff"
    with pytest.raises(MediaError, match="too long"):
        probe_audio(bytes(data))
