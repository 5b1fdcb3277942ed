"""The preprocessing of pictures and clips that a folder or the hub stores beside a network of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import NETWORK_ERRORS, first_line, loading
from mmrec.modality_encoders.foundation.pixels import PatchTransform, Pixels, PixelTransform, real_patches

__all__ = ["describe_transform"]

_RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

_STEPS = 3.0
"""Steps of 8 bits by which a pixel may differ from what the library's own processor makes of it: rounding."""


def describe_transform(name: EncoderName, source: str, config: Any, modality: str) -> Pixels:
    """The preprocessing of the weights, tried on two pictures against the library's own.

    Args:
        source: folder, or name on the hub.
        config: of the network.

    Raises: ConfigError if there is none, or if it is one that mmrec has not.
    """
    vision = getattr(config, "vision_config", config)
    if name.random and name.folder is None:
        return _of_random_weights(name, vision)
    processor = _processor(name, source, config, modality)
    try:
        transform = _transform(processor.to_dict(), vision)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{name} prepares pictures by {type(processor).__name__}, which mmrec cannot read: {first_line(error)}"
        ) from error
    _compare(name, processor, transform, modality)
    return transform


def _of_random_weights(name: EncoderName, vision: Any) -> Pixels:
    """Nothing is known of weights that there are not: the size of the architecture, a scale of -1 to 1."""
    scale: dict[str, Any] = {"interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    if vision.model_type.startswith("siglip2"):
        return PatchTransform(patch_px=vision.patch_size, max_patches=vision.num_patches, **scale)
    size = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None)
    if size is None:
        raise ConfigError(f"{name} does not look at pictures: its configuration has no image_size")
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return PixelTransform(height=height, width=width, resize_px=None, **scale)


def _processor(name: EncoderName, source: str, config: Any, modality: str) -> Any:
    """The network's image or video processor."""
    import transformers

    with loading(name, "preprocessing"):
        if modality == "video" and config.model_type == "vjepa2":
            return transformers.AutoVideoProcessor.from_pretrained(source, trust_remote_code=False)
        return transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)


def _transform(processor: dict[str, Any], vision: Any) -> Pixels:
    scale: dict[str, Any] = _scale(processor) | {
        "interpolation": _RESAMPLING.get(int(processor.get("resample", 2)), "another")
    }
    if "max_num_patches" in processor and "patch_size" in processor:
        return PatchTransform(patch_px=processor["patch_size"], max_patches=processor["max_num_patches"], **scale)
    size, crop = processor.get("size") or {}, processor.get("crop_size") if processor.get("do_center_crop") else None
    resize_px = size.get("shortest_edge")
    shape = crop or (size if resize_px is None else {"height": resize_px, "width": resize_px})
    if resize_px is None and crop and (size["height"], size["width"]) != (crop["height"], crop["width"]):
        resize_px = min(size["height"], size["width"])
    if "crop_pct" in processor and crop is None and resize_px is not None:  # ConvNeXt: large pictures are not cut
        resize_px = int(resize_px / processor["crop_pct"]) if resize_px < 384 else None
    return PixelTransform(height=shape["height"], width=shape["width"], resize_px=resize_px, crop="floor", **scale)


def _scale(processor: dict[str, Any]) -> dict[str, Any]:
    """Mean and deviation on a scale of 0 to 1, whatever the processor multiplies pixels by before it subtracts."""
    factor = 255.0 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("offset") and processor.get("do_rescale", True) else 0.0
    normalise = processor.get("do_normalize", True)
    mean = processor["image_mean"] if normalise else (0.0, 0.0, 0.0)
    std = processor["image_std"] if normalise else (1.0, 1.0, 1.0)
    return {"mean": tuple((m + offset) / factor for m in mean), "std": tuple(s / factor for s in std)}


def _compare(name: EncoderName, processor: Any, transform: Pixels, modality: str) -> None:
    """Raises: ConfigError if the library's processor makes something else of a wide and of a high picture."""
    for number, (height, width) in enumerate(((60, 90), (96, 60))):
        noise = np.random.default_rng(number).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
        picture = np.repeat(np.repeat(noise, 6, 0), 6, 1)  # flat squares, as pictures are smooth
        try:
            expected = _as_the_library_does_it(processor, picture, modality)
        except NETWORK_ERRORS as error:
            raise ConfigError(
                f"{name} prepares {modality} by {type(processor).__name__}, which takes no picture: {first_line(error)}"
            ) from error
        inputs = transform.collate(list(transform(picture[None])))
        found = transform.normalise(inputs["values"])
        if "shapes" in inputs:
            found = found * real_patches(inputs["shapes"], found.shape[1])[..., None]
        step = min(transform.std) * 255.0
        if expected.shape != found.shape or (expected - found).abs().max() * step > _STEPS:
            raise ConfigError(
                f"{name} prepares {modality} by {type(processor).__name__} in a way that mmrec has not: it resizes, "
                "cuts out the centre and normalises; take another encoder"
            )


def _as_the_library_does_it(processor: Any, picture: np.ndarray, modality: str) -> torch.Tensor:
    """(1, 3, H, W), or (1, N, 3 S S) in patches."""
    from PIL import Image

    key = processor.model_input_names[0]
    if "VideoProcessor" in type(processor).__name__:
        clip = torch.from_numpy(np.stack([picture] * 2)).permute(0, 3, 1, 2)
        return processor([clip], do_sample_frames=False, return_tensors="pt")[key][0, :1]
    found = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    return found.flatten(0, found.ndim - 4) if found.ndim > 4 else found  # a clip of one frame
