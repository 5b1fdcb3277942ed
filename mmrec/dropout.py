"""Dropout that is the same on any number of processes, and that does not dominate a small model's step on a CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

__all__ = ["Dropout", "number_dropouts"]


def _int64(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


_STEP, _FIRST, _SECOND = map(_int64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_PLACE = 0xD1342543DE82EF95


class Dropout(nn.Module):
    """``nn.Dropout`` whose choice is a function of each row's key and of the place of the module in the model.

    PyTorch draws from a generator, row after row: which rows a process holds, and in what order, then decides what is
    dropped. Keys that name a row for what it is (event 7 of history 12 in this step) make the loss curve of one process
    that of many, let a resumed run drop what the uninterrupted one would have dropped, and make what is computed again
    in the backward pass what it was.

    One byte of a hash decides over an entry: 4 times as fast as ``nn.Dropout`` on one CPU thread (2026-11-26,
    ``python -m eval.benchmarks.dropout``). The rate is rounded to a multiple of 1/256, and what is kept is scaled by
    the rounded rate: the expectation is exact.

    Args:
        rate: share of entries that are set to zero in training; at least 0, less than 1.

    Attributes:
        place: number of the module in its model; two modules with one place would drop the same entries.

    Source: Srivastava et al. 2014; bits by the mixing steps of splitmix64 (Steele et al. 2014).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.place = 0

    def forward(self, values: Float[Tensor, "N ..."], key: Int[Tensor, " N"] | None) -> Float[Tensor, "N ..."]:
        """Args: key: of each row, 64 random bits; None in evaluation."""
        if not self.training or self.rate == 0.0 or not values.numel():
            return values
        assert key is not None, "dropout in training needs the keys of its rows"
        drawn = _bytes_of(key, values[0].numel(), self.place).reshape(values.shape).to(values.dtype)
        dropped = min(round(256 * self.rate), 255)
        # Arithmetic is vectorised where comparisons are not: 1 from ``dropped`` on, else -1; then 2 or 0; then scaled.
        keep = drawn.sub_(dropped - 0.5).sign_().add_(1.0).mul_(128 / (256 - dropped))
        return values * keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


@torch.compiler.disable()  # the compiler's integers are exact: it refuses constants that are meant to wrap around
def _bytes_of(key: Int[Tensor, " N"], num_columns: int, place: int) -> UInt8[Tensor, "N C"]:
    """So many bytes of each key's hash."""
    word = torch.arange(1, -(-num_columns // 8) + 1, device=key.device)
    bits = key[:, None] + (word * _STEP + _int64(place * _PLACE % 2**64))
    _fold(bits, 30).mul_(_FIRST)
    _fold(bits, 27).mul_(_SECOND)
    _fold(bits, 31)
    return bits.view(torch.uint8)[:, :num_columns]


def _fold(bits: Tensor, shift: int) -> Tensor:
    """``bits ^= bits >> shift`` without the sign, which PyTorch's shift would copy into the free places."""
    return bits.bitwise_xor_((bits >> shift).bitwise_and_((1 << 64 - shift) - 1))


def number_dropouts(model: nn.Module) -> None:
    """Give each :class:`Dropout` of a model a place of its own, in the order of its modules."""
    for place, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.place = place
