"""Encoders of all modalities at home in transformers."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.errors import ConfigError, unknown_name
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import Features, loading, pooled
from mmrec.modality_encoders.foundation.pixels import pixels_from_json, real_patches
from mmrec.modality_encoders.foundation.preprocessing import Architecture, TokenPreprocessing
from mmrec.modality_encoders.foundation.sounds import SoundPreprocessing, describe_extractor
from mmrec.modality_encoders.foundation.transformers_pixels import describe_transform
from mmrec.modality_encoders.foundation.transformers_texts import document_prefix, stored_pool

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

_PADDED_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text", "longformer")
"""Types of model that count positions from behind the id of padding on."""


def describe_pixels(name: EncoderName, modality: str) -> tuple[Architecture, int]:
    """Architecture with its preprocessing, and number of frames (1 of pictures), of an image or video network.

    Raises: ConfigError if there is no such network, or it is one of another modality.
    """
    config = _config(name)
    vision = getattr(config, "vision_config", config)
    transform = describe_transform(name, _source(name), config, modality)
    num_frames = int(getattr(vision, "frames_per_clip", None) or getattr(vision, "num_frames", None) or 1)
    architecture = _architecture(config, modality) | {"transform": transform.to_json()}
    return architecture, num_frames


def describe_sound(name: EncoderName, duration_s: float) -> SoundPreprocessing:
    """Raises: ConfigError as :func:`describe_pixels`, or if the feature extractor hears less than ``duration_s``."""
    from transformers import AutoFeatureExtractor
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

    config = _config(name)
    with loading(name, "feature extractor"):
        if name.random and name.folder is None:
            extractor_class: Any = FEATURE_EXTRACTOR_MAPPING[type(config)]
            extractor = extractor_class()
        else:
            extractor = AutoFeatureExtractor.from_pretrained(_source(name), trust_remote_code=False)
    return describe_extractor(name, _architecture(config, "audio"), extractor, duration_s)


def describe_text(name: EncoderName, *, max_tokens: int, prefix: str, pool: str) -> TokenPreprocessing:
    """Preprocessing; ``max_tokens`` 0 takes what the network reads, "auto" what it was trained with.

    Raises: ConfigError as :func:`describe_pixels`, if the tokenizer is missing or a slow one, or if the network does
        not read as many tokens as asked for.
    """
    from transformers import AutoTokenizer

    config = _config(name)
    text = getattr(config, "text_config", config)
    with loading(name, "tokenizer (tokenizer.json)"), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(_source(name), trust_remote_code=False)
    if not tokenizer.is_fast or getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"{name} is no text encoder with a fast tokenizer; take one of the kind of BERT or Qwen3")
    positions = getattr(text, "max_position_embeddings", tokenizer.model_max_length)
    if text.model_type in _PADDED_POSITIONS:
        positions -= (text.pad_token_id or 0) + 1
    limit = min(tokenizer.model_max_length, positions)
    if not 0 <= max_tokens <= limit:
        raise ConfigError(f"max_tokens is {max_tokens}; {name} reads at most {limit}")
    siglip = "siglip" in text.model_type  # trained with padding in sight, and no mask
    if siglip and max_tokens not in (0, limit):
        raise ConfigError(f"max_tokens is {max_tokens}; {name} was trained to read just {limit}, padding and all")
    max_tokens = limit if siglip else max_tokens or min(limit, _TOKENS)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_tokens)
    architecture = _architecture(config, "text")
    architecture["pool"] = _text_pool(name, text.model_type) if pool == "auto" else pool
    return TokenPreprocessing(
        architecture,
        backend,
        prefix=document_prefix(name, _source(name)) if prefix == "auto" else prefix,
        pad_id=tokenizer.pad_token_id or 0,
        pad_to=max_tokens if siglip else 0,
    )


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
            _source(name), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    for key, stored, wanted in sorted(report["mismatched_keys"]):
        raise ConfigError(
            f"{key} of {name} is {tuple(stored)} in the weights and {tuple(wanted)} in the configuration: they are of "
            "another one"
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
    deeper = _of_more_blocks(model, report["unexpected_keys"])
    if deeper:
        raise ConfigError(
            f"{name} has weights of more blocks than its configuration says, such as {deeper}: they are of another one"
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
        self.transform = None if stored is None else pixels_from_json(stored)
        self.hears_mask = architecture.get("hears_mask", False)
        self.steps_last = architecture.get("steps_last", False)

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        features = pooled(*self._output(inputs), self.pool)[:, None]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def _output(self, inputs: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """What the network returns, and which positions of its hidden state are real (None: all)."""
        if self.modality == "text":
            mask = inputs["mask"]
            return self.network(input_ids=inputs["ids"], attention_mask=mask.long()), mask
        if self.modality == "audio":
            return self._of_sound(inputs["values"].float(), inputs["lengths"])
        assert self.transform is not None
        pixels = self.transform.normalise(inputs["values"])
        if "shapes" not in inputs:
            return self.network(pixels), None
        mask = real_patches(inputs["shapes"], pixels.shape[1])
        patches = pixels * mask[..., None]
        found = self.network(pixel_values=patches, pixel_attention_mask=mask.long(), spatial_shapes=inputs["shapes"])
        return found, mask

    def _of_sound(self, values: Tensor, lengths: Tensor) -> tuple[Any, Tensor | None]:
        """Positions of the hidden state that hear nothing but padding do not count."""
        settings = {}
        if self.hears_mask:
            settings["attention_mask"] = (torch.arange(values.shape[1], device=values.device) < lengths[:, None]).long()
        if getattr(self.network.config, "enable_fusion", False):
            settings["is_longer"] = torch.zeros_like(values[:, :1, 0, 0], dtype=torch.bool)
        found = self.network(values, **settings)
        hidden = found.last_hidden_state
        if hidden.ndim > 3:
            return found, None
        num_steps = values.shape[-1 if self.steps_last else 1]
        heard = (lengths * hidden.shape[1] + num_steps - 1) // num_steps
        return found, torch.arange(hidden.shape[1], device=values.device) < heard.clamp(min=1)[:, None]


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
    if load:
        return functools.partial(transformers.AutoModel.from_pretrained, trust_remote_code=False)
    return transformers.AutoModel.from_config


def _source(name: EncoderName) -> str:
    return str(name.folder or name.name)


def _config(name: EncoderName) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if name.random and name.folder is None and "/" not in name.name:
        if name.name not in CONFIG_MAPPING:
            raise ConfigError(unknown_name("model type of transformers", name.name, CONFIG_MAPPING.keys()))
        return CONFIG_MAPPING[name.name]()
    if name.folder is None and name.name in CONFIG_MAPPING:
        raise ConfigError(
            f"{name.name} is a type of model, without weights; write transformers:ORGANISATION/NAME or {name}@random"
        )
    with loading(name, "configuration"):
        return AutoConfig.from_pretrained(_source(name), trust_remote_code=False)


def _text_pool(name: EncoderName, model_type: str) -> str:
    """As sentence-transformers has stored it beside the network, else as its family does it."""
    stored = stored_pool(name, _source(name))
    if stored is not None:
        return stored
    if any(family in model_type for family in ("clip", "siglip")):
        return "pooler"
    return "last" if model_type in _CAUSAL_LAST else "mean"


def _of_more_blocks(model: Any, unexpected: list[str]) -> str | None:
    """The first of the unexpected weights that belongs to a block above the highest of its list."""
    highest: dict[str, int] = {}
    for key in model.state_dict():
        for found in re.finditer(r"\.(\d+)\.", key):
            start = key[: found.start()]
            highest[start] = max(highest.get(start, 0), int(found[1]))
    for key in sorted(unexpected):
        for found in re.finditer(r"\.(\d+)\.", key):
            if int(found[1]) > highest.get(key[: found.start()], int(found[1])):
                return key
    return None


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
