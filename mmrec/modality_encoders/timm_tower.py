"""Networks of timm as towers for pictures, frames and spectrograms."""

from __future__ import annotations

import difflib
import functools
from typing import Any

import torch
from torch import nn

from mmrec.errors import ConfigError

__all__ = ["timm_tower"]


def timm_tower(
    name: str, size_px: tuple[int, int], *, channels: int = 3, patch_px: int | None = None
) -> tuple[nn.Module, int]:
    """A randomly initialised timm network without its classifier, and the width of its pooled output.

    Args:
        name: as timm knows it.
        size_px: height and width of what it sees.
        channels: of what it sees.
        patch_px: side of a patch, for networks that cut their input into patches; None keeps their own.

    Raises:
        ConfigError: if timm knows no such network, if it does not take such inputs, or if it normalises over the
            batch: then an item's vector would depend on the items beside it, and 2 processes would compute something
            else than 1.
    """
    import timm

    if name not in timm.list_models():
        nearest = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"; perhaps you meant {nearest[0]!r}" if nearest else ""
        raise ConfigError(f"unknown timm tower {name!r}{hint}; timm.list_models() lists all")
    create = functools.partial(timm.create_model, name, pretrained=False, num_classes=0, in_chans=channels)
    with torch.device("meta"):  # a look at the network, without memory, arithmetic or random numbers
        plain = create()
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in plain.modules()):
        raise ConfigError(f"tower {name!r} uses batch normalisation, which mixes items; take a convnext, vit or swin")
    settings: dict[str, Any] = {}
    if hasattr(plain, "set_input_size"):  # transformers are made for one size of picture, convolutions take any
        settings = {"img_size": size_px} | ({} if patch_px is None else {"patch_size": patch_px})
    elif patch_px is not None:
        raise ConfigError(f"tower {name!r} does not cut its input into patches; set patch_px=0")
    try:
        with torch.device("meta"):
            width = create(**settings)(torch.empty(1, channels, *size_px)).shape[1]
    except (AssertionError, RuntimeError) as error:
        height, columns = size_px
        raise ConfigError(
            f"tower {name!r} does not take inputs of {height} x {columns}: {str(error).strip().splitlines()[0]}"
        ) from error
    return create(**settings), width
