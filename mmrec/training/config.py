"""Everything that decides a training run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmrec.config import to_dict
from mmrec.data.splits import SplitName
from mmrec.errors import ConfigError, unknown_name
from mmrec.model import ModelConfig
from mmrec.training.run_mirror import is_url, local_run
from mmrec.training.schedules import Schedule

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: data, model, optimisation. Stored whole in every checkpoint."""

    data: Path
    """Dataset folder made by `mmrec ingest`."""
    model: ModelConfig
    """Item encoder, user encoder, objectives."""
    out: Path | None = None
    """Run folder, or its URL (s3://..., anything that fsspec knows); the default is a folder under checkpoints/ named
    by data, preset and settings, so that the same command goes on where it was."""
    start_from: Path | None = None
    """Checkpoint of a run on another dataset whose content encoders, fusion and user encoder this run starts with. Set
    by --start-from, which takes their sizes from there too."""
    compatible_with: Path | None = None
    """Earlier export that the item vectors stay near (model.compatibility.weight), so that this model's users can be
    matched with its index."""
    name: str = "custom"
    """Name of the preset or recipe."""
    split: SplitName = "auto"
    """auto (the split that the interactions bring, else leave_one_out), leave_one_out, global_time, user_folds,
    sessions, provided; options behind a colon, such as global_time:targets=last (mmrec/data/split_spec.py)."""
    split_quantile: float = 0.9
    """global_time only: events after this quantile of all times are test, and again the same share is validation."""
    refit_of: Path | None = None
    """Train on the validation events too, for the steps that they chose in this run: nothing is left to choose on. What
    `mmrec refit` sets."""
    seed: int = 0
    """Decides initial weights, order of samples, negatives, dropout."""
    max_epochs: int = 100
    """Passes over the training events at most."""
    max_steps: int = 0
    """Steps at most; 0: as many as the epochs have."""
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
    """Peak rate of AdamW, reached after the warm-up."""
    schedule: Schedule = "constant"
    """What the rate does after the warm-up: constant, cosine (to 0), or wsd (stable, and to 0 over the last fifth)."""
    schedule_steps: int = 0
    """Steps over which the schedule runs; 0: max_steps, else those of max_epochs. Not for constant."""
    tower_rate: float = 0.2
    """Learning rate of the towers of raw media, as a share of the others': AdamW at the full rate would wipe out what
    the heads have learnt to read."""
    warmup_steps: int = 20
    """Steps of linear warm-up; towers that rested have their own."""
    weight_decay: float = 0.01
    """AdamW's decay; norms, biases, embeddings of ids and the temperature are not decayed."""
    clip_norm: float = 5.0
    """Bound on the norm of the gradient."""
    modality_rates: dict[str, float] = field(default_factory=dict)
    """By modality, the learning rate of its encoder as a share of what it would be: image 0.1 text 0.5."""
    average_decay: float = 0.0
    """Decay of the exponential moving average of the weights, which then is what is validated and exported; .999 or so.
    0: the weights themselves."""
    modality_dropout: float = 0.1
    """Probability that a content modality of an item is hidden for a step; never the last one."""
    id_dropout: float = 0.1
    """The same for the item's id: what makes the content carry items that have no id of their own."""
    feature_cache: bool = True
    """Keep what frozen encoders make of the media in the dataset folder (features/cache), encoded once; else they
    encode in every step, with the same results."""
    checkpoint_steps: int = 500
    """A checkpoint every so many steps, besides the one after each epoch."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay, besides the best one; if the newest is damaged, a run goes on from the
    one before."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 for the networks' arithmetic on devices that have it; losses stay in float32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """On several processes: ddp, every one holds all weights; fsdp, weights, gradients and the optimiser's state are
    sharded over them, and weights are gathered for the time of a step."""
    shard_ids: bool = False
    """Deal the table of item ids over the processes, each row updated only in the steps that read it (row-wise Adam in
    place of AdamW): for millions of items."""
    compile: bool = False
    """Compile the networks (torch.compile); minutes at the start, for runs of hours on a GPU."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go besides metrics.jsonl: tensorboard (files in the run folder), wandb, mlflow, or nothing."""
    profile_steps: int = 0
    """Trace so many steps with PyTorch's profiler, from the tenth on, into the folder profile/ of the run."""
    timeout_s: int = 600
    """Seconds after which a process that waits for another one gives up."""

    @property
    def refit(self) -> bool:
        """Whether the validation events are trained on."""
        return self.refit_of is not None

    def __post_init__(self) -> None:
        at_least = {
            "max_epochs": 1, "max_steps": 0, "schedule_steps": 0, "batch_size": 1, "tower_batch_size": 1,
            "tower_negatives": 1, "rest_epochs": 0, "tower_epochs": 0, "patience": 1, "warmup_steps": 0,
            "checkpoint_steps": 1, "keep_checkpoints": 1, "max_validation_queries": 1, "profile_steps": 0,
            "timeout_s": 1, "weight_decay": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("learning_rate", "tower_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        for name in ("modality_dropout", "id_dropout", "average_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0 and less than 1")
        for modality, rate in self.modality_rates.items():
            if modality not in self.model.item_encoder.encoders:
                known = self.model.item_encoder.encoders
                raise ConfigError(f"modality_rates: {unknown_name('modality', modality, known)}")
            if not rate >= 0:
                raise ConfigError(f"modality_rates: {modality} is {rate}; it must be at least 0")
        if self.shard_ids and (self.parallel == "fsdp" or "item_id" not in self.model.item_encoder.encoders):
            raise ConfigError(
                "shard_ids needs a model with item ids, and parallel ddp: fsdp shards every table by itself"
            )
        if self.shard_ids and self.average_decay:
            raise ConfigError("average_decay keeps a copy of all weights, shard_ids a share of them; set one of them")
        if self.tower_epochs == 0 and self.rest_epochs == 0:
            raise ConfigError("tower_epochs 0 leaves the towers at rest; say for how long by rest_epochs")
        if self.tower_items < 0:
            raise ConfigError(f"tower_items is {self.tower_items}; it must be 0 (all) or more")
        if self.tower_items and self.model.next_item.refresh_steps:
            raise ConfigError(
                "tower_items and next_item.refresh_steps both keep vectors from earlier steps; set one of them to 0"
            )

    def run_folder(self, dataset_name: str, fingerprint: str) -> Path:
        """``out``, or the folder under checkpoints/ that belongs to these settings on this data.

        A run at a URL works in a folder of its own on this machine.
        """
        if self.out is not None:
            return local_run(str(self.out)) if is_url(self.out) else self.out
        settings = {key: value for key, value in to_dict(self).items() if key not in ("out", "data")}
        digest = hashlib.sha256(json.dumps([settings, fingerprint], sort_keys=True).encode()).hexdigest()
        return Path("checkpoints") / f"{dataset_name}-{self.name}-{digest[:8]}"
