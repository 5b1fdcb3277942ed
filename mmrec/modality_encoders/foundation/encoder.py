"""A foundation encoder inside the item encoder: what of it learns, and what of it can be kept.

Legend: P items that have the modality, F frames, T tokens, W width of the network, D model width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrec.distributed import world_size
from mmrec.modality_encoders.base import Tokens
from mmrec.modality_encoders.foundation.blocks import (
    checkpoint_blocks,
    compile_blocks,
    find_blocks,
    run_above,
    run_below,
)
from mmrec.modality_encoders.foundation.homes import build_network, load_network
from mmrec.modality_encoders.foundation.kept_numbers import as_row, from_row
from mmrec.modality_encoders.foundation.preprocessing import FoundationPreprocessing
from mmrec.modality_encoders.foundation.tuning import Tuning, add_adapters, learning_parameters
from mmrec.modality_encoders.tower import TowerEncoder, UnitHead

if TYPE_CHECKING:
    from mmrec.modality_encoders.foundation.config import FoundationConfig

__all__ = ["FoundationEncoder"]

# Of what decoding and networks make of the same bytes; raised when either changes.
_CACHE_VERSION = 2
# Texts of similar length that a network reads at once.
_GROUP = 32


class FoundationEncoder(TowerEncoder):
    """A network by name, then a head of the model's width.

    The network stays in evaluation mode: no dropout, no statistics of the batch. So its output is a function of the
    item alone, and what is kept of it is what a step would compute.

    Args:
        dim: D.
        config: name, and what of it learns.
        preprocessing: knows the architecture. The weights are random; :meth:`load_pretrained` reads those of the name.
    """

    def __init__(self, dim: int, config: FoundationConfig, preprocessing: FoundationPreprocessing) -> None:
        super().__init__()
        architecture = preprocessing.architecture
        tuning = Tuning.parse(config.tune)
        self.config = config
        self.cache_dtype = getattr(torch, config.cache_dtype)
        self._preprocessing = preprocessing
        self._numbers = preprocessing.numbers
        tower = build_network(architecture)
        if tuning.kind == "lora":
            add_adapters(tower, tuning.number)
        self.tower = tower.eval()
        self._learning = learning_parameters(tower, tuning, config.layer_decay, architecture["behind"])
        tower.requires_grad_(False)
        for parameter, _ in self.tower_parameters():
            parameter.requires_grad_(True)
        self._blocks = find_blocks(tower)
        self._split: int | None = architecture.get("split") if tuning.kind == "top" else None
        if config.activation_checkpointing:
            checkpoint_blocks(self._blocks[tuning.first_block(len(self._blocks)) :])
        width = architecture["width"]
        self.temporal = (
            TemporalAttention(width, preprocessing.num_frames) if architecture.get("frame_by_frame") else None
        )
        self.head = UnitHead(width, dim)

    @property
    def keeps(self) -> str | None:
        """What of the network never changes and is worth keeping: its "features", a "hidden" state, or nothing."""
        return "features" if self.config.tune == "frozen" else None if self._split is None else "hidden"

    def tower_parameters(self) -> Iterator[tuple[nn.Parameter, float]]:
        return ((self.tower.get_parameter(name), share) for name, share in self._learning.items())

    def compile_network(self) -> None:
        """Compile the network's blocks, in place."""
        compile_blocks(self._blocks)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.tower.eval()
        return self

    @torch.no_grad()
    def load_pretrained(self) -> None:
        """Read the weights that the name stands for. Raises: ConfigError if they are not to be had."""
        network = load_network(self.config.encoder, self._preprocessing.architecture)
        if network is None:
            return
        loaded = network.state_dict()
        for key, value in self.tower.state_dict().items():
            if "lora_" not in key:
                value.copy_(loaded[key.replace(".base_layer", "")])

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        kept = "features" in inputs
        features, mask = (inputs["features"].float(), inputs["mask"]) if kept else self.features(inputs)
        if self.temporal is not None:
            features = self.temporal(features, mask)
        return self.head(features), mask

    def features(self, inputs: dict[str, Tensor]) -> tuple[Float[Tensor, "P T W"], Bool[Tensor, "P T"]]:
        groups = self._of_like_length(inputs)
        parts = [self._above(group) if "hidden" in group else self.tower(group) for _, group in groups]
        features, mask = parts[0]
        if len(parts) > 1:
            place = torch.argsort(torch.cat([items for items, _ in groups]))
            features, mask = (torch.cat(part)[place] for part in zip(*parts, strict=True))
        if world_size() > 1 and self._learning and torch.is_grad_enabled():
            # DistributedDataParallel waits for a gradient of every parameter that learns, also of those not on the way.
            features = features + 0.0 * sum(parameter.sum() for parameter, _ in self.tower_parameters())
        return features, mask

    def cache_key(self) -> str:
        """SHA-256 over all that decides what is kept: preprocessing, frozen weights, what is kept, number format."""
        kept = {"keeps": self.keeps, "split": self._split, "dtype": str(self.cache_dtype), "version": _CACHE_VERSION}
        digest = hashlib.sha256(json.dumps(kept).encode())
        with TemporaryDirectory() as scratch:
            self._preprocessing.save(Path(scratch))
            for path in sorted(Path(scratch).rglob("*")):
                if path.is_file():
                    digest.update(path.name.encode() + path.read_bytes())
        for name, value in [*self.tower.named_parameters(), *self.tower.named_buffers()]:
            if name not in self._learning:
                digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def keep(self, inputs: dict[str, Tensor]) -> list[Float[Tensor, "T W"]]:
        """What :attr:`keeps` says of each item, without padding."""
        kept: dict[int, Tensor] = {}
        for items, group in self._of_like_length(inputs):
            values, real = self.tower(group) if self.keeps == "features" else self._below(group)
            rows = (value[mask] for value, mask in zip(values, real, strict=True))
            kept |= dict(zip(items.tolist(), rows, strict=True))
        return [kept[item] for item in range(len(kept))]

    def _of_like_length(self, inputs: dict[str, Tensor]) -> list[tuple[Int[Tensor, " G"], dict[str, Tensor]]]:
        """Texts in groups of similar length, cut to the longest of the group, with the places of each group's items.

        Most texts are much shorter than the longest of a batch, and padding would be most of the arithmetic.
        """
        num_items = len(next(iter(inputs.values())))
        if "ids" not in inputs or self._preprocessing.sees_padding or num_items <= _GROUP:
            return [(torch.arange(num_items), inputs)]
        lengths = inputs["mask"].sum(1)
        groups = []
        for items in torch.argsort(lengths, stable=True).split(_GROUP):
            longest = int(lengths[items].max())
            groups.append((items, {name: values[items, :longest] for name, values in inputs.items()}))
        return groups

    def _below(self, inputs: dict[str, Tensor]) -> tuple[Float[Tensor, "P T W"], Bool[Tensor, "P T"]]:
        """The hidden state below the first block that learns, and which rows of it are real."""
        assert self._split is not None
        hidden = run_below(self._blocks, self._split, lambda: self.tower(inputs))
        if "ids" in inputs:
            return hidden, inputs["mask"]
        if self._numbers:
            numbers = torch.cat([inputs[name].reshape(len(hidden), -1) for name in self._numbers], 1)
            hidden = torch.cat([as_row(numbers, hidden), hidden], 1)
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        if self.temporal is None:
            return hidden, real
        frames = inputs["mask"]  # (P, F): rows of the hidden state are the real frames
        spread = hidden.new_zeros(*frames.shape, *hidden.shape[1:]).index_put((frames,), hidden)  # (P, F, T, W)
        return spread.flatten(1, 2), frames.repeat_interleave(hidden.shape[1], 1)

    def _above(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The part that learns, from the hidden state below it."""
        assert self._split is not None
        hidden = inputs["hidden"].float()
        blank = {key: value for key, value in inputs.items() if key not in ("hidden", "hidden_mask")}
        if not blank:  # texts bring their tokens, which cost nothing; a picture would have to be decoded
            blank = {key: value.to(hidden.device) for key, value in self._preprocessing.blank(len(hidden)).items()}
        if self._numbers:
            shapes = [blank[name].shape for name in self._numbers]
            numbers = from_row(hidden[:, 0], sum(shape[1:].numel() for shape in shapes))
            hidden = hidden[:, 1:]
            parts = numbers.split([shape[1:].numel() for shape in shapes], 1)
            blank |= {name: part.reshape(shape) for name, part, shape in zip(self._numbers, parts, shapes, strict=True)}
        if self.temporal is not None:
            num_frames = blank["mask"].shape[1]
            frames = inputs["hidden_mask"].unflatten(1, (num_frames, -1))[:, :, 0]  # (P, F)
            blank["mask"] = frames
            hidden = hidden.unflatten(1, (num_frames, -1))[frames]
        return run_above(self._blocks, self._split, hidden, lambda: self.tower(blank))


class TemporalAttention(nn.Module):
    """Frames attend to each other, so that motion is seen; starts as doing nothing.

    Args:
        width: W.
        num_frames: F.
    """

    def __init__(self, width: int, num_frames: int) -> None:
        super().__init__()
        heads = next((heads for heads in (8, 4, 2) if width % heads == 0), 1)
        self.time = nn.Parameter(0.02 * torch.randn(num_frames, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)
        nn.init.zeros_(self.attention.out_proj.bias)

    def forward(self, frames: Float[Tensor, "P F W"], mask: Bool[Tensor, "P F"]) -> Float[Tensor, "P F W"]:
        seen = self.norm(frames) + self.time
        found, _ = self.attention(seen, seen, frames, key_padding_mask=~mask, need_weights=False)
        return frames + found
