"""Histories of users as flat arrays with offsets: on disk as Arrow lists, in memory as numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Sequences", "pack", "ragged_range"]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Events of U users, packed: user u owns events ``offsets[u]:offsets[u + 1]``, oldest first.

    Attributes:
        user_ids: the ids of the user's own table, as strings. (U,)
        offsets: int64. (U + 1,)
        item_idx: int32 catalogue indices. (N,)
        timestamps: int64 seconds since 1970, or None where the interactions have no time. (N,)
        split: int8, 0 train, 1 valid, 2 test, where the interactions bring their own split, else None. (N,)
        order: what the order of events rests on: "timestamp", "position", or "none" (histories are sets).
    """

    user_ids: np.ndarray
    offsets: np.ndarray
    item_idx: np.ndarray
    timestamps: np.ndarray | None
    split: np.ndarray | None
    order: str

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
        events = ragged_range(self.offsets[users], lengths)
        return Sequences(
            user_ids=self.user_ids[users],
            offsets=pack(lengths),
            item_idx=self.item_idx[events],
            timestamps=None if self.timestamps is None else self.timestamps[events],
            split=None if self.split is None else self.split[events],
            order=self.order,
        )

    def select(self, keep: np.ndarray) -> Sequences:
        """The same users with only the events where ``keep`` is True; users may become empty."""
        users = np.repeat(np.arange(len(self)), self.lengths)[keep]
        return Sequences(
            user_ids=self.user_ids,
            offsets=pack(np.bincount(users, minlength=len(self))),
            item_idx=self.item_idx[keep],
            timestamps=None if self.timestamps is None else self.timestamps[keep],
            split=None if self.split is None else self.split[keep],
            order=self.order,
        )


def pack(lengths: np.ndarray) -> np.ndarray:
    """Offsets of a packed array from the length of each part: int64, one longer than ``lengths``."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def ragged_range(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[*range(s, s + n) for s, n in zip(starts, lengths)]`` without the loop: positions of packed rows. int64"""
    offsets = pack(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
