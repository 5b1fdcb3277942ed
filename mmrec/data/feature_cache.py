"""What a frozen network made of media, kept on disk beside the dataset, by the hash of each medium.

Format, version 1, one folder for each network and modality, named by what decides the values::

    features/cache/<modality>-<key>/part-<hash>/
        values.npy     float32 or float16 (R, ...): the rows of all media of the part, one after the other
        index.npz      media: uint64 (n,), XXH3 of each medium; lengths: int64 (n,), its rows

A part is written under a temporary name and renamed, so that an interrupted run goes on after the last part, and
several runs may fill one cache; a medium that changes has another hash, and is encoded anew; equal media are kept
once. Nothing here is part of the dataset: the folder ``features/cache`` can be removed at any time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import xxhash
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.errors import DataError

__all__ = ["FeatureCache"]

# After this time nobody is still writing a part; what a killed process left is removed.
_LEFT_OVER_S = 86_400.0


class FeatureCache:
    """The kept outputs of one network for one modality.

    Args:
        dataset: beside which they are kept.
        modality: of its media.
        key: hash of all that decides the values: weights, preprocessing, what is kept, number format.
    """

    def __init__(self, dataset: Dataset, modality: str, key: str) -> None:
        self.folder = dataset.path / "features" / "cache" / f"{modality}-{key[:16]}"
        self._values: list[np.ndarray] = []
        self._where: dict[int, tuple[int, int, int]] = {}  # medium -> part, first row, rows
        self._parts: set[str] = set()
        self._media = dataset.media_hashes(modality)
        for scratch in self.folder.glob(".part-*"):
            if time.time() - scratch.stat().st_mtime > _LEFT_OVER_S:
                shutil.rmtree(scratch, ignore_errors=True)
        self.refresh()

    def refresh(self) -> None:
        """Look for parts that have come since."""
        for path in sorted(self.folder.glob("part-????????????????")):
            if path.name not in self._parts:
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            with np.load(path / "index.npz") as index:
                media, lengths = index["media"], index["lengths"]
            values = _mapped(path / "values.npy")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is damaged ({error}); remove it, it is computed again") from error
        if len(media) != len(lengths) or len(values) != lengths.sum():
            raise DataError(f"{path} is damaged (rows are missing); remove it, it is computed again")
        starts = np.cumsum(lengths) - lengths
        rows = zip(media.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        self._where |= {medium: (len(self._values), start, length) for medium, start, length in rows}
        self._values.append(values)
        self._parts.add(path.name)

    def missing(self, item_idx: np.ndarray) -> np.ndarray:
        """Of the given items, one of each medium that is not kept."""
        first: dict[int, int] = {}
        for item, medium in zip(item_idx.tolist(), self._media[item_idx].tolist(), strict=True):
            if medium not in self._where:
                first.setdefault(medium, item)
        return np.array(list(first.values()), dtype=np.int64)

    def unreadable(self, item_idx: np.ndarray) -> np.ndarray:
        """True for items whose medium is kept as nothing. (P,)"""
        return np.array([self._where[medium][2] == 0 for medium in self._media[item_idx].tolist()], dtype=bool)

    def write(self, item_idx: np.ndarray, values: list[np.ndarray]) -> None:
        """Keep the rows of some items, (rows, ...) each; no rows for a medium that cannot be read.

        Raises: DataError if the folder cannot be written.
        """
        media = self._media[item_idx].astype(np.uint64)
        path = self.folder / f"part-{xxhash.xxh3_64_hexdigest(media.tobytes())}"
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # processes of other machines write here too
        try:
            scratch.mkdir(parents=True)
            np.save(scratch / "values.npy", np.concatenate(values))
            np.savez(
                scratch / "index.npz", media=media, lengths=np.array([len(rows) for rows in values], dtype=np.int64)
            )
            for file in scratch.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            scratch.rename(path)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if not path.exists():  # else another process was faster
                raise DataError(
                    f"cannot keep features in {self.folder}: {error}; --no-feature-cache encodes in every step instead"
                ) from error

    def read(self, item_idx: np.ndarray) -> tuple[Tensor, Tensor]:
        """Rows of the given items, padded to the longest, and which are real. ("P", "T", ...), ("P", "T")"""
        found = [self._where[medium] for medium in self._media[item_idx].tolist()]
        rows = [self._values[part][start : start + length] for part, start, length in found]
        longest = max((length for _, _, length in found), default=1)
        like = next((values for values in self._values if len(values)), np.zeros((0, 1), dtype=np.float32))
        values = np.zeros((len(rows), longest, *like.shape[1:]), dtype=like.dtype)
        mask = np.zeros((len(rows), longest), dtype=bool)
        for place, real in enumerate(rows):
            values[place, : len(real)] = real
            mask[place, : len(real)] = True
        return torch.from_numpy(values), torch.from_numpy(mask)


def _mapped(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, read where it is looked at.

    ``np.load`` keeps a file descriptor for each file that it maps, of which a process has some thousand; a large
    catalogue has more parts.

    Raises: ValueError if it is damaged or cut off.
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path.name} is of another version of the format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        size = os.fstat(file.fileno()).st_size
    if size != start + dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path.name} of {size:,} bytes is cut off")
    return (
        torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        .numpy()[start:]
        .view(dtype)
        .reshape(shape)
    )
