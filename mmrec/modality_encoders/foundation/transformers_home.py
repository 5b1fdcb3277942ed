"""Encoders of all modalities at home in transformers."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import ConfigError, unknown_name
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import Features, loading, pooled
from mmrec.modality_encoders.foundation.preprocessing import (
    Architecture,
    PixelTransform,
    SoundPreprocessing,
    TokenPreprocessing,
)

__all__ = ["build", "describe_pixels", "describe_sound", "describe_text", "load"]

_PARTS = {
    "image": {
        "clip": "vision_model",
        "siglip": "vision_model",
        "siglip2": "vision_model",
        "metaclip_2": "vision_model",
    },
    "text": {"clip": "text_model", "siglip": "text_model", "siglip2": "text_model", "metaclip_2": "text_model"},
    "audio": {"clap": "audio_model", "clap_audio_model": "audio_model", "whisper": "encoder"},
    "video": {"vjepa2": "encoder"},
}
"""By modality and type of model, the part of a larger model that encodes the modality; other types are taken whole."""

_UNMAPPED = {
    "clap_audio_model": "ClapAudioModelWithProjection",
    "siglip_text_model": "SiglipTextModel",
    "siglip2_text_model": "Siglip2TextModel",
}
"""Types of model that the library's AutoModel does not know."""

_CAUSAL_LAST = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2")
"""Language models, whose last token alone has seen the whole text."""

_TOKENS = 128
"""Tokens of a text that are read unless more are asked for: attention costs their square."""

_RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


def describe_pixels(name: EncoderName, modality: str) -> tuple[Architecture, int]:
    """Architecture with its preprocessing, and number of frames (1 of pictures), of an image or video network.

    Raises: ConfigError if there is no such network, or it is one of another modality.
    """
    config = _config(name)
    vision = getattr(config, "vision_config", config)
    transform = _pixel_transform(_pixel_processor(name, config, modality), vision, name)
    num_frames = int(getattr(vision, "frames_per_clip", None) or getattr(vision, "num_frames", None) or 1)
    architecture = _architecture(config, modality) | {"transform": asdict(transform)}
    return architecture, num_frames


def describe_sound(name: EncoderName, duration_s: float) -> SoundPreprocessing:
    """Raises: ConfigError as :func:`describe_pixels`."""
    from transformers import AutoFeatureExtractor
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

    config = _config(name)
    with loading(name, "feature extractor"):
        if name.random and name.folder is None:
            extractor_class: Any = FEATURE_EXTRACTOR_MAPPING[type(config)]
            extractor = extractor_class()
        else:
            extractor = AutoFeatureExtractor.from_pretrained(_source(name))
    return SoundPreprocessing(_architecture(config, "audio"), extractor, duration_s)


def describe_text(name: EncoderName, *, max_tokens: int, prefix: str) -> tuple[TokenPreprocessing, str]:
    """Preprocessing, and the pooling that the network was trained with; ``max_tokens`` 0 takes what the network reads.

    Raises: ConfigError as :func:`describe_pixels`, if the tokenizer is missing or a slow one, or if the network reads
        fewer tokens than asked for.
    """
    from transformers import AutoTokenizer

    config = _config(name)
    text = getattr(config, "text_config", config)
    with loading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(_source(name))
    if not tokenizer.is_fast or getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"{name} is no text encoder with a fast tokenizer; take one of the kind of BERT or Qwen3")
    limit = min(tokenizer.model_max_length, getattr(text, "max_position_embeddings", tokenizer.model_max_length))
    if max_tokens > limit:
        raise ConfigError(f"max_tokens is {max_tokens}; {name} reads at most {limit}")
    max_tokens = max_tokens or min(limit, _TOKENS)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_tokens)
    siglip = "siglip" in text.model_type  # trained with padding in sight, and no mask
    preprocessing = TokenPreprocessing(
        _architecture(config, "text"),
        backend,
        prefix=prefix,
        pad_id=tokenizer.pad_token_id or 0,
        pad_to=max_tokens if siglip else 0,
    )
    return preprocessing, _text_pool(name, text.model_type)


def build(architecture: Architecture) -> nn.Module:
    """The network with random weights."""
    from transformers import AutoConfig

    settings = dict(architecture["config"])
    with _quiet():
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = _model_class(config.model_type)(config)
    return _wrapped(model.float(), architecture)


def load(name: EncoderName, architecture: Architecture) -> nn.Module:
    """The network with its weights. Raises: ConfigError if they are not to be had, or do not fit."""
    config = _config(name)
    with loading(name, "weights"), _quiet():
        model, report = _model_class(config.model_type, load=True)(
            _source(name), dtype=torch.float32, output_loading_info=True
        )
    part = _PARTS[architecture["modality"]].get(config.model_type)
    read = "" if part is None else f"{part}."
    lost = sorted(key for key in report["missing_keys"] if key.startswith(read))
    if architecture["pool"] != "pooler":
        lost = [key for key in lost if not key.removeprefix(read).startswith("pooler.")]  # dropped by _wrapped
    if lost:
        raise ConfigError(
            f"the weights of {name} lack {len(lost)} of its network's, such as {lost[0]}: they are of another one"
        )
    return _wrapped(model, architecture)


