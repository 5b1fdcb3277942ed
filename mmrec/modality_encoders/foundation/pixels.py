"""From pixels of any size to those that a network was trained on, as the publisher of its weights set it.

Legend: P items, F frames, N patches of a picture, S side of a patch in pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmrec.errors import ConfigError
from mmrec.modality_encoders.image import interpolate

__all__ = ["PatchTransform", "PixelTransform", "Pixels", "pixels_from_json", "real_patches"]

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
# A longer picture than this many of its short sides loses its ends before it is resized, which bounds the memory; of
# a square cut from the centre nothing changes but where between two pixels the grid of the resize begins.
_LONGEST = 16


@dataclass(frozen=True, kw_only=True)
class Pixels(ABC):
    """What is done to pictures before the network.

    Attributes:
        interpolation: of the resize: bilinear, bicubic or lanczos.
        mean, std: of each channel, on a scale of 0 to 1; subtracted and divided by on the network's device.
    """

    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    numbers: ClassVar[tuple[str, ...]] = ()
    """Names of inputs, a few whole numbers an item, that the upper part of a network reads beside a hidden state."""

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            allowed = ", ".join(_INTERPOLATIONS)
            raise ConfigError(f"preprocessing with interpolation {self.interpolation!r}; mmrec has {allowed}")

    @property
    @abstractmethod
    def side_px(self) -> int:
        """The side that a picture's shorter one has after the resize, or more: what decoders may shrink it to."""

    @abstractmethod
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 RGB (F, H, W, 3) -> uint8 RGB (F, 3, height, width)."""

    @abstractmethod
    def collate(self, pictures: list[np.ndarray]) -> dict[str, Tensor]:
        """What :meth:`__call__` made of P pictures as tensors with first dimension P."""

    @abstractmethod
    def blank(self, num_pictures: int) -> dict[str, Tensor]:
        """Collated inputs with nothing in them."""

    @abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """Collated uint8 values -> float32 on the scale that the network expects."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (like.new_tensor(values, dtype=torch.float32) for values in (self.mean, self.std))
        return mean, std


@dataclass(frozen=True, kw_only=True)
class PixelTransform(Pixels):
    """To one size for all pictures.

    Attributes:
        height, width: of the result, in pixels.
        resize_px: side of the shorter edge after the resize, or height and width, whatever the proportions, from which
            the centre is cut out; None resizes to height x width at once.
        antialias: whether the resize averages over what it makes smaller.
        crop: where the centre lies that is half a pixel off: "round" as torchvision does it, "floor" as transformers.
    """

    height: int
    width: int
    resize_px: int | tuple[int, int] | None
    antialias: bool = True
    crop: Literal["round", "floor"] = "round"

    @property
    def side_px(self) -> int:
        sides = (self.resize_px or 0,) if not isinstance(self.resize_px, tuple) else self.resize_px
        return max(sides) or max(self.height, self.width)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Sizes are rounded as torchvision rounds them."""
        height, width = self.height, self.width
        if isinstance(self.resize_px, tuple):
            height, width = self.resize_px
        elif self.resize_px is not None:
            frames = _without_ends(frames)
            short = min(frames.shape[1:3])
            height, width = (side * self.resize_px // short for side in frames.shape[1:3])
        resized = _resize(frames, height, width, self.interpolation, self.antialias)
        pad_y, pad_x = max(self.height - height, 0), max(self.width - width, 0)
        if pad_y or pad_x:  # the crop is larger than the resized picture
            resized = np.pad(resized, ((0, 0), (0, 0), _halves(pad_y), _halves(pad_x)))
        whole = round if self.crop == "round" else math.floor
        top, left = whole((resized.shape[2] - self.height) / 2), whole((resized.shape[3] - self.width) / 2)
        return np.ascontiguousarray(resized[:, :, top : top + self.height, left : left + self.width])

    def collate(self, pictures: list[np.ndarray]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.asarray(pictures))}

    def blank(self, num_pictures: int) -> dict[str, Tensor]:
        return {"values": torch.zeros((), dtype=torch.uint8).expand(num_pictures, 3, self.height, self.width)}

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, height, width), likewise float32."""
        mean, std = self._scale(pixels)
        return (pixels.float() / 255.0 - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True, kw_only=True)
