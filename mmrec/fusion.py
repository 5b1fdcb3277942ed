"""Fusion: tokens of whatever modalities an item has -> one item vector.

Attention is what mmrec is about; sum, mean, gated and concat are there to compare it with. All start as a sum or mean
of the modalities, give an item without any token a learned vector, and tell each modality's share in a vector.

Legend: I items, T tokens of all modalities side by side, M modalities, K latent queries, D model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrec.dropout import Dropout
from mmrec.errors import ConfigError

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "AttentionFusionConfig",
    "ConcatFusionConfig",
    "Fusion",
    "FusionConfig",
    "GatedFusionConfig",
    "MeanFusionConfig",
    "SumFusion",
    "SumFusionConfig",
]


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
    """One learned weight a modality."""

    def build(self, dim: int, num_modalities: int) -> SumFusion:
        return SumFusion(dim, num_modalities)


@dataclass(frozen=True, kw_only=True)
class MeanFusionConfig:
    """The mean of the present modalities: nothing is learned."""

    def build(self, dim: int, num_modalities: int) -> MeanFusion:
        return MeanFusion(dim, num_modalities)


@dataclass(frozen=True, kw_only=True)
class GatedFusionConfig:
    """Each item weighs its modalities by what they say."""

    def build(self, dim: int, num_modalities: int) -> GatedFusion:
        return GatedFusion(dim, num_modalities)


@dataclass(frozen=True, kw_only=True)
class ConcatFusionConfig:
    """An MLP reads all modalities side by side, beside their mean."""

    hidden: int = 256
    """Width of its hidden layer."""
    dropout: float = 0.1
    """Share of what it reads that is dropped in training."""

    def build(self, dim: int, num_modalities: int) -> ConcatFusion:
        return ConcatFusion(dim, num_modalities, self)


# Between the keys of an item's tokens: an odd number of 64 bits, so that tokens of two items hardly ever share one.
_TOKEN = 0x2545F4914F6CDD1D

FusionConfig = AttentionFusionConfig | SumFusionConfig | MeanFusionConfig | GatedFusionConfig | ConcatFusionConfig

FUSIONS = {
    "attention": AttentionFusionConfig,
    "sum": SumFusionConfig,
    "mean": MeanFusionConfig,
    "gated": GatedFusionConfig,
    "concat": ConcatFusionConfig,
}


class Fusion(nn.Module, ABC):
    """Tokens of the present modalities -> one vector; args of both methods: tokens; mask, True = real; modality: which
    modality each token column belongs to; and of ``forward`` in training, keys: 64 random bits of each item, from which
    its dropout follows.

    Attributes:
        by_modality: parameters that have a part for each modality, side by side along an axis.
        weights_are: what :meth:`weights` are, in words.
    """

    by_modality: ClassVar[Mapping[str, int]] = {}
    weights_are: ClassVar[str]

    @abstractmethod
    def forward(
        self,
        tokens: Float[Tensor, "I T D"],
        mask: Bool[Tensor, "I T"],
        modality: Int[Tensor, " T"],
        keys: Int[Tensor, " I"] | None = None,
    ) -> Float[Tensor, "I D"]: ...

    def __init__(self, num_modalities: int) -> None:
        super().__init__()
        self.num_modalities = num_modalities

    @abstractmethod
    def weights(
        self, tokens: Float[Tensor, "I T D"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"]
    ) -> Float[Tensor, "I T"]:
        """What weight each token has in each item's vector; rows sum to 1, or to 0 for items without any."""

    def shares(
        self, tokens: Float[Tensor, "I T D"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"]
    ) -> Float[Tensor, "I M"]:
        """:meth:`weights`, summed by modality."""
        if self.num_modalities == 1:
            return mask.any(1, keepdim=True).to(tokens.dtype)
        weights = self.weights(tokens, mask, modality)
        return weights @ F.one_hot(modality, self.num_modalities).to(weights.dtype)


class SumFusion(Fusion):
    """Sum over the present modalities of gate x mean of the modality's tokens, times M / number present.

    The factor keeps the sum as long as it would be with everything present, so that what is missing neither counts
    as zero nor makes the rest smaller. An item without any token gets a learned vector.

    Args:
        dim: D.
        num_modalities: M.
    """

    by_modality: ClassVar[Mapping[str, int]] = {"gate": 0}
    weights_are = "of the learned gates"

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__(num_modalities)
        self.gate = nn.Parameter(torch.ones(num_modalities))
        self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(
        self,
        tokens: Float[Tensor, "I T D"],
        mask: Bool[Tensor, "I T"],
        modality: Int[Tensor, " T"],
        keys: Int[Tensor, " I"] | None = None,
    ) -> Float[Tensor, "I D"]:
        member = F.one_hot(modality, len(self.gate)).to(tokens.dtype)  # (T, M)
        real = mask.to(tokens.dtype)
        counts = real @ member  # (I, M)
        # One weight a token: gate of its modality / tokens of the modality / share of modalities that the item has.
        per_token = (self.gate / counts.clamp(min=1.0)) @ member.T  # (I, T)
        share = (counts > 0).sum(1, keepdim=True).clamp(min=1) / len(self.gate)  # of the modalities that are present
        tokens = tokens.masked_fill(~mask[..., None], 0.0)  # 0 x inf would not be 0
        total = torch.einsum("it,itd->id", per_token * real / share, tokens)
        return torch.where(mask.any(1, keepdim=True), total, self.nothing)

    def weights(self, tokens: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
        """Of the gates, whatever their sign."""
        _, present = _means(tokens, mask, modality, len(self.gate))
        weights = self.gate.abs() * present
        return _spread_over_tokens(weights / weights.sum(1, keepdim=True).clamp(min=1e-12), mask, modality)


class AttentionFusion(Fusion):
    """:class:`SumFusion` plus latent-query attention whose output starts at zero.

    An untrained model is therefore the sum of its modalities, and what attention adds is learned. Tokens have lengths
    near 1, short ones (fresh ids) on purpose: attention sees them times sqrt(D), with entries of its usual size, and
    its output is scaled by 1 / sqrt(D), so that one step of Adam cannot outweigh the sum. No layer norm: it would blow
    up the short tokens.

    Source: latent queries as in Perceiver (Jaegle et al. 2021); zero start as in Zhang et al. 2019 (Fixup).
    """

    by_modality: ClassVar[Mapping[str, int]] = {"sum.gate": 0, "modality": 0}
    weights_are = "of the attention, whose findings are added to the sum of the modalities"

    def __init__(self, dim: int, num_modalities: int, config: AttentionFusionConfig) -> None:
        super().__init__(num_modalities)
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
        self,
        tokens: Float[Tensor, "I T D"],
        mask: Bool[Tensor, "I T"],
        modality: Int[Tensor, " T"],
        keys: Int[Tensor, " I"] | None = None,
    ) -> Float[Tensor, "I D"]:
        total = self.sum(tokens, mask, modality)
        query, key, value, visible = self._projected(tokens, mask, modality, keys)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])  # (I, H, K, D / H)
        residual = self.out(found.transpose(1, 2).flatten(1)) / tokens.shape[-1] ** 0.5
        return total + residual * mask.any(1)[:, None]

    def weights(self, tokens: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
        """The attention weights, mean over heads and queries; beside what they find stands the gated sum."""
        query, key, _, visible = self._projected(tokens, mask, modality)
        logits = query @ key.transpose(2, 3) / key.shape[-1] ** 0.5
        return logits.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1).mean((1, 2)) * mask

    def _projected(
        self, tokens: Tensor, mask: Tensor, modality: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "I T"]]:
        """Queries, keys and values by head, and which tokens the queries look at."""
        tokens = tokens.masked_fill(~mask[..., None], 0.0)
        # A row without tokens would be a softmax over nothing; it looks at everything and its result is not used.
        visible = mask | ~mask.any(1)[:, None]
        scale = tokens.shape[-1] ** 0.5
        if keys is not None:  # of each token, by its modality and place in it: columns differ from batch to batch
            place = (modality[:, None] == modality).tril(-1).sum(1) + (modality << 32)
            keys = (keys[:, None] + _TOKEN * place)[visible]
        seen = self.dropout(tokens[visible] * scale, keys) + self.modality[modality.expand_as(visible)[visible]]
        key_value = tokens.new_zeros(*visible.shape, 2 * tokens.shape[-1])  # most items lack most modalities
        key, value = key_value.index_put((visible,), self.key_value(seen).to(tokens.dtype)).chunk(2, dim=-1)
        query = self.latents.expand(len(tokens), -1, -1)
        query, key, value = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return query, key, value, visible


