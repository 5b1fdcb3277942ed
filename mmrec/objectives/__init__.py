"""What training minimises: pure functions of tensors, each with its configuration beside it."""

from mmrec.objectives.compatibility import CompatibilityConfig, compatibility_loss
from mmrec.objectives.contrastive import ContrastiveConfig, info_nce, sigmoid_contrastive
from mmrec.objectives.excluded import Excluded, seen_candidates
from mmrec.objectives.gbce import gbce_loss
from mmrec.objectives.modality_alignment import ModalityAlignmentConfig, modality_alignment
from mmrec.objectives.next_item import NextItemConfig, log_inclusion_probability, next_item_loss

__all__ = [
    "CompatibilityConfig",
    "ContrastiveConfig",
    "Excluded",
    "ModalityAlignmentConfig",
    "NextItemConfig",
    "compatibility_loss",
    "gbce_loss",
    "info_nce",
    "log_inclusion_probability",
    "modality_alignment",
    "next_item_loss",
    "seen_candidates",
    "sigmoid_contrastive",
]
