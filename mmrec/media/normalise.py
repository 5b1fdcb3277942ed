"""Media brought to one form as they come in: pictures, clips and sounds no larger than the encoders will read."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrec.errors import ConfigError, MediaError, unknown_name
from mmrec.media.audio import SILENCE_PEAK, decode_audio
from mmrec.media.image import decode_to_shrink, probe_image
from mmrec.media.info import MIN_SIDE_PX, MediaInfo
from mmrec.media.probe import check_size, probe
from mmrec.media.transcode import normalise_video

__all__ = ["JPEG_QUALITY", "MAX_SOUND_S", "Normalisation", "normalise", "probe_and_normalise"]

# At 90 the error of a second JPEG stays below what scaling changes; 95 doubles the bytes.
JPEG_QUALITY = 90
# What is kept of a sound: as much as its probe has listened to.
MAX_SOUND_S = 600.0
# What libjpeg writes at most.
_MAX_JPEG_SIDE_PX = 65_500
_RATES_HZ = (1_000, 192_000)


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The form in which media are kept; 0 keeps the original of that modality.

    Attributes:
        image_side_px: pictures whose short side is larger are scaled down to it, as JPEG.
        video_side_px: clips whose short side is larger, or whose keyframes are rare, are transcoded to it, as H.264.
        audio_rate_hz: sounds become mono FLAC of 16 bits at this rate.
    """

    image_side_px: int
    video_side_px: int
    audio_rate_hz: int

    def __post_init__(self) -> None:
        for name in ("image_side_px", "video_side_px"):
            side = getattr(self, name)
            if side != 0 and side < MIN_SIDE_PX:
                raise ConfigError(f"{name} is {side}; give 0 to keep the original, or at least {MIN_SIDE_PX}")
        low, high = _RATES_HZ
        if self.audio_rate_hz != 0 and not low <= self.audio_rate_hz <= high:
            raise ConfigError(f"audio_rate_hz is {self.audio_rate_hz}; give 0 to keep the original, or {low} to {high}")


def normalise(modality: str, info: MediaInfo, data: bytes, rules: Normalisation) -> tuple[MediaInfo, bytes]:
    """Bring one probed file to the form of ``rules``; what has it already is returned byte for byte.

    The same input gives the same bytes, in any process.

    Args:
        modality: "image", "audio" or "video".
        info: what the probe found; its status and note are kept, the other facts become those of the new bytes.

    Raises:
        MediaError: if the file cannot be normalised; the original is never passed on in its place.
        ConfigError: if there is no such modality.
    """
    if modality == "image":
        return _normalise_image(info, data, rules.image_side_px)
    if modality == "audio":
        return _normalise_audio(info, data, rules.audio_rate_hz) if rules.audio_rate_hz else (info, data)
    if modality == "video":
        return normalise_video(info, data, rules.video_side_px) if rules.video_side_px else (info, data)
    raise ConfigError(unknown_name("media modality", modality, ("audio", "image", "video")))


def probe_and_normalise(modality: str, data: bytes, rules: Normalisation) -> tuple[MediaInfo, bytes]:
    """``probe`` and ``normalise`` in one, for which a picture is decoded once.

    Raises:
        MediaError: as either of the two.
        ConfigError: if there is no such modality.
    """
    if modality != "image":
        return normalise(modality, probe(modality, data), data, rules)
    check_size(modality, data)
    if not rules.image_side_px:
        return probe_image(data), data
    info, pixels = decode_to_shrink(data, rules.image_side_px)
    return _shrink(info, data, pixels, rules.image_side_px)


def _normalise_image(info: MediaInfo, data: bytes, side_px: int) -> tuple[MediaInfo, bytes]:
    if not side_px or min(info.width or 0, info.height or 0) <= side_px:
        return info, data
    return _shrink(info, data, decode_to_shrink(data, side_px)[1], side_px)


def _shrink(info: MediaInfo, data: bytes, pixels: np.ndarray, side_px: int) -> tuple[MediaInfo, bytes]:
    """JPEG with the short side scaled to ``side_px``, averaging over all pixels under the new one (antialiased).

    Colour is kept at half the resolution (4:2:0), as nearly all photographs come: at these sizes it saves a sixth of
    the bytes, and what it blurs lies below what the patches of an image encoder tell apart.
    """
    height, width = info.height or 0, info.width or 0
    if min(height, width) <= side_px:
        return info, data
    import torch
    from torch.nn.functional import interpolate
    from torchvision.io import encode_jpeg

    scale = side_px / min(height, width)
    size = (max(round(height * scale), side_px), max(round(width * scale), side_px))
    if max(size) > _MAX_JPEG_SIDE_PX:
        raise MediaError(f"image would be {size[1]}x{size[0]}; a JPEG has at most {_MAX_JPEG_SIDE_PX:,} pixels a side")
    # Integer arithmetic on bytes: the result depends neither on the number of threads nor on the order of sums.
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    try:
        scaled = interpolate(batch, size=size, mode="bilinear", antialias=True)[0].contiguous()
        encoded: Any = encode_jpeg(scaled, quality=JPEG_QUALITY)
    except RuntimeError as error:  # of what PyTorch allocates in vain
        raise MediaError(f"image cannot be scaled to {size[1]}x{size[0]}: {str(error).splitlines()[0]}") from error
    return replace(info, ext="jpg", source_ext=info.ext, width=size[1], height=size[0]), encoded.numpy().tobytes()


def _normalise_audio(info: MediaInfo, data: bytes, rate_hz: int) -> tuple[MediaInfo, bytes]:
    import soundfile

    if _is_normal_audio(info, data, rate_hz):
        return info, data
    samples = decode_audio(data, rate_hz, MAX_SOUND_S)
    if not np.abs(samples).max(initial=0.0) > SILENCE_PEAK:
        raise MediaError(f"audio is silent as 16 bits at {rate_hz:,} Hz")
    # libsndfile would wrap what is louder than full scale.
    pcm = np.clip(np.round(samples * 32_768.0), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate_hz, format="FLAC", subtype="PCM_16")
    kept_s = len(pcm) / rate_hz
    new = replace(info, ext="flac", source_ext=info.ext, sample_rate=rate_hz, duration_s=round(kept_s, 3))
    whole_s = info.duration_s or 0.0
    if whole_s > kept_s + 1.0:
        cut = f"the first {kept_s:,.0f} of {whole_s:,.0f} s are kept"
        new = replace(new, status="partial", note=f"{info.note}; {cut}" if info.note else cut)
    return new, buffer.getvalue()


def _is_normal_audio(info: MediaInfo, data: bytes, rate_hz: int) -> bool:
    import soundfile

    if not data.startswith(b"fLaC") or info.status != "ok" or (info.duration_s or 0.0) > MAX_SOUND_S:
        return False
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.SoundFileError:  # FFmpeg reads some that libsndfile does not
        return False
    with file:
        return (file.channels, file.subtype, file.samplerate) == (1, "PCM_16", rate_hz)
