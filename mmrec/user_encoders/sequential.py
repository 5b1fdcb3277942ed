"""What the encoders of ordered histories share: a recency-weighted mean, and corrections that start at zero.

Legend: B users, N events (packed), D width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.errors import ConfigError, DataError
from mmrec.user_encoders.packing import Growing, Mixing, Packed

__all__ = ["BlockConfig", "BlockEncoder", "RecencyMean", "SequentialEncoder", "UserState"]


@dataclass
class UserState:
    """A history that grows: what :meth:`SequentialEncoder.append` needs to add an event without encoding the others.

    Attributes:
        items: vectors of the last ``max_length`` events at most, for the day on which the oldest has to go.
        timestamps: their times, or empty where events have none.
    """

    items: list[Tensor] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    mixing: Growing | None = field(default_factory=Growing)


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

    Attributes:
        query_time: whether the encoder is told when the next item is asked for.
    """

    query_time = False

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.max_length = max_length
        self.scale = dim**0.5
        self.recent = RecencyMean()
        self.recent_before_transition = RecencyMean()
        self.transition = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
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

    def append(
        self, state: UserState, item: Float[Tensor, " D"], *, timestamp: int | None = None,
        query_time: int | None = None,
    ) -> Float[Tensor, " D"]:  # fmt: skip
        """The user's vector after one more event, as :meth:`forward` gives it for the whole history.

        Costs one event as long as there are at most ``max_length``; from then on the oldest goes with each new one,
        on which everything behind it rests, and the last ``max_length`` events are encoded anew.

        Args:
            state: of the events before, changed in place; a new ``UserState()`` for the first.
            timestamp: of the event, seconds since 1970; for all events of a history or for none.
            query_time: when the next item is asked for; encoders that know it.

        Raises: DataError if only some events of the history have a time.
        """
        if state.items and (timestamp is None) == bool(state.timestamps):
            raise DataError("some events of a history have a timestamp and some have none; give it for all or for none")
        state.items = [*state.items, item][-self.max_length :]
        state.timestamps = [*state.timestamps, *([] if timestamp is None else [timestamp])][-self.max_length :]
        growing = state.mixing
        if growing is None or growing.num_events == self.max_length:
            state.mixing = None
            return self._encode_again(state, query_time)
        growing.num_events += 1
        growing.timestamps, growing.query_time = state.timestamps, query_time
        return self._encode(item[None], growing)[0]

    def _encode_again(self, state: UserState, query_time: int | None) -> Float[Tensor, " D"]:
        items = torch.stack(state.items)
        times = torch.tensor(state.timestamps, device=items.device) if state.timestamps else None
        asked = None if times is None or query_time is None else torch.cat([times[1:], times.new_tensor([query_time])])
        sequences = SequenceBatch(
            item_idx=torch.arange(len(items), device=items.device),
            offsets=torch.tensor([0, len(items)], device=items.device),
            timestamps=times,
            query_times=asked,
        )
        return self(items, sequences)[-1]

    def _packed(self, sequences: SequenceBatch, limit: int) -> Packed:
        packed = Packed(sequences)
        if packed.longest > limit:
            raise DataError(
                f"a history has {packed.longest:,} events, the encoder reads {limit:,}; give its last {limit:,}, or "
                "train with a greater max_length"
            )
        return packed

    def _encode(
        self, items: Float[Tensor, "N D"], mixing: Mixing, masked: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Args: masked: events that have no item, only a place."""
        recent = self.recent(items, mixing, masked)
        next_items = self.transition(self.dropout(self.recent_before_transition(items, mixing, masked)))
        hidden = self.mix(self.dropout(self.scale * items), mixing)  # unit vectors have entries of about 1 / sqrt(D)
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
    """A stack of blocks as the network; each takes the packed events and how they are mixed, and gives packed events.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.
        block: makes a block.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, config: BlockConfig, block: Callable[[], nn.Module]) -> None:
        super().__init__(dim, config.max_length, config.dropout)
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
        self.raw_decay = nn.Parameter(torch.tensor(math.log(math.expm1(decay))))  # softplus of it is the decay

    def forward(
        self, items: Float[Tensor, "N D"], mixing: Mixing, masked: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Args: masked: events that are left out of the mean; with nothing before it, an event has the mean 0."""
        keep = torch.exp(-F.softplus(self.raw_decay))
        weight = items.new_ones(len(items), 1) if masked is None else (~masked)[:, None].to(items.dtype)
        total = mixing.decayed_sum(self, torch.cat([items * weight, weight], 1), keep)
        return total[:, :-1] / total[:, -1:].clamp(min=1e-12)
