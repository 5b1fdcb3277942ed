"""What the homes of foundation encoders share: networks from collated inputs to features, and how outputs are pooled.

Legend: P items, F frames, T tokens, W width of the network.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.pixels import pixels_from_json
from mmrec.modality_encoders.foundation.preprocessing import Architecture

__all__ = ["NETWORK_ERRORS", "Features", "FrameByFrame", "PixelNetwork", "Pool", "first_line", "loading", "pooled"]

Features = tuple[Tensor, Tensor]
"""Pooled outputs ("P", "T", "W") and their mask ("P", "T"), True = real."""

Pool = Literal["auto", "mean", "cls", "last", "pooler"]
"""mean over the real positions; their first (cls); their last; or what the network itself makes of them (pooler)."""


class PixelNetwork(nn.Module):
    """Normalises pixels and hands them to a network that pools by itself: one token."""

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.network = network
        self.transform = pixels_from_json(architecture["transform"])

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        found = self.network(self.transform.normalise(inputs["values"]))
        features = (found[0] if isinstance(found, tuple) else found)[:, None]  # open_clip may add its tokens
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)


class FrameByFrame(nn.Module):
    """Reads a clip with a network of pictures: one token a frame."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: dict[str, Tensor]) -> Features:
        mask = inputs["mask"]  # (P, F)
        frames = {key: value[mask] for key, value in inputs.items() if key != "mask"}  # real ones only
        features = self.network(frames)[0][:, 0]
        return features.new_zeros(*mask.shape, features.shape[-1]).index_put((mask,), features), mask


def pooled(output: Any, mask: Tensor | None, pool: str) -> Tensor:
    """One vector an item, ("P", "W"), of what a network of transformers returns.

    Args:
        mask: real positions of its last hidden state, ("P", "T"); None: all.
    """
    if pool == "pooler":
        found = getattr(output, "pooler_output", None)
        if found is None:
            raise ConfigError("this network has no output of its own for the whole; give pool mean, cls or last")
        return found
    hidden = output.last_hidden_state  # (P, T, W)
    if hidden.ndim > 3:  # a map of two dimensions, channels first
        hidden, mask = hidden.flatten(2).transpose(1, 2), None
    if pool == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden[:, -1] if pool == "last" else hidden.mean(1)
    if pool == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.long().cumsum(1).argmax(1)]
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


_LONGEST_LINE = 240
"""Characters of what a library says that are handed on; some list all that they know."""

NETWORK_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
)
"""What the libraries raise on files and inputs that they cannot use."""


@contextlib.contextmanager
def loading(name: EncoderName, what: str) -> Iterator[None]:
    """Turn what a library raises while it loads ``what`` into one line. Raises: ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(f"the {what} of {name} needs a package that is not installed: {first_line(error)}") from error
    except (*NETWORK_ERRORS, SafetensorError, UnpicklingError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{name} is made of code that lies beside its weights, which mmrec does not run; take an encoder of a "
                "type that transformers knows"
            ) from error
        hint = (
            ""
            if name.folder
            else f"; {_near(name)}offline, only the hub's local cache is read" + (" (HF_HUB_OFFLINE=0 downloads)")
        )
        raise ConfigError(f"{name.framework} cannot load the {what} of {name}: {first_line(error)}{hint}") from error


def _near(name: EncoderName) -> str:
    """Names in the hub's cache that are like one that is not there."""
    from huggingface_hub import constants

    cached = [path.name for path in Path(constants.HF_HUB_CACHE).glob("models--*--*")]
    names = [path.removeprefix("models--").replace("--", "/", 1) for path in cached]
    nearest = difflib.get_close_matches(name.name, [known for known in names if known != name.name])
    return f"perhaps you meant {' or '.join(nearest)}; " if nearest else ""


def first_line(error: BaseException) -> str:
    """What an error says, in a line of bearable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith("Error(s) in loading state_dict") and len(lines) > 1:
        lines = [f"they are of another architecture: {lines[1].rstrip('.')}"]
    text = " ".join(lines) if lines[0].endswith(":") else lines[0]
    if len(text) <= _LONGEST_LINE:
        return text
    sentence = text.split(". ")[0]
    return sentence if len(sentence) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} ..."
