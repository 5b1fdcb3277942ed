"""Which events are learned from, which are asked for, and among what.

A split is made from the whole dataset by a stated protocol whose hash goes into every result. Model choice reads
``valid`` alone. Items that occur in no training event are *cold*; they stay in the catalogue and in the targets.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from mmrec.data.sequences import Sequences, pack, ragged_range
from mmrec.data.split_spec import SplitSpec, parse_split
from mmrec.errors import DataError

__all__ = ["Queries", "Split", "SplitName", "make_split"]

# Parts of events beside 0 train, 1 validation and 2 test: known when their user is asked, learned from by nobody.
_HISTORY_OF_TEST, _HISTORY_OF_VALID, _NOTHING = -1, -2, -3

SplitName = str
"""auto, leave_one_out, global_time, user_folds, sessions or provided, with options: see mmrec/data/split_spec.py."""


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
        filter_seen: items of the history are no candidates, but for the targets.
        available_from: from when each item is a candidate, seconds since 1970; None: all of them always are. The
            targets are candidates in any case. (V,)
    """

    user: np.ndarray
    history: Sequences
    target_offsets: np.ndarray
    targets: np.ndarray
    times: np.ndarray | None = None
    filter_seen: bool = True
    available_from: np.ndarray | None = None

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
            filter_seen=self.filter_seen,
            available_from=self.available_from,
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
        name: "auto" takes the split that the interactions bring, else leave-one-out; options may follow a colon, see
            :mod:`mmrec.data.split_spec`.
        quantile: global time only, where the name gives none: events after this quantile of all timestamps are test,
            and of those before, again the events after this quantile are validation.
        seed: draws the held-out event where histories are sets, and the folds of users.
        refit: train on the validation events too; nothing is left to choose on. Another protocol.

    Raises:
        ConfigError: if the name or an option is not known.
        DataError: if the data lacks what the protocol needs, or nothing is left to train on or to ask for.
    """
    given, spec = name, parse_split(name)
    if spec.name == "auto":
        spec = replace(spec, name="provided" if sequences.split is not None else "leave_one_out")
    name = spec.name
    part, parameters = _parts(sequences, spec, quantile, seed)
    trained_on = "train and validation" if refit else "train"
    protocol = {"split": name, "order": sequences.order, **parameters, "trained_on": trained_on}
    protocol |= {"seen": spec.seen, "candidates": spec.candidates}
    protocol["hash"] = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]

    learned = (0, 1, _HISTORY_OF_VALID) if refit else (0,)
    train = sequences.select(np.isin(part, learned))
    available = _available_from(sequences, num_items) if spec.candidates == "as_of_query" else None

    def ask(which: int) -> Queries:
        make = _successive if name in ("global_time", "sessions") else _all_at_once
        queries = make(sequences, part, which)
        if spec.targets != "successive":
            queries = queries.take(_one_a_user(queries, spec.targets))
        return replace(queries, filter_seen=spec.seen == "filtered", available_from=available)

    valid, test = ask(_NOTHING if refit else 1), ask(2)
    for what, number in (("training events", len(train.item_idx)), ("test events", len(test))):
        if number == 0:
            raise DataError(
                f"the {name} split leaves no {what} ({len(sequences)} users, {len(sequences.item_idx)} events); "
                "leave_one_out needs users with 3 or more events, global_time needs events on both sides of the cut, "
                "user_folds users in each fold, sessions users with 3 or more of them"
            )
    train_items = np.zeros(num_items, dtype=bool)
    train_items[train.item_idx] = True
    plain = make_split(sequences, num_items, given, quantile=quantile, seed=seed) if refit else None
    return Split(protocol=protocol, train=train, valid=valid, test=test, train_items=train_items, chosen_on=plain)


def _parts(sequences: Sequences, spec: SplitSpec, quantile: float, seed: int) -> tuple[np.ndarray, dict]:
    """Part of each event (0 train, 1 validation, 2 test, or known as history alone), and what the protocol says."""
    if spec.name == "provided":
        return _provided(sequences), {}
    if spec.name == "leave_one_out":
        return _leave_one_out(sequences, seed)
    if spec.name == "user_folds":
        return _user_folds(sequences, spec, seed)
    if spec.name == "sessions":
        return _sessions(sequences, spec.gap_min)
    part, parameters = _global_time(sequences, quantile if spec.quantile is None else spec.quantile, spec.test_from)
    return part, {**parameters, "targets": spec.targets}


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


def _user_folds(sequences: Sequences, spec: SplitSpec, seed: int) -> tuple[np.ndarray, dict]:
    """Users of one fold are asked for their last event, those of the next fold validate, the others train.

    Nothing of a user who is asked is learned from: it is known only as history. A user's fold rests on the id and the
    seed alone.

    Source: strong generalisation, Marlin 2004; Liang et al. 2018.
    """
    keys = (f"{seed}:{user}".encode() for user in sequences.user_ids.tolist())
    fold = np.array([xxhash.xxh3_64_intdigest(key) % spec.folds for key in keys], dtype=np.int64)
    asks = np.zeros(len(sequences), dtype=np.int8)
    asks[fold == spec.fold] = 2
    asks[fold == (spec.fold + 1) % spec.folds] = 1
    history = np.array([0, _HISTORY_OF_VALID, _HISTORY_OF_TEST], dtype=np.int8)
    part = np.repeat(history[asks], sequences.lengths)
    rows = np.flatnonzero((asks > 0) & (sequences.lengths >= 2))
    last = sequences.offsets[rows + 1] - 1
    if sequences.order == "none":  # a set has no last event: one is drawn
        last -= np.random.Generator(np.random.Philox(seed)).integers(0, sequences.lengths[rows])
    part[last] = asks[rows]
    return part, {"folds": spec.folds, "fold": spec.fold, "seed": seed, "targets": "last"}


def _sessions(sequences: Sequences, gap_min: float) -> tuple[np.ndarray, dict]:
    """The last session of a user is test, the one before validation; users with fewer than three only train.

    Each event of a session is asked for with all earlier ones known, those of the session too.

    Source: Hidasi et al. 2016; gaps of 30 minutes are the custom of web logs.
    """
    if sequences.timestamps is None:
        raise DataError("split 'sessions' needs a column `timestamp` in the interactions; choose leave_one_out")
    starts = np.diff(sequences.timestamps, prepend=sequences.timestamps[:1]) > gap_min * 60
    firsts = sequences.offsets[:-1][sequences.lengths > 0]
    starts[firsts] = True
    number = np.cumsum(starts)  # of the session, over all users
    last = np.repeat(number[sequences.offsets[1:][sequences.lengths > 0] - 1], sequences.lengths[sequences.lengths > 0])
    first = np.repeat(number[firsts], sequences.lengths[sequences.lengths > 0])
    many = last - first >= 2
    part = np.where(many & (number == last), 2, np.where(many & (number == last - 1), 1, 0)).astype(np.int8)
    return part, {"gap_min": gap_min, "targets": "successive"}


def _global_time(sequences: Sequences, quantile: float, test_from: int | None) -> tuple[np.ndarray, dict]:
    """Cut all users at the same two moments: no model sees anybody's future."""
    if sequences.timestamps is None:
        raise DataError("split 'global_time' needs a column `timestamp` in the interactions; choose leave_one_out")
    if not 0.0 < quantile < 1.0:
        raise DataError(f"split 'global_time' was given quantile {quantile}; it must lie between 0 and 1")
    first, last = int(sequences.timestamps.min()), int(sequences.timestamps.max())
    if test_from is None:
        test_from, cut = int(np.quantile(sequences.timestamps, quantile)), "quantile"
    elif first < test_from <= last:
        cut = "date"
    else:
        days = [str(np.datetime64(moment, "s"))[:10] for moment in (test_from, first, last)]
        raise DataError(f"split 'global_time' was given the date {days[0]}; events lie from {days[1]} to {days[2]}")
    valid_from = int(np.quantile(sequences.timestamps[sequences.timestamps < test_from], quantile))
    part = np.zeros(len(sequences.item_idx), dtype=np.int8)
    part[sequences.timestamps >= valid_from] = 1
    part[sequences.timestamps >= test_from] = 2
    return part, {"cut": cut, "quantile": quantile, "valid_from": valid_from, "test_from": test_from}


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


def _one_a_user(queries: Queries, which: str) -> np.ndarray:
    """Rows of each user's first or last query; a user's queries stand together, in order of time."""
    change = np.diff(queries.user) != 0
    ends = np.ones(len(queries), dtype=bool)
    if which == "next":
        ends[1:] = change
    else:
        ends[:-1] = change
    return np.flatnonzero(ends)


def _available_from(sequences: Sequences, num_items: int) -> np.ndarray:
    """When each item was first taken by anybody; never, for those that nobody took. (V,)"""
    if sequences.timestamps is None:
        raise DataError("candidates=as_of_query needs a column `timestamp` in the interactions; choose candidates=all")
    first = np.full(num_items, np.iinfo(np.int64).max)
    np.minimum.at(first, sequences.item_idx, sequences.timestamps)
    return first


def _all_at_once(sequences: Sequences, part: np.ndarray, ask: int) -> Queries:
    """One query for each user with events of part ``ask``; the history is all of the earlier parts, and of none."""
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
