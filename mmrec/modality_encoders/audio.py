"""Sounds: log-mel spectrograms by torchaudio, then a timm tower."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.media.audio import decode_audio
from mmrec.modality_encoders.base import JsonPreprocessing
from mmrec.modality_encoders.timm_tower import timm_tower
from mmrec.modality_encoders.tower import TowerEncoder, UnitHead

if TYPE_CHECKING:
    from torchaudio.transforms import MelSpectrogram

__all__ = ["AudioConfig", "AudioEncoder", "AudioPreprocessing"]

# Log-mel energies of speech and music lie around -4 +- 4 (natural logarithm), as in AST's normalisation.
LOG_MEL_MEAN, LOG_MEL_SCALE, LOG_MEL_FLOOR = -4.0, 4.0, 1e-6


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """A log-mel spectrogram of the first seconds through a timm network from scratch."""

    tower: str = "test_convnext"
    """Any timm network without batch normalisation; sees the spectrogram as a picture of one channel."""
    sample_rate: int = 16_000
    """Hz; sounds are resampled and mixed to mono."""
    duration_s: float = 3.0
    """Seconds that are heard; shorter sounds are padded with silence."""
    num_mels: int = 48
    """Mel bands."""
    hop_ms: float = 50.0
    """Time between columns of the spectrogram."""

    @property
    def num_columns(self) -> int:
        """Columns of the spectrogram; torchaudio centres a window on the first sample and on each hop after it."""
        return round(self.duration_s * self.sample_rate) // _hop(self.sample_rate, self.hop_ms) + 1

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> AudioPreprocessing:
        return AudioPreprocessing(
            sample_rate=self.sample_rate, duration_s=self.duration_s, num_mels=self.num_mels, hop_ms=self.hop_ms
        )

    def load_preprocessing(self, folder: Path) -> AudioPreprocessing:
        return AudioPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: AudioPreprocessing) -> AudioEncoder:
        return AudioEncoder(dim, self)


@dataclass(frozen=True, kw_only=True)
class AudioPreprocessing(JsonPreprocessing):
    """Bytes of a sound -> float16 log-mel spectrogram (1, mels, columns)."""

    sample_rate: int
    duration_s: float
    num_mels: int
    hop_ms: float

    def __call__(self, raw: bytes) -> np.ndarray:
        length = round(self.duration_s * self.sample_rate)
        samples = np.zeros(length, dtype=np.float32)
        heard = decode_audio(raw, self.sample_rate, self.duration_s)[:length]
        samples[: len(heard)] = heard
        energies = _mel(self.sample_rate, self.num_mels, self.hop_ms)(torch.from_numpy(samples))
        log_mel = (energies.clamp(min=LOG_MEL_FLOOR).log() - LOG_MEL_MEAN) / LOG_MEL_SCALE
        return log_mel[None].half().numpy()


class AudioEncoder(TowerEncoder):
    """One token: the tower's pooled output."""

    def __init__(self, dim: int, config: AudioConfig) -> None:
        super().__init__()
        self.tower, width = timm_tower(config.tower, (config.num_mels, config.num_columns), channels=1)
        self.head = UnitHead(width, dim)

    def features(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        features = self.tower(inputs["values"].float())[:, None]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)


@functools.cache
def _mel(sample_rate: int, num_mels: int, hop_ms: float) -> MelSpectrogram:
    from torchaudio.transforms import MelSpectrogram

    hop = _hop(sample_rate, hop_ms)
    window = 1 << (2 * hop - 1).bit_length()  # the power of two that overlaps columns by half or more
    return MelSpectrogram(sample_rate, n_fft=window, hop_length=hop, n_mels=num_mels)


def _hop(sample_rate: int, hop_ms: float) -> int:
    """Samples between columns of the spectrogram."""
    return round(sample_rate * hop_ms / 1000)
