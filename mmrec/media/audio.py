"""Sound: bytes in, mono float32 at the rate that was asked for. libsndfile first, FFmpeg (PyAV) second."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mmrec.errors import MediaError
from mmrec.media.container import extension, limit_decoder, open_container, packets_of
from mmrec.media.info import MAX_CHANNELS, MAX_DURATION_S, MediaInfo

__all__ = ["SILENCE_PEAK", "decode_audio", "probe_audio"]

# Peak amplitude below which a clip counts as silent: half a step of 16-bit PCM (dither and codec noise are above it).
SILENCE_PEAK = 0.5 / 32768
# Probing decodes at most this much of a file; what comes after is taken on trust.
_PROBE_S = 600.0
# Bound on the memory of one clip (200 MB), whatever rate and length its header claims.
_MAX_SAMPLES = 50_000_000
_RATES_HZ = (1_000, 768_000)
# What libsndfile reads well. MP3, also inside WAV, is left to FFmpeg, which skips a bad frame instead of ending there.
_SNDFILE_MAGIC = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b".snd", b"caff")
_BLOCK = 1 << 16
_EXTENSIONS = {"WAVEX": "wav", "RF64": "wav", "MPEG": "mp3"}
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "m4a", "matroska,webm": "mka", "asf": "wma"}


@dataclass
class _Clip:
    """Native-rate mono samples and how they were had."""

    samples: np.ndarray
    sample_rate: int
    duration_s: float
    ext: str
    bad_packets: int = 0


def decode_audio(data: bytes, sample_rate: int, max_duration_s: float) -> np.ndarray:
    """Decode at most the first ``max_duration_s`` seconds as mono float32 samples at ``sample_rate`` Hz.

    Packets that do not decode are skipped, as long as something remains.

    Raises:
        MediaError: if the bytes are empty, hold no sound, or nothing of it decodes.
    """
    clip = _decode(data, max_duration_s)
    if clip.sample_rate == sample_rate:
        return clip.samples
    # Polyphase resampling is deterministic, fast, and has no state that threads could share.
    from scipy.signal import resample_poly

    # The bound keeps the filter short at odd rates; it detunes by less than one part in a million.
    ratio = Fraction(sample_rate, clip.sample_rate).limit_denominator(1000)
    return resample_poly(clip.samples, ratio.numerator, ratio.denominator).astype(np.float32)


def probe_audio(data: bytes) -> MediaInfo:
    """Decode (at most ten minutes) to know that there is sound and that it is not silence.

    Raises:
        MediaError: as :func:`decode_audio`, and if every sample is silent.
    """
    clip = _decode(data, _PROBE_S)
    peak = max(float(clip.samples.max()), -float(clip.samples.min()))
    if not peak > SILENCE_PEAK:
        raise MediaError(f"audio is silent: {clip.duration_s:.2f} s without a sample above 16-bit silence")
    note = ""
    if clip.bad_packets:
        note = f"{clip.bad_packets} packets do not decode; the rest is used"
    elif _wav_is_cut_off(data):
        note = f"cut off: the header promises more samples than the {clip.duration_s:.2f} s that are there"
    return MediaInfo(
        ext=clip.ext,
        sample_rate=clip.sample_rate,
        duration_s=round(clip.duration_s, 3),
        status="partial" if note else "ok",
        note=note,
    )


def _decode(data: bytes, max_duration_s: float) -> _Clip:
    if not data:
        raise MediaError("audio is empty (0 bytes)")
    clip = _decode_soundfile(data, max_duration_s) or _decode_av(data, max_duration_s)
    if not clip.samples.size:
        raise MediaError("audio holds no samples")
    if clip.duration_s > MAX_DURATION_S:
        raise MediaError(f"audio of {clip.duration_s:,.0f} s is too long, at most {MAX_DURATION_S:,.0f} s")
    if not np.isfinite(clip.samples).all():
        raise MediaError("audio holds samples that are not finite numbers")
    return clip


def _decode_soundfile(data: bytes, max_duration_s: float) -> _Clip | None:
    """None where libsndfile does not know the format or finds damage; FFmpeg then has the last word."""
    if not data.startswith(_SNDFILE_MAGIC):
        return None
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.subtype.startswith("MPEG"):
                return None
            _check_channels(file.channels)
            wanted = min(file.frames, _num_samples(max_duration_s, file.samplerate))
            blocks = []
            while wanted > 0:  # blockwise: many channels are mixed down before the next block is read
                block = file.read(min(wanted, _BLOCK), dtype="float32", always_2d=True)
                if not len(block):
                    return None
                blocks.append(block.mean(axis=1, dtype=np.float32))
                wanted -= len(block)
            samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
            ext = str(_EXTENSIONS.get(file.format, file.format.lower()))
            return _Clip(samples, file.samplerate, file.frames / file.samplerate, ext)
    except (soundfile.SoundFileError, RuntimeError, ValueError):
        return None


def _check_channels(num_channels: int) -> None:
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise MediaError(f"audio of {num_channels} channels; usable are 1 to {MAX_CHANNELS}")


def _num_samples(duration_s: float, sample_rate: int) -> int:
    if not _RATES_HZ[0] <= sample_rate <= _RATES_HZ[1]:
        raise MediaError(f"audio of {sample_rate:,} Hz; usable rates are {_RATES_HZ[0]:,} to {_RATES_HZ[1]:,} Hz")
    return min(math.ceil(duration_s * sample_rate), _MAX_SAMPLES)


def _decode_av(data: bytes, max_duration_s: float) -> _Clip:
    from av.error import FFmpegError

    try:
        with open_container(data) as container:
            if not container.streams.audio:
                raise MediaError(f"no audio stream in this {container.format.name} file")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise MediaError(f"an audio stream of unknown coding in this {container.format.name} file")
            _check_channels(stream.codec_context.layout.nb_channels)
            limit_decoder(stream.codec_context)
            rate = int(stream.codec_context.sample_rate or 0)
            limit = _num_samples(max_duration_s, rate)
            faults = [0]
            blocks, count = [np.zeros(0, np.float32)], 0
            for block in _mono_blocks(packets_of(container, stream, len(data)), stream, rate, faults):
                blocks.append(block)
                count += len(block)
                if count >= limit:
                    break
            samples = np.concatenate(blocks)[:limit]
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            duration_s = max(declared, count / rate) if count >= limit else count / rate
            ext = extension(container, _CONTAINERS)
            return _Clip(samples, rate, duration_s, ext, faults[0])
    except FFmpegError as error:
        raise MediaError(f"not readable as audio: {error.strerror or type(error).__name__}") from error


def _mono_blocks(packets: Iterator[Any], stream: Any, rate: int, faults: list[int]) -> Iterator[np.ndarray]:
    import av
    from av.error import FFmpegError

    resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout.name or "mono", rate=rate)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:  # the container ends in the middle of a packet
            faults[0] += 1
            return
        try:
            parts = [part for frame in packet.decode() for part in resampler.resample(frame)]
        except (FFmpegError, ValueError):  # ValueError: the layout changes in mid-stream
            faults[0] += 1
            continue
        for part in parts:
            yield part.to_ndarray().mean(axis=0, dtype=np.float32)


def _wav_is_cut_off(data: bytes) -> bool:
    """Whether a RIFF file's data chunk promises more bytes than follow it."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            # 0 and 0xFFFFFFFF are what writers to a pipe leave behind: no promise at all.
            return size not in (0, 0xFFFFFFFF) and at + 8 + size > len(data)
        at += 8 + size + size % 2
    return False
