"""The item's id as a modality: an embedding row, absent for items that training has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmrec.data.dataset import Dataset
from mmrec.dropout import Dropout
from mmrec.modality_encoders.base import ModalityEncoder, Preprocessing, Tokens

__all__ = ["ItemIdConfig", "ItemIdEncoder", "ItemIdPreprocessing"]


@dataclass(frozen=True, kw_only=True)
class ItemIdConfig:
    """An embedding row for each item with a training event."""

    init_std: float = 0.01
    """Standard deviation of a fresh row's entries; small beside content vectors of unit length, so that a hybrid
    starts as its content."""
    dropout: float = 0.5
    """Share of a row's entries dropped in training."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> ItemIdPreprocessing:
        rows = np.full(len(train_items), -1, dtype=np.int64)
        rows[train_items] = np.arange(int(train_items.sum()))
        return ItemIdPreprocessing(rows)

    def load_preprocessing(self, folder: Path) -> ItemIdPreprocessing:
        return ItemIdPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: ItemIdPreprocessing) -> ItemIdEncoder:
        return ItemIdEncoder(preprocessing.num_rows, dim, self)


class ItemIdPreprocessing(Preprocessing):
    """From catalogue index to embedding row.

    Args:
        rows: row of each item, -1 for items without one. (V,)
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    @property
    def num_rows(self) -> int:
        return int(self.rows.max(initial=-1)) + 1

    def known(self) -> np.ndarray:
        """True for items that have a row. (V,)"""
        return self.rows >= 0

    def __call__(self, raw: int) -> np.int64:
        return self.rows[raw]

    def collate(self, samples: list[np.int64]) -> dict[str, Tensor]:
        return {"rows": torch.from_numpy(np.asarray(samples))}

    def save(self, folder: Path) -> None:
        np.save(folder / "rows.npy", self.rows)

    @classmethod
    def load(cls, folder: Path) -> ItemIdPreprocessing:
        return cls(np.load(folder / "rows.npy"))


class ItemIdEncoder(ModalityEncoder):
    """One token: the item's embedding row. Inputs: "rows", ("P",)."""

    takes_keys = True

    def __init__(self, num_rows: int, dim: int, config: ItemIdConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(max(num_rows, 1), dim)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=config.init_std)

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        rows = inputs["rows"]
        tokens = self.dropout(self.embedding(rows), inputs.get("keys"))[:, None]
        return tokens, torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
