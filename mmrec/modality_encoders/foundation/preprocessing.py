"""What a foundation encoder's own preprocessing makes of raw media, as the publisher of its weights set it.

Each is saved in the checkpoint together with the architecture of its network, so that a checkpoint needs nothing else.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from mmrec.errors import ConfigError
from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.video import decode_video
from mmrec.modality_encoders.base import Preprocessing
from mmrec.modality_encoders.image import interpolate
from mmrec.modality_encoders.text import collate_tokens
from mmrec.modality_encoders.video import collate_clips

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "Architecture",
    "ClipPreprocessing",
    "FoundationPreprocessing",
    "ImagePreprocessing",
    "PixelTransform",
    "SoundPreprocessing",
    "TokenPreprocessing",
]

Architecture = dict[str, Any]
"""What rebuilds a network with random weights, as JSON values: "framework", and what that framework needs."""

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


@dataclass(frozen=True, kw_only=True)
class PixelTransform:
    """From pixels of any size to those that a network was trained on.

    Attributes:
        height, width: of the result, in pixels.
        resize_px: side of the shorter edge after the resize, from which the centre is cut out; None resizes to
            height x width at once, whatever the proportions.
        interpolation: of the resize: bilinear, bicubic or lanczos, antialiased.
        mean, std: of each channel, on a scale of 0 to 1; subtracted and divided by on the network's device.
    """

    height: int
    width: int
    resize_px: int | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            allowed = ", ".join(_INTERPOLATIONS)
            raise ConfigError(f"preprocessing with interpolation {self.interpolation!r}; mmrec has {allowed}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PixelTransform:
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**settings)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 RGB (F, H, W, 3) -> uint8 RGB (F, 3, height, width); sizes are rounded as torchvision rounds them."""
        height, width = self.height, self.width
        if self.resize_px is not None:
            short = min(frames.shape[1:3])
            height, width = (side * self.resize_px // short for side in frames.shape[1:3])
        resized = _resize(frames, height, width, self.interpolation)
        pad_y, pad_x = max(self.height - height, 0), max(self.width - width, 0)
        if pad_y or pad_x:  # the crop is larger than the resized picture
            resized = np.pad(resized, ((0, 0), (0, 0), _halves(pad_y), _halves(pad_x)))
        top, left = round((resized.shape[2] - self.height) / 2), round((resized.shape[3] - self.width) / 2)
        return np.ascontiguousarray(resized[:, :, top : top + self.height, left : left + self.width])

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, height, width) -> float32 on the scale that the network expects."""
        mean, std = (pixels.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() / 255.0 - mean) / std


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2


def _resize(frames: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    if interpolation == "lanczos":  # which only Pillow has
        from PIL import Image

        size = (width, height)
        resized = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
        return np.stack(resized).transpose(0, 3, 1, 2)
    return interpolate(frames, height, width, interpolation).numpy()


class FoundationPreprocessing(Preprocessing):
    """A preprocessing that knows the architecture of the network that it feeds.

    Args:
        architecture: rebuilds the network.
    """

    num_frames = 1
    """Pictures that a clip is seen as."""
    sees_padding = False
    """Whether the network was trained with the padding of texts in sight."""
    brings_inputs = False
    """Whether samples cost next to nothing, so that they are there even where a hidden state is kept."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    @abstractmethod
    def blank(self, num_items: int) -> dict[str, Tensor]:
        """Inputs of the right shapes with nothing in them."""

    def settings(self) -> dict[str, Any]:
        """What ``__init__`` takes beside the architecture, as JSON values."""
        return {}

    def save(self, folder: Path) -> None:
        stored = {"architecture": self.architecture, **self.settings()}
        (folder / "architecture.json").write_text(json.dumps(stored, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(**json.loads((folder / "architecture.json").read_text()))


class ImagePreprocessing(FoundationPreprocessing):
    """Bytes of a picture -> uint8 RGB (3, height, width)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.transform = PixelTransform.from_json(architecture["transform"])

    def __call__(self, raw: bytes) -> np.ndarray:
        return self.transform(decode_image(raw)[None])[0]

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.asarray(samples))}

    def blank(self, num_items: int) -> dict[str, Tensor]:
        shape = (num_items, 3, self.transform.height, self.transform.width)
        return {"values": torch.zeros((), dtype=torch.uint8).expand(shape)}


class ClipPreprocessing(FoundationPreprocessing):
    """Bytes of a clip -> uint8 RGB (frames, 3, height, width), evenly spaced over the clip, in order of time.

    Args:
        num_frames: frames that the network reads.
        repeat: a clip with fewer different frames shows some twice, for networks that read just so many; else the
            batch's mask tells which are real.
    """

    def __init__(self, architecture: Architecture, num_frames: int, repeat: bool) -> None:
        super().__init__(architecture)
        self.transform = PixelTransform.from_json(architecture["transform"])
        self.num_frames = num_frames
        self.repeat = repeat

    def settings(self) -> dict[str, Any]:
        return {"num_frames": self.num_frames, "repeat": self.repeat}

    def __call__(self, raw: bytes) -> np.ndarray:
        side = self.transform.resize_px or max(self.transform.height, self.transform.width)
        frames = self.transform(decode_video(raw, self.num_frames, short_side_px=side)[0])
        if self.repeat and len(frames) < self.num_frames:
            frames = frames[np.arange(self.num_frames) * len(frames) // self.num_frames]
        return frames

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return collate_clips(samples, self.num_frames)

    def blank(self, num_items: int) -> dict[str, Tensor]:
        shape = (num_items, self.num_frames, 3, self.transform.height, self.transform.width)
        return {
            "values": torch.zeros((), dtype=torch.uint8).expand(shape),
            "mask": torch.ones(num_items, self.num_frames, dtype=torch.bool),
        }


class SoundPreprocessing(FoundationPreprocessing):
    """Bytes of a sound -> what a feature extractor of transformers makes of its first seconds.

    Sounds are resampled to the extractor's rate and mixed to mono; shorter ones are padded as it does it, mostly with
    silence, which the network hears.

    Args:
        extractor: the feature extractor, or its dictionary.
        duration_s: seconds that are heard.
    """

    def __init__(self, architecture: Architecture, extractor: Any, duration_s: float) -> None:
        super().__init__(architecture)
        self.duration_s = duration_s
        self.extractor = _extractor(extractor) if isinstance(extractor, dict) else extractor

    def settings(self) -> dict[str, Any]:
        return {"extractor": json.loads(self.extractor.to_json_string()), "duration_s": self.duration_s}

    def __call__(self, raw: bytes) -> np.ndarray:
        return self._extract(decode_audio(raw, self.extractor.sampling_rate, self.duration_s))

    def _extract(self, samples: np.ndarray) -> np.ndarray:
        rate = self.extractor.sampling_rate
        length = round(self.duration_s * rate)
        # Extractors of spectrograms pad to a length of their own; those of bare samples are told one.
        bare = {"padding": "max_length", "max_length": length, "truncation": True} if self._bare else {}
        found = self.extractor(samples[:length], sampling_rate=rate, return_tensors="np", **bare)
        return np.asarray(found[self.extractor.model_input_names[0]])[0]

    @property
    def _bare(self) -> bool:
        return self.extractor.model_input_names[0] == "input_values" and not hasattr(self.extractor, "num_mel_bins")

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.asarray(samples))}

    def blank(self, num_items: int) -> dict[str, Tensor]:
        quiet = np.nan_to_num(self._extract(np.zeros(self.extractor.sampling_rate, dtype=np.float32)))
        return self.collate([quiet] * num_items)


def _extractor(values: dict[str, Any]) -> Any:
    import transformers

    return getattr(transformers, values["feature_extractor_type"]).from_dict(values)


class TokenPreprocessing(FoundationPreprocessing):
    """Text -> token ids.

    Args:
        tokenizer: text to ids, with its truncation.
        prefix: set before each text, for encoders that were trained so ("passage: " for E5).
        pad_id: id of padding.
        pad_to: tokens that every text is padded to, where the network was trained so and sees the padding (SigLIP);
            0 pads to the longest of the batch, on the right, under the mask.
    """

    brings_inputs = True

    def __init__(
        self, architecture: Architecture, tokenizer: Tokenizer, *, prefix: str, pad_id: int, pad_to: int
    ) -> None:
        super().__init__(architecture)
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.prefix = prefix
        self.pad_id = pad_id
        self.pad_to = pad_to
        self.sees_padding = pad_to > 0

    def settings(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "pad_id": self.pad_id, "pad_to": self.pad_to}

    def __call__(self, raw: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(self.prefix + raw).ids, dtype=np.int32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return collate_tokens(samples, self.pad_id, pad_to=self.pad_to)

    def blank(self, num_items: int) -> dict[str, Tensor]:
        return self.collate([self("")] * num_items)

    def save(self, folder: Path) -> None:
        super().save(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        from tokenizers import Tokenizer

        stored = json.loads((folder / "architecture.json").read_text())
        return cls(stored.pop("architecture"), Tokenizer.from_file(str(folder / "tokenizer.json")), **stored)
