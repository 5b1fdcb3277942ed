"""Pictures: a timm tower on small squares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.media.image import decode_image
from mmrec.modality_encoders.base import JsonPreprocessing
from mmrec.modality_encoders.timm_tower import timm_tower
from mmrec.modality_encoders.tower import TowerEncoder, UnitHead

__all__ = ["ImageConfig", "ImageEncoder", "ImagePreprocessing", "interpolate", "resize"]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """A timm network from scratch; the default trains on a CPU."""

    tower: str = "test_convnext"
    """Any timm network without batch normalisation."""
    size_px: int = 48
    """Side of the square that pictures are resized to; proportions give way, the whole picture is seen."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> ImagePreprocessing:
        return ImagePreprocessing(size_px=self.size_px)

    def load_preprocessing(self, folder: Path) -> ImagePreprocessing:
        return ImagePreprocessing.load(folder)

    def build(self, dim: int, preprocessing: ImagePreprocessing) -> ImageEncoder:
        return ImageEncoder(dim, self)


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing(JsonPreprocessing):
    """Bytes of a picture -> uint8 RGB (3, size, size); the network normalises, on its own device."""

    size_px: int

    def __call__(self, raw: bytes) -> np.ndarray:
        return resize(decode_image(raw)[None], self.size_px)[0]


class ImageEncoder(TowerEncoder):
    """One token: the tower's pooled output."""

    def __init__(self, dim: int, config: ImageConfig) -> None:
        super().__init__()
        self.tower, width = timm_tower(config.tower, (config.size_px, config.size_px))
        self.head = UnitHead(width, dim)

    def features(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        pixels = inputs["values"].float() / 127.5 - 1.0  # (P, 3, S, S) in -1 to 1
        features = self.tower(pixels)[:, None]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)


def resize(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Antialiased resize of uint8 frames (F, H, W, 3) to (F, 3, size, size).

    The operation under torchvision's ``resize``, with its values, without the two seconds of its import.
    """
    return interpolate(frames, size_px, size_px, "bilinear").contiguous().numpy()


def interpolate(frames: np.ndarray, height: int, width: int, mode: str, *, antialias: bool = True) -> Tensor:
    """Resize of uint8 frames (F, H, W, 3) to (F, 3, height, width), by "bilinear" or "bicubic"."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    # The stride of a single frame says nothing of its layout; told that channels come last, the kernel copies less.
    pixels = pixels.as_strided(pixels.shape, (pixels[0].numel(), *pixels.stride()[1:]))
    return F.interpolate(pixels, (height, width), mode=mode, antialias=antialias)
