"""GRU4Rec: a gated recurrent network over the history.

Legend: N events (packed), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmrec.user_encoders.packing import Mixing
from mmrec.user_encoders.sequential import SequentialEncoder

__all__ = ["GRU4Rec", "GRU4RecConfig"]


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig:
    """A recurrent network over the last ``max_length`` events."""

    max_length: int = 50
    """Longest history that is read, in events; older events are left out."""
    num_blocks: int = 1
    """Recurrent layers."""
    dropout: float = 0.2
    """Share of activations dropped in training, in embeddings and between layers."""

    def build(self, dim: int) -> GRU4Rec:
        return GRU4Rec(dim, self)


class GRU4Rec(SequentialEncoder):
    """Gated recurrent units as the network of a :class:`SequentialEncoder`.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Source: Hidasi et al. 2016; GRU of Cho et al. 2014.
    """

    def __init__(self, dim: int, config: GRU4RecConfig) -> None:
        super().__init__(dim, config.max_length, config.dropout)
        between = config.dropout if config.num_blocks > 1 else 0.0
        self.network = nn.GRU(dim, dim, config.num_blocks, batch_first=True, dropout=between)

    def mix(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        return mixing.recur(self.network, hidden)
