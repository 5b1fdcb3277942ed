"""Which parameters a model has, which of them learn, and what the optimiser does with each."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender

__all__ = ["parameter_counts", "parameter_groups"]


def parameter_groups(model: Recommender, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters that ever learn, by what the optimiser does with them: "weight_decay", and "tower", the share of the
    towers' rate; None for those of no tower.

    Matrices decay; norms, biases, embedding tables and the temperature do not.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    encoders = [module for module in model.modules() if isinstance(module, TowerEncoder)]
    towers = {id(parameter): share for encoder in encoders for parameter, share in encoder.tower_parameters()}
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim < 2 or id(parameter) in tables else weight_decay
            groups.setdefault((decay, towers.get(id(parameter))), []).append(parameter)
    return [{"params": group, "weight_decay": decay, "tower": tower} for (decay, tower), group in groups.items()]


def parameter_counts(model: Recommender) -> list[str]:
    """One line for each part of the model: its parameters, and how many of them ever learn."""
    parts: dict[str, nn.Module] = {f"{name} encoder": part for name, part in model.item_encoder.encoders.items()}
    parts |= {"fusion": model.item_encoder.fusion, "user encoder": model.user_encoder}
    lines = []
    for name, part in parts.items():
        every = sum(parameter.numel() for parameter in part.parameters())
        learning = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
        how = f"  ({part.config.encoder}, {part.config.tune})" if isinstance(part, FoundationEncoder) else ""
        lines.append(f"{name:16s}{every:>13,} parameters, {learning:>13,} learn{how}")
    return lines
