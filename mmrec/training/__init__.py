"""Training: configuration, presets, the loop, checkpoints."""

from mmrec.training.config import TrainConfig
from mmrec.training.presets import PRESETS, preset

__all__ = ["PRESETS", "TrainConfig", "preset"]