class _Network(nn.Module):
    """One token: the pooled output of a network of transformers."""

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.network: Any = network
        self.modality = architecture["modality"]
        self.pool = architecture["pool"]
        stored = architecture.get("transform")
        self.transform = None if stored is None else PixelTransform.from_json(stored)
        config: Any = network.config
        self.patch_px = config.patch_size if config.model_type.startswith("siglip2") else None

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        features = pooled(*self._output(inputs), self.pool)[:, None]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def _output(self, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """What the network returns, and which positions of its hidden state are real (None: all)."""
        if self.modality == "text":
            mask = inputs["mask"]
            return self.network(input_ids=inputs["ids"], attention_mask=mask.long()), mask
        if self.modality == "audio":
            values = inputs["values"].float()
            if not getattr(self.network.config, "enable_fusion", False):
                return self.network(values), None
            return self.network(values, is_longer=torch.zeros_like(values[:, :1, 0, 0], dtype=torch.bool)), None
        assert self.transform is not None
        pixels = self.transform.normalise(inputs["values"])
        if self.patch_px:
            return self.network(**_patches(pixels, self.patch_px)), None
        return self.network(pixels), None


def _patches(pixels: Tensor, patch_px: int) -> dict[str, Tensor]:
    """A picture as the row of patches that SigLIP 2 reads."""
    patches = F.unfold(pixels, patch_px, stride=patch_px)  # (P, 3 p p, N), channel first
    patches = patches.unflatten(1, (3, -1)).permute(0, 3, 2, 1).flatten(2)  # (P, N, p p 3), channel last
    shape = torch.tensor([side // patch_px for side in pixels.shape[2:]], device=pixels.device)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long, device=pixels.device),
        "spatial_shapes": shape.expand(len(pixels), 2),
    }


def _wrapped(model: Any, architecture: Architecture) -> _Network:
    part = _PARTS[architecture["modality"]].get(model.config.model_type)
    network = model if part is None else getattr(model, part)
    if architecture["pool"] != "pooler" and getattr(network, "pooler", None) is not None:
        network.pooler = None  # nothing here reads it, and DistributedDataParallel waits for a gradient of all there is
    return _Network(network, architecture)


def _architecture(config: Any, modality: str) -> Architecture:
    stored = json.loads(config.to_json_string(use_diff=True)) | {"model_type": config.model_type}
    return {"framework": "transformers", "modality": modality, "config": stored, "pool": "auto"}


def _model_class(model_type: str, *, load: bool = False) -> Any:
    import transformers

    if model_type in _UNMAPPED:
        found = getattr(transformers, _UNMAPPED[model_type])
        return found.from_pretrained if load else found
    return transformers.AutoModel.from_pretrained if load else transformers.AutoModel.from_config


def _source(name: EncoderName) -> str:
    return str(name.folder or name.name)


def _config(name: EncoderName) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if name.random and name.folder is None and "/" not in name.name:
        if name.name not in CONFIG_MAPPING:
            raise ConfigError(unknown_name("model type of transformers", name.name, CONFIG_MAPPING.keys()))
        return CONFIG_MAPPING[name.name]()
    with loading(name, "configuration"):
        return AutoConfig.from_pretrained(_source(name))


def _pixel_processor(name: EncoderName, config: Any, modality: str) -> dict[str, Any]:
    """The settings of the network's image or video processor."""
    import transformers

    if not (name.random and name.folder is None):
        with loading(name, "preprocessing"):
            if modality == "video" and config.model_type == "vjepa2":
                return transformers.AutoVideoProcessor.from_pretrained(_source(name)).to_dict()
            return transformers.AutoImageProcessor.from_pretrained(_source(name)).to_dict()
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None)
    if size is None:
        raise ConfigError(f"{name} does not look at pictures: its configuration has no image_size")
    # Nothing is known of weights that there are not: a scale of -1 to 1.
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"size": {"height": size, "width": size}, "resample": 3, **scale}


def _pixel_transform(processor: dict[str, Any], vision: Any, name: EncoderName) -> PixelTransform:
    if abs(processor.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise ConfigError(f"{name} rescales pixels by {processor['rescale_factor']}; mmrec rescales by 1 / 255 only")
    size, crop = processor.get("size") or {}, processor.get("crop_size") if processor.get("do_center_crop") else None
    resize_px = size.get("shortest_edge")
    shape = crop or (size if resize_px is None else {"height": resize_px, "width": resize_px})
    if "height" not in shape:  # SigLIP 2 takes any number of patches; here it is a square of as many as its processor's
        side = int(processor.get("max_num_patches", 256) ** 0.5) * vision.patch_size
        shape = {"height": side, "width": side}
    if resize_px is None and crop and (size["height"], size["width"]) != (crop["height"], crop["width"]):
        resize_px = min(size["height"], size["width"])
    normalise = processor.get("do_normalize", True)
    return PixelTransform(
        height=shape["height"],
        width=shape["width"],
        resize_px=resize_px,
        interpolation=_RESAMPLING.get(int(processor.get("resample", 2)), "another"),
        mean=tuple(processor["image_mean"]) if normalise else (0.0, 0.0, 0.0),
        std=tuple(processor["image_std"]) if normalise else (1.0, 1.0, 1.0),
    )


def _text_pool(name: EncoderName, model_type: str) -> str:
    """As sentence-transformers has stored it beside the network, else as its family does it."""
    path = None if name.folder is None else name.folder / "1_Pooling" / "config.json"
    if path is not None and path.is_file():
        stored = json.loads(path.read_text())
        modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
        chosen = [mode for key, mode in modes.items() if stored.get(key)] or [stored.get("pooling_mode")]
        if len(chosen) != 1 or chosen[0] not in modes.values():
            raise ConfigError(f"{path} asks for a pooling that mmrec has not; give pool mean, cls or last")
        return chosen[0]
    if any(family in model_type for family in ("clip", "siglip")):
        return "pooler"
    return "last" if model_type in _CAUSAL_LAST else "mean"


@contextlib.contextmanager
def _quiet():
    """Reports and bars of the library are silent; what is wrong with weights is judged here, in one line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
