"""What each step learns from: a pure function of (seed, epoch, step), the same on any number of processes.

Every rank derives the whole global step and takes its share; nothing is drawn from the state of a worker, so that a
run resumed at (epoch, step), on another number of processes too, sees the same samples in the same order.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mmrec.batch import SequenceBatch
from mmrec.data.sequences import Sequences, pack, ragged_range
from mmrec.data.splits import Split
from mmrec.keyed_random import Purpose, draw_keys, random_generator
from mmrec.training.config import TrainConfig

__all__ = ["Step", "StepSampler", "packed_windows", "sampler_of"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One global step.

    Attributes:
        users: row of each history in the training sequences. (B,)
        events: per history of the step, its events' catalogue indices, oldest first; event t + 1 is the target of t.
        timestamps: the same for times, or None.
        weights: per history, how much each event counts as a target; None: all alike.
        masked: per history, True for the events that are asked for in place of the next ones; None: next items are.
        seed: of the run.
        candidate_idx: distinct softmax candidates, ascending: drawn items and all targets. (C,)
        item_idx: distinct items of the step, ascending: histories, targets and candidates. (S,)
    """

    seed: int
    epoch: int
    index: int
    users: np.ndarray
    events: list[np.ndarray]
    timestamps: list[np.ndarray] | None
    weights: list[np.ndarray] | None
    masked: list[np.ndarray] | None
    candidate_idx: np.ndarray
    item_idx: np.ndarray

    @property
    def num_targets(self) -> int:
        if self.masked is not None:
            return sum(int(masked.sum()) for masked in self.masked)
        return sum(len(events) - 1 for events in self.events)

    @property
    def total_weight(self) -> float:
        """Sum of the weights of all targets; their number where all count alike."""
        if self.weights is None:
            return float(self.num_targets)
        if self.masked is not None:
            return float(sum(w[m].sum(dtype=float) for w, m in zip(self.weights, self.masked, strict=True)))
        return float(sum(weights[1:].sum(dtype=float) for weights in self.weights))

    @property
    def last_weight(self) -> float:
        """The same of each history's last target."""
        return float(len(self.events)) if self.weights is None else float(sum(w[-1] for w in self.weights))

    def shares(self, world_size: int) -> list[list[int]]:
        """Which histories each rank gets: the longest first, each to the rank that has least to do so far.

        A history costs its events and, for attention, a little of their square.
        """
        costs = [len(events) * (1 + len(events) / 512) for events in self.events]
        dealt: list[list[int]] = [[] for _ in range(world_size)]
        loads = [(0.0, rank) for rank in range(world_size)]
        for history in sorted(range(len(costs)), key=lambda history: -costs[history]):
            load, rank = heapq.heappop(loads)
            dealt[rank].append(history)
            heapq.heappush(loads, (load + costs[history], rank))
        return dealt


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
        negatives: mixed: drawn items and the step's targets are candidates; uniform or in_batch: one of the two.
        mask_share: share of events that are masked and asked for, besides each window's last; None: next items are.
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
        negatives: Literal["mixed", "uniform", "in_batch"] = "mixed",
        mask_share: float | None = None,
    ) -> None:
        self.train = train
        self.train_items = np.flatnonzero(train_items)
        self._num_items = len(train_items)
        self.batch_size = batch_size
        self.max_length = max_length
        self.num_drawn = 0 if negatives == "in_batch" else min(num_negatives, len(self.train_items))
        self.in_batch = negatives != "uniform"
        self.mask_share = mask_share
        self.seed = seed
        self._learnable = np.flatnonzero(train.lengths >= 2)
        self.frequency = self._target_frequency()

    def _target_frequency(self) -> np.ndarray:
        """Each item's share of all targets of an epoch, expected over the draws of the epoch. float64 (V,)"""
        lengths = self.train.lengths[self._learnable]
        events = ragged_range(self.train.offsets[self._learnable], lengths)
        last = np.cumsum(lengths) - 1
        first = last - lengths + 1
        if self.mask_share is not None:  # where a long history is cut, an event ends one window and begins the next
            cut = np.repeat(lengths - 1 > self.max_length, lengths)
            asked = self.mask_share + np.where(cut, 1 / self.max_length, 0.0)
            asked[first], asked[last] = self.mask_share, 1.0
        elif self.train.order == "none":  # any event may come first, and is then no target
            asked = np.repeat(1 - 1 / np.maximum(lengths, 1), lengths)
        else:
            asked = np.ones(len(events))
            asked[first] = 0.0
        counts = np.bincount(self.train.item_idx[events], weights=asked, minlength=self._num_items)
        return counts / max(counts.sum(), 1.0)

    def epoch_windows(self, epoch: int) -> np.ndarray:
        """Windows of the epoch in training order: user, first event, one past the last event (targets included)."""
        generator = random_generator(self.seed, Purpose.ORDER, epoch)
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
        rows = [self._rows(epoch, *window) for window in windows.tolist()]
        events = [self.train.item_idx[row] for row in rows]
        times, weights = self.train.timestamps, self.train.weights
        generator = random_generator(self.seed, Purpose.NEGATIVES, epoch, index)
        drawn = generator.choice(self.train_items, size=self.num_drawn, replace=False, shuffle=False)
        masked = None if self.mask_share is None else self._masks(epoch, index, events, self.mask_share)
        if masked is None:
            targets = np.concatenate([items[1:] for items in events])
        else:
            targets = np.concatenate(events)[np.concatenate(masked)]
        candidates = np.union1d(drawn, targets) if self.in_batch else np.sort(drawn)
        return Step(
            seed=self.seed,
            epoch=epoch,
            index=index,
            users=windows[:, 0],
            events=events,
            timestamps=None if times is None else [times[row] for row in rows],
            weights=None if weights is None else [weights[row] for row in rows],
            masked=masked,
            candidate_idx=candidates,
            item_idx=np.union1d(candidates, np.concatenate(events)),  # targets are among the events
        )

    def _rows(self, epoch: int, user: int, start: int, stop: int) -> np.ndarray:
        """Rows of a window's events; those of a set stand in the order of the epoch."""
        if self.train.order != "none":
            return np.arange(start, stop)
        first, last = self.train.offsets[user : user + 2]
        shuffled = random_generator(self.seed, Purpose.SET_ORDER, epoch, user).permutation(last - first)
        return first + shuffled[start - first : stop - first]

    def _masks(self, epoch: int, index: int, events: list[np.ndarray], mask_share: float) -> list[np.ndarray]:
        generator = random_generator(self.seed, Purpose.MASKS, epoch, index)
        masks = [generator.random(len(items)) < mask_share for items in events]
        for mask in masks:
            mask[-1] = True  # what is asked for in the end
        return masks


