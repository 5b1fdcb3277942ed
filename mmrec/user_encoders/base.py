"""What every user encoder offers: vectors of whole histories, and of one that gains an event at a time.

Legend: N events (packed), D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError, DataError

__all__ = ["UserEncoder", "UserEncoderSettings", "UserState"]


@dataclass(frozen=True, kw_only=True)
class UserEncoderSettings:
    """What all user encoders are told."""

    max_length: int = 50
    """Longest history that is read, in events; older events are left out."""
    dropout: float = 0.2
    """Share of activations dropped in training."""

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ConfigError(f"user_encoder.max_length is {self.max_length}; it must be at least 1 event")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"user_encoder.dropout is {self.dropout}; it must be at least 0 and less than 1")


@dataclass
class UserState:
    """A history that grows: what :meth:`UserEncoder.append` needs to add an event without encoding the others.

    Plain tensors and numbers: ``torch.save`` stores it, and any process that has the encoder goes on with it.

    Attributes:
        items: vectors of the last ``max_length`` events at most, for the day on which the oldest has to go. ("D",) each
        timestamps: their times, or empty where events have none.
        kept: what each layer keeps of the events so far, in the order of layers; None once the oldest event had to go.
    """

    items: list[Tensor] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    kept: list[Tensor] | None = field(default_factory=list)


class UserEncoder(nn.Module, ABC):
    """Item vectors in order -> a user vector after each event.

    Args:
        dim: D, width of item and user vectors.
        max_length: events that are read.

    Attributes:
        reads_times: whether the times of events have an influence, where they have any.
        query_time: whether the encoder is told when the next item is asked for.
    """

    reads_times = False
    query_time = False

    def __init__(self, dim: int, max_length: int) -> None:
        super().__init__()
        self.dim = dim
        self.max_length = max_length

    @abstractmethod
    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """User vectors after each event. Raises: DataError if a history is longer than ``max_length``."""

    @torch.no_grad()
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
        if len(state.items) == self.max_length:
            state.kept = None
        state.items = [*state.items, item][-self.max_length :]
        state.timestamps = [*state.timestamps, *([] if timestamp is None else [timestamp])][-self.max_length :]
        return self._grown(state, query_time)

    @abstractmethod
    def _grown(self, state: UserState, query_time: int | None) -> Float[Tensor, " D"]:
        """The vector after the state's last event, which ``state.kept`` does not hold yet."""

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

    def _refuse_longer(self, longest: int, limit: int) -> None:
        if longest > limit:
            raise DataError(
                f"a history has {longest:,} events, the encoder reads {limit:,}; give its last {limit:,}, or "
                "train with a greater max_length"
            )
