"""Random numbers as functions of what they are for, and of nothing else.

What training draws (order of samples, negatives, masks, hidden modalities, dropout) depends on keys such as
(seed, epoch, step, item): never on a generator's state, a worker, or the number of processes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from jaxtyping import Int, UInt64

__all__ = ["Purpose", "draw_keys", "mix", "random_generator"]


class Purpose(IntEnum):
    """What numbers are drawn for: part of every key, so that no two uses share their numbers."""

    ORDER = 0
    NEGATIVES = 1
    SET_ORDER = 2
    VALIDATION = 3
    CALIBRATION = 4
    MASKS = 5
    TOWER_ITEMS = 6
    ITEM_DROPOUT = 7
    EVENT_DROPOUT = 8


def random_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the numbers of ``key`` and on nothing else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))


def draw_keys(key: tuple[int, ...], *ids: Int[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A key of 64 bits for each row of ``ids``: a function of ``key`` and of the row's numbers."""
    state = np.zeros((), dtype=np.uint64)
    for number in (*key, *ids):
        state = mix(state ^ np.asarray(number).astype(np.uint64))
    return state


def mix(value: UInt64[np.ndarray, "*any"]) -> UInt64[np.ndarray, "*any"]:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit changes half of the output bits."""
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
