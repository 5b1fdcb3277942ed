"""Which parameters a model has, which of them learn, and what the optimiser does with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender
from mmrec.training.config import TrainConfig

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


def parameter_counts(model: Recommender, config: TrainConfig) -> list[tuple[str, int, int, str]]:
    """By part of the model, and of all of it: parameters, how many of them ever learn, and a word on how."""
    towers = {name: part for name, part in model.item_encoder.encoders.items() if isinstance(part, TowerEncoder)}
    resting = set()
    if not config.tower_epochs:
        resting = {id(parameter) for tower in towers.values() for parameter, _ in tower.tower_parameters()}

    def counted(part: nn.Module) -> tuple[int, int]:
        every = list(part.parameters())
        learning = (parameter for parameter in every if parameter.requires_grad and id(parameter) not in resting)
        return sum(parameter.numel() for parameter in every), sum(parameter.numel() for parameter in learning)

    found = []
    for name, part in model.item_encoder.encoders.items():
        how = f"{part.config.encoder}, {part.config.tune}" if isinstance(part, FoundationEncoder) else ""
        if resting and name in towers:
            how += ", at rest" if how else "at rest"
        found.append((f"{name} encoder", *counted(part), how))
    found += [("fusion", *counted(model.item_encoder.fusion), ""), ("user encoder", *counted(model.user_encoder), "")]
    every, learning = counted(model)
    rest = [total - sum(line[place] for line in found) for place, total in ((1, every), (2, learning))]
    return [*found, ("objectives", rest[0], rest[1], ""), ("all", every, learning, "")]
