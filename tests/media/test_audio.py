"""Sound becomes mono samples at the rate asked for, or a one-line error."""

from __future__ import annotations

import contextlib
import io

import av
import numpy as np
import pytest
import soundfile

from mmrec.errors import MediaError
from mmrec.media.audio import decode_audio, probe_audio


def tone(frequency: float, duration_s: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encode_m4a(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


def pitch(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def test_float_wav_comes_back_exactly():
    samples = tone(440, 0.1, 16_000)
    np.testing.assert_array_equal(decode_audio(encode(samples, 16_000, subtype="FLOAT"), 16_000, 10.0), samples)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_pitch_and_length_survive_format_and_resampling(kind, rate):
    decoded = decode_audio(encode(tone(440, 1.0, rate), rate, kind), 16_000, 10.0)
    assert decoded.dtype == np.float32
    assert abs(len(decoded) - 16_000) <= 0.1 * 16_000  # MP3 pads to whole frames
    assert abs(pitch(decoded, 16_000) - 440) < 3


def test_aac_in_mp4_is_read():
    decoded = decode_audio(encode_m4a(tone(440, 1.0, 16_000), 16_000), 16_000, 10.0)
    assert abs(pitch(decoded, 16_000) - 440) < 3
    assert probe_audio(encode_m4a(tone(440, 1.0, 16_000), 16_000)).ext == "m4a"


def test_channels_are_averaged():
    left, right = tone(440, 0.1, 8_000), tone(660, 0.1, 8_000)
    decoded = decode_audio(encode(np.stack([left, right], axis=1), 8_000, subtype="FLOAT"), 8_000, 10.0)
    np.testing.assert_allclose(decoded, (left + right) / 2, atol=1e-7)


def test_no_more_than_the_wanted_time_is_decoded():
    assert len(decode_audio(encode(tone(440, 2.0, 8_000), 8_000), 8_000, 0.5)) == 4_000
    assert len(decode_audio(encode(tone(440, 2.0, 8_000), 8_000, "MP3"), 8_000, 0.5)) == 4_000


def test_silent_audio_is_an_error():
    with pytest.raises(MediaError, match="silent"):
        probe_audio(encode(np.zeros(8_000, np.float32), 8_000))


def test_the_quietest_sound_of_sixteen_bits_is_not_silence():
    samples = np.zeros(8_000, np.float32)
    samples[100] = 1 / 32768
    assert probe_audio(encode(samples, 8_000)).status == "ok"


def test_empty_audio_is_an_error():
    with pytest.raises(MediaError, match="empty"):
        probe_audio(b"")
    with pytest.raises(MediaError, match="no samples"):
        probe_audio(encode(np.zeros(0, np.float32), 8_000))


def test_text_named_mp3_is_an_error():
    with pytest.raises(MediaError, match="not readable as audio"):
        probe_audio(b"this is no sound\n" * 100)


def test_a_wav_that_is_cut_off_is_used_and_called_partial():
    info = probe_audio(encode(tone(440, 1.0, 8_000), 8_000)[:9_000])
    assert (info.status, "cut off" in info.note) == ("partial", True)


def test_a_truncated_flac_or_mp4_is_an_error_or_partial():
    flac = encode(tone(440, 4.0, 8_000), 8_000, "FLAC")
    assert probe_audio(flac[: len(flac) // 2]).status == "partial"
    m4a = encode_m4a(tone(440, 1.0, 16_000), 16_000)
    with pytest.raises(MediaError):
        probe_audio(m4a[: len(m4a) // 2])


def test_an_absurd_sample_rate_is_an_error():
    data = bytearray(encode(tone(440, 0.1, 8_000), 8_000))
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    with pytest.raises(MediaError, match="usable rates"):
        probe_audio(bytes(data))


def test_sound_without_channels_is_an_error():
    data = bytearray(encode(tone(440, 0.1, 8_000), 8_000))
    data[22:24] = bytes(2)
    with pytest.raises(MediaError):
        probe_audio(bytes(data))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_flipped_bytes_never_raise_anything_but_a_media_error(kind):
    data = encode(tone(440, 0.3, 8_000), 8_000, kind)
    generator = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data), 4):
            damaged[position] = int(generator.integers(0, 256))
        with contextlib.suppress(MediaError):
            probe_audio(bytes(damaged))
