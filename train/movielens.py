"""MovieLens with posters, plots, soundtracks and trailers: content and hybrid against ids, cut at one moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmrec.cli import train_recipes
from mmrec.modality_encoders import ImageConfig, TextConfig
from mmrec.training import TrainConfig, preset

DATA = Path("data/movielens_mm")


def id_only() -> TrainConfig:
    """Item ids alone: the comparison."""
    return preset("id", DATA, split="global_time")


def content() -> TrainConfig:
    """Posters, texts, sounds and clips from their bytes, no ids; towers small enough for two cores."""
    return _small_towers(preset("content", DATA, split="global_time"))


def hybrid() -> TrainConfig:
    """`content` and ids."""
    return _small_towers(preset("hybrid", DATA, split="global_time"))


def _small_towers(config: TrainConfig) -> TrainConfig:
    """Pictures of 32 px, 32 tokens of text, 10 epochs: minutes on two cores instead of an hour."""
    item_encoder = config.model.item_encoder
    encoders = {**item_encoder.encoders, "image": ImageConfig(size_px=32), "text": TextConfig(max_tokens=32)}
    model = replace(config.model, item_encoder=replace(item_encoder, encoders=encoders))
    return replace(config, model=model, max_epochs=10)


if __name__ == "__main__":
    train_recipes(id_only, content, hybrid)
