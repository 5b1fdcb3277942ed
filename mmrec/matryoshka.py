"""Vectors of which any trained prefix is a vector too (Kusupati et al. 2022, Matryoshka representation learning).

A model that was trained at width w has item vectors of w dimensions, the first w of the whole ones at unit length; its
user encoder reads them followed by zeros, and the first w dimensions of what it gives, at unit length, are the user's
vector. So a shorter export needs nothing of the longer one, for its histories neither.

Measured 2026-11-26 on Amazon Scientific (seed 0, 2-core CPU that other work shared; `mmrec train features
--model.matryoshka 16 32`, `mmrec evaluate --dim`), HR@10/NDCG@10: .1629/.0972 at 16 dimensions, .1766/.1080 at 32,
.1848/.1184 at all 128; trained for 128 alone .1868/.1204.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmrec.errors import ConfigError

__all__ = ["check_width", "check_widths", "narrow", "widen"]


def narrow(vectors: Float[Tensor, "n D"], width: int) -> Float[Tensor, "n w"]:
    """The first ``width`` dimensions at unit length; vectors of that width as they are."""
    return vectors if vectors.shape[-1] == width else F.normalize(vectors[..., :width], dim=-1)


def widen(vectors: Float[Tensor, "n w"], dim: int) -> Float[Tensor, "n D"]:
    """Vectors followed by zeros, as networks of width ``dim`` read them."""
    return F.pad(vectors, (0, dim - vectors.shape[-1]))


def check_widths(widths: Sequence[int], dim: int) -> None:
    """Raises: ConfigError if widths to train for do not ascend, or do not lie below ``dim``."""
    if any(not 1 <= width < dim for width in widths) or sorted(set(widths)) != list(widths):
        given = " ".join(map(str, widths))
        raise ConfigError(f"matryoshka is {given}; give widths in ascending order, each at least 1 and less than {dim}")


def check_width(width: int, trained: Sequence[int], dim: int) -> None:
    """Raises: ConfigError if the model was not trained to be cut to ``width`` dimensions."""
    if width not in (*trained, dim):
        others = " or ".join(map(str, (*trained, dim)))
        raise ConfigError(
            f"dim is {width}; this model has vectors of {others} dimensions (train with --model.matryoshka {width})"
        )