class MeanFusion(Fusion):
    """Mean over the present modalities of the mean of each one's tokens.

    Args:
        dim: D.
        num_modalities: M.
    """

    weights_are = "even"

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__(num_modalities)
        self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor, modality: Tensor, keys: Tensor | None = None) -> Tensor:
        means, present = _means(tokens, mask, modality, self.num_modalities)
        weights = _evenly(present)
        mean = torch.einsum("im,imd->id", weights, means)
        return torch.where(mask.any(1, keepdim=True), mean, self.nothing)

    def weights(self, tokens: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
        _, present = _means(tokens, mask, modality, self.num_modalities)
        return _spread_over_tokens(_evenly(present), mask, modality)


class GatedFusion(Fusion):
    """Softmax over the present modalities of a score of what each one says; starts as the mean.

    Source: gated multimodal units, Arevalo et al. 2017, for any number of modalities, and missing ones.
    """

    by_modality: ClassVar[Mapping[str, int]] = {"score": 0, "bias": 0}
    weights_are = "of the item's gates"

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__(num_modalities)
        self.score = nn.Parameter(torch.zeros(num_modalities, dim))
        self.bias = nn.Parameter(torch.zeros(num_modalities))
        self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor, modality: Tensor, keys: Tensor | None = None) -> Tensor:
        means, present = _means(tokens, mask, modality, len(self.bias))
        total = torch.einsum("im,imd->id", self._gates(means, present), means)
        return torch.where(mask.any(1, keepdim=True), total, self.nothing)

    def weights(self, tokens: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
        gates = self._gates(*_means(tokens, mask, modality, len(self.bias)))
        return _spread_over_tokens(gates, mask, modality)

    def _gates(self, means: Tensor, present: Tensor) -> Float[Tensor, "I M"]:
        # Tokens are of length 1: times sqrt(D) they have entries of the usual size.
        scores = torch.einsum("imd,md->im", means, self.score) * means.shape[-1] ** 0.5 + self.bias
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(present == 0, lowest).softmax(1) * present


class ConcatFusion(Fusion):
    """The mean of the modalities plus an MLP of all of them side by side, with a learned vector in place of a missing
    one; the MLP starts as zero. Weights are those of the mean: what the MLP makes of the modalities has no parts."""

    by_modality: ClassVar[Mapping[str, int]] = {"missing": 0, "read.weight": 1}
    weights_are = "even, of the mean; what the MLP adds has no parts"

    def __init__(self, dim: int, num_modalities: int, config: ConcatFusionConfig) -> None:
        super().__init__(num_modalities)
        self.missing = nn.Parameter(torch.randn(num_modalities, dim) * dim**-0.5)
        self.dropout = Dropout(config.dropout)
        self.read = nn.Linear(num_modalities * dim, config.hidden)
        self.out = nn.Linear(config.hidden, dim)
        self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, mask: Tensor, modality: Tensor, keys: Tensor | None = None) -> Tensor:
        means, present = _means(tokens, mask, modality, len(self.missing))
        mean = torch.einsum("im,imd->id", _evenly(present), means)
        filled = torch.where(present[..., None] > 0, means, self.missing)
        scale = means.shape[-1] ** 0.5
        found = mean + self.out(F.gelu(self.read(self.dropout(filled.flatten(1) * scale, keys)))) / scale
        return torch.where(mask.any(1, keepdim=True), found, self.nothing)

    def weights(self, tokens: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
        _, present = _means(tokens, mask, modality, len(self.missing))
        return _spread_over_tokens(_evenly(present), mask, modality)


def _evenly(present: Float[Tensor, "I M"]) -> Float[Tensor, "I M"]:
    """Equal weights of what is present."""
    return present / present.sum(1, keepdim=True).clamp(min=1)


def _spread_over_tokens(
    weights: Float[Tensor, "I M"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"]
) -> Float[Tensor, "I T"]:
    """The weight of a modality, evenly over its real tokens."""
    counts = mask.to(weights.dtype) @ F.one_hot(modality, weights.shape[1]).to(weights.dtype)  # (I, M)
    return (weights / counts.clamp(min=1.0))[:, modality] * mask


def _means(
    tokens: Float[Tensor, "I T D"], mask: Bool[Tensor, "I T"], modality: Int[Tensor, " T"], num_modalities: int
) -> tuple[Float[Tensor, "I M D"], Float[Tensor, "I M"]]:
    """Mean of each modality's real tokens, zero where there is none, and 1 where there is one."""
    member = F.one_hot(modality, num_modalities).to(tokens.dtype)  # (T, M)
    counts = mask.to(tokens.dtype) @ member  # (I, M)
    tokens = tokens.masked_fill(~mask[..., None], 0.0)
    total = torch.einsum("itd,tm->imd", tokens, member)
    return total / counts.clamp(min=1.0)[..., None], (counts > 0).to(tokens.dtype)
