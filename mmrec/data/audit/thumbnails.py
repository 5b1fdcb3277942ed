"""Media as small pictures, for pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from mmrec.data.audit.fingerprints import AUDIO_S, spectrogram
from mmrec.data.dataset import Dataset
from mmrec.errors import MediaError
from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.video import decode_video

__all__ = ["PICTURED", "item_thumbnail", "thumbnail"]

PICTURED = ("image", "video", "audio")
"""Modalities that can be shown as a picture, the most telling one first."""

_SIDE_PX = 176


def thumbnail(dataset: Dataset, modality: str, item_idx: int) -> str | None:
    """A medium of an item as a data URI, for pages that stand alone; None if it does not decode.

    The picture, the clip's middle frame, or the sound's spectrogram; small ones are enlarged by a whole factor, so that
    what is in the pixels is seen.

    Args:
        modality: one of ``PICTURED``, which the item has.
    """
    picture = _picture(dataset, modality, item_idx, _SIDE_PX)
    if picture is None:
        return None
    if max(picture.size) < _SIDE_PX:
        scale = _SIDE_PX // max(picture.size)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(picture, _SIDE_PX, 80)).decode()


def item_thumbnail(dataset: Dataset, item_idx: int, *, side_px: int, quality: int) -> bytes | None:
    """A JPEG of the first medium of the item, in the order of ``PICTURED``, that decodes; None if none does.

    Args:
        side_px: longer side at most; smaller ones stay as they are.
    """
    for modality in PICTURED:
        if dataset.location(modality, item_idx) is not None:
            picture = _picture(dataset, modality, item_idx, side_px)
            if picture is not None:
                return _jpeg(picture, side_px, quality)
    return None


def _picture(dataset: Dataset, modality: str, item_idx: int, side_px: int) -> Image.Image | None:
    try:
        data = dataset.read(modality, item_idx)
        assert isinstance(data, bytes)
        if modality == "image":
            return Image.fromarray(decode_image(data))
        if modality == "video":
            return Image.fromarray(decode_video(data, 1, short_side_px=side_px)[0][0])
        return _of_sound(decode_audio(data, 8000, AUDIO_S), side_px)
    except MediaError:
        return None  # shown as "does not decode"; the search for near-duplicates says why


def _jpeg(picture: Image.Image, side_px: int, quality: int) -> bytes:
    picture.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _of_sound(samples: np.ndarray, side_px: int) -> Image.Image:
    """Time to the right, pitch upwards, loud is dark."""
    plane = spectrogram(samples)[::-1]
    loud = (plane - plane.min()) / max(float(np.ptp(plane)), 1e-9)
    light, dark = np.array([244.0, 247.0, 250.0]), np.array([22.0, 54.0, 92.0])
    pixels = light + loud[..., None] * (dark - light)
    return Image.fromarray(pixels.astype(np.uint8)).resize((side_px, side_px // 2), Image.Resampling.BILINEAR)
