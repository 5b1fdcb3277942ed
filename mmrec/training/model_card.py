"""The README.md of a checkpoint: what it is, what it was trained on, how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmrec.data.dataset import Dataset
from mmrec.modality_encoders import AnyEncoderConfig
from mmrec.modality_encoders.foundation import FoundationConfig
from mmrec.model import Recommender
from mmrec.training.config import TrainConfig

if TYPE_CHECKING:
    from mmrec.training.checkpoint import RunState

__all__ = ["model_card"]


def model_card(
    model: Recommender, config: TrainConfig, dataset: Dataset, state: RunState, validation: dict[str, float]
) -> str:
    """Markdown with data, modalities, sizes, validation metrics (never test metrics), and the commands of use."""
    encoders = config.model.item_encoder.encoders
    rows = "\n".join(f"| {name} | {_described(encoder)} |" for name, encoder in encoders.items())
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in validation.items()) or "not validated yet"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    licence = dataset.manifest.get("licence") or "not stated"
    return f"""# mmrec checkpoint: {config.name} on {dataset.name}

Item and user vectors of {config.model.item_encoder.dim} dimensions and unit length; a score is their inner product.

| modality | encoder |
|---|---|
{rows}

- data: {dataset.name}, {dataset.num_items:,} items, {dataset.num_users:,} users,
  fingerprint `{dataset.fingerprint[:16]}`; licence of the data: {licence}
- user encoder: {type(config.model.user_encoder).__name__}; parameters: {parameters:,}
- trained for {state.step:,} steps ({state.epoch} whole epochs, {state.seconds:.0f} s), seed {config.seed}
- validation (split {config.split}): {metrics}; the test part was not read

```bash
mmrec evaluate CHECKPOINT --data DATASET --out RESULTS
mmrec export CHECKPOINT --data DATASET --out EXPORT --index
```
"""


def _described(encoder: AnyEncoderConfig) -> str:
    if isinstance(encoder, FoundationConfig):
        return f"`{encoder.encoder}`, {encoder.tune}"
    return type(encoder).__name__
