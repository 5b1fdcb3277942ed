"""What every modality encoder is made of: preprocessing, fitted to the training data, and a network.

Legend: P items that have the modality, T tokens, D model width.

A modality is one file with three classes: a ``Config`` (``fit`` learns what must be learnt from the training items,
``build`` makes the network), a ``Preprocessing`` (raw record -> small sample -> batch; saved in the checkpoint) and a
``ModalityEncoder`` (batch -> tokens).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrec.data.dataset import Dataset

__all__ = ["EncoderConfig", "JsonPreprocessing", "ModalityEncoder", "Preprocessing", "Raw", "Tokens", "in_chunks"]

Raw = Any  # bytes of a medium, a text, a vector, or a catalogue index
Tokens = tuple[Float[Tensor, "P T D"], Bool[Tensor, "P T"]]
P = TypeVar("P", bound="Preprocessing")


class Preprocessing(ABC):
    """Deterministic path from a raw record to the network's input."""

    @abstractmethod
    def __call__(self, raw: Raw) -> Any:
        """A small sample that is kept in memory between steps. Raises: MediaError if the record cannot be used."""

    @abstractmethod
    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        """Samples of P items as tensors with first dimension P."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that :meth:`load` needs into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """The preprocessing that :meth:`save` wrote."""


@dataclass(frozen=True)
class JsonPreprocessing(Preprocessing):
    """A preprocessing that is nothing but a few numbers: stored as ``preprocessing.json``."""

    def save(self, folder: Path) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        (folder / "preprocessing.json").write_text(json.dumps(values))

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(**json.loads((folder / "preprocessing.json").read_text()))

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.asarray(samples))}


class ModalityEncoder(nn.Module, ABC):
    """Network from collated inputs to tokens of the model's width.

    Attributes:
        takes_keys: whether in training the inputs carry "keys", 64 random bits of each item, for dropout. ("P",)
    """

    takes_keys = False

    @abstractmethod
    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        """Tokens ("P", "T", "D") and their mask ("P", "T"), True = real."""

    def calibrate(self, inputs: dict[str, Tensor], axes: Float[Tensor, "K D"]) -> None:
        """Choose initial weights by looking at some training items; called once, before the first step.

        Args:
            axes: orthonormal rows, this modality's own: its tokens start in their span, so that the inner product of
                two items starts as the sum of what their modalities say.
        """


def in_chunks(inputs: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """Collated inputs of P items as those of ``size`` items each, in order."""
    (num_items,) = {len(values) for values in inputs.values()}
    for start in range(0, num_items, size):
        yield {name: values[start : start + size] for name, values in inputs.items()}


class EncoderConfig(Protocol):
    """What the item encoder asks of a modality's configuration."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> Preprocessing: ...

    def load_preprocessing(self, folder: Path) -> Preprocessing: ...

    def build(self, dim: int, preprocessing: Any) -> ModalityEncoder: ...
