"""Encoders of clips at home in torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.errors import ConfigError, unknown_name
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import Features, first_line, loading
from mmrec.modality_encoders.foundation.pixels import PixelTransform, pixels_from_json
from mmrec.modality_encoders.foundation.preprocessing import Architecture

__all__ = ["build", "describe", "load"]

_CLIP_FRAMES = 16  # what most networks of torchvision.models.video were trained on


def describe(name: EncoderName) -> tuple[Architecture, int]:
    """Architecture with its preprocessing, and frames. Raises: ConfigError if there is no such network."""
    from torchvision.models import get_model_weights, list_models, video

    network = name.name if name.folder is None else _file(name).stem.partition("-")[0]
    if network not in list_models(video):
        raise ConfigError(unknown_name("video network of torchvision", network, list_models(video)))
    all_weights: Any = get_model_weights(network)
    settings = all_weights.DEFAULT.transforms()
    (height, width), resize = settings.crop_size * (3 - len(settings.crop_size)), tuple(settings.resize_size)
    transform = PixelTransform(
        height=height,
        width=width,
        resize_px=resize[0] if len(resize) == 1 else resize,
        interpolation=settings.interpolation.value,
        antialias=False,  # as these networks were trained
        mean=tuple(settings.mean),
        std=tuple(settings.std),
    )
    architecture = {"framework": "torchvision", "name": network, "transform": transform.to_json()}
    return architecture, max(_CLIP_FRAMES, int(all_weights.DEFAULT.meta.get("min_temporal_size", 1)))


def build(architecture: Architecture) -> nn.Module:
    """The network with random weights."""
    from torchvision.models import get_model

    return _Network(get_model(architecture["name"], weights=None), architecture)


def load(name: EncoderName, architecture: Architecture) -> nn.Module:
    """The network with its weights: those in the folder, else torchvision's default ones, from torch's cache.

    Raises: ConfigError if they are not to be had, or do not fit.
    """
    from torchvision.models import get_model

    if name.folder is not None:
        network = get_model(architecture["name"], weights=None)
        with loading(name, "weights"):
            network.load_state_dict(torch.load(_file(name), map_location="cpu", weights_only=True))
        return _Network(network, architecture)
    try:
        return _Network(get_model(architecture["name"], weights="DEFAULT"), architecture)
    except OSError as error:
        raise ConfigError(
            f"torchvision cannot fetch the weights of {name}: {first_line(error)}; give a folder that has them "
            "(torchvision:/folder), or @random for none"
        ) from error


def _file(name: EncoderName) -> Path:
    """The weights in a folder, by the name that torchvision gives them: s3d-d76dad2f.pth. Raises: ConfigError."""
    assert name.folder is not None
    found = sorted(name.folder.glob("*.pth"))
    if len(found) != 1:
        raise ConfigError(
            f"{name} holds {len(found)} files *.pth; put the one there that torchvision downloads, such as "
            "mvit_v2_s-ae3be167.pth, whose name begins with that of the network"
        )
    return found[0]


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
