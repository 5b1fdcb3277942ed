"""Foundation encoders by name: configurations of the four raw modalities."""

from mmrec.modality_encoders.foundation.config import (
    FOUNDATION_ENCODERS,
    FoundationAudioConfig,
    FoundationConfig,
    FoundationImageConfig,
    FoundationTextConfig,
    FoundationVideoConfig,
)
from mmrec.modality_encoders.foundation.encoder import FoundationEncoder

__all__ = [
    "FOUNDATION_ENCODERS",
    "FoundationAudioConfig",
    "FoundationConfig",
    "FoundationEncoder",
    "FoundationImageConfig",
    "FoundationTextConfig",
    "FoundationVideoConfig",
]
