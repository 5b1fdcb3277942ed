"""What a foundation encoder's own preprocessing makes of raw media, as the publisher of its weights set it.

Each is saved in the checkpoint together with the architecture of its network, so that a checkpoint needs nothing else.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from mmrec.media.image import decode_image
from mmrec.media.video import decode_video
from mmrec.modality_encoders.base import Preprocessing
from mmrec.modality_encoders.foundation.pixels import pixels_from_json
from mmrec.modality_encoders.text import collate_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "Architecture",
    "ClipPreprocessing",
    "FoundationPreprocessing",
    "ImagePreprocessing",
    "TokenPreprocessing",
]

Architecture = dict[str, Any]
"""What rebuilds a network with random weights, as JSON values: "framework", and what that framework needs."""


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
    numbers: tuple[str, ...] = ()
    """Names of inputs, a few whole numbers an item, that the upper part of a network reads beside a hidden state."""

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
        self.transform = pixels_from_json(architecture["transform"])
        self.numbers = self.transform.numbers

    def __call__(self, raw: bytes) -> np.ndarray:
        return self.transform(decode_image(raw)[None])[0]

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return self.transform.collate(samples)

    def blank(self, num_items: int) -> dict[str, Tensor]:
        return self.transform.blank(num_items)


class ClipPreprocessing(FoundationPreprocessing):
    """Bytes of a clip -> uint8 RGB (frames, 3, height, width), evenly spaced over the clip, in order of time.

    Args:
        num_frames: frames that the network reads.
        repeat: a clip with fewer different frames shows some twice, for networks that read just so many; else the
            batch's mask tells which are real.
    """

    def __init__(self, architecture: Architecture, num_frames: int, repeat: bool) -> None:
        super().__init__(architecture)
        self.transform = pixels_from_json(architecture["transform"])
        self.num_frames = num_frames
        self.repeat = repeat

    def settings(self) -> dict[str, Any]:
        return {"num_frames": self.num_frames, "repeat": self.repeat}

    def __call__(self, raw: bytes) -> np.ndarray:
        # The decoder shrinks frames by averaging areas; the last halving is left to the network's own resize.
        frames = self.transform(decode_video(raw, self.num_frames, short_side_px=2 * self.transform.side_px)[0])
        if self.repeat and len(frames) < self.num_frames:
            frames = frames[np.arange(self.num_frames) * len(frames) // self.num_frames]
        return frames

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        """The transform's tensors with frames as second dimension, and "mask" (P, F), True = real."""
        lengths = torch.tensor([len(frames) for frames in samples])
        mask = torch.arange(self.num_frames) < lengths[:, None]
        frames = self.transform.collate([frame for clip in samples for frame in clip])
        if mask.all():
            return {key: value.unflatten(0, mask.shape) for key, value in frames.items()} | {"mask": mask}
        spread = {key: value.new_zeros(*mask.shape, *value.shape[1:]) for key, value in frames.items()}
        return {key: value.index_put_((mask,), frames[key]) for key, value in spread.items()} | {"mask": mask}

    def blank(self, num_items: int) -> dict[str, Tensor]:
        shape = (num_items, self.num_frames)
        frames = self.transform.blank(num_items * self.num_frames)
        mask = torch.ones(shape, dtype=torch.bool)
        return {key: value.unflatten(0, shape) for key, value in frames.items()} | {"mask": mask}


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