def sampler_of(config: TrainConfig, split: Split, *, towers_learn: bool = False, **changes: Any) -> StepSampler:
    """The order of samples of a run, at rest or while its towers learn from whole steps."""
    next_item = config.model.next_item
    settings: dict[str, Any] = {
        "batch_size": config.tower_batch_size if towers_learn else config.batch_size,
        "num_negatives": config.tower_negatives if towers_learn else next_item.num_negatives,
        "max_length": config.model.user_encoder.max_length,
        "negatives": next_item.negatives,
        "mask_share": getattr(config.model.user_encoder, "mask_share", None),
        "seed": config.seed,
    }
    return StepSampler(split.train, split.train_items, **{**settings, **changes})


def packed_windows(step: Step, mine: Sequence[int]) -> SequenceBatch:
    """The given histories of the step. Without masks the last event of a window is a target only."""
    left = 0 if step.masked is not None else 1  # events of a window that are not read

    def joined(rows: Sequence[np.ndarray], first: int, behind: int) -> torch.Tensor:
        parts = [rows[n][first : len(rows[n]) - behind] for n in mine]
        return torch.from_numpy(np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64))

    items = joined(step.events, 0, left)
    masked = None if step.masked is None else joined(step.masked, 0, 0).bool()
    targets = joined(step.events, 1, 0) if masked is None else items.masked_fill(~masked, -1)
    times = step.timestamps
    weights = None
    if step.weights is not None:
        parts = [step.weights[n][left:] for n in mine]
        weights = torch.from_numpy(np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32))
    lengths = np.array([len(step.events[n]) - left for n in mine], dtype=np.int64)
    places = ragged_range(np.zeros_like(lengths), lengths)
    keys = draw_keys(
        (step.seed, Purpose.EVENT_DROPOUT, step.epoch, step.index), np.repeat(np.asarray(mine), lengths), places
    )
    return SequenceBatch(
        item_idx=items,
        offsets=torch.from_numpy(pack(lengths)),
        timestamps=None if times is None else joined(times, 0, left),
        target_idx=targets,
        query_times=None if times is None or masked is not None else joined(times, 1, 0),
        masked=masked,
        keys=torch.from_numpy(keys.view(np.int64)),
        weights=weights,
    )
