"""What a medium is like, small: a hash of 64 bits that finds candidates, and a sketch that decides.

Both survive re-encoding, another size and another brightness or loudness. The hash is the perceptual hash (pHash): the
signs, against their median, of the 64 lowest coefficients of the cosine transform of a plane of 32 x 32: a picture in
grey, or a sound as loudness over time and pitch.

Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.video import decode_video

__all__ = ["AUDIO_S", "Fingerprint", "fingerprint", "perceptual_hash", "spectrogram"]

_SIDE = 32
# Two clips of one kind (a face that speaks) differ in less than two pictures do.
_PICTURE_SKETCH, _CLIP_SKETCH = 16, 32
# Standard deviation in grey levels (of 256) and decibels under which there is nothing to compare by.
_PLAIN_GREY, _PLAIN_DB = 4.0, 2.0
_RATE_HZ, AUDIO_S = 8000, 30.0
_WINDOW = 1024
_BANDS_HZ = np.geomspace(100.0, 3900.0, _SIDE + 1)
_RANGE_DB = 50.0
_FRAMES = 3


@dataclass(frozen=True)
class Fingerprint:
    """A hash, and what decides.

    Attributes:
        bits: the hash, 64 bits.
        sketch: rows of mean 0 and norm 1, so that their inner products are correlations; of pictures one row with
            colour and one of shapes alone (of two pictures on one pink ground the first says next to nothing). (R, D)
    """

    bits: int
    sketch: np.ndarray


def fingerprint(modality: str, data: bytes) -> Fingerprint | None:
    """Fingerprint of an image, a sound (its first ``AUDIO_S`` seconds), or a clip (the hash from its middle frame).

    Returns: None where the medium is too plain (one colour, one steady noise) to be told from others.
    Raises: MediaError: if the bytes do not decode.
    """
    if modality == "image":
        return _of_pictures([decode_image(data)], _PICTURE_SKETCH)
    if modality == "video":
        frames, _ = decode_video(data, _FRAMES, short_side_px=64)
        middle = len(frames) // 2
        return _of_pictures([frames[middle], frames[0], frames[-1]], _CLIP_SKETCH)
    plane = spectrogram(decode_audio(data, _RATE_HZ, AUDIO_S))
    return None if plane.std() < _PLAIN_DB else Fingerprint(perceptual_hash(plane), _unit(plane)[None])


def perceptual_hash(plane: np.ndarray) -> int:
    """64 bits of a square ``plane``; equal up to a few bits for planes that differ by little but scale and level."""
    from scipy.fft import dctn

    low = np.asarray(dctn(np.asarray(plane, dtype=np.float64), norm="ortho"))[:8, :8].ravel()
    low[0] = 0.0  # the level, such as brightness
    # Coefficients next to nothing would give a bit by the noise of the encoder.
    bits = low > np.median(low) + 0.002 * np.abs(low).max()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """Loudness in decibels below the loudest cell, over 32 bands of pitch and 32 parts of the time. (32, 32)"""
    samples = np.pad(samples, (0, max(_WINDOW - len(samples), 0)))
    windows_a_part = int(np.clip(len(samples) // (_SIDE * _WINDOW // 2), 1, 16))
    starts = np.linspace(0, len(samples) - _WINDOW, _SIDE * windows_a_part).astype(np.int64)
    windows = samples[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    edges = np.round(_BANDS_HZ * _WINDOW / _RATE_HZ).astype(np.int64)
    # Loudness by hertz: that of noise is level, so that two of them share no slope.
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1) / np.diff(edges)
    cells = bands.reshape(_SIDE, windows_a_part, _SIDE).mean(axis=1).T
    loudest = max(float(cells.max()), 1e-20)
    return 10 * np.log10(np.maximum(cells / loudest, 10 ** (-_RANGE_DB / 10)))


def _of_pictures(pictures: list[np.ndarray], side: int) -> Fingerprint | None:
    """The hash of the first and a sketch of all, in colour, of ``side`` x ``side`` cells."""
    images = [Image.fromarray(pixels) for pixels in pictures]
    grey = np.asarray(images[0].convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
    if grey.std() < _PLAIN_GREY:
        return None
    small = [np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float64) for image in images]
    colour = np.stack(small)
    shapes = colour - colour.mean(axis=(0, 1, 2))
    return Fingerprint(perceptual_hash(grey), np.stack([_unit(colour), _unit(shapes)]))


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values.ravel() - values.mean()
    return (centred / max(float(np.linalg.norm(centred)), 1e-12)).astype(np.float32)
