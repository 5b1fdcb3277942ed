"""Media as small pictures inside a page."""

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

__all__ = ["thumbnail"]

_SIDE_PX = 176


def thumbnail(dataset: Dataset, modality: str, item_idx: int) -> str | None:
    """The picture, the clip's middle frame, or the sound's spectrogram as a JPEG data URI; None if it does not decode.

    Args:
        modality: "image", "video" or "audio", which the item has.
    """
    data = dataset.read(modality, item_idx)
    assert isinstance(data, bytes)
    try:
        if modality == "image":
            picture = Image.fromarray(decode_image(data))
        elif modality == "video":
            picture = Image.fromarray(decode_video(data, 1, short_side_px=_SIDE_PX)[0][0])
        else:
            picture = _of_sound(decode_audio(data, 8000, AUDIO_S))
    except MediaError:
        return None  # shown as "does not decode"; the search for near-duplicates says why
    if max(picture.size) < _SIDE_PX:
        scale = _SIDE_PX // max(picture.size)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _of_sound(samples: np.ndarray) -> Image.Image:
    """Time to the right, pitch upwards, loud is dark."""
    plane = spectrogram(samples)[::-1]
    loud = (plane - plane.min()) / max(float(np.ptp(plane)), 1e-9)
    light, dark = np.array([244.0, 247.0, 250.0]), np.array([22.0, 54.0, 92.0])
    pixels = light + loud[..., None] * (dark - light)
    return Image.fromarray(pixels.astype(np.uint8)).resize((_SIDE_PX, _SIDE_PX // 2), Image.Resampling.BILINEAR)
