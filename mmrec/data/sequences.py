"""Histories of users as flat arrays with offsets: on disk as Arrow lists, in memory as numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.dtypes import StringDType

__all__ = ["Sequences", "id_array", "pack", "ragged_range"]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Events of U users, packed: user u owns events ``offsets[u]:offsets[u + 1]``, oldest first.

    Attributes:
        user_ids: the ids of the user's own table, as ``id_array`` makes them. (U,)
        offsets: int64. (U + 1,)
        item_idx: int32 catalogue indices. (N,)
        timestamps: int64 seconds since 1970, or None where the interactions have no time. (N,)
        split: int8, 0 train, 1 valid, 2 test, where the interactions bring their own split, else None. (N,)
        order: what the order of events rests on: "timestamp", "position", or "none" (histories are sets).
        weights: float32, finite and above 0, how much each event counts, or None where all count alike. (N,)
    """

    user_ids: np.ndarray
    offsets: np.ndarray
    item_idx: np.ndarray
    timestamps: np.ndarray | None
    split: np.ndarray | None
    order: str
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def items_of(self, user: int) -> np.ndarray:
        """Catalogue indices of the user's events, oldest first."""
        return self.item_idx[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: np.ndarray) -> Sequences:
        """The given users, in that order, with all their events."""
        lengths = self.lengths[users]
        return self.gather(users, lengths, ragged_range(self.offsets[users], lengths))

    def select(self, keep: np.ndarray) -> Sequences:
        """The same users with only the events where ``keep`` is True; users may become empty."""
        users = np.repeat(np.arange(len(self)), self.lengths)[keep]
        return self.gather(np.arange(len(self)), np.bincount(users, minlength=len(self)), keep)

    def gather(self, users: np.ndarray, lengths: np.ndarray, events: np.ndarray) -> Sequences:
        """Histories of the given users, the n-th with the next ``lengths[n]`` of ``events``.

        Args:
            events: positions of events of these sequences, or a mask of them.
        """

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[events]

        return Sequences(
            user_ids=self.user_ids[users],
            offsets=pack(lengths),
            item_idx=self.item_idx[events],
            timestamps=of(self.timestamps),
            split=of(self.split),
            order=self.order,
            weights=of(self.weights),
        )


def id_array(ids: Iterable[str]) -> np.ndarray:
    """Strings of any length side by side: one long id among a million costs its own bytes, and not a million times."""
    return np.array(list(ids), dtype=StringDType())


def pack(lengths: np.ndarray) -> np.ndarray:
    """Offsets of a packed array from the length of each part: int64, one longer than ``lengths``."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def ragged_range(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[*range(s, s + n) for s, n in zip(starts, lengths)]`` without the loop: positions of packed rows. int64"""
    offsets = pack(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
