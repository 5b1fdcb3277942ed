"""The item encoder: modality encoders and fusion make one vector of whatever an item has.

Legend: I items, P items that have a modality, T tokens, M modalities, D model width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrec.batch import ItemBatch
from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError
from mmrec.fusion import AttentionFusionConfig, FusionConfig
from mmrec.keyed_random import mix
from mmrec.modality_encoders import AnyEncoderConfig, EncoderConfig, ModalityEncoder, Preprocessing
from mmrec.modality_encoders.base import Tokens, in_chunks
from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.tower import TowerEncoder

__all__ = [
    "ItemEncoder",
    "ItemEncoderConfig",
    "ItemTokens",
    "fit_preprocessings",
    "load_preprocessings",
    "modality_dropout",
    "save_preprocessings",
]


@dataclass(frozen=True, kw_only=True)
class ItemEncoderConfig:
    """Which modalities are encoded, how, and how they are fused."""

    encoders: dict[str, AnyEncoderConfig]
    """By modality: image, text, audio, video, item_id, or the name of a feature set."""
    dim: int = 64
    """Width of tokens, item vectors and user vectors."""
    fusion: FusionConfig = field(default_factory=AttentionFusionConfig)
    """How tokens become one vector."""
    chunk_items: int = 0
    """Media of a modality that are encoded at once in training; their activations are computed again in the backward
    pass, so that memory grows with the inputs and tokens of a step's items alone. 0: all at once, a third less time."""

    def build(
        self,
        preprocessings: Mapping[str, Preprocessing],
        only: Collection[str] | None = None,
        ready: Mapping[str, ModalityEncoder] | None = None,
    ) -> ItemEncoder:
        return ItemEncoder(self, preprocessings, only, ready)


@dataclass(frozen=True, kw_only=True)
class ItemTokens:
    """Tokens of all modalities side by side, before fusion.

    Attributes:
        mask: True = real. ("I", "T")
        modality: column of the modality that each token belongs to. ("T",)
        unused: zero, with a gradient path to the encoders that had nothing to do.
        keys: of each item, for dropout; None in inference. ("I",)
    """

    tokens: Float[Tensor, "I T D"]
    mask: Bool[Tensor, "I T"]
    modality: Int[Tensor, " T"]
    unused: Float[Tensor, ""]
    keys: Int[Tensor, " I"] | None = None


class ItemEncoder(nn.Module):
    """One vector an item, from any subset of modalities.

    Only items that have a modality go through its tower; the others contribute no arithmetic, only a False in the mask.

    Args:
        config: what to build.
        preprocessings: fitted to the training data, by modality.
        only: modalities that will be encoded; the networks of the others are not built. None: all.
        ready: encoders to use in place of those of the configuration.

    Raises: ConfigError if there is no modality, or one whose name PyTorch keeps for itself.
    """

    def __init__(
        self,
        config: ItemEncoderConfig,
        preprocessings: Mapping[str, Preprocessing],
        only: Collection[str] | None = None,
        ready: Mapping[str, ModalityEncoder] | None = None,
    ) -> None:
        super().__init__()
        if not config.encoders:
            raise ConfigError("item_encoder.encoders is empty; give at least one modality")
        for name in config.encoders:
            if hasattr(nn.ModuleDict, name):
                raise ConfigError(f"a feature set cannot be named {name!r}: PyTorch's modules use the word; rename it")
        self.dim = config.dim
        self.chunk_items = config.chunk_items
        self.items_have_homes = False  # whether an item can be encoded on rank ``item_idx % world_size`` alone
        self.columns = {name: column for column, name in enumerate(config.encoders) if only is None or name in only}
        ready = ready or {}
        self.encoders = nn.ModuleDict(
            {
                name: ready.get(name) or _build(config.encoders[name], config.dim, preprocessings[name])
                for name in self.columns
            }
        )
        self.fusion = config.fusion.build(config.dim, len(config.encoders))

    def forward(self, items: ItemBatch) -> Float[Tensor, "I D"]:
        return self.fuse(self.tokens(items))

    def tokens(self, items: ItemBatch) -> ItemTokens:
        """What each modality's encoder says of the items that have it."""
        tokens, masks, modality = [], [], []
        unused = self.fusion.parameters().__next__().new_zeros(())
        for name, encoder in self.encoders.items():
            if name not in items.inputs:
                unused = unused + _no_gradient(encoder)
                continue
            column = self.columns[name]
            rows = items.present[:, column]
            inputs = items.inputs[name]
            if items.keys is not None and encoder.takes_keys:
                inputs = {**inputs, "keys": items.keys[rows]}
            found, real = self._encode(encoder, inputs)  # (P, T, D), (P, T)
            if name in items.reread:
                again, media = items.reread[name]
                found, real = _put((found, real), again, self._encode(encoder, media))
            elif "features" in items.inputs[name]:
                unused = unused + _no_gradient(encoder)
            tokens.append(found.new_zeros(len(items), *found.shape[1:]).index_put((rows,), found))
            masks.append(real.new_zeros(len(items), real.shape[1]).index_put((rows,), real))
            modality += [column] * found.shape[1]
        if not tokens:  # no item of the batch has anything: one masked token stands for it
            tokens, modality = [unused.new_zeros(len(items), 1, self.dim)], [0]
            masks = [torch.zeros(len(items), 1, dtype=torch.bool, device=unused.device)]
        columns = torch.tensor(modality, device=tokens[0].device)
        return ItemTokens(
            tokens=torch.cat(tokens, 1), mask=torch.cat(masks, 1), modality=columns, unused=unused, keys=items.keys
        )

    def _encode(self, encoder: nn.Module, inputs: dict[str, Tensor]) -> Tokens:
        """Tokens and their mask; in training ``chunk_items`` at a time, each chunk computed again in the backward pass.

        The gradients are those of encoding everything at once. To DistributedDataParallel it is one backward pass like
        any other.

        Source: gradient caching, Gao et al. 2021; here by recomputation (Chen et al. 2016) instead of a second pass.
        """
        (num_items,) = {len(values) for values in inputs.values()}
        chunk = self.chunk_items
        reads_media = isinstance(encoder, TowerEncoder) and "features" not in inputs
        if not chunk or num_items <= chunk or not torch.is_grad_enabled() or not reads_media:
            return encoder(inputs)
        parts = [checkpoint(encoder, part, use_reentrant=False) for part in in_chunks(inputs, chunk)]
        tokens, mask = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(mask)

    def fuse(self, tokens: ItemTokens) -> Float[Tensor, "I D"]:
        """One vector an item."""
        return self.fusion(tokens.tokens, tokens.mask, tokens.modality, tokens.keys) + tokens.unused

    @property
    def content(self) -> list[str]:
        """Names of the content modalities: all but the id."""
        return [name for name in self.columns if name != "item_id"]

    def modality_vectors(
        self, tokens: ItemTokens, names: Sequence[str]
    ) -> tuple[Float[Tensor, "N I D"], Bool[Tensor, "N I"]]:
        """By modality, the unit mean of each item's tokens, and whether it has any."""
        columns = torch.tensor([self.columns[name] for name in names], device=tokens.modality.device)
        real = tokens.mask & (tokens.modality == columns[:, None])[:, None]  # (N, I, T)
        total = real.to(tokens.tokens.dtype)[:, :, None] @ tokens.tokens.masked_fill(~tokens.mask[..., None], 0.0)
        return F.normalize(total[:, :, 0], dim=-1), real.any(-1)

    def load_pretrained(self) -> None:
        """Give foundation encoders the weights of their names. Raises: ConfigError if those are not to be had."""
        for encoder in self.encoders.values():
            if isinstance(encoder, FoundationEncoder):
                encoder.load_pretrained()

    @torch.no_grad()
    def calibrate(self, inputs: Mapping[str, dict[str, Tensor]]) -> None:
        """Let the content's encoders choose their initial weights by a look at some training items.

        Each content modality gets its own share of the rows of one random rotation: fusion starts as concatenation.

        Args:
            inputs: by modality, what its encoder reads of the items that have it; a modality may be absent.
        """
        rotation = torch.linalg.qr(torch.randn(self.dim, self.dim))[0].to(next(self.parameters()).device)
        content = self.content
        for name, axes in zip(content, rotation.tensor_split(len(content)) if content else (), strict=True):
            encoder = self.encoders[name]
            assert isinstance(encoder, ModalityEncoder)
            if name in inputs:
                encoder.calibrate(inputs[name], axes)


