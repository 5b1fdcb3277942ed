"""Arrays in ``.npy`` files of unknown origin, mapped into memory after a look at their header.

Source: the format as NumPy documents it (numpy.lib.format): magic, version, length of the header, and as the header the
text of a dictionary. NumPy reads that with Python's own parser, and sets aside whatever length is stated.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from mmrec.errors import DataError

__all__ = ["finite_rows", "map_npy"]

_MAGIC = b"\x93NUMPY"
# Headers of arrays of numbers have 128 bytes; 64 KB are all that version 1 can state.
_HEADER_BYTES = 1 << 16
_FIELDS = {
    "descr": re.compile(r"""['"]descr['"]\s*:\s*['"]([<>=|]?[a-zA-Z]\d*)['"]"""),
    "fortran_order": re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)"""),
    "shape": re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,L]*)\)"""),  # 3L: written by Python 2
}
_WANTED = "it must be numbers of shape (items, dim), written with numpy.save"


def map_npy(path: Path) -> np.ndarray:
    """The array of numbers in ``path``, of one or two dimensions, mapped: no more is read than is looked at.

    Raises:
        DataError: before anything is mapped, if the file cannot be opened, is no such array, holds Python objects
            (pickles), or other than just the bytes that its header tells of.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    shape, dtype, fortran_order, start = _header(path, head)
    described = f"{dtype} of shape {shape}"
    if dtype.kind not in "fiub" or len(shape) not in (1, 2) or min(shape) < 1:
        raise DataError(f"{path} holds {described}; {_WANTED}")
    told, found = math.prod(shape) * dtype.itemsize, size - start
    if told != found:
        raise DataError(f"{path} is cut off or damaged: {described} is {told:,} bytes, and {found:,} follow the header")
    return np.memmap(path, dtype, mode="r", offset=start, shape=shape, order="F" if fortran_order else "C")


def _header(path: Path, head: bytes) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Shape, kind of numbers, whether the first index runs fastest, and where the numbers begin."""
    if not head.startswith(_MAGIC) or len(head) < 12:
        known = ((b"PK", "an archive (.npz)"), (b"\x80", "pickled Python objects"), (_MAGIC, "a few bytes"))
        kind = next((what for start, what in known if head.startswith(start)), "something else")
        raise DataError(f"{path} cannot be read as .npy: it holds {kind}; {_WANTED}")
    width = 2 if head[6] == 1 else 4
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if head[6] not in (1, 2, 3) or start > len(head):
        raise DataError(
            f"{path} cannot be read as .npy: its header of {start:,} bytes is cut off or damaged; {_WANTED}"
        )
    text = head[8 + width : start].decode("latin-1")
    found = {name: pattern.search(text) for name, pattern in _FIELDS.items()}
    lacking = [name for name, match in found.items() if match is None]
    try:
        descr, fortran_order, shape = (match[1] for match in found.values() if match is not None)
        sizes = tuple(int(number.strip().rstrip("L")) for number in shape.split(",") if number.strip())
        if any(number > 1 << 60 for number in sizes):
            raise ValueError(f"a shape of {max(sizes):.1g}")
        return sizes, np.dtype(descr), fortran_order == "True", start
    except (ValueError, TypeError) as error:
        reason = f"no plain {' and '.join(lacking)}" if lacking else " ".join(str(error).split())[:60]
        raise DataError(f"{path} cannot be read as .npy: {reason} in its header; {_WANTED}") from error


def finite_rows(block: np.ndarray) -> np.ndarray:
    """Which vectors (N, dim) a network can take: without NaN or infinity, of a length that float32 holds. bool (N,)"""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(block, dtype=np.float32)
        return np.isfinite(np.einsum("nd,nd->n", values, values))
