"""GRU4Rec: a gated recurrent network over the history.

Legend: N events (packed), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmrec.dropout import Dropout
from mmrec.user_encoders.packing import Mixing
from mmrec.user_encoders.sequential import SequentialConfig, SequentialEncoder

__all__ = ["GRU4Rec", "GRU4RecConfig"]


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig(SequentialConfig):
    """A recurrent network over the last ``max_length`` events."""

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
        super().__init__(dim, config)
        self.layers = nn.ModuleList(nn.GRU(dim, dim, batch_first=True) for _ in range(config.num_blocks))
        self.between = nn.ModuleList(Dropout(config.dropout) for _ in range(config.num_blocks - 1))

    def mix(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        for number, layer in enumerate(self.layers):
            if number:
                hidden = self.between[number - 1](hidden, mixing.keys)
            assert isinstance(layer, nn.GRU)
            hidden = mixing.recur(layer, hidden)
        return hidden
