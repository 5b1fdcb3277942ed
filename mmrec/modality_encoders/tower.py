"""What the encoders of raw media share: a network that reads the medium, and a head that makes tokens of its output.

Legend: P items that have the modality, T tokens, W width of the network, D model width, K axes of the modality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrec.modality_encoders.base import ModalityEncoder, Tokens, in_chunks

__all__ = ["CHUNK", "TowerEncoder", "UnitHead"]

CHUNK = 256
"""Media that a tower reads at once where nothing is learnt from them."""


class TowerEncoder(ModalityEncoder, ABC):
    """A network that reads raw media, then a head that makes tokens of its output.

    The output of a tower that does not learn can be kept: inputs {"features", "mask"} go to the head at once.
    """

    head: UnitHead

    @abstractmethod
    def features(self, inputs: dict[str, Tensor]) -> tuple[Float[Tensor, "P T W"], Bool[Tensor, "P T"]]:
        """What the tower makes of the inputs, and its mask, True = real."""

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        kept = "features" in inputs
        features, mask = (inputs["features"], inputs["mask"]) if kept else self.features(inputs)
        return self.head(features), mask

    def tower_parameters(self) -> Iterator[tuple[nn.Parameter, float]]:
        """The parameters of the tower that learn, and each one's rate as a share of the towers' rate."""
        head = set(self.head.parameters())
        return ((parameter, 1.0) for parameter in self.parameters() if parameter not in head)

    def start(self, inputs: dict[str, Tensor]) -> None:
        """Choose the tower's own initial weights, where random ones are not what is wanted."""

    @torch.no_grad()
    def calibrate(self, inputs: dict[str, Tensor], axes: Float[Tensor, "K D"]) -> None:
        self.start(inputs)
        parts = (
            [self.features(part) for part in in_chunks(inputs, CHUNK)]
            if "features" not in inputs
            else [(inputs["features"].float(), inputs["mask"])]
        )
        features, mask = (torch.cat(part) for part in zip(*parts, strict=True))
        if mask.sum() >= 2:
            self.head.calibrate(features[mask], axes)


class UnitHead(nn.Module):
    """From a tower's width to the model's; tokens have unit length at the start, like ready-made vectors."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.norm.weight, dim**-0.5)

    def forward(self, features: Float[Tensor, "*rows W"]) -> Float[Tensor, "*rows D"]:
        return self.norm(self.projection(features))

    @torch.no_grad()
    def calibrate(self, features: Float[Tensor, "N W"], axes: Float[Tensor, "K D"]) -> None:
        """Start as a whitening of what an untrained tower says of N items, along the strongest K directions.

        The outputs of random networks share one large component, so that all items begin as nearly the same vector
        and training spends its first epochs on telling them apart. Centred and scaled along their principal
        directions they are useful random features from the first step.

        Source: the idea of data-dependent initialisation, Krähenbühl et al. 2016.
        """
        centre = features.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(features.double().T).float())
        variance, directions = variance.flip(0), directions.flip(1)
        # Directions with less than a hundredth of the greatest variance are noise; they are not blown up.
        scaled = directions / variance.clamp(min=0.01 * float(variance[0]) + 1e-12).sqrt()  # (W, W)
        kept = scaled.T[: len(axes)]
        self.projection.weight.copy_(axes[: len(kept)].T @ kept)
        self.projection.bias.copy_(-self.projection.weight @ centre)
