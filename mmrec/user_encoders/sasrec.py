"""SASRec: causal self-attention over the history, pre-norm.

Legend: b users, N events (packed), C queries, K keys, H heads, D width.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.user_encoders.packing import Mixing, Packed, View, not_compiled
from mmrec.user_encoders.sequential import BlockConfig, BlockEncoder

__all__ = ["SASRec", "SASRecConfig", "SelfAttention", "SoftmaxAttentionConfig", "TransformerBlock", "flex_is_right"]

logger = logging.getLogger(__name__)

AttentionForm = Literal["auto", "rectangles", "flex"]


@dataclass(frozen=True, kw_only=True)
class SoftmaxAttentionConfig(BlockConfig):
    """Blocks of softmax attention."""

    attention: AttentionForm = "auto"
    """rectangles: histories of similar length together. flex: PyTorch's flex attention over the packed run, on CUDA.
    auto: flex on CUDA if a trial there gives the vectors and gradients of rectangles, else rectangles."""


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(SoftmaxAttentionConfig):
    """Causal self-attention over the last ``max_length`` events."""

    def build(self, dim: int) -> SASRec:
        return SASRec(dim, self)


class SASRec(BlockEncoder):
    """Pre-norm transformer blocks as the network of a :class:`BlockEncoder`.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Kang and McAuley 2018; pre-norm as in Xiong et al. 2020.
    """

    def __init__(self, dim: int, config: SASRecConfig) -> None:
        super().__init__(dim, config, lambda: TransformerBlock(dim, config))


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each added to what it is given.

    Args:
        causal: whether an event sees only those up to it.
    """

    def __init__(self, dim: int, config: SoftmaxAttentionConfig, *, causal: bool = True) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, config, causal=causal)
        self.first, self.last = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.attention_dropout, self.hidden_dropout, self.last_dropout = (Dropout(config.dropout) for _ in range(3))

    def forward(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        attended = self.attention(self.attention_norm(hidden), mixing)
        hidden = hidden + self.attention_dropout(attended, mixing.keys)
        inner = self.hidden_dropout(F.gelu(self.first(self.feed_forward_norm(hidden))), mixing.keys)
        return hidden + self.last_dropout(self.last(inner), mixing.keys)


class SelfAttention(nn.Module):
    """Softmax attention within each history, with a learned bias for each distance in events and each head.

    Args:
        config: heads; ``max_length``, the distances that have a bias of their own: from 0 to ``max_length - 1``, or,
            where later events are seen too, from ``-max_length`` to ``max_length``; how whole histories attend.
        causal: whether an event sees only those up to it.

    Source: Vaswani et al. 2017; distance bias as in T5 (Raffel et al. 2020).
    """

    def __init__(self, dim: int, config: SoftmaxAttentionConfig, *, causal: bool = True) -> None:
        super().__init__()
        num_heads, max_length = config.num_heads, config.max_length
        self.num_heads = num_heads
        self.form = config.attention
        self.causal = causal
        self.nearest = 0 if causal else -max_length
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.distance_bias = nn.Embedding(max_length if causal else 2 * max_length + 1, num_heads)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.distance_bias.weight)

    def forward(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        query_key_value = self.query_key_value(hidden)
        if isinstance(mixing, Packed) and self._by_flex(hidden):
            return self.out(self._flex(query_key_value, mixing))
        return self.out(mixing.attend(query_key_value, self.num_heads, self._attend, causal=self.causal))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, view: View) -> Tensor:
        bias = self.distance_bias((view.age - self.nearest).clamp(min=0)).permute(2, 0, 1)  # (H, C, K)
        bias = bias.masked_fill(~view.visible[:, None], -torch.inf).to(query.dtype)  # (b or 1, H, C, K)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

    def _by_flex(self, hidden: Float[Tensor, "N D"]) -> bool:
        if self.form != "auto":
            return self.form == "flex"
        return hidden.is_cuda and flex_is_right(hidden.device, hidden.shape[1], self.num_heads, self.causal)

    @not_compiled
    def _flex(self, query_key_value: Float[Tensor, "N 3D"], packed: Packed) -> Float[Tensor, "N D"]:
        """All histories as one sequence in which each sees only itself."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        query, key, value = query_key_value.unflatten(1, (3, self.num_heads, -1)).permute(1, 2, 0, 3)[:, None]
        place, history, bias = packed.place, packed.history, self.distance_bias.weight

        def visible(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            same = history[q] == history[k]
            return same & (q >= k) if self.causal else same

        def biased(score: Tensor, _batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return score + bias[(place[q] - place[k] - self.nearest).clamp(min=0), head]

        length, device = len(query_key_value), str(query_key_value.device)
        mask = create_block_mask(visible, None, None, length, length, device=device)
        attend = _compiled_flex() if query.is_cuda else flex_attention
        found = attend(query, key, value, score_mod=biased, block_mask=mask)
        assert isinstance(found, Tensor)
        return found[0].transpose(0, 1).flatten(1)


@functools.cache
def flex_is_right(device: torch.device, dim: int, num_heads: int, causal: bool) -> bool:
    """Whether flex attention compiles on a device and gives the vectors and gradients of rectangles there.

    Tried once a process on a few histories, half a minute of compilation; a warning says why if it is not used.
    """
    lengths = torch.tensor([1, 7, 130, 40])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(device)
    items = torch.zeros(int(lengths.sum()), dtype=torch.long, device=device)
    sequences = SequenceBatch(item_idx=items, offsets=offsets)
    found = []
    try:
        with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            hidden = torch.randn(len(items), dim, device=device)
            configs = [
                SoftmaxAttentionConfig(num_heads=num_heads, max_length=200, attention=form)
                for form in ("flex", "rectangles")
            ]
            state = SelfAttention(dim, configs[0], causal=causal).state_dict()
            for config in configs:
                attention = SelfAttention(dim, config, causal=causal).to(device)
                attention.load_state_dict(state)
                torch.nn.init.normal_(attention.distance_bias.weight, generator=torch.Generator(device).manual_seed(1))
                vectors = attention(hidden, Packed(sequences))
                vectors.square().sum().backward()
                found.append([vectors.detach(), *(parameter.grad for parameter in attention.parameters())])
    except Exception as error:  # whatever a compiler may say: there is another way
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning("flex attention does not run on %s (%s); histories attend in rectangles", device, first)
        return False
    for flex, rectangles in zip(*found, strict=True):
        if (flex - rectangles).abs().max() > 1e-2 * rectangles.abs().max():  # TF32 keeps three digits
            logger.warning("flex attention gives other results on %s; histories attend in rectangles", device)
            return False
    return True


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
