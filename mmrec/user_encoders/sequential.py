"""What the encoders of ordered histories share: a recency-weighted mean, and corrections that start at zero.

Legend: B users, N events (packed), D width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.errors import ConfigError
from mmrec.user_encoders.base import UserEncoder, UserEncoderSettings, UserState
from mmrec.user_encoders.packing import Growing, Mixing, Packed

__all__ = ["BlockConfig", "BlockEncoder", "RecencyMean", "SequentialConfig", "SequentialEncoder"]


@dataclass(frozen=True, kw_only=True)
class SequentialConfig(UserEncoderSettings):
    """A network over the last ``max_length`` events, and what it starts from."""

    num_blocks: int = 1
    """Blocks, or recurrent layers, of the network."""
    shortcut: bool = True
    """Start from a recency-weighted mean and a linear map from items to those that follow, which the network corrects;
    without it the user vector is the network's output alone, as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_blocks < 1:
            raise ConfigError(f"user_encoder.num_blocks is {self.num_blocks}; it must be at least 1")


class SequentialEncoder(UserEncoder):
    """User vector after each event: ``mean(x) + M mean'(x) + W LayerNorm(mix(x)) / sqrt(D)``.

    The first mean, weighted by recency, recommends what resembles the latest items; M is a linear map from an item to
    those that follow it; ``mix``, the network that gives a subclass its name, adds what depends on order and
    combination. M and W start at zero and the network's part is scaled down, so that an untrained model is a content
    recommender and one step of Adam cannot outweigh it: every correction has to earn its place.

    Without ``config.shortcut`` it is ``LayerNorm(mix(x))``, the published form of the network.

    Args:
        dim: D, width of item and user vectors.
        config: length, dropout, shortcut.
    """

    def __init__(self, dim: int, config: SequentialConfig) -> None:
        super().__init__(dim, config.max_length)
        self.scale = dim**0.5
        self.shortcut = config.shortcut
        self.input_dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim)
        if not config.shortcut:
            return
        self.recent = RecencyMean()
        self.recent_before_transition = RecencyMean()
        self.transition = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.transition_dropout, self.output_dropout = Dropout(config.dropout), Dropout(config.dropout)
        nn.init.zeros_(self.transition.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @abstractmethod
    def mix(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        """What the network makes of each event and those before it; ``hidden`` has entries of about 1."""

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """Raises: DataError if a history is longer than ``max_length``."""
        if not len(items):  # a rank without histories; DistributedDataParallel waits for all its gradients
            return items + sum(parameter.sum() * 0.0 for parameter in self.parameters())
        return self._encode(items, self._packed(sequences, self.max_length))

    def _grown(self, state: UserState, query_time: int | None) -> Float[Tensor, " D"]:
        if state.kept is None or not self.keeps_state:
            return self._encode_again(state, query_time)
        growing = Growing(len(state.items), state.timestamps, query_time, state.kept)
        return self._encode(state.items[-1][None], growing)[0]

    @property
    def keeps_state(self) -> bool:
        """Whether what is kept of earlier events stays right when an event is added."""
        return True

    def _packed(self, sequences: SequenceBatch, limit: int) -> Packed:
        packed = Packed(sequences)
        self._refuse_longer(packed.longest, limit)
        return packed

    def _encode(
        self, items: Float[Tensor, "N D"], mixing: Mixing, masked: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Args: masked: events that have no item, only a place."""
        # Unit vectors have entries of about 1 / sqrt(D).
        if not self.shortcut:
            return self.norm(self.mix(self.input_dropout(self.scale * items, mixing.keys), mixing))
        recent = self.recent(items, mixing, masked)
        before = self.recent_before_transition(items, mixing, masked)
        next_items = self.transition(self.transition_dropout(before, mixing.keys))
        hidden = self.norm(self.mix(self.input_dropout(self.scale * items, mixing.keys), mixing))
        return recent + next_items + self.out(self.output_dropout(hidden, mixing.keys)) / self.scale


@dataclass(frozen=True, kw_only=True)
class BlockConfig(SequentialConfig):
    """Blocks of attention over the last ``max_length`` events."""

    num_heads: int = 2
    """Attention heads; must divide the model width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads < 1:
            raise ConfigError(f"user_encoder.num_heads is {self.num_heads}; it must be at least 1")


class BlockEncoder(SequentialEncoder):
    """A stack of blocks as the network; each takes the packed events and how they are mixed, and gives packed events.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.
        block: makes a block.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, config: BlockConfig, block: Callable[[], nn.Module]) -> None:
        super().__init__(dim, config)
        if dim % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the model width {dim}")
        self.blocks = nn.ModuleList(block() for _ in range(config.num_blocks))

    def mix(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        for block in self.blocks:
            hidden = block(hidden, mixing)
        return hidden


class RecencyMean(nn.Module):
    """Mean of the items up to each event, weighted with exp(-decay x age in events); ``decay``, above 0, is learned."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.raw_decay = nn.Parameter(torch.tensor([math.log(math.expm1(decay))]))  # softplus of it is the decay

    def forward(
        self, items: Float[Tensor, "N D"], mixing: Mixing, masked: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Args: masked: events that are left out of the mean; one with nothing before it keeps its own vector, because
        a zero vector has no direction to learn from."""
        keep = torch.exp(-F.softplus(self.raw_decay))
        weight = items.new_ones(len(items), 1) if masked is None else (~masked)[:, None].to(items.dtype)
        total = mixing.decayed_sum(torch.cat([items * weight, weight], 1), keep)
        mean = total[:, :-1] / total[:, -1:].clamp(min=1e-12)
        return mean if masked is None else torch.where(total[:, -1:] > 0, mean, items)
