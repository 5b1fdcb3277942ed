"""Everything that decides a training run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmrec.config import to_dict
from mmrec.data.splits import SplitName
from mmrec.errors import ConfigError
from mmrec.model import ModelConfig

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: data, model, optimisation. Stored whole in every checkpoint."""

    data: Path
    """Dataset folder made by `mmrec ingest`."""
    model: ModelConfig
    """Item encoder, user encoder, objectives."""
    out: Path | None = None
    """Run folder; the default is a folder under checkpoints/ named by data, preset and settings, so that the same
    command goes on where it was."""
    name: str = "custom"
    """Name of the preset or recipe."""
    split: SplitName = "auto"
    """auto: the split that the interactions bring, else leave_one_out."""
    split_quantile: float = 0.9
    """global_time only: events after this quantile of all times are test, and again the same share is validation."""
    refit: bool = False
    """Train on the validation events too, for just the epochs that are given: nothing is left to choose on. What
    `mmrec refit` sets."""
    seed: int = 0
    """Decides initial weights, order of samples, negatives, dropout."""
    max_epochs: int = 100
    """Passes over the training events at most."""
    rest_epochs: int = 0
    """Epochs at most, at the start, in which the towers of raw media rest: their outputs are computed once, and heads,
    fusion and user encoder learn from them at the price of ready-made vectors. Ends early when validation stops
    rising; then the towers learn too (linear probing, then fine-tuning: Kumar et al. 2022)."""
    tower_epochs: int = 100
    """Epochs at most in which the towers learn; 0 leaves them as they are."""
    tower_batch_size: int = 128
    """Like batch_size, while towers learn: a step then costs its distinct items, which grow slower than the batch."""
    tower_negatives: int = 512
    """Like num_negatives of next_item, while towers learn."""
    tower_items: int = 0
    """Items of a step that the towers read, while they learn; of the others they take what they made at the end of the
    last epoch, from which heads, fusion and users learn, but not the towers. Bounds what a step costs: batch_size and
    num_negatives then stay as they were at rest. 0: all items of the step."""
    patience: int = 5
    """Epochs without a better validation NDCG@10 after which training ends."""
    max_validation_queries: int = 4096
    """Validation queries on which the model is chosen; a seeded draw where there are more."""
    batch_size: int = 256
    """Histories in a global step, over all processes together."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW, reached after the warm-up and then constant."""
    tower_rate: float = 0.2
    """Learning rate of the towers of raw media, as a share of the others': AdamW at the full rate would wipe out what
    the heads have learnt to read."""
    warmup_steps: int = 20
    """Steps of linear warm-up; towers that rested have their own."""
    weight_decay: float = 0.01
    """AdamW's decay; norms, biases, embeddings of ids and the temperature are not decayed."""
    clip_norm: float = 5.0
    """Bound on the norm of the gradient."""
    modality_dropout: float = 0.1
    """Probability that a content modality of an item is hidden for a step; never the last one."""
    id_dropout: float = 0.1
    """The same for the item's id: what makes the content carry items that have no id of their own."""
    feature_cache: bool = True
    """Keep what frozen encoders make of the media in the dataset folder (features/cache), encoded once; else they
    encode in every step, with the same results."""
    checkpoint_steps: int = 500
    """A checkpoint every so many steps, besides the one after each epoch."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 for the networks' arithmetic on devices that have it; losses stay in float32."""

    def __post_init__(self) -> None:
        if self.tower_epochs == 0 and self.rest_epochs == 0:
            raise ConfigError("tower_epochs 0 leaves the towers at rest; say for how long by rest_epochs")
        if self.tower_items < 0:
            raise ConfigError(f"tower_items is {self.tower_items}; it must be 0 (all) or more")
        if self.tower_items and self.model.next_item.refresh_steps:
            raise ConfigError(
                "tower_items and next_item.refresh_steps both keep vectors from earlier steps; set one of them to 0"
            )

    def run_folder(self, dataset_name: str, fingerprint: str) -> Path:
        """``out``, or the folder under checkpoints/ that belongs to these settings on this data."""
        if self.out is not None:
            return self.out
        settings = {key: value for key, value in to_dict(self).items() if key not in ("out", "data")}
        digest = hashlib.sha256(json.dumps([settings, fingerprint], sort_keys=True).encode()).hexdigest()
        return Path("checkpoints") / f"{dataset_name}-{self.name}-{digest[:8]}"
