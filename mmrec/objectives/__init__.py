"""What training minimises: pure functions of tensors, each with its configuration beside it."""

from mmrec.objectives.contrastive import ContrastiveConfig, info_nce
from mmrec.objectives.next_item import NextItemConfig, log_inclusion_probability, next_item_loss

__all__ = ["ContrastiveConfig", "NextItemConfig", "info_nce", "log_inclusion_probability", "next_item_loss"]
