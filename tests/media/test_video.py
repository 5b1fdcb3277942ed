"""Clips become evenly spaced upright frames, or a one-line error."""

from __future__ import annotations

import contextlib
import io

import av
import numpy as np
import pytest

from mmrec.errors import MediaError
from mmrec.media.video import decode_video, probe_video


def encode(
    num_frames: int,
    *,
    gop: int = 12,
    fps: int = 8,
    size_px: int = 32,
    container: str = "mp4",
    moments: list[int] | None = None,
) -> bytes:
    """Frame n is grey of brightness 4 * n: a decoded frame tells its number. It is shown at ``moments[n] / fps``."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=fps, options={"g": str(gop), "crf": "1", "threads": "1"})
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
        for n in range(num_frames):
            pixels = np.full((size_px, size_px, 3), 4 * n, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = None if moments is None else moments[n]
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def numbers(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 4).astype(int).tolist()


@pytest.mark.parametrize("gop", [1, 5, 12, 60])
def test_frames_are_evenly_spaced_whatever_the_keyframes(gop):
    frames, times = decode_video(encode(48, gop=gop), 4)
    # The middles of four equal parts of 0 to 47 are 5.875, 17.625, 29.375, 41.125.
    assert numbers(frames) == [6, 18, 29, 41]
    np.testing.assert_allclose(times, np.array([6, 18, 29, 41]) / 8)


def test_frames_are_evenly_spaced_in_time_where_the_frame_rate_varies():
    moments = [*range(10), 20, 40, 60, 79]
    frames, times = decode_video(encode(14, moments=moments), 4)
    # The middles of four equal parts of 0 to 79 are 9.875, 29.625, 49.375, 69.125.
    assert numbers(frames) == [9, 10, 11, 12]
    np.testing.assert_allclose(times, np.array([9, 20, 40, 60]) / 8)


def test_a_short_clip_gives_each_frame_once():
    frames, times = decode_video(encode(3), 8)
    assert numbers(frames) == [0, 1, 2]
    np.testing.assert_allclose(times, [0, 1 / 8, 2 / 8])


def test_one_frame_is_the_middle_one():
    assert numbers(decode_video(encode(9), 1)[0]) == [4]


def test_frames_are_scaled_while_decoding_and_never_enlarged():
    data = encode(4, size_px=64)
    assert decode_video(data, 2, short_side_px=24)[0].shape == (2, 24, 24, 3)
    assert decode_video(data, 2, short_side_px=128)[0].shape == (2, 64, 64, 3)


def test_a_probe_counts_frames_and_time():
    info = probe_video(encode(16))
    assert (info.num_frames, info.fps, info.duration_s, info.width, info.height) == (16, 8.0, 2.0, 32, 32)
    assert (info.ext, info.status) == ("mp4", "ok")


def test_an_empty_file_is_an_error():
    with pytest.raises(MediaError, match="empty"):
        probe_video(b"")


def test_a_truncated_mp4_is_an_error():
    data = encode(24)
    with pytest.raises(MediaError, match="not readable as video"):
        probe_video(data[: len(data) // 2])


def test_a_truncated_matroska_keeps_what_decodes():
    data = encode(24, container="matroska")
    info = probe_video(data[: int(len(data) * 0.7)])
    assert 0 < info.num_frames < 24


def test_a_video_without_frames_is_an_error():
    with pytest.raises(MediaError, match=r"no video stream|without frames"):
        probe_video(encode(0))


def test_sound_without_pictures_is_an_error():
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(8000) / 5), 8000, format="WAV")
    with pytest.raises(MediaError, match="no video stream"):
        probe_video(buffer.getvalue())


def test_a_still_picture_named_mp4_is_an_error():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG")
    with pytest.raises(MediaError, match="still picture"):
        probe_video(buffer.getvalue())


def test_a_playlist_reads_no_other_file(tmp_path):
    (tmp_path / "other.ts").write_bytes(encode(8, container="mpegts"))
    entry = f"#EXTINF:1,\nfile://{tmp_path}/other.ts\n"
    with pytest.raises(MediaError):
        probe_video(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{entry}#EXT-X-ENDLIST\n".encode())
    with pytest.raises(MediaError):
        probe_video(f"ffconcat version 1.0\nfile {tmp_path}/other.ts\n".encode())


def test_a_damaged_packet_loses_frames_and_not_the_clip():
    data = bytearray(encode(48, gop=6, size_px=64))
    start = data.find(b"mdat") + 4
    middle = start + (len(data) - start) // 3
    data[middle : middle + 60] = bytes(60)
    frames, times = decode_video(bytes(data), 4)
    assert 1 <= len(frames) <= 4
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
def test_flipped_bytes_never_raise_anything_but_a_media_error(container):
    data = encode(12, container=container)
    generator = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data), 4):
            damaged[position] = int(generator.integers(0, 256))
        for function in (probe_video, lambda data: decode_video(data, 4)):
            with contextlib.suppress(MediaError):
                function(bytes(damaged))
