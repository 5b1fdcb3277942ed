"""Whom a new item may please: the users near whose vectors it lies.

Legend: U users of the export, N users that are counted, V items of the catalogue, D vector width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import vectors_at
from mmrec.index.removed import remaining_rows

__all__ = ["Audience", "NearUser", "audience_of"]

# Users that are counted at most; more are drawn, which costs the share a standard error of .35 % at most.
MAX_USERS = 20_000
# Of the interval, in standard errors of the normal distribution: 95 %.
_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class NearUser:
    """A user and the inner product of the user's vector with the item's."""

    rank: int
    user_id: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Audience:
    """An estimate of whom an item would be shown to.

    Attributes:
        k: length of the lists.
        share: of the users counted, those who would find the item among their first k of the catalogue and it. What
            each has taken already stays in the catalogue, for an export does not know it: without those items the share
            is greater.
        low, high: 95 % interval of the share among all users (Wilson); both equal the share where all were counted.
        counted: users that the share rests on.
        num_users: users of the export.
        nearest: those of the greatest scores, of all users.
    """

    k: int
    share: float
    low: float
    high: float
    counted: int
    num_users: int
    nearest: tuple[NearUser, ...]


def audience_of(
    export: ExportFolder,
    vector: np.ndarray,
    k: int,
    *,
    num_nearest: int = 10,
    max_users: int = MAX_USERS,
    seed: int = 0,
) -> Audience:
    """Count the users in whose first ``k`` an item would be, by its exact rank among the whole catalogue.

    A rank counts the items that score higher, plus half of those that score the same; the item is shown where fewer
    than ``k`` do.

    Args:
        vector: of an item that the catalogue does not hold. (D,)
        num_nearest: users that are named.
        max_users: users that are counted; of more so many are drawn at random.
        seed: draws them.

    Raises: DataError if the export has no vectors of users; ConfigError if a number is less than 1.
    """
    import torch

    from mmrec.retrieval import rank_targets

    for name, value in (("k", k), ("the number of users", min(num_nearest, max_users))):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    user_ids, users = users_of(export)
    drawn = np.arange(len(users))
    if len(users) > max_users:
        drawn = np.sort(np.random.default_rng(seed).choice(len(users), max_users, replace=False))
    catalogue = vectors_at(export, remaining_rows(export))
    items = np.concatenate([catalogue, vector[None].astype(np.float32)])
    asked = _one_target_each(len(drawn), len(catalogue))
    ranks = rank_targets(torch.from_numpy(users[drawn]), torch.from_numpy(items), asked)
    shown = int((ranks < k).sum())
    low, high = _wilson(shown, len(drawn)) if len(drawn) < len(users) else (shown / len(drawn),) * 2
    scores = users.astype(np.float64) @ vector.astype(np.float64)
    best = np.argsort(-scores, kind="stable")[:num_nearest]
    return Audience(
        k=k, share=shown / len(drawn), low=low, high=high, counted=len(drawn), num_users=len(users),
        nearest=tuple(
            NearUser(rank=rank, user_id=user_ids[row].as_py(), score=float(scores[row]))
            for rank, row in enumerate(best, start=1)
        ),
    )  # fmt: skip


def users_of(export: ExportFolder) -> tuple[pa.Array, np.ndarray]:
    """User ids (U,) and vectors float32 (U, D) of the users with events.

    Raises: DataError if the export has none.
    """
    users = export.users
    known = users.events > 0
    if not known.any():
        raise DataError(f"no user of {export.path} has events, so nobody's vector says anything")
    return users.user_ids.filter(pa.array(known)), users.vectors[known]


def _one_target_each(num_queries: int, target: int):
    from mmrec.data.sequences import Sequences
    from mmrec.data.splits import Queries

    nothing = Sequences(
        user_ids=np.zeros(num_queries, dtype=str), offsets=np.zeros(num_queries + 1, dtype=np.int64),
        item_idx=np.zeros(0, dtype=np.int32), timestamps=None, split=None, order="none",
    )  # fmt: skip
    return Queries(
        user=np.arange(num_queries), history=nothing, target_offsets=np.arange(num_queries + 1),
        targets=np.full(num_queries, target),
    )  # fmt: skip


def _wilson(hits: int, number: int) -> tuple[float, float]:
    """Source: Wilson 1927; Brown et al. 2001, eq. 4."""
    share, z2 = hits / number, _Z**2
    middle = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = _Z / (1 + z2 / number) * math.sqrt(share * (1 - share) / number + z2 / (4 * number**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
