"""Which parameters a model has, which of them learn, and what the optimiser does with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender

__all__ = ["parameter_counts", "parameter_groups"]


def parameter_groups(
    model: Recommender, weight_decay: float, modality_rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameters that ever learn, by what the optimiser does with them.

    Of each group: "weight_decay"; "tower", the share of the towers' rate, None for parameters of no tower; "share", the
    modality's own share of the rate. Matrices decay; norms, biases, embedding tables and the temperature do not.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    encoders = model.item_encoder.encoders
    towers = {
        id(parameter): share
        for encoder in encoders.values()
        if isinstance(encoder, TowerEncoder)
        for parameter, share in encoder.tower_parameters()
    }
    shares = {
        id(parameter): share
        for name, share in (modality_rates or {}).items()
        for parameter in encoders[name].parameters()
    }
    groups: dict[tuple[float, float | None, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim < 2 or id(parameter) in tables else weight_decay
            key = (decay, towers.get(id(parameter)), shares.get(id(parameter), 1.0))
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": group, "weight_decay": decay, "tower": tower, "share": share}
        for (decay, tower, share), group in groups.items()
    ]


def parameter_counts(model: Recommender) -> list[tuple[str, int, int, str]]:
    """By part of the model: its parameters, how many of them ever learn, and a word on how."""
    parts: dict[str, nn.Module] = {f"{name} encoder": part for name, part in model.item_encoder.encoders.items()}
    parts |= {"fusion": model.item_encoder.fusion, "user encoder": model.user_encoder}
    found = []
    for name, part in parts.items():
        every = sum(parameter.numel() for parameter in part.parameters())
        learning = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
        how = f"{part.config.encoder}, {part.config.tune}" if isinstance(part, FoundationEncoder) else ""
        found.append((name, every, learning, how))
    return found
