"""How the numbers of a vector are stored: float32 as they are, or in fewer bytes.

Legend: n vectors, D width, W stored numbers a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmrec.errors import ConfigError, DataError, unknown_name

__all__ = ["ENCODINGS", "Encoding", "encoding_of"]

Codes = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Encoding:
    """A number format.

    Attributes:
        name: dtype in the manifest.
        stored: of the stored numbers.
        says: how stored numbers become a vector, for manifest and card.
        has_scale: whether each vector brings a float32 ``scale``.
        encode: float32 (n, D) -> stored (n, W), and scales (n,) or None. A function of each vector alone, so that the
            bytes do not hang on what is encoded together.
        decode: stored (n, W), scales, D -> float32 (n, D).
    """

    name: str
    stored: type[np.generic]
    says: str
    has_scale: bool
    encode: Callable[[np.ndarray], Codes]
    decode: Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]

    def width(self, dim: int) -> int:
        """Stored numbers of a vector of ``dim`` dimensions."""
        return -(-dim // 8) if self.name == "binary" else dim


def encoding_of(name: str) -> Encoding:
    """Raises: ConfigError if there is no such dtype."""
    if name not in ENCODINGS:
        raise ConfigError(unknown_name("dtype", name, ENCODINGS))
    return ENCODINGS[name]


def _as_they_are(vectors: np.ndarray) -> Codes:
    return np.asarray(vectors, dtype=np.float32), None


def _to_half(vectors: np.ndarray) -> Codes:
    with np.errstate(over="ignore"):
        codes = vectors.astype(np.float16)
    if not np.isfinite(codes).all():
        raise DataError("vectors with values past 65,504 do not fit float16; export them as float32")
    return codes, None


def _to_int8(vectors: np.ndarray) -> Codes:
    """127 for the largest entry of each vector; the scale gives the decoded vector the length of the given one."""
    exact = vectors.astype(np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    codes = np.rint(exact * (127.0 / np.where(largest > 0, largest, 1.0)))
    lengths = np.linalg.norm(codes, axis=1)
    scale = np.linalg.norm(exact, axis=1) / np.where(lengths > 0, lengths, 1.0)
    return codes.astype(np.int8), scale.astype(np.float32)


def _from_int8(codes: np.ndarray, scale: np.ndarray | None, dim: int) -> np.ndarray:
    assert scale is not None, "int8 has scales"
    return codes.astype(np.float32) * scale[:, None]


def _to_bits(vectors: np.ndarray) -> Codes:
    return np.packbits(vectors > 0, axis=1), None


def _from_bits(codes: np.ndarray, scale: np.ndarray | None, dim: int) -> np.ndarray:
    signs = np.unpackbits(codes, axis=1, count=dim).astype(np.float32)
    return (2.0 * signs - 1.0) * np.float32(dim**-0.5)


def _from_float(codes: np.ndarray, scale: np.ndarray | None, dim: int) -> np.ndarray:
    return codes.astype(np.float32, copy=False)


_SAYS = {
    "float32": "each vector is as the model scores it",
    "float16": "each number is rounded to half precision",
    "int8": "vector = int8 numbers times the scale of their row, which keeps the vector's length",
    "binary": "bit d, the highest of each byte first, is set where entry d is above 0; vector = +1 or -1 / sqrt(dim)",
}
ENCODINGS = {
    "float32": Encoding("float32", np.float32, _SAYS["float32"], False, _as_they_are, _from_float),
    "float16": Encoding("float16", np.float16, _SAYS["float16"], False, _to_half, _from_float),
    "int8": Encoding("int8", np.int8, _SAYS["int8"], True, _to_int8, _from_int8),
    "binary": Encoding("binary", np.uint8, _SAYS["binary"], False, _to_bits, _from_bits),
}
