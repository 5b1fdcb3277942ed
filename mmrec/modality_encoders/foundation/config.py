"""Foundation encoders as modalities: one configuration for pictures, texts, sounds and clips each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError, DataError
from mmrec.modality_encoders.foundation import open_clip_home, transformers_home
from mmrec.modality_encoders.foundation.blocks import find_blocks, modules_behind, stack_is_split_at
from mmrec.modality_encoders.foundation.encoder import FoundationEncoder
from mmrec.modality_encoders.foundation.homes import build_network, describe_pixels, load_network
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import NETWORK_ERRORS, Pool, first_line
from mmrec.modality_encoders.foundation.preprocessing import (
    ClipPreprocessing,
    FoundationPreprocessing,
    ImagePreprocessing,
    TokenPreprocessing,
)
from mmrec.modality_encoders.foundation.sounds import SoundPreprocessing
from mmrec.modality_encoders.foundation.tuning import Tuning

__all__ = [
    "FOUNDATION_ENCODERS",
    "FoundationAudioConfig",
    "FoundationConfig",
    "FoundationImageConfig",
    "FoundationTextConfig",
    "FoundationVideoConfig",
]

_FRAMES = 8
"""Frames that an encoder of pictures reads of a clip."""


@dataclass(frozen=True, kw_only=True)
class FoundationConfig(ABC):
    """An encoder by name, and how much of it learns."""

    encoder: str
    """FRAMEWORK:NAME, such as timm:vit_base_patch16_dinov3.lvd1689m, open_clip:ViT-B-32/laion2b_s34b_b79k,
    transformers:/folder or path:/folder; @random behind it for random weights."""
    tune: str = "frozen"
    """What learns: frozen, top:K (the highest K blocks), lora:RANK (adapters in all blocks), or all."""
    layer_decay: float = 0.8
    """Each block learns at this share of the rate of the one above it."""
    activation_checkpointing: bool = False
    """Blocks that learn keep only their inputs for the backward pass: less memory, a third more time."""
    pool: Pool = "auto"
    """How a network of transformers becomes one vector; auto: as it was trained."""
    cache_dtype: Literal["float32", "float16"] = "float32"
    """Of what is kept on disk of the part that never learns; float16 halves it and rounds."""

    modality: ClassVar[str]

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> FoundationPreprocessing:
        """The encoder's own preprocessing; nothing is learnt from the data.

        Raises:
            ConfigError: if the encoder is not to be had, does not fit the modality, or is not a function of its input.
            DataError: if no training item has the modality.
        """
        if not (train_items & dataset.present(modality)).any():
            raise DataError(f"no item with a training event has {modality}; leave its encoder out")
        tuning = Tuning.parse(self.tune)
        name = EncoderName.parse(self.encoder, self.modality)
        preprocessing = self._describe(name)
        architecture = preprocessing.architecture
        architecture.setdefault("modality", self.modality)
        architecture.setdefault("pool", "auto")
        if self.pool != "auto":
            if architecture["framework"] != "transformers":
                raise ConfigError(
                    f"pool is {self.pool!r}, but networks of {architecture['framework']} pool by themselves"
                )
            architecture["pool"] = self.pool
        _try(name, preprocessing, tuning)
        return preprocessing

    def build(self, dim: int, preprocessing: FoundationPreprocessing) -> FoundationEncoder:
        return FoundationEncoder(dim, self, preprocessing)

    @abstractmethod
    def load_preprocessing(self, folder: Path) -> FoundationPreprocessing:
        """What a checkpoint stored of :meth:`fit`'s."""

    @abstractmethod
    def _describe(self, name: EncoderName) -> FoundationPreprocessing:
        """The preprocessing of the named encoder, with its architecture. Raises: ConfigError as :meth:`fit`."""


@dataclass(frozen=True, kw_only=True)
class FoundationImageConfig(FoundationConfig):
    """Pictures by timm, open_clip or transformers."""

    modality: ClassVar[str] = "image"

    def load_preprocessing(self, folder: Path) -> ImagePreprocessing:
        return ImagePreprocessing.load(folder)

    def _describe(self, name: EncoderName) -> ImagePreprocessing:
        architecture, frames = describe_pixels(name, "image")
        if frames > 1:
            raise ConfigError(f"{name} reads {frames} frames; it encodes video, not image")
        return ImagePreprocessing(architecture)


