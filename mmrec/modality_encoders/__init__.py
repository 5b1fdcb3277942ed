"""Encoders of what an item is made of. One modality, one file; a new one is a file and a line in the dict."""

from mmrec.modality_encoders.audio import AudioConfig
from mmrec.modality_encoders.base import EncoderConfig, ModalityEncoder, Preprocessing
from mmrec.modality_encoders.features import FeaturesConfig
from mmrec.modality_encoders.foundation import (
    FOUNDATION_ENCODERS,
    FoundationAudioConfig,
    FoundationImageConfig,
    FoundationTextConfig,
    FoundationVideoConfig,
)
from mmrec.modality_encoders.image import ImageConfig
from mmrec.modality_encoders.item_id import ItemIdConfig, ItemIdPreprocessing
from mmrec.modality_encoders.text import TextConfig
from mmrec.modality_encoders.video import VideoConfig

__all__ = [
    "FOUNDATION_ENCODERS",
    "MODALITY_ENCODERS",
    "AnyEncoderConfig",
    "AudioConfig",
    "EncoderConfig",
    "FeaturesConfig",
    "ImageConfig",
    "ItemIdConfig",
    "ItemIdPreprocessing",
    "ModalityEncoder",
    "Preprocessing",
    "TextConfig",
    "VideoConfig",
]

AnyEncoderConfig = (
    ImageConfig
    | TextConfig
    | AudioConfig
    | VideoConfig
    | FeaturesConfig
    | ItemIdConfig
    | FoundationImageConfig
    | FoundationTextConfig
    | FoundationAudioConfig
    | FoundationVideoConfig
)

MODALITY_ENCODERS = {
    "image": ImageConfig,
    "text": TextConfig,
    "audio": AudioConfig,
    "video": VideoConfig,
    "features": FeaturesConfig,
    "item_id": ItemIdConfig,
}
