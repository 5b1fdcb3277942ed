"""Fusion: tokens of whatever modalities an item has -> one item vector.

Legend: I items, T tokens of all modalities side by side, M modalities, K latent queries, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrec.dropout import Dropout
from mmrec.errors import ConfigError

__all__ = ["FUSIONS", "AttentionFusion", "AttentionFusionConfig", "FusionConfig", "SumFusion", "SumFusionConfig"]


@dataclass(frozen=True, kw_only=True)
class AttentionFusionConfig:
    """Learned queries attend to all present tokens; what they find is added to the gated sum of the modalities."""

    num_latents: int = 4
    """Learned queries."""
    num_heads: int = 2
    """Attention heads; must divide the model width."""
    dropout: float = 0.1
    """Share of what the queries see that is dropped in training."""

    def build(self, dim: int, num_modalities: int) -> AttentionFusion:
        return AttentionFusion(dim, num_modalities, self)


@dataclass(frozen=True, kw_only=True)
class SumFusionConfig:
    """The gated sum of the present modalities alone: the plain comparison."""

    def build(self, dim: int, num_modalities: int) -> SumFusion:
        return SumFusion(dim, num_modalities)


FusionConfig = AttentionFusionConfig | SumFusionConfig

FUSIONS = {"attention": AttentionFusionConfig, "sum": SumFusionConfig}


class SumFusion(nn.Module):
    """Sum over the present modalities of gate x mean of the modality's tokens, times M / number present.

    The factor keeps the sum as long as it would be with everything present, so that what is missing neither counts
    as zero nor makes the rest smaller. An item without any token gets a learned vector.

    Args:
        dim: D.
        num_modalities: M.
    """

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(num_modalities))
        self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(
        self, tokens: Float[Tensor, "I T D"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"]
    ) -> Float[Tensor, "I D"]:
        """Args: tokens; mask, True = real; modality: which modality each token column belongs to."""
        member = F.one_hot(modality, len(self.gate)).to(tokens.dtype)  # (T, M)
        real = mask.to(tokens.dtype)
        counts = real @ member  # (I, M)
        # One weight a token: gate of its modality / tokens of the modality / share of modalities that the item has.
        per_token = (self.gate / counts.clamp(min=1.0)) @ member.T  # (I, T)
        share = (counts > 0).sum(1, keepdim=True).clamp(min=1) / len(self.gate)  # of the modalities that are present
        tokens = tokens.masked_fill(~mask[..., None], 0.0)  # 0 x inf would not be 0
        total = torch.einsum("it,itd->id", per_token * real / share, tokens)
        return torch.where(mask.any(1, keepdim=True), total, self.nothing)


class AttentionFusion(nn.Module):
    """:class:`SumFusion` plus latent-query attention whose output starts at zero.

    An untrained model is therefore the sum of its modalities, and what attention adds is learned. Tokens have lengths
    near 1, short ones (fresh ids) on purpose: attention sees them times sqrt(D), with entries of its usual size, and
    its output is scaled by 1 / sqrt(D), so that one step of Adam cannot outweigh the sum. No layer norm: it would blow
    up the short tokens.

    Source: latent queries as in Perceiver (Jaegle et al. 2021); zero start as in Zhang et al. 2019 (Fixup).
    """

    def __init__(self, dim: int, num_modalities: int, config: AttentionFusionConfig) -> None:
        super().__init__()
        if dim % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the model width {dim}")
        self.num_heads = config.num_heads
        self.sum = SumFusion(dim, num_modalities)
        self.modality = nn.Parameter(0.02 * torch.randn(num_modalities, dim))
        self.latents = nn.Parameter(torch.randn(config.num_latents, dim) * dim**-0.5)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.num_latents * dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, tokens: Float[Tensor, "I T D"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"]
    ) -> Float[Tensor, "I D"]:
        """Args: tokens; mask, True = real; modality: which modality each token column belongs to."""
        total = self.sum(tokens, mask, modality)
        tokens = tokens.masked_fill(~mask[..., None], 0.0)
        anything = mask.any(1)  # (I,)
        # A row without tokens would be a softmax over nothing; it looks at everything and its result is not used.
        visible = mask | ~anything[:, None]
        scale = tokens.shape[-1] ** 0.5
        seen = self.dropout(tokens[visible] * scale) + self.modality[modality.expand_as(visible)[visible]]
        key_value = tokens.new_zeros(*visible.shape, 2 * tokens.shape[-1])  # most items lack most modalities
        key, value = key_value.index_put((visible,), self.key_value(seen).to(tokens.dtype)).chunk(2, dim=-1)
        query = self.latents.expand(len(tokens), -1, -1)
        query, key, value = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])  # (I, H, K, D / H)
        residual = self.out(found.transpose(1, 2).flatten(1)) / scale
        return total + residual * anything[:, None]
