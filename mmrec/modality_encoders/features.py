"""Vectors made elsewhere (CLIP, a sentence encoder, an in-house model) as a modality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from mmrec.modality_encoders.base import ModalityEncoder, Preprocessing, Tokens

__all__ = ["FeaturesConfig", "FeaturesEncoder", "FeaturesPreprocessing"]

_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Ready-made vectors: normalised, centred on the training items; they start on their strongest directions."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> FeaturesPreprocessing:
        """Raises: DataError if no training item has a vector."""
        rows = np.flatnonzero(train_items & dataset.present(modality))
        if len(rows) == 0:
            raise DataError(f"no item with a training event has a vector in features {modality!r}; leave it out")
        vectors = dataset.features(modality)
        parts = np.array_split(rows, -(-len(rows) // _ROWS))  # a million vectors of 768 in float64 would be 6 GB
        mean = np.sum([_unit(vectors[part].astype(np.float64)).sum(0) for part in parts], axis=0) / len(rows)
        scatter = np.zeros((len(mean), len(mean)))
        for part in parts:
            centred = _unit(_unit(vectors[part].astype(np.float64)) - mean)
            scatter += centred.T @ centred
        _, directions = np.linalg.eigh(scatter)
        return FeaturesPreprocessing(mean.astype(np.float32), directions[:, ::-1].T.astype(np.float32))

    def load_preprocessing(self, folder: Path) -> FeaturesPreprocessing:
        return FeaturesPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: FeaturesPreprocessing) -> FeaturesEncoder:
        return FeaturesEncoder(dim, preprocessing)


class FeaturesPreprocessing(Preprocessing):
    """Unit length, minus the mean of the training items, unit length again.

    The mean is what all vectors of an encoder share (the cone of Ethayarajh 2019); without it inner products tell
    items apart.

    Args:
        mean: of the training items' unit vectors. (F,)
        directions: principal directions of the centred vectors, strongest first; they start the projection. (F, F)
    """

    def __init__(self, mean: np.ndarray, directions: np.ndarray) -> None:
        self.mean = mean
        self.directions = directions

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        return _unit(_unit(np.asarray(raw, dtype=np.float32)) - self.mean).astype(np.float32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return {"vectors": torch.from_numpy(np.asarray(samples))}

    def save(self, folder: Path) -> None:
        np.savez(folder / "statistics.npz", mean=self.mean, directions=self.directions)

    @classmethod
    def load(cls, folder: Path) -> FeaturesPreprocessing:
        with np.load(folder / "statistics.npz") as stored:
            return cls(stored["mean"], stored["directions"])


class FeaturesEncoder(ModalityEncoder):
    """One token: a linear map of the vector.

    Calibrated, it is the projection on the strongest principal directions, as many as the modality has axes, scaled to
    length 1 on average: inner products within the modality are kept as far as the width allows.
    """

    def __init__(self, dim: int, preprocessing: FeaturesPreprocessing) -> None:
        super().__init__()
        self.directions = torch.from_numpy(preprocessing.directions)
        self.projection = nn.Linear(self.directions.shape[1], dim, bias=False)

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        tokens = self.projection(inputs["vectors"])[:, None]
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    @torch.no_grad()
    def calibrate(self, inputs: dict[str, Tensor], axes: Float[Tensor, "K D"]) -> None:
        kept = self.directions[: len(axes)].to(axes)
        projected = inputs["vectors"] @ kept.T
        self.projection.weight.copy_(axes[: len(kept)].T @ kept / projected.norm(dim=1).mean())


def _unit(vectors: np.ndarray) -> np.ndarray:
    # Not norm, which adds in another order for one vector than for many: both have to give the same bits.
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / np.maximum(norms, 1e-12)
