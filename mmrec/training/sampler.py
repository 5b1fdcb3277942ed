"""What each step learns from: a pure function of (seed, epoch, step), the same on any number of processes.

Every rank derives the whole global step and takes its share; nothing is drawn from the state of a worker, so that a
run resumed at (epoch, step), on another number of processes too, sees the same samples in the same order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from mmrec.data.sequences import Sequences, pack

__all__ = ["Step", "StepSampler", "random_generator"]


def random_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the numbers of ``key`` and on nothing else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One global step.

    Attributes:
        events: per history of the step, its events' catalogue indices, oldest first; event t + 1 is the target of t.
        timestamps: the same for times, or None.
        candidate_idx: distinct softmax candidates, ascending: drawn items and all targets. (C,)
        item_idx: distinct items of the step, ascending: histories, targets and candidates. (S,)
    """

    epoch: int
    index: int
    events: list[np.ndarray]
    timestamps: list[np.ndarray] | None
    candidate_idx: np.ndarray
    item_idx: np.ndarray

    @property
    def num_targets(self) -> int:
        return sum(len(events) - 1 for events in self.events)


class StepSampler:
    """Cuts training histories into windows, shuffles them into global batches, draws candidates.

    A history of n events has n - 1 targets. It is cut into windows of at most ``max_length`` targets, at a place that
    changes with the epoch, so that each event is a target once an epoch. Histories that are sets are put in a new
    random order each epoch: no model learns an order that the data does not have.

    Args:
        train: training events.
        train_items: True for items with a training event; only they are drawn as negatives, because an item that
            nobody could have taken yet teaches nothing when it is pushed away. (V,)
        batch_size: windows in a global step.
        max_length: events that the user encoder reads.
        num_negatives: items drawn for a step; all training items where there are fewer.
        seed: of the run.
    """

    def __init__(
        self,
        train: Sequences,
        train_items: np.ndarray,
        *,
        batch_size: int,
        max_length: int,
        num_negatives: int,
        seed: int,
    ) -> None:
        self.train = train
        self.train_items = np.flatnonzero(train_items)
        self.batch_size = batch_size
        self.max_length = max_length
        self.num_drawn = min(num_negatives, len(self.train_items))
        self.seed = seed
        self._learnable = np.flatnonzero(train.lengths >= 2)
        counts = np.bincount(train.item_idx, minlength=len(train_items)).astype(np.float64)
        self.frequency = counts / max(counts.sum(), 1.0)

    def epoch_windows(self, epoch: int) -> np.ndarray:
        """Windows of the epoch in training order: user, first event, one past the last event (targets included)."""
        generator = random_generator(self.seed, epoch, 0)
        windows = []
        cuts = generator.integers(self.max_length, size=len(self._learnable))
        for user, cut in zip(self._learnable, cuts, strict=True):
            start, stop = self.train.offsets[user], self.train.offsets[user + 1]
            num_targets = stop - start - 1
            first = cut if num_targets > self.max_length else 0
            edges = [0, *range(first, num_targets, self.max_length), num_targets]
            windows += [(user, start + low, start + high + 1) for low, high in itertools.pairwise(edges) if high > low]
        return generator.permutation(np.array(windows, dtype=np.int64))

    def num_steps(self, epoch: int) -> int:
        """Steps of the epoch; the last one may be smaller."""
        return -(-len(self.epoch_windows(epoch)) // self.batch_size)

    def steps(self, epoch: int, first: int = 0) -> list[tuple[int, np.ndarray]]:
        """(index, windows) of each step of the epoch from step ``first`` on."""
        windows = self.epoch_windows(epoch)
        starts = range(0, len(windows), self.batch_size)
        return [(i, windows[s : s + self.batch_size]) for i, s in enumerate(starts) if i >= first]

    def step(self, epoch: int, index: int, windows: np.ndarray) -> Step:
        """Everything about one step that is the same on all ranks."""
        events, timestamps = [], []
        for user, start, stop in windows:
            items = self.train.item_idx[start:stop]
            if self.train.order == "none":
                items = self._shuffled_set(epoch, user)[start - self.train.offsets[user] :][: stop - start]
            events.append(items)
            if self.train.timestamps is not None:
                timestamps.append(self.train.timestamps[start:stop])
        generator = random_generator(self.seed, epoch, 1, index)
        drawn = generator.choice(self.train_items, size=self.num_drawn, replace=False, shuffle=False)
        targets = np.concatenate([items[1:] for items in events])
        candidates = np.union1d(drawn, targets)
        return Step(
            epoch=epoch,
            index=index,
            events=events,
            timestamps=timestamps or None,
            candidate_idx=candidates,
            item_idx=np.union1d(candidates, np.concatenate(events)),
        )

    def _shuffled_set(self, epoch: int, user: int) -> np.ndarray:
        return random_generator(self.seed, epoch, 2, int(user)).permutation(self.train.items_of(user))


def packed_windows(
    step: Step, rank: int, world_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """This rank's histories of the step: events, targets, offsets, timestamps; the last event is a target only."""
    mine = range(rank, len(step.events), world_size)
    empty = np.zeros(0, dtype=np.int64)
    offsets = pack(np.array([len(step.events[n]) - 1 for n in mine], dtype=np.int64))
    events = np.concatenate([empty, *(step.events[n][:-1] for n in mine)])
    targets = np.concatenate([empty, *(step.events[n][1:] for n in mine)])
    times = None
    if step.timestamps is not None:
        times = np.concatenate([empty, *(step.timestamps[n][:-1] for n in mine)])
    return events, targets, offsets, times