@dataclass(frozen=True, kw_only=True)
class FoundationTextConfig(FoundationConfig):
    """Texts by transformers or open_clip."""

    max_tokens: int = 0
    """Tokens that are read; longer texts are cut. 0: as many as the encoder reads, but 128 at most. Networks of
    open_clip read as many as they were trained on."""
    prefix: str = "auto"
    """Set before each text; auto: what the encoder was trained with, such as "passage: " for E5; mostly nothing."""

    modality: ClassVar[str] = "text"

    def load_preprocessing(self, folder: Path) -> FoundationPreprocessing:
        home = TokenPreprocessing if (folder / "tokenizer.json").is_file() else open_clip_home.OpenClipTokens
        return home.load(folder)

    def _describe(self, name: EncoderName) -> FoundationPreprocessing:
        if name.framework == "open_clip":
            self._refuse_settings(name)
            return open_clip_home.describe_text(name)
        return transformers_home.describe_text(name, max_tokens=self.max_tokens, prefix=self.prefix, pool=self.pool)

    def _refuse_settings(self, name: EncoderName) -> None:
        if self.max_tokens or self.prefix not in ("auto", ""):
            raise ConfigError(f"{name} reads texts as it was trained; leave max_tokens at 0, and prefix empty")


@dataclass(frozen=True, kw_only=True)
class FoundationAudioConfig(FoundationConfig):
    """Sounds by transformers: CLAP, AST, Whisper's encoder, wav2vec 2.0 and its kind."""

    duration_s: float = 0.0
    """Seconds that are heard; 0: as many as the encoder hears, but 10 at most."""

    modality: ClassVar[str] = "audio"

    def load_preprocessing(self, folder: Path) -> SoundPreprocessing:
        return SoundPreprocessing.load(folder)

    def _describe(self, name: EncoderName) -> SoundPreprocessing:
        return transformers_home.describe_sound(name, self.duration_s)


@dataclass(frozen=True, kw_only=True)
class FoundationVideoConfig(FoundationConfig):
    """Clips by transformers or torchvision, or frame by frame by any encoder of pictures, then temporal attention."""

    num_frames: int = 0
    """Frames of a clip; 0: as many as the network was trained on, 8 for encoders of pictures."""

    modality: ClassVar[str] = "video"

    def load_preprocessing(self, folder: Path) -> ClipPreprocessing:
        return ClipPreprocessing.load(folder)

    def _describe(self, name: EncoderName) -> ClipPreprocessing:
        if self.num_frames < 0:
            raise ConfigError(
                f"num_frames is {self.num_frames}; give at least 1, or 0 for as many as the network reads"
            )
        architecture, frames = describe_pixels(name, "video")
        if frames > 1:
            if self.num_frames not in (0, frames):
                raise ConfigError(f"num_frames is {self.num_frames}; {name} reads {frames}")
            return ClipPreprocessing(architecture, frames, repeat=True)
        architecture = {**architecture, "modality": "image", "frame_by_frame": True}
        return ClipPreprocessing(architecture, self.num_frames or _FRAMES, repeat=False)


FOUNDATION_ENCODERS = {
    config.modality: config
    for config in (FoundationImageConfig, FoundationTextConfig, FoundationAudioConfig, FoundationVideoConfig)
}


@torch.inference_mode()
def _try(name: EncoderName, preprocessing: FoundationPreprocessing, tuning: Tuning) -> None:
    """Run the network once, and enter into its architecture what only a run tells.

    Raises: ConfigError if it does not run, or gives something else the second time.
    """
    architecture = preprocessing.architecture
    candidates = ("pooler", "mean") if architecture["pool"] == "auto" else (architecture["pool"],)
    inputs = preprocessing.blank(2)
    for pool in candidates:
        architecture["pool"] = pool
        try:
            network = load_network(str(name), architecture) or build_network(architecture)
            features, _ = network(inputs)
            again, _ = network(inputs)
            break
        except ConfigError:
            if pool == candidates[-1]:
                raise
        except NETWORK_ERRORS as error:
            raise ConfigError(f"{name} does not take {architecture['modality']} inputs: {first_line(error)}") from error
    if not torch.equal(features, again):
        raise ConfigError(f"{name} gives another vector each time, so it encodes nothing; take another encoder")
    architecture["width"] = features.shape[-1]
    blocks = find_blocks(network)
    architecture["behind"] = modules_behind(network, blocks, lambda: network(inputs))
    first = tuning.first_block(len(blocks))
    architecture["split"] = None
    if tuning.kind == "top" and 0 < first < len(blocks):
        noise = {key: _noise(value) for key, value in inputs.items()}
        empty = inputs if "ids" in inputs else preprocessing.blank(2)
        same = stack_is_split_at(blocks, first, lambda: network(noise)[0], lambda: network(empty)[0])
        # Where a clip is read frame by frame, what frames bring beside their hidden states would not be kept.
        lost = architecture.get("frame_by_frame") and "shapes" in inputs
        architecture["split"] = first if same and not lost else None


def _noise(values: torch.Tensor) -> torch.Tensor:
    """Other values of the same kind; whole numbers and masks stay, since not all are allowed."""
    if values.dtype == torch.uint8:
        return torch.randint(0, 256, values.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if values.is_floating_point():
        return torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return values