def _no_gradient(encoder: nn.Module) -> Tensor | float:
    """Zero: DistributedDataParallel waits for a gradient of every parameter, on every rank, in every step."""
    return sum((parameter.sum() * 0.0 for parameter in encoder.parameters() if parameter.requires_grad), 0.0)


def _put(kept: Tokens, rows: Int[Tensor, " R"], fresh: Tokens) -> Tokens:
    """The tokens of all items, those of some rows in place of the kept ones."""
    (tokens, mask), (new, new_mask) = kept, fresh
    longest = max(tokens.shape[1], new.shape[1])

    def pad(values: Tensor) -> Tensor:
        return F.pad(values, (0, 0) * (values.ndim - 2) + (0, longest - values.shape[1]))

    return pad(tokens).index_put((rows,), pad(new)), pad(mask).index_put((rows,), pad(new_mask))


def _build(encoder: EncoderConfig, dim: int, preprocessing: Preprocessing) -> nn.Module:
    return encoder.build(dim, preprocessing)


def fit_preprocessings(
    config: ItemEncoderConfig, dataset: Dataset, train_items: np.ndarray
) -> dict[str, Preprocessing]:
    """Learn tokenizers, means and id rows from the items with training events, and from no others."""
    return {name: encoder.fit(dataset, name, train_items) for name, encoder in config.encoders.items()}


def save_preprocessings(preprocessings: Mapping[str, Preprocessing], folder: Path) -> None:
    """One folder a modality."""
    for name, preprocessing in preprocessings.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        preprocessing.save(folder / name)


def load_preprocessings(config: ItemEncoderConfig, folder: Path) -> dict[str, Preprocessing]:
    """What :func:`save_preprocessings` wrote. Raises: FileNotFoundError if a file is missing."""
    return {name: encoder.load_preprocessing(folder / name) for name, encoder in config.encoders.items()}


def modality_dropout(present: np.ndarray, rates: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which modalities stay visible in a step: a pure function of the items' keys.

    Args:
        present: what each item has. bool (I, M)
        rates: probability that a modality is hidden. (M,)
        keys: 64 random bits of each item in this step. uint64 (I,)

    Returns: bool (I, M). An item that would lose everything keeps everything.
    """
    draws = mix(keys[:, None] ^ mix(np.arange(len(rates), dtype=np.uint64)))
    keep = (draws >> np.uint64(11)) * 2.0**-53 >= rates
    lost = ~(present & keep).any(1)
    keep[lost] = True
    return keep
