"""Encoders of pictures and texts at home in open_clip."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import Features, PixelNetwork, loading
from mmrec.modality_encoders.foundation.pixels import PixelTransform
from mmrec.modality_encoders.foundation.preprocessing import Architecture, FoundationPreprocessing

__all__ = ["OpenClipTokens", "build", "describe_image", "describe_text", "load"]


def describe_image(name: EncoderName) -> Architecture:
    """The image tower, with the preprocessing of its weights. Raises: ConfigError if there is no such network."""
    model_config, preprocessing = _configs(name)
    size = preprocessing.get("size") or model_config["vision_cfg"].get("image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    mode = preprocessing.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise ConfigError(f"{name} wants resize_mode {mode!r}, which mmrec has not; it has shortest and squash")
    transform = PixelTransform(
        height=height,
        width=width,
        resize_px=None if mode == "squash" else min(height, width),
        interpolation=preprocessing.get("interpolation") or "bicubic",
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
    )
    return {"framework": "open_clip", "model": model_config, "part": "image", "transform": transform.to_json()}


def describe_text(name: EncoderName) -> OpenClipTokens:
    """The text tower and its tokenizer. Raises: ConfigError if either is not to be had."""
    model_config, _ = _configs(name)
    return OpenClipTokens({"framework": "open_clip", "model": model_config, "part": "text"}, _tokenizer(name))


def build(architecture: Architecture) -> nn.Module:
    """The tower with random weights."""
    from open_clip import CLIP, CustomTextCLIP

    config = json.loads(json.dumps(architecture["model"]))  # open_clip changes it
    custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    config.pop("multimodal_cfg", None)
    return _tower((CustomTextCLIP if custom else CLIP)(**config), architecture)


def load(name: EncoderName, architecture: Architecture) -> nn.Module:
    """The tower with its weights. Raises: ConfigError if they are not to be had, or do not fit."""
    import open_clip

    with loading(name, "weights"):
        if name.folder is not None:
            model = open_clip.create_model(f"local-dir:{name.folder}", require_pretrained=True)
        else:
            model_name, tag = _name_and_tag(name)
            if not tag:
                tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name)) or "none"
                raise ConfigError(
                    f"{name} names no weights; write open_clip:{model_name}/TAG (tags: {tags}) or @random"
                )
            model = open_clip.create_model(model_name, pretrained=tag, require_pretrained=True)
    return _tower(model, architecture)


class OpenClipTokens(FoundationPreprocessing):
    """Text -> token ids, always as many as the network reads: it was trained with its padding in sight.

    Args:
        tokenizer: of open_clip.
    """

    brings_inputs = True
    sees_padding = True

    def __init__(self, architecture: Architecture, tokenizer: Any) -> None:
        super().__init__(architecture)
        self.tokenizer = tokenizer

    def __call__(self, raw: str) -> np.ndarray:
        return self.tokenizer([raw])[0].numpy().astype(np.int32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        ids = torch.from_numpy(np.stack(samples).astype(np.int64))
        return {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}

    def blank(self, num_items: int) -> dict[str, Tensor]:
        return self.collate([self("")] * num_items)

    def save(self, folder: Path) -> None:
        super().save(folder)
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder / "tokenizer"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

        architecture = json.loads((folder / "architecture.json").read_text())["architecture"]
        text = architecture["model"]["text_cfg"]
        length, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
        if (folder / "tokenizer").is_dir():
            mode = text.get("tokenizer_mode")
            return cls(architecture, HFTokenizer(str(folder / "tokenizer"), length, tokenizer_mode=mode, **options))
        return cls(architecture, SimpleTokenizer(context_length=length, **options))


class _TextTower(nn.Module):
    """The text side of a model: one token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name in ("visual", "logit_scale", "logit_bias"):
            if getattr(model, name, None) is not None:
                delattr(model, name)
                setattr(model, name, None)
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        features = self.model.encode_text(inputs["ids"])[:, None]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)


def _tower(model: Any, architecture: Architecture) -> nn.Module:
    if architecture["part"] == "text":
        return _TextTower(model)
    return PixelNetwork(model.visual, architecture)


def _name_and_tag(name: EncoderName) -> tuple[str, str]:
    model_name, _, tag = name.name.partition("/")
    return model_name, tag


def _configs(name: EncoderName) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration of the model, and of the preprocessing that belongs to the weights."""
    import open_clip
    from open_clip.transform import PreprocessCfg

    plain = asdict(PreprocessCfg())
    plain["size"] = None
    if name.folder is not None:
        path = name.folder / "open_clip_config.json"
        if not path.is_file():
            raise ConfigError(f"{name.folder} holds no open_clip_config.json, so it is no folder of open_clip")
        with loading(name, "configuration"):
            stored = json.loads(path.read_text())
            if "model_cfg" not in stored:
                raise ConfigError(f"{path} has no model_cfg, so it is none of open_clip's")
        return stored["model_cfg"], plain | stored.get("preprocess_cfg", {})
    model_name, tag = _name_and_tag(name)
    config = open_clip.get_model_config(model_name)
    if config is None:
        nearest = difflib.get_close_matches(model_name, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f"; perhaps you meant {' or '.join(nearest)}" if nearest else ""
        raise ConfigError(f"open_clip has no model {model_name!r}{hint}; open_clip.list_models() lists all")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if tag and tag not in tags:
        raise ConfigError(f"open_clip has no weights {tag!r} for {model_name}; it has {', '.join(tags) or 'none'}")
    return config, plain | (open_clip.get_pretrained_cfg(model_name, tag) if tag else {})


def _tokenizer(name: EncoderName) -> Any:
    import open_clip

    source = f"local-dir:{name.folder}" if name.folder is not None else _name_and_tag(name)[0]
    with loading(name, "tokenizer"):
        return open_clip.get_tokenizer(source)
