"""The libraries in which foundation encoders are at home, behind one door."""

from __future__ import annotations

from torch import nn

from mmrec.modality_encoders.foundation import open_clip_home, timm_home, torchvision_home, transformers_home
from mmrec.modality_encoders.foundation.name import EncoderName, require_home
from mmrec.modality_encoders.foundation.networks import FrameByFrame
from mmrec.modality_encoders.foundation.preprocessing import Architecture

__all__ = ["build_network", "describe_pixels", "load_network"]

_HOMES = {
    "timm": timm_home,
    "open_clip": open_clip_home,
    "transformers": transformers_home,
    "torchvision": torchvision_home,
}


def describe_pixels(name: EncoderName, modality: str) -> tuple[Architecture, int]:
    """Architecture of an image or video network, with its preprocessing, and frames (1: a network of pictures)."""
    if name.framework == "transformers":
        return transformers_home.describe_pixels(name, modality)
    if name.framework == "torchvision":
        return torchvision_home.describe(name)
    return (timm_home.describe if name.framework == "timm" else open_clip_home.describe_image)(name), 1


def build_network(architecture: Architecture) -> nn.Module:
    """The network of an architecture with random weights, in evaluation mode.

    Raises: ConfigError if its library is not installed.
    """
    require_home(architecture["framework"])
    return _reading(_HOMES[architecture["framework"]].build(architecture), architecture)


def load_network(encoder: str, architecture: Architecture) -> nn.Module | None:
    """The network with the weights that a name stands for, in evaluation mode; None where they are random.

    Raises: ConfigError if the weights are not to be had, or are those of another architecture.
    """
    modality = "video" if architecture.get("frame_by_frame") else architecture["modality"]
    name = EncoderName.parse(encoder, modality)
    if name.random:
        return None
    return _reading(_HOMES[architecture["framework"]].load(name, architecture), architecture)


def _reading(network: nn.Module, architecture: Architecture) -> nn.Module:
    return (FrameByFrame(network) if architecture.get("frame_by_frame") else network).eval()
