"""Clips: a timm tower on sampled frames, then attention over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError
from mmrec.media.video import decode_video
from mmrec.modality_encoders.base import JsonPreprocessing
from mmrec.modality_encoders.image import resize
from mmrec.modality_encoders.timm_tower import timm_tower
from mmrec.modality_encoders.tower import TowerEncoder, UnitHead

__all__ = ["VideoConfig", "VideoEncoder", "VideoPreprocessing", "collate_clips"]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Frames spread evenly over the clip through a timm network from scratch, joined by temporal attention."""

    tower: str = "test_vit"
    """Any timm network without batch normalisation; a vision transformer keeps where in the frame a thing is."""
    size_px: int = 32
    """Side of the square that frames are resized to."""
    patch_px: int = 16
    """Side of a patch, for vision transformers; 0 keeps the tower's own."""
    num_frames: int = 4
    """Frames taken from a clip."""
    num_heads: int = 2
    """Heads of the temporal attention; must divide the tower's width."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> VideoPreprocessing:
        return VideoPreprocessing(size_px=self.size_px, num_frames=self.num_frames)

    def load_preprocessing(self, folder: Path) -> VideoPreprocessing:
        return VideoPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: VideoPreprocessing) -> VideoEncoder:
        return VideoEncoder(dim, self)


@dataclass(frozen=True, kw_only=True)
class VideoPreprocessing(JsonPreprocessing):
    """Bytes of a clip -> uint8 RGB (frames, 3, size, size) in order of time; a very short clip has fewer frames."""

    size_px: int
    num_frames: int

    def __call__(self, raw: bytes) -> np.ndarray:
        frames, _ = decode_video(raw, self.num_frames, short_side_px=self.size_px)
        return resize(frames, self.size_px)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return collate_clips(samples, self.num_frames)


def collate_clips(samples: list[np.ndarray], num_frames: int) -> dict[str, Tensor]:
    """Clips of up to ``num_frames`` frames, uint8 (frames, 3, H, W) each, as one tensor and the mask of real frames."""
    values = np.zeros((len(samples), num_frames, *samples[0].shape[1:]), dtype=np.uint8)
    mask = np.zeros((len(samples), num_frames), dtype=bool)
    for row, frames in enumerate(samples):
        values[row, : len(frames)] = frames
        mask[row, : len(frames)] = True
    return {"values": torch.from_numpy(values), "mask": torch.from_numpy(mask)}


class VideoEncoder(TowerEncoder):
    """One token a frame. Frames attend to each other before they leave, so that motion is seen."""

    def __init__(self, dim: int, config: VideoConfig) -> None:
        super().__init__()
        size_px = (config.size_px, config.size_px)
        self.tower, width = timm_tower(config.tower, size_px, patch_px=config.patch_px or None)
        if width % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the width {width} of {config.tower!r}")
        self.time = nn.Parameter(0.02 * torch.randn(config.num_frames, width))
        self.temporal = nn.TransformerEncoderLayer(
            width, config.num_heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = UnitHead(width, dim)

    def features(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mask = inputs["mask"]  # (P, F)
        pixels = inputs["values"][mask].float() / 127.5 - 1.0  # real frames only
        features = self.tower(pixels)
        frames = features.new_zeros(*mask.shape, features.shape[-1]).index_put((mask,), features)  # (P, F, W)
        return self.temporal(frames + self.time, src_key_padding_mask=~mask), mask
