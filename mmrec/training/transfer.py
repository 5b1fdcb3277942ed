"""A model that was trained on one dataset as the start on another: its content encoders, fusion and user encoder.

Item ids do not carry over: an item of the other dataset is another item. What carries over is how content is read and
how users follow from it, for the modalities that both datasets have.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from mmrec.config import from_dict
from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError
from mmrec.item_encoder import fit_preprocessings, load_preprocessings
from mmrec.modality_encoders import ItemIdConfig, Preprocessing
from mmrec.model import ModelConfig, Recommender, weights_of
from mmrec.training.config import TrainConfig

__all__ = ["source_preprocessings", "start_from", "transplant", "without_training"]

ID = "item_id"


def start_from(config: TrainConfig, checkpoint: Path, dataset: Dataset) -> TrainConfig:
    """The configuration with the parts of a trained model in place of its own, to go on with on ``dataset``.

    Kept of ``config``: whether items have ids, objectives, everything about training. Taken from the checkpoint: width,
    encoders of the modalities that the dataset has, fusion, user encoder.

    Raises: ConfigError if the dataset has none of the model's content modalities.
    """
    source = _source(checkpoint)
    encoders = {name: e for name, e in source.item_encoder.encoders.items() if name in dataset.modalities}
    if not encoders:
        known = ", ".join(name for name in source.item_encoder.encoders if name != ID) or "nothing but ids"
        has = ", ".join(dataset.modalities) or "none"
        raise ConfigError(f"{checkpoint} encodes {known}, of which {dataset.path} has nothing (it has: {has})")
    if ID in config.model.item_encoder.encoders:
        own = config.model.item_encoder.encoders[ID]
        encoders[ID] = own if isinstance(own, ItemIdConfig) else ItemIdConfig()
    item_encoder = dataclasses.replace(source.item_encoder, encoders=encoders)
    model = dataclasses.replace(
        config.model, item_encoder=item_encoder, user_encoder=source.user_encoder, temperature=source.temperature
    )
    return dataclasses.replace(config, model=model, start_from=checkpoint)


def source_preprocessings(checkpoint: Path, config: TrainConfig) -> dict[str, Preprocessing]:
    """What the checkpoint's content encoders were fitted with: the same words have the same numbers here too."""
    source, names = _source(checkpoint).item_encoder, set(config.model.item_encoder.encoders) - {ID}
    shared = {name: encoder for name, encoder in source.encoders.items() if name in names}
    return load_preprocessings(dataclasses.replace(source, encoders=shared), checkpoint / "preprocessing")


def without_training(config: TrainConfig, dataset: Dataset, train_items: np.ndarray) -> Recommender:
    """The model that a run with ``start_from`` begins with, in evaluation mode: what it knows of another dataset."""
    assert config.start_from is not None
    encoder = config.model.item_encoder
    ready = source_preprocessings(config.start_from, config)
    own = {name: e for name, e in encoder.encoders.items() if name not in ready}
    fitted = fit_preprocessings(dataclasses.replace(encoder, encoders=own), dataset, train_items)
    model = config.model.build({name: (ready | fitted)[name] for name in encoder.encoders})
    transplant(model, config.start_from)
    return model.eval()


@torch.no_grad()
def transplant(model: Recommender, checkpoint: Path) -> None:
    """Give ``model`` the weights of a checkpoint on another dataset, but for item ids.

    What the fusion holds for each modality goes to the same modality's place; what is new, such as the ids' place or
    the bias of another objective, stays as it was made.
    """
    stored = weights_of(checkpoint)
    source_names = list(_source(checkpoint).item_encoder.encoders)
    names = list(model.config.item_encoder.encoders)
    fusion = "item_encoder.fusion."
    axes = {fusion + name: axis for name, axis in model.item_encoder.fusion.by_modality.items()}
    for name, value in model.state_dict().items():
        if name not in stored or name.startswith(f"item_encoder.encoders.{ID}."):
            continue
        if name not in axes:
            value.copy_(stored[name])
            continue
        parts = value.chunk(len(names), axes[name])
        source_parts = stored[name].chunk(len(source_names), axes[name])
        for part, modality in zip(parts, names, strict=True):
            if modality in source_names and modality != ID:
                part.copy_(source_parts[source_names.index(modality)])


def _source(checkpoint: Path) -> ModelConfig:
    return from_dict(ModelConfig, json.loads((checkpoint / "config.json").read_text())["model"])