class PatchTransform(Pixels):
    """To patches in the picture's own proportions, as many as the network reads at most.

    Attributes:
        patch_px: S.
        max_patches: of a picture; fewer are padded under a mask.

    Source: SigLIP 2's NaFlex, Tschannen et al. 2025, section 2.4.2.
    """

    patch_px: int
    max_patches: int

    numbers: ClassVar[tuple[str, ...]] = ("shapes",)

    @property
    def side_px(self) -> int:
        return self.patch_px * math.ceil(self.max_patches**0.5)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The largest size of whole patches that are few enough."""
        rows, columns = self._grid(*frames.shape[1:3])
        return _resize(frames, rows * self.patch_px, columns * self.patch_px, self.interpolation)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            scale = (low + high) / 2
            rows, columns = (max(1, math.ceil(side * scale / self.patch_px)) for side in (height, width))
            low, high = (scale, high) if rows * columns <= self.max_patches else (low, scale)
        rows, columns = (max(1, math.ceil(side * low / self.patch_px)) for side in (height, width))
        return rows, min(columns, self.max_patches // rows)

    def collate(self, pictures: list[np.ndarray]) -> dict[str, Tensor]:
        """ "values" uint8 (P, N, 3 S S), channels last, and "shapes" int64 (P, 2), rows and columns of patches."""
        side = self.patch_px
        values = torch.zeros(len(pictures), self.max_patches, 3 * side * side, dtype=torch.uint8)
        shapes = torch.zeros(len(pictures), 2, dtype=torch.int64)
        for number, picture in enumerate(pictures):
            pixels = torch.from_numpy(picture).unflatten(1, (-1, side)).unflatten(3, (-1, side))  # (3, R, S, C, S)
            rows, columns = pixels.shape[1], pixels.shape[3]
            values[number, : rows * columns] = pixels.permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
            shapes[number] = torch.tensor([rows, columns])
        return {"values": values, "shapes": shapes}

    def blank(self, num_pictures: int) -> dict[str, Tensor]:
        rows = int(self.max_patches**0.5)
        shape = torch.tensor([rows, self.max_patches // rows])
        values = torch.zeros((), dtype=torch.uint8).expand(num_pictures, self.max_patches, 3 * self.patch_px**2)
        return {"values": values, "shapes": shape.expand(num_pictures, 2)}

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., N, 3 S S), likewise float32."""
        mean, std = self._scale(pixels)
        return ((pixels.float() / 255.0).unflatten(-1, (-1, 3)) - mean).div(std).flatten(-2)


def pixels_from_json(values: dict[str, Any]) -> Pixels:
    """What :meth:`Pixels.to_json` gave."""
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return (PatchTransform if "patch_px" in settings else PixelTransform)(**settings)


def real_patches(shapes: Int[Tensor, "P 2"], num_patches: int) -> Bool[Tensor, "P N"]:
    """Which patches of each picture are real."""
    return torch.arange(num_patches, device=shapes.device) < shapes.prod(-1, keepdim=True)


def _without_ends(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    longest = _LONGEST * min(height, width)
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    return frames[:, top : top + longest, left : left + longest]


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2


def _resize(frames: np.ndarray, height: int, width: int, interpolation: str, antialias: bool = True) -> np.ndarray:
    if interpolation == "lanczos":  # which only Pillow has
        from PIL import Image

        size = (width, height)
        resized = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
        return np.stack(resized).transpose(0, 3, 1, 2)
    return interpolate(frames, height, width, interpolation, antialias=antialias).numpy()
