"""Encoders of pictures at home in timm."""

from __future__ import annotations

import difflib
import json
import math
from typing import Any

from torch import nn

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import PixelNetwork, loading
from mmrec.modality_encoders.foundation.pixels import PixelTransform
from mmrec.modality_encoders.foundation.preprocessing import Architecture

__all__ = ["build", "describe", "load"]


def describe(name: EncoderName) -> Architecture:
    """The architecture, with the preprocessing of its weights. Raises: ConfigError if there is no such network."""
    import timm
    import torch
    from timm.data import resolve_data_config  # pyright: ignore[reportPrivateImportUsage]

    if name.folder is None and name.name.partition(".")[0] not in timm.list_models():
        nearest = difflib.get_close_matches(name.name, [*timm.list_models(), *timm.list_pretrained()], n=3, cutoff=0.5)
        hint = f"; perhaps you meant {' or '.join(f'timm:{one}' for one in nearest)}" if nearest else ""
        raise ConfigError(f"timm has no network {name.name!r}{hint}; timm.list_pretrained() lists those with weights")
    with loading(name, "configuration"), torch.device("meta"):
        network = _create(name, pretrained=False, num_classes=0)
    settings = resolve_data_config(model=network, verbose=False)
    (_, height, width), mode = settings["input_size"], settings["crop_mode"]
    if mode not in ("center", "squash"):
        raise ConfigError(f"{name} wants crop_mode {mode!r}, which mmrec has not; it has center and squash")
    transform = PixelTransform(
        height=height,
        width=width,
        resize_px=None if mode == "squash" else math.floor(min(height, width) / settings["crop_pct"]),
        interpolation=settings["interpolation"],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )
    config = network.pretrained_cfg
    stored = {"name": config["architecture"], "arguments": _arguments(name), "transform": transform.to_json()}
    return {"framework": "timm", **stored}


def build(architecture: Architecture) -> PixelNetwork:
    """The network with random weights."""
    import timm

    arguments = {**architecture["arguments"], "num_classes": 0}
    network = timm.create_model(architecture["name"], pretrained=False, **arguments)
    return PixelNetwork(network, architecture)


def load(name: EncoderName, architecture: Architecture) -> nn.Module:
    """The network with its weights. Raises: ConfigError if they are not to be had, or do not fit."""
    network = build(architecture)
    with loading(name, "weights"):
        # With its classifier, since timm does not mind what weights lack where the number of classes is another.
        stored = _create(name, pretrained=True).state_dict()
        network.network.load_state_dict({key: stored[key] for key in network.network.state_dict()})
    return network


def _create(name: EncoderName, *, pretrained: bool, **settings: Any) -> Any:
    import timm

    source = f"local-dir:{name.folder}" if name.folder is not None else name.name
    return timm.create_model(source, pretrained=pretrained, **settings)


def _arguments(name: EncoderName) -> dict[str, Any]:
    """Arguments by which a network on disk differs from the plain one of its architecture."""
    if name.folder is None:
        return {}
    return json.loads((name.folder / "config.json").read_text()).get("model_args", {})
