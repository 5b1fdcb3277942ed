"""Encoders of clips at home in torchvision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmrec.errors import ConfigError, unknown_name
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import Features, first_line
from mmrec.modality_encoders.foundation.pixels import PixelTransform, pixels_from_json
from mmrec.modality_encoders.foundation.preprocessing import Architecture

__all__ = ["build", "describe", "load"]

_CLIP_FRAMES = 16  # what most networks of torchvision.models.video were trained on


def describe(name: EncoderName) -> tuple[Architecture, int]:
    """Architecture with its preprocessing, and frames. Raises: ConfigError if there is no such network."""
    from torchvision.models import get_model_weights, list_models, video

    if name.folder is not None:
        raise ConfigError(f"{name} is a folder, but torchvision knows networks by name only")
    if name.name not in list_models(video):
        raise ConfigError(unknown_name("video network of torchvision", name.name, list_models(video)))
    weights: Any = next(iter(get_model_weights(name.name)))
    settings = weights.transforms()
    (height, width), resize = settings.crop_size * (3 - len(settings.crop_size)), settings.resize_size
    transform = PixelTransform(
        height=height,
        width=width,
        resize_px=min(resize),
        interpolation=settings.interpolation.value,
        mean=tuple(settings.mean),
        std=tuple(settings.std),
    )
    architecture = {"framework": "torchvision", "name": name.name, "transform": transform.to_json()}
    return architecture, max(_CLIP_FRAMES, int(weights.meta.get("min_temporal_size", 1)))


def build(architecture: Architecture) -> nn.Module:
    """The network with random weights."""
    from torchvision.models import get_model

    return _Network(get_model(architecture["name"], weights=None), architecture)


def load(name: EncoderName, architecture: Architecture) -> nn.Module:
    """The network with its weights. Raises: ConfigError if they are neither stored nor to be downloaded."""
    from torchvision.models import get_model

    try:
        return _Network(get_model(architecture["name"], weights="DEFAULT"), architecture)
    except OSError as error:
        raise ConfigError(
            f"torchvision cannot fetch the weights of {name}: {first_line(error)}; @random has none"
        ) from error


class _Network(nn.Module):
    """One token: the network without its classifier."""

    def __init__(self, network: Any, architecture: Architecture) -> None:
        super().__init__()
        # The classifier goes; a network may keep a dropout beside it, which does nothing in evaluation mode.
        for last in ("head", "classifier", "fc"):
            if hasattr(network, last):
                setattr(network, last, nn.Identity())
        self.network = network
        self.transform = pixels_from_json(architecture["transform"])

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        clips = self.transform.normalise(inputs["values"]).transpose(1, 2)  # (P, 3, F, H, W)
        features = self.network(clips)
        features = features.flatten(2).mean(2) if features.ndim > 2 else features
        return features[:, None], torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
