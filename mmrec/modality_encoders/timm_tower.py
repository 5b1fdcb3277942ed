"""Networks of timm as towers for pictures, frames and spectrograms."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmrec.errors import ConfigError, unknown_name

__all__ = ["UnitHead", "timm_tower"]


def timm_tower(name: str, **settings: Any) -> tuple[nn.Module, int]:
    """A randomly initialised timm network without its classifier, and the width of its pooled output.

    Raises:
        ConfigError: if timm knows no such network, or if it normalises over the batch: then an item's vector would
            depend on the items beside it, and 2 processes would compute something else than 1.
    """
    import timm

    if name not in timm.list_models():
        raise ConfigError(unknown_name("timm tower", name, timm.list_models()[:0]) + "; see timm.list_models()")
    tower = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tower.modules()):
        raise ConfigError(f"tower {name!r} uses batch normalisation, which mixes items; take a convnext, vit or swin")
    return tower, int(tower.num_features)  # pyright: ignore[reportArgumentType]


class UnitHead(nn.Sequential):
    """From a tower's width to the model's; tokens start with unit length, like ready-made vectors."""

    def __init__(self, width: int, dim: int) -> None:
        norm = nn.LayerNorm(dim)
        nn.init.constant_(norm.weight, dim**-0.5)
        super().__init__(nn.Linear(width, dim), norm)
