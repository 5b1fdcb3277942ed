"""The recommender: the one place that wires item encoder, user encoder and objectives.

Legend: S distinct items of the step, N events of this rank, B histories, C candidates, D model width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrec.batch import ItemBatch, SequenceBatch, StepBatch
from mmrec.config import from_dict, to_dict
from mmrec.distributed import all_gather_rows, gather_dealt, rank, world_size
from mmrec.dropout import number_dropouts
from mmrec.errors import CheckpointError, ConfigError
from mmrec.item_encoder import ItemEncoderConfig, ItemTokens, load_preprocessings, save_preprocessings
from mmrec.item_inputs import ItemInputs
from mmrec.matryoshka import check_widths, narrow, widen
from mmrec.modality_encoders import ModalityEncoder, Preprocessing
from mmrec.modality_encoders.graph import GraphEncoder
from mmrec.objectives import (
    CompatibilityConfig,
    ContrastiveConfig,
    ModalityAlignmentConfig,
    NextItemConfig,
    compatibility_loss,
    gbce_loss,
    info_nce,
    modality_alignment,
    next_item_loss,
    seen_candidates,
    sigmoid_contrastive,
)
from mmrec.user_encoders import SASRecConfig, UserEncoder, UserEncoderConfig

__all__ = [
    "ModelConfig",
    "Recommender",
    "load_model",
    "load_user_encoder",
    "load_weights",
    "model_hash",
    "model_writers",
    "weights_of",
]

# Of the logits: 1 / temperature at most.
MAX_SCALE = 100.0
# Start of the bias of sigmoid losses, in which nearly all pairs are negatives: that of SigLIP (Zhai et al. 2023).
LOGIT_BIAS = -10.0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Item encoder, user encoder, and what they are trained to do."""

    item_encoder: ItemEncoderConfig
    user_encoder: UserEncoderConfig = field(default_factory=SASRecConfig)
    next_item: NextItemConfig = field(default_factory=NextItemConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    modality_alignment: ModalityAlignmentConfig = field(default_factory=ModalityAlignmentConfig)
    compatibility: CompatibilityConfig = field(default_factory=CompatibilityConfig)
    matryoshka: tuple[int, ...] = ()
    """Widths below the model's own at which its vectors are trained to be cut (mmrec export --dim), ascending; each
    costs another pass of the user encoder and of the next-item objective, whose loss is the mean over all widths."""
    chunk_histories: int = 0
    """Histories of a rank that the user encoder reads at once in training; their activations are computed again in the
    backward pass, so that a global batch of any size fits, with the gradients of the whole. What accumulation over
    smaller batches is for, which would have fewer negatives. 0: all at once, a quarter less time."""
    temperature: float = 0.07
    """Start of the learned temperature that divides inner products in the objectives; .01 to 1."""

    def __post_init__(self) -> None:
        if not 1 / MAX_SCALE <= self.temperature <= 1.0:
            raise ConfigError(f"temperature is {self.temperature}; it must lie between {1 / MAX_SCALE} and 1")
        if self.chunk_histories < 0:
            raise ConfigError(f"chunk_histories is {self.chunk_histories}; it must be 0 (all at once) or more")
        check_widths(self.matryoshka, self.item_encoder.dim)

    def build(
        self,
        preprocessings: dict[str, Preprocessing],
        only: Collection[str] | None = None,
        ready: Mapping[str, ModalityEncoder] | None = None,
    ) -> Recommender:
        return Recommender(self, preprocessings, only, ready)


class Recommender(nn.Module):
    """Item vectors and user vectors of unit length in one space; a score is their inner product.

    Args:
        config: what to build.
        preprocessings: per modality, what was fitted to the training data.
        only: modalities that items will be encoded from; the networks of the others are not built. None: all.
        ready: modality encoders to use in place of those of the configuration.

    Attributes:
        bank: with ``next_item.refresh_steps``, the candidates of the softmax: catalogue indices of all training items,
            ascending, and their vectors as of the last refresh. ("V",), ("V", "D")
        earlier: for training that stays compatible: vectors of all items in an earlier export, and which items it has.
            ("V", "D"), ("V",)
    """

    def __init__(
        self,
        config: ModelConfig,
        preprocessings: dict[str, Preprocessing],
        only: Collection[str] | None = None,
        ready: Mapping[str, ModalityEncoder] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.inputs = ItemInputs(preprocessings)
        self.item_encoder = config.item_encoder.build(preprocessings, only, ready)
        self.user_encoder = config.user_encoder.build(config.item_encoder.dim)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(config.temperature)]))
        sigmoids = {
            "next_item": config.next_item.loss == "gbce",
            "contrastive": config.contrastive.form == "sigmoid" and config.contrastive.weight > 0,
        }
        start = {name: torch.tensor([LOGIT_BIAS]) for name, needed in sigmoids.items() if needed}
        self.logit_bias = nn.ParameterDict(start)
        self.bank: tuple[Tensor, Tensor] | None = None
        self.earlier: tuple[Tensor, Tensor] | None = None
        number_dropouts(self)

    def keep_candidates(self, item_idx: Int[Tensor, " V"], vectors: Float[Tensor, "V D"]) -> None:
        """Let the candidates of the softmax be these items, as these vectors, until they are kept anew."""
        self.bank = item_idx, vectors.clone()  # a plain tensor, for autograd

    def encode_items(self, items: ItemBatch) -> Float[Tensor, "I D"]:
        """Vectors of unit length, whatever modalities each item has."""
        return F.normalize(self.item_encoder(items), dim=-1)

    def encode_users(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """Vectors of unit length of each user after each event; ``items`` are the vectors of the events."""
        return F.normalize(self.user_encoder(items, sequences), dim=-1)

    def forward(self, step: StepBatch) -> dict[str, Float[Tensor, ""]]:
        """Losses by name, each scaled so that the *mean over ranks* is the mean over the global batch, in nats.

        DistributedDataParallel averages gradients over ranks; with this scaling the average is the gradient of the
        one-process loss, for the item encoder (through the gather) as for the user encoder and the temperature.
        """
        tokens = self.item_encoder.tokens(step.items)
        mine = F.normalize(self.item_encoder.fuse(tokens), dim=-1)
        table = gather_dealt(mine, step.owner)  # (S, D): all items of the step, by catalogue index
        sequences = step.sequences
        events = table[_rows(step, sequences.item_idx)]  # (N, D)
        users = self._encode_histories(events, sequences)  # (N, D)
        scale = self.log_scale.exp()[0]
        next_item = [self._next_item(step, users, table, scale)]
        for width in self.config.matryoshka:
            shorter = self._encode_histories(widen(narrow(events, width), table.shape[1]), sequences)
            next_item.append(self._next_item(step, narrow(shorter, width), narrow(table, width), scale))
        losses = {"next_item": torch.stack(next_item).mean()}
        if self.config.contrastive.weight > 0:
            losses["contrastive"] = self._contrastive(step, users, table, scale)
        if self.config.modality_alignment.weight > 0:
            losses["modality_alignment"] = self._modality_alignment(step, tokens, scale)
        if self.earlier is not None:
            losses["compatibility"] = self._compatibility(step, mine, users, table, scale)
        return losses

    @torch.no_grad()
    def limit_temperature(self) -> None:
        """Keep the temperature between 1 / 100 and 1; called after each step.

        Left alone it can run away: towards 0 where the model is certain of its training events, until a single logit
        overflows. The bound of CLIP (Radford et al. 2021, section 2.5).
        """
        self.log_scale.clamp_(0.0, math.log(MAX_SCALE))

    def total(self, losses: dict[str, Tensor]) -> Float[Tensor, ""]:
        """Weighted sum of the losses."""
        return torch.stack([getattr(self.config, name).weight * loss for name, loss in losses.items()]).sum()

    def _encode_histories(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """:meth:`encode_users`, ``chunk_histories`` at a time."""
        chunk = self.config.chunk_histories
        if not chunk or len(sequences) <= chunk:
            return self.encode_users(items, sequences)
        parts = [sequences.part(start, min(start + chunk, len(sequences))) for start in range(0, len(sequences), chunk)]
        rows = items.split([len(part.item_idx) for part in parts])
        return torch.cat(
            [checkpoint(self.encode_users, *given, use_reentrant=False) for given in zip(rows, parts, strict=True)]
        )

    def _next_item(self, step: StepBatch, users: Tensor, table: Tensor, scale: Tensor) -> Tensor:
        target_idx = _targets(step.sequences)
        known = target_idx >= 0
        candidate_idx, candidates, log_inclusion = self._candidates(step, table)
        exclude = self.config.next_item.exclude_seen
        seen = seen_candidates(step.sequences, candidate_idx, known) if exclude else None
        users, targets, target_idx = users[known], table[_rows(step, target_idx[known])], target_idx[known]
        config = self.config.next_item
        if config.loss == "softmax":
            log_q = log_inclusion if config.log_q else torch.zeros_like(log_inclusion)
            losses = next_item_loss(users, targets, target_idx, candidates, candidate_idx, log_q, scale, seen)
        else:
            losses = gbce_loss(
                users, targets, target_idx, candidates, candidate_idx, scale, self.logit_bias["next_item"][0],
                num_items=step.num_items, calibration=config.calibration, seen=seen,
            )  # fmt: skip
        weights = step.sequences.weights
        total = losses.sum() if weights is None else losses @ weights[known].to(losses.dtype)
        return total * (world_size() / step.total_weight)

    def _candidates(self, step: StepBatch, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Catalogue indices, vectors and log inclusion of the softmax's candidates.

        With a bank all training items are: those of the step as they are now, with gradient, the others as they were.
        """
        if self.bank is None:
            return step.candidate_idx, table[_rows(step, step.candidate_idx)], step.log_inclusion
        item_idx, vectors = self.bank
        place = torch.searchsorted(item_idx, step.step_items)
        vectors = narrow(vectors, table.shape[1]).to(table.dtype)
        return item_idx, vectors.index_put((place,), table), torch.zeros_like(vectors[:, 0])

    def _contrastive(self, step: StepBatch, users: Tensor, table: Tensor, scale: Tensor) -> Tensor:
        """The last vector of each history and its target, over the global batch; every history has events."""
        last = step.sequences.offsets[1:] - 1
        item_idx = _targets(step.sequences)[last]
        users = users[last]
        items = table[_rows(step, item_idx)]
        all_users = all_gather_rows(users, step.rank_users)
        all_item_idx = all_gather_rows(item_idx, step.rank_users)
        all_items = table[_rows(step, all_item_idx)]
        weights = torch.ones_like(users[:, 0]) if step.sequences.weights is None else step.sequences.weights[last]
        first = sum(step.rank_users[: rank()])
        positive = first + torch.arange(len(last), device=last.device)
        if self.config.contrastive.form == "sigmoid":
            bias = self.logit_bias["contrastive"][0]
            losses = sigmoid_contrastive(users, all_items, positive, item_idx, all_item_idx, scale, bias)
            return losses @ weights.to(losses.dtype) * (world_size() / step.last_weight)
        both = info_nce(users, all_items, positive, item_idx, all_item_idx, scale) + info_nce(
            items, all_users, positive, item_idx, all_item_idx, scale
        )
        return both @ weights.to(both.dtype) * (world_size() / (2 * step.last_weight))

    def _modality_alignment(self, step: StepBatch, tokens: ItemTokens, scale: Tensor) -> Tensor:
        """Between the content modalities of each item of the step, over all ranks."""
        vectors, present = self.item_encoder.modality_vectors(tokens, self.item_encoder.content)
        everywhere = gather_dealt(vectors.transpose(0, 1).contiguous(), step.owner).transpose(0, 1)
        all_present = gather_dealt(present.T.to(vectors.dtype).contiguous(), step.owner).T > 0
        columns = torch.nonzero(step.owner == rank())[:, 0].to(vectors.device)
        total, num_terms = modality_alignment(vectors, present, everywhere, all_present, columns, scale)
        return total * (world_size() / max(num_terms, 1))

    def _compatibility(self, step: StepBatch, mine: Tensor, users: Tensor, table: Tensor, scale: Tensor) -> Tensor:
        """Users find items by their earlier vectors, and items stay near them; each rank those that it encoded."""
        assert self.earlier is not None
        vectors, known = self.earlier
        item_idx = step.step_items[(step.owner == rank()).to(step.step_items.device)]
        here = known[item_idx]
        apart = compatibility_loss(mine[here], vectors[item_idx[here]]) * world_size()
        before = torch.where(known[step.step_items, None], vectors[step.step_items].to(table.dtype), table)
        found = self._next_item(step, users, before, scale)
        return found + self.config.compatibility.items * apart / known[step.step_items].sum().clamp(min=1)


def _targets(sequences: SequenceBatch) -> Int[Tensor, " N"]:
    assert sequences.target_idx is not None, "training sequences carry targets"
    return sequences.target_idx


def _rows(step: StepBatch, item_idx: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Rows of the step's table at which the given catalogue items stand."""
    return torch.searchsorted(step.step_items, item_idx)


def model_writers(
    model: Recommender, weights: Mapping[str, Tensor], config: dict[str, Any]
) -> dict[str, Callable[[Path], None]]:
    """What writes the inference part of a checkpoint, by the paths of its files: what :func:`load_model` reads.

    Args:
        weights: all of them, on the CPU.
        config: the whole configuration as JSON values; its ``"model"`` is that of ``model``.
    """
    assert config["model"] == to_dict(model.config), "the stored configuration is the model's own"
    weights = {name: value.contiguous() for name, value in weights.items()}
    preprocessings = model.inputs.preprocessings

    def write_config(path: Path) -> None:
        path.write_text(json.dumps(config, indent=1))

    return {
        "model.safetensors": lambda path: save_file(weights, path),
        "config.json": write_config,
        "preprocessing": lambda folder: save_preprocessings(preprocessings, folder),
    }


def load_model(folder: Path, *, only: Collection[str] | None = None) -> Recommender:
    """Rebuild the recommender that :func:`model_writers` wrote, in evaluation mode.

    Args:
        only: modalities that items will be encoded from; what the others need is not loaded, and those of which the
            folder has a graph (an export does) load without the library of their network. None: all, as networks.

    Raises: CheckpointError if a file is missing or the weights do not fit the configuration.
    """
    config = from_dict(ModelConfig, _stored_config(folder)["model"])
    graphs = {name: folder / "graphs" / f"{name}.pt" for name in only or ()}
    ready = {name: GraphEncoder(path) for name, path in graphs.items() if path.is_file()}
    try:
        model = config.build(load_preprocessings(config.item_encoder, folder / "preprocessing"), only, ready)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint: {error.filename} is missing") from error
    state = weights_of(folder)
    if only is not None:
        stored = "item_encoder.encoders."
        loaded = tuple(f"{stored}{name}." for name in only if name not in ready)
        state = {key: value for key, value in state.items() if not key.startswith(stored) or key.startswith(loaded)}
        state |= {
            f"{stored}{name}.{key}": value for name, graph in ready.items() for key, value in graph.state_dict().items()
        }
    _load(model, state, folder)
    return model.eval()


def load_user_encoder(folder: Path) -> UserEncoder:
    """The user encoder of a checkpoint alone, in evaluation mode: item vectors come from an export.

    Raises: CheckpointError if a file is missing or the weights do not fit the configuration.
    """
    config = from_dict(ModelConfig, _stored_config(folder)["model"])
    encoder = config.user_encoder.build(config.item_encoder.dim)
    prefix = "user_encoder."
    state = {name[len(prefix) :]: value for name, value in weights_of(folder).items() if name.startswith(prefix)}
    _load(encoder, state, folder)
    return encoder.eval()


def load_weights(model: Recommender, folder: Path) -> None:
    """Read the weights of a checkpoint into a model of the same configuration.

    Raises: CheckpointError if the file is missing, damaged, or of another shape.
    """
    _load(model, weights_of(folder), folder)


def model_hash(folder: Path) -> str:
    """SHA-256 over weights, configuration of the model and preprocessing: equal hash, equal vectors."""
    digest = hashlib.sha256(json.dumps(_stored_config(folder)["model"]).encode())
    files = [folder / "model.safetensors", *sorted((folder / "preprocessing").rglob("*"))]
    for path in files:
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _stored_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint: config.json is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if "model" not in config:
        raise CheckpointError(f"{path} is of another version of mmrec: it has no 'model'")
    return config


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, by name. Raises: CheckpointError if the file is missing or damaged."""
    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint: model.safetensors is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _load(module: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # names or shapes that do not fit
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the weights in {folder} are of another version of mmrec: {first}") from error
