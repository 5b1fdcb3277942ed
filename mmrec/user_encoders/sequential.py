"""What the encoders of ordered histories share: a recency-weighted mean, and corrections that start at zero.

Legend: B users, N events (packed), L longest history of the batch, H heads, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError
from mmrec.user_encoders.packing import from_rows, to_rows

__all__ = ["BlockConfig", "BlockEncoder", "RecencyMean", "SequentialEncoder", "ages"]


class SequentialEncoder(nn.Module, ABC):
    """User vector after each event: ``mean(x) + M mean'(x) + W LayerNorm(mix(x)) / sqrt(D)``.

    The first mean, weighted by recency, recommends what resembles the latest items; M is a linear map from an item to
    those that follow it; ``mix``, the network that gives a subclass its name, adds what depends on order and
    combination. M and W start at zero and the network's part is scaled down, so that an untrained model is a content
    recommender and one step of Adam cannot outweigh it: every correction has to earn its place.

    Args:
        dim: D, width of item and user vectors.
        max_length: events that are read.
        dropout: share of activations dropped in training, before and after the network.
    """

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.max_length = max_length
        self.scale = dim**0.5
        self.recent = RecencyMean()
        self.recent_before_transition = RecencyMean()
        self.transition = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.transition.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @abstractmethod
    def mix(self, hidden: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """What the network makes of each event and those before it; ``hidden`` has entries of about 1."""

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        if not len(sequences):  # a rank without histories; DistributedDataParallel waits for all its gradients
            return items + sum(parameter.sum() * 0.0 for parameter in self.parameters())
        recent = self.recent(items, sequences)
        next_items = self.transition(self.dropout(self.recent_before_transition(items, sequences)))
        hidden = self.mix(self.dropout(self.scale * items), sequences)  # unit vectors have entries of about 1 / sqrt(D)
        return recent + next_items + self.out(self.dropout(self.norm(hidden))) / self.scale


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Blocks of attention over the last ``max_length`` events."""

    max_length: int = 50
    """Longest history that is read, in events; older events are left out."""
    num_blocks: int = 1
    """Blocks of the network."""
    num_heads: int = 2
    """Attention heads; must divide the model width."""
    dropout: float = 0.2
    """Share of activations dropped in training, in embeddings and at the ends of what a block adds."""


class BlockEncoder(SequentialEncoder):
    """A stack of blocks as the network; each takes the packed events and the sequences, and gives packed events.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.
        block: makes a block.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, config: BlockConfig, block: Callable[[int, BlockConfig], nn.Module]) -> None:
        super().__init__(dim, config.max_length, config.dropout)
        if dim % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the model width {dim}")
        self.blocks = nn.ModuleList(block(dim, config) for _ in range(config.num_blocks))

    def mix(self, hidden: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        for block in self.blocks:
            hidden = block(hidden, sequences)
        return hidden


class RecencyMean(nn.Module):
    """Mean of the items up to each event, weighted with exp(-decay x age in events); the decay is learned."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(decay))

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        rows = to_rows(items, sequences)  # (B, L, D)
        age = ages(rows.shape[1], items.device)
        weights = (-self.decay * age).masked_fill(age < 0, -torch.inf).softmax(-1)  # (L, L)
        return from_rows(weights @ rows, sequences)


def ages(length: int, device: torch.device) -> Tensor:
    """How many events before event i event j lies; negative for later ones. (L, L)"""
    place = torch.arange(length, device=device)
    return place[:, None] - place
