"""Media come in one form: what is larger is scaled down, what fits stays byte for byte, and bytes are reproducible."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmrec.errors import ConfigError, MediaError
from mmrec.media import normalise as normalise_module
from mmrec.media import transcode
from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.normalise import Normalisation, normalise, probe_and_normalise
from mmrec.media.probe import probe
from mmrec.media.video import decode_video, open_clip

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's own

RULES = Normalisation(image_side_px=16, video_side_px=32, audio_rate_hz=8_000)
KEEP = Normalisation(image_side_px=0, video_side_px=0, audio_rate_hz=0)


def picture(width: int, height: int, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    """A smooth gradient: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.full_like(x, 128)], axis=2).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def clip(
    num_frames: int,
    *,
    size: tuple[int, int] = (64, 48),
    gop: int = 100,
    times: list[int] | None = None,
    codec="libx264",
) -> bytes:
    """Frame n, at ``times[n]`` tenths of a second, is grey of brightness 10 * n: a decoded frame tells its number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream(codec, rate=10, options={"g": str(gop), "threads": "1", "sc_threshold": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for n in range(num_frames):
            pixels = np.full((size[1], size[0], 3), 10 * n, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = n if times is None else times[n]
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def sound(
    rate: int = 44_100, duration_s: float = 0.5, channels: int = 2, kind: str = "WAV", peak: float = 0.5
) -> bytes:
    samples = peak * np.sin(2 * np.pi * 440 * np.arange(int(rate * duration_s)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([samples] * channels, axis=1), rate, format=kind)
    return buffer.getvalue()


def normal(modality: str, data: bytes, rules: Normalisation = RULES):
    return normalise(modality, probe(modality, data), data, rules)


@pytest.mark.parametrize(("width", "height", "expected"), [(40, 24, (27, 16)), (24, 60, (16, 40)), (33, 33, (16, 16))])
def test_a_larger_picture_gets_the_short_side_asked_for_and_keeps_its_proportions(width, height, expected):
    info, data = normal("image", picture(width, height, "PNG"))
    assert (info.ext, info.width, info.height) == ("jpg", *expected)
    assert Image.open(io.BytesIO(data)).size == expected
    assert replace(probe("image", data), source_ext="png") == info


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(16, 16), (16, 300), (10, 12)])
def test_a_picture_that_fits_stays_byte_for_byte(kind, size):
    data = picture(*size, kind)
    assert normal("image", data)[1] == data


def test_scaling_averages_over_the_pixels_below():
    lines = np.tile(np.array([0, 255], np.uint8), (64, 32))  # as fine as can be: black and white columns in turn
    buffer = io.BytesIO()
    Image.fromarray(lines).save(buffer, "PNG")
    pixels = decode_image(normal("image", buffer.getvalue())[1])
    assert np.abs(pixels.astype(int) - 127).max() <= 10


@pytest.mark.parametrize("side", [40, 200, 1000])  # 200 is decoded at a quarter, 1000 at an eighth of its size
def test_a_gradient_stays_a_gradient_however_much_smaller(side):
    info, data = normal("image", picture(2 * side, side, quality=95))
    assert (info.width, info.height) == (32, 16)
    pixels = decode_image(data).astype(float)
    expected_red = 255 * (np.arange(32) + 0.5) / 32
    assert np.abs(pixels[..., 0].mean(axis=0) - expected_red).max() < 6
    assert np.abs(pixels[..., 1].mean(axis=1) - 255 * (np.arange(16) + 0.5) / 16).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [40, 200])
def test_a_turned_picture_is_upright_and_no_longer_says_that_it_is_turned(orientation, side):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = picture(2 * side, side, exif=exif)
    info, normalised = normal("image", data)
    assert (info.width, info.height) == ((32, 16) if orientation < 5 else (16, 32))
    upright = Image.fromarray(decode_image(data)).resize((info.width, info.height), Image.Resampling.BOX)
    assert np.abs(decode_image(normalised).astype(float) - np.asarray(upright)).mean() < 6
    assert Image.open(io.BytesIO(normalised)).getexif().get(0x0112) is None


def test_transparency_lies_over_white():
    pixels = np.zeros((64, 64, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert decode_image(normal("image", buffer.getvalue())[1]).min() >= 254


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_colour_mode_of_a_large_jpeg_becomes_three_channels(mode):
    assert decode_image(normal("image", picture(200, 200, mode=mode))[1]).shape == (16, 16, 3)


def test_a_cut_off_picture_is_an_error_however_it_is_decoded():
    for side in (24, 400):
        data = picture(side, side)
        with pytest.raises(MediaError, match="cut off"):
            normalise("image", probe("image", data), data[:-30], RULES)
        with pytest.raises(MediaError, match="cut off"):
            probe_and_normalise("image", data[:-30], RULES)


def test_a_picture_too_long_for_a_jpeg_is_an_error_and_no_original():
    with pytest.raises(MediaError, match="at most 65,500 pixels a side"):
        normal("image", picture(80_000, 17, "PNG"))


def test_a_larger_clip_is_scaled_and_has_a_keyframe_every_half_second():
    data = clip(25)
    info, normalised = normal("video", data)
    assert (info.ext, info.width, info.height, info.num_frames, info.fps) == ("mp4", 42, 32, 25, 10.0)
    assert info.duration_s == 2.5
    with open_clip(normalised) as opened:
        assert opened.keyframes.tolist() == [0, 5, 10, 15, 20]
        assert (opened.codec.name, opened.codec.pix_fmt) == ("h264", "yuv420p")
    frames, times = decode_video(normalised, 25)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - 10 * np.arange(25)).max() < 4
    np.testing.assert_allclose(times, np.arange(25) / 10, atol=1e-4)


def test_a_small_clip_with_rare_keyframes_is_transcoded_at_its_size():
    info, normalised = normal("video", clip(12, size=(30, 24)))
    assert (info.width, info.height) == (30, 24)
    with open_clip(normalised) as opened:
        assert opened.keyframes.tolist() == [0, 5, 10]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_small_clip_with_close_keyframes_stays_byte_for_byte(codec):
    data = clip(12, size=(32, 32), gop=5, codec=codec)
    assert normal("video", data)[1] == data


def test_a_variable_frame_rate_is_kept():
    moments = [0, 1, 2, 10, 11, 30, 31]
    with open_clip(normal("video", clip(7, times=moments))[1]) as opened:
        np.testing.assert_allclose(opened.times, np.array(moments) / 10, atol=1e-4)


def test_a_clip_without_any_frame_that_decodes_is_an_error():
    data = clip(5)
    start = data.find(b"mdat") + 4
    with pytest.raises(MediaError):
        normalise("video", probe("video", data), data[:start] + bytes(len(data) - start), RULES)


def test_what_is_cut_from_a_long_clip_or_sound_is_noted(monkeypatch):
    monkeypatch.setattr(transcode, "MAX_CLIP_S", 1.0)
    info, _ = normal("video", clip(25))
    assert (info.num_frames, info.status, info.note) == (10, "partial", "the first 1 of 2 s are kept")
    monkeypatch.setattr(normalise_module, "MAX_SOUND_S", 1.0)
    info, _ = normal("audio", sound(duration_s=3.0))
    assert (info.duration_s, info.status, info.note) == (1.0, "partial", "the first 1 of 3 s are kept")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_sound_becomes_mono_flac_of_sixteen_bits(kind):
    info, normalised = normal("audio", sound(kind=kind))
    with soundfile.SoundFile(io.BytesIO(normalised)) as file:
        assert (file.format, file.subtype, file.channels, file.samplerate) == ("FLAC", "PCM_16", 1, 8_000)
        assert info == replace(
            probe("audio", normalised), note=info.note, status=info.status, source_ext=info.source_ext
        )
    spectrum = np.abs(np.fft.rfft(decode_audio(normalised, 8_000, 1.0)[:4_000]))
    assert spectrum.argmax() * 2 == 440


def test_sound_louder_than_full_scale_is_clipped_and_does_not_wrap():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(8_000, 1.5, np.float32), 8_000, format="WAV", subtype="FLOAT")
    samples = decode_audio(normal("audio", buffer.getvalue())[1], 8_000, 1.0)
    assert samples.min() == samples.max() == 32_767 / 32_768


def test_sound_that_sixteen_bits_cannot_hold_is_an_error():
    square = np.where(np.arange(44_100) % 2, 1, -1) / 32_768  # far above what 8,000 Hz can hold
    buffer = io.BytesIO()
    soundfile.write(buffer, square, 44_100, format="WAV")
    with pytest.raises(MediaError, match="silent as 16 bits at 8,000 Hz"):
        normal("audio", buffer.getvalue())


def test_flac_that_libsndfile_does_not_open_is_no_original():
    data = sound(8_000, channels=1, kind="FLAC")
    info = probe("audio", data)
    assert normalise("audio", info, data, RULES)[1] == data
    with pytest.raises(MediaError):
        normalise("audio", info, data[:4] + b"\x81" + data[5:], RULES)  # the block of facts calls itself padding


SAMPLES = {
    "image": lambda: picture(300, 200),
    "video": lambda: clip(12),
    "audio": lambda: sound(),
}


@pytest.mark.parametrize("modality", SAMPLES)
def test_zero_keeps_every_original(modality):
    data = SAMPLES[modality]()
    assert normal(modality, data, KEEP) == (probe(modality, data), data)


@pytest.mark.parametrize("modality", SAMPLES)
def test_normalising_twice_changes_nothing_more(modality):
    once = normal(modality, SAMPLES[modality]())
    assert normalise(modality, *once, RULES) == once


@pytest.mark.parametrize("modality", SAMPLES)
def test_both_ways_to_normalise_agree_and_tell_what_the_file_was(modality):
    data = SAMPLES[modality]()
    info = probe(modality, data)
    assert probe_and_normalise(modality, data, RULES) == normalise(modality, info, data, RULES)
    assert normalise(modality, info, data, RULES)[0].source_ext == info.ext


def test_another_process_makes_the_same_bytes(tmp_path):
    for modality, sample in SAMPLES.items():
        (tmp_path / modality).write_bytes(sample())
    code = (
        f"import sys, hashlib, pathlib; sys.path[:] = {sys.path!r}\n"
        "from mmrec.media.normalise import Normalisation, probe_and_normalise\n"
        f"rules = {RULES!r}\n"
        "for path in sys.argv[1:]:\n"
        "    data = pathlib.Path(path)\n"
        "    result = probe_and_normalise(data.name, data.read_bytes(), rules)\n"
        "    print(hashlib.sha256(repr(result).encode()).hexdigest())\n"
    )
    paths = [str(tmp_path / modality) for modality in SAMPLES]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    here = [probe_and_normalise(modality, sample(), RULES) for modality, sample in SAMPLES.items()]
    assert run.stdout.split() == [hashlib.sha256(repr(result).encode()).hexdigest() for result in here]


def test_rules_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="image_side_px is 4"):
        replace(RULES, image_side_px=4)
    with pytest.raises(ConfigError, match="audio_rate_hz is 16"):
        replace(RULES, audio_rate_hz=16)
    with pytest.raises(ConfigError, match="unknown media modality 'text'"):
        normalise("text", probe("image", picture(9, 9)), b"", RULES)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_real_turned_clips_are_upright(shared_data, angle):
    data = (shared_data / "odd_media" / "video" / f"video_{angle}.mov").read_bytes()
    info, normalised = normal("video", data, replace(RULES, video_side_px=128))
    frames, original = decode_video(normalised, 1)[0], decode_video(data, 1, short_side_px=128)[0]
    assert frames.shape[1:] == ((128, 228, 3) if angle in (0, 180) else (228, 128, 3))
    assert (info.width, info.height) == frames.shape[2:0:-1]
    same = [slice(min(a, b)) for a, b in zip(frames.shape, original.shape, strict=True)]
    assert np.abs(frames[tuple(same)].astype(float) - original[tuple(same)]).mean() < 12
