"""The presets of `mmrec train`: which modalities, and settings by rule from the size and density of the data.

The rules, none of them tuned to one dataset:

- **width**: 64 for fewer than 1,000 items with training events, 128 up to 10,000, 256 above (128 beside raw media,
  which cost enough); with ready-made vectors at least 128, so that each set keeps its strongest directions.
- **history**: the 90th percentile of the lengths of training histories, rounded up to a multiple of 10, from 20 to 200.
- **candidates**: all training items (the full softmax) as long as a step has at most 8 million logits, fewer above;
  a few hundred while towers learn.
- **dropout**: .1 with 100 training events an item or more, .3 from 10, .5 below: sparse ids are memorised first.
- **batch**: about one thirtieth of the training histories, a power of two from 32 to 512, and about 4,000 events at
  most; 128 histories while towers learn, because a step then costs its distinct items, which grow slower.
- **rate**: .001; towers learn at a fifth of it.
- **foundation encoders** (by name) are frozen unless told otherwise; frozen, they count as ready-made vectors.
- **towers** of raw media rest until validation stops rising, for about 1,500 steps at most (5 to 50 epochs), and then
  learn, those that may, for about 200 (2 to 10 epochs).
- **contrastive**: weight .1 beside the next item where there is content to bring near users; none for ids alone.
- **order**: SASRec; mean pooling where histories are sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmrec.data.dataset import Dataset
from mmrec.data.splits import SplitName, make_split
from mmrec.errors import ConfigError, unknown_name
from mmrec.fusion import FUSIONS
from mmrec.item_encoder import ItemEncoderConfig
from mmrec.modality_encoders import MODALITY_ENCODERS, AnyEncoderConfig
from mmrec.modality_encoders.foundation import FoundationConfig
from mmrec.model import ModelConfig
from mmrec.objectives import ContrastiveConfig, NextItemConfig
from mmrec.training.config import TrainConfig
from mmrec.user_encoders import USER_ENCODERS

__all__ = ["PRESETS", "preset"]

RAW = ("image", "text", "audio", "video")
MAX_LOGITS = 8e6
MAX_TARGETS = 4096

PRESETS = {
    "id": "item ids alone: the comparison that content has to beat",
    "content": "raw media and text, and ready-made vectors where there are any; no ids, so every new item is at home",
    "hybrid": "content and ids",
    "features": "ready-made vectors and ids: no media are decoded",
}


@dataclass(frozen=True)
class _Size:
    """What the rules look at."""

    num_items: int
    events_per_item: float
    histories: np.ndarray
    """Lengths of the histories that have a target."""


def preset(
    name: str,
    data: Path,
    *,
    split: SplitName = "auto",
    split_quantile: float = 0.9,
    user_encoder: str | None = None,
    fusion: str | None = None,
    encoders: Mapping[str, FoundationConfig] | None = None,
) -> TrainConfig:
    """The complete configuration of a preset for a dataset.

    Args:
        user_encoder: name in USER_ENCODERS; None follows the rule.
        fusion: name in FUSIONS; None is attention.
        encoders: foundation encoders, by raw modality, in place of the small networks.

    Raises: ConfigError if a name is unknown or the dataset lacks what the preset encodes.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name("preset", name, PRESETS))
    if user_encoder is not None and user_encoder not in USER_ENCODERS:
        raise ConfigError(unknown_name("user encoder", user_encoder, USER_ENCODERS))
    if fusion is not None and fusion not in FUSIONS:
        raise ConfigError(unknown_name("fusion", fusion, FUSIONS))
    dataset = Dataset.open(data)
    size = _measure(dataset, split, split_quantile)
    modalities = _modalities(name, dataset)
    chosen = _encoders(modalities, encoders or {}, f"preset {name!r} on {dataset.path}")
    user_encoder = user_encoder or ("mean_pool" if dataset.sequences.order == "none" else "sasrec")
    from_media = any(m in RAW and getattr(chosen[m], "tune", "all") != "frozen" for m in modalities)
    dropout = 0.1 if size.events_per_item >= 100 else 0.3 if size.events_per_item >= 10 else 0.5
    width = 64 if size.num_items < 1_000 else 128 if size.num_items < 10_000 or from_media else 256
    if any(m not in (*RAW, "item_id") or isinstance(chosen[m], FoundationConfig) for m in modalities):
        width = max(width, 128)
    p90 = float(np.quantile(size.histories, 0.9))
    max_length = int(np.clip(10 * math.ceil(p90 / 10), 20, 50 if from_media else 200))
    targets = size.histories - 1  # of each history
    windows = float(np.where(targets > max_length, targets / max_length + 1, 1).sum())  # the sampler's, nearly
    mean_length = min(float(targets.mean()), max_length)
    batch_size = _power_of_two(min(len(size.histories) / 30, MAX_TARGETS / mean_length), 32, 512)
    model = ModelConfig(
        item_encoder=ItemEncoderConfig(dim=width, encoders=chosen, fusion=FUSIONS[fusion or "attention"]()),
        user_encoder=USER_ENCODERS[user_encoder](max_length=max_length, dropout=dropout),
        contrastive=ContrastiveConfig(weight=0.0 if modalities == ["item_id"] else 0.1),
        next_item=NextItemConfig(num_negatives=max(512, int(MAX_LOGITS / (batch_size * mean_length)))),
    )
    return TrainConfig(
        data=data,
        name=name,
        model=model,
        split=split,
        split_quantile=split_quantile,
        batch_size=batch_size,
        learning_rate=1e-3,
        rest_epochs=int(np.clip(1500 * batch_size / windows, 5, 50)) if from_media else 0,
        tower_epochs=int(np.clip(200 * TrainConfig.tower_batch_size / windows, 2, 10)),
        id_dropout=0.3 if len(modalities) > 1 else 0.0,
    )


