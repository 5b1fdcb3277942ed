"""Which events are learned from, which are asked for: leave-one-out, global time, or the split the data brings.

A split is made from the whole dataset by a stated protocol whose hash goes into every result. Model choice reads
``valid`` alone. Items that occur in no training event are *cold*; they stay in the catalogue and in the targets.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrec.data.sequences import Sequences, pack, ragged_range
from mmrec.errors import DataError

__all__ = ["Queries", "Split", "SplitName", "make_split"]

SplitName = Literal["auto", "leave_one_out", "global_time", "provided"]


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Questions to a recommender: given this history, which items come next?

    Attributes:
        user: row of the user in the dataset's sequences. (Q,)
        history: events known when the question is asked, one packed row a query.
        target_offsets: query q asks for ``targets[target_offsets[q]:target_offsets[q + 1]]``, at least one. (Q + 1,)
        targets: catalogue indices. (T,)
        times: when each question is asked, seconds since 1970: the time of its first target; None where there is no
            time. For models that are allowed to know it. (Q,)
    """

    user: np.ndarray
    history: Sequences
    target_offsets: np.ndarray
    targets: np.ndarray
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Queries:
        """The queries at ``rows``, in that order."""
        num_targets = np.diff(self.target_offsets)[rows]
        return Queries(
            user=self.user[rows],
            history=self.history.take(rows),
            target_offsets=pack(num_targets),
            targets=self.targets[ragged_range(self.target_offsets[rows], num_targets)],
            times=None if self.times is None else self.times[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training histories, validation and test queries, and the protocol that made them.

    Attributes:
        protocol: name, parameters and "hash" of the protocol.
        train: training events of every user of the dataset (a user may have none).
        valid, test: queries; test histories contain the validation events.
        train_items: True for items with at least one training event; the others are cold. (V,)
        chosen_on: of a refit split, the plain one on whose validation events every choice was made; else None.
    """

    protocol: dict
    train: Sequences
    valid: Queries
    test: Queries
    train_items: np.ndarray
    chosen_on: Split | None = None


def make_split(
    sequences: Sequences,
    num_items: int,
    name: SplitName = "auto",
    *,
    quantile: float = 0.9,
    seed: int = 0,
    refit: bool = False,
) -> Split:
    """Split ``sequences`` by the named protocol.

    Args:
        num_items: V, the size of the catalogue.
        name: "auto" takes the split that the interactions bring, else leave-one-out.
        quantile: global time only: events after this quantile of all timestamps are test, and of those before, again
            the events after this quantile are validation. Each is asked for with all the user's earlier events known.
        seed: draws the held-out event where histories are sets.
        refit: train on the validation events too; nothing is left to choose on. Another protocol.

    Raises:
        DataError: if the data lacks what the protocol needs, or nothing is left to train on or to ask for.
    """
    if name == "auto":
        name = "provided" if sequences.split is not None else "leave_one_out"
    if name == "provided":
        part, parameters = _provided(sequences), {}
    elif name == "leave_one_out":
        part, parameters = _leave_one_out(sequences, seed)
    else:
        part, parameters = _global_time(sequences, quantile)
    trained_on = "train and validation" if refit else "train"
    protocol = {"split": name, "order": sequences.order, **parameters, "trained_on": trained_on}
    protocol["hash"] = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]

    train = sequences.select(part < 2 if refit else part == 0)
    ask = _successive if name == "global_time" else _all_at_once
    valid = ask(sequences, part, -1 if refit else 1)
    test = ask(sequences, part, 2)
    for what, number in (("training events", len(train.item_idx)), ("test events", len(test))):
        if number == 0:
            raise DataError(
                f"the {name} split leaves no {what} ({len(sequences)} users, {len(sequences.item_idx)} events); "
                "leave_one_out needs users with 3 or more events, global_time needs events on both sides of the cut"
            )
    train_items = np.zeros(num_items, dtype=bool)
    train_items[train.item_idx] = True
    plain = make_split(sequences, num_items, name, quantile=quantile, seed=seed) if refit else None
    return Split(protocol=protocol, train=train, valid=valid, test=test, train_items=train_items, chosen_on=plain)


def _provided(sequences: Sequences) -> np.ndarray:
    if sequences.split is None:
        raise DataError(
            "split 'provided' needs a column `split` (train, valid, test) in the interactions; "
            "ingest again with it, or choose leave_one_out or global_time"
        )
    return sequences.split


def _leave_one_out(sequences: Sequences, seed: int) -> tuple[np.ndarray, dict]:
    """Last event test, the one before validation, for users with 3 or more events; shorter histories only train."""
    part = np.zeros(len(sequences.item_idx), dtype=np.int8)
    rows = np.flatnonzero(sequences.lengths >= 3)
    if sequences.order != "none":
        part[sequences.offsets[rows + 1] - 1] = 2
        part[sequences.offsets[rows + 1] - 2] = 1
        return part, {}
    generator = np.random.Generator(np.random.Philox(seed))
    lengths = sequences.lengths[rows]
    first = generator.integers(0, lengths)  # a set has no last event: two are drawn
    second = generator.integers(0, lengths - 1)
    second += second >= first
    part[sequences.offsets[rows] + first] = 2
    part[sequences.offsets[rows] + second] = 1
    return part, {"held_out": "random", "seed": seed}


def _global_time(sequences: Sequences, quantile: float) -> tuple[np.ndarray, dict]:
    """Cut all users at the same two moments: no model sees anybody's future."""
    if sequences.timestamps is None:
        raise DataError("split 'global_time' needs a column `timestamp` in the interactions; choose leave_one_out")
    if not 0.0 < quantile < 1.0:
        raise DataError(f"split 'global_time' was given quantile {quantile}; it must lie between 0 and 1")
    test_from = int(np.quantile(sequences.timestamps, quantile))
    valid_from = int(np.quantile(sequences.timestamps[sequences.timestamps < test_from], quantile))
    part = np.zeros(len(sequences.item_idx), dtype=np.int8)
    part[sequences.timestamps >= valid_from] = 1
    part[sequences.timestamps >= test_from] = 2
    parameters = {"quantile": quantile, "valid_from": valid_from, "test_from": test_from, "targets": "successive"}
    return part, parameters


def _successive(sequences: Sequences, part: np.ndarray, ask: int) -> Queries:
    """One query for each event of part ``ask``; the history is everything of the user before it, as it would be live.

    Asking for all events after the cut at once would ask about users of whom nothing is known before it: in bursty
    data (MovieLens: the median user spans 19 minutes) that is nearly all of them.
    """
    events = np.flatnonzero(part == ask)
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)[events]
    starts = sequences.offsets[users]
    return Queries(
        user=users,
        history=sequences.gather(users, events - starts, ragged_range(starts, events - starts)),
        target_offsets=np.arange(len(events) + 1),
        targets=sequences.item_idx[events],
        times=None if sequences.timestamps is None else sequences.timestamps[events],
    )


def _all_at_once(sequences: Sequences, part: np.ndarray, ask: int) -> Queries:
    """One query for each user with events of part ``ask``; the history is everything of the earlier parts."""
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    asked = part == ask
    num_targets = np.bincount(rows[asked], minlength=len(sequences))
    users = np.flatnonzero(num_targets)
    target_offsets = pack(num_targets[users])
    times = sequences.timestamps
    return Queries(
        user=users,
        history=sequences.select(part < ask).take(users),
        target_offsets=target_offsets,
        targets=sequences.item_idx[asked],
        times=None if times is None else times[asked][target_offsets[:-1]],
    )