def _power_of_two(value: float, least: int, most: int) -> int:
    return int(np.clip(2 ** round(math.log2(max(value, 1.0))), least, most))


def _measure(dataset: Dataset, split: SplitName, quantile: float) -> _Size:
    train = make_split(dataset.sequences, dataset.num_items, split, quantile=quantile).train
    histories = train.lengths[train.lengths >= 2]
    if not len(histories):
        raise ConfigError(
            f"no user of {dataset.path} has two training events (split {split!r}), so there is no next item to learn; "
            "ingest longer histories"
        )
    num_items = len(np.unique(train.item_idx))
    return _Size(
        num_items=num_items,
        events_per_item=len(train.item_idx) / num_items,
        histories=histories,
    )


def _encoders(modalities: list[str], given: Mapping[str, FoundationConfig], where: str) -> dict[str, AnyEncoderConfig]:
    for modality in given:
        if modality not in modalities:
            raise ConfigError(f"an encoder of {modality} is given, but {where} encodes {', '.join(modalities)}")
    small: dict[str, AnyEncoderConfig] = {
        m: MODALITY_ENCODERS[m if m in MODALITY_ENCODERS else "features"]() for m in modalities
    }
    return small | dict(given)  # pyright: ignore[reportReturnType]


def _modalities(name: str, dataset: Dataset) -> list[str]:
    """Modalities of a preset in a fixed order: raw media, ready-made vectors, id."""
    raw = [modality for modality in RAW if modality in dataset.modalities]
    vectors = [modality for modality in dataset.modalities if modality not in RAW]
    chosen = {
        "id": ["item_id"],
        "content": raw + vectors,
        "hybrid": [*raw, *vectors, "item_id"],
        "features": [*vectors, "item_id"],
    }[name]
    if name == "features" and not vectors:
        raise ConfigError(
            f"preset 'features' needs ready-made vectors, of which {dataset.path} has none; "
            "ingest with --features NAME=vectors.npy, or use content, hybrid or id"
        )
    if not chosen:
        raise ConfigError(f"preset {name!r} needs media, text or vectors, of which {dataset.path} has none; use id")
    return chosen
