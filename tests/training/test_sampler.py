"""The order of samples is a function of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mmrec.data.sequences import Sequences, pack
from mmrec.training.sampler import StepSampler, packed_windows


def histories(*rows: list[int], order: str = "timestamp") -> Sequences:
    return Sequences(
        user_ids=np.array([f"u{n}" for n in range(len(rows))]),
        offsets=pack(np.array([len(row) for row in rows])),
        item_idx=np.concatenate(rows).astype(np.int32),
        timestamps=None,
        split=None,
        order=order,
    )


def sampler(train: Sequences, num_items: int = 240, **changes) -> StepSampler:
    seen = np.zeros(num_items, dtype=bool)
    seen[train.item_idx] = True
    settings = {"batch_size": 3, "max_length": 4, "num_negatives": 5, "seed": 7, **changes}
    return StepSampler(train, seen, **settings)


TRAIN = histories(list(range(11)), [3, 1], [5], [], [20, 21, 22, 23, 24])


def targets_of_epoch(samples: StepSampler, epoch: int) -> list[int]:
    steps = [samples.step(epoch, index, windows) for index, windows in samples.steps(epoch)]
    return sorted(int(target) for step in steps for events in step.events for target in events[1:])


@pytest.mark.parametrize("epoch", range(5))
def test_every_event_but_the_first_is_a_target_once_an_epoch(epoch):
    assert targets_of_epoch(sampler(TRAIN), epoch) == sorted([*range(1, 11), 1, 21, 22, 23, 24])


def test_windows_hold_at_most_max_length_inputs():
    samples = sampler(TRAIN)
    for epoch in range(5):
        assert np.diff(samples.epoch_windows(epoch)[:, 1:]).max() <= 4 + 1


def test_the_same_key_gives_the_same_step_and_another_epoch_another_order():
    first, again = sampler(TRAIN), sampler(TRAIN)
    for (index, windows), (_, windows_again) in zip(first.steps(2), again.steps(2), strict=True):
        one, two = first.step(2, index, windows), again.step(2, index, windows_again)
        assert [list(events) for events in one.events] == [list(events) for events in two.events]
        assert one.candidate_idx.tolist() == two.candidate_idx.tolist()
    orders = {tuple(map(tuple, first.epoch_windows(epoch))) for epoch in range(6)}
    assert len(orders) > 1


def test_an_epoch_resumed_in_the_middle_has_the_steps_that_were_left():
    samples = sampler(TRAIN)
    whole = samples.steps(3)
    rest = samples.steps(3, first=1)
    assert [index for index, _ in rest] == [index for index, _ in whole][1:]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(rest, whole[1:], strict=True))


def test_ranks_share_the_histories_of_a_step_without_loss():
    samples = sampler(TRAIN, batch_size=8)
    index, windows = samples.steps(0)[0]
    step = samples.step(0, index, windows)
    whole = packed_windows(step, 0, 1)
    for world_size in (2, 3, 9):
        parts = [packed_windows(step, rank, world_size) for rank in range(world_size)]
        targets = np.concatenate([part.target_idx for part in parts])
        assert sorted(targets) == sorted(whole.target_idx.tolist())
        assert [len(part) for part in parts] == [len(histories) for histories in step.shares(world_size)]


def test_ranks_have_equally_much_to_do():
    lengths = np.random.default_rng(0).zipf(1.6, size=64).clip(2, 50)
    samples = sampler(histories(*[list(range(length)) for length in lengths]), batch_size=64, max_length=60)
    step = samples.step(0, *samples.steps(0)[0])
    for world_size in (2, 3, 4):
        loads = [sum(len(step.events[n]) for n in mine) for mine in step.shares(world_size)]
        assert max(loads) - min(loads) <= 3, loads


def test_masked_training_asks_for_a_share_of_all_events_and_for_each_last_one():
    train = histories(*[list(range(start, start + 20)) for start in range(200)])
    samples = sampler(train, batch_size=256, max_length=30, mask_share=0.25)
    step = samples.step(0, *samples.steps(0)[0])
    batch = packed_windows(step, 0, 1)
    assert batch.masked[batch.offsets[1:] - 1].all()
    others = torch.ones_like(batch.masked)
    others[batch.offsets[1:] - 1] = False
    assert batch.masked[others].double().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(batch.target_idx, torch.where(batch.masked, batch.item_idx, -1))
    assert step.num_targets == int(batch.masked.sum())
    again = samples.step(0, *samples.steps(0)[0])
    assert all(np.array_equal(*pair) for pair in zip(step.masked, again.masked, strict=True))
    other_epoch = packed_windows(samples.step(1, *samples.steps(1)[0]), 0, 1)
    assert not torch.equal(batch.masked, other_epoch.masked)


def test_the_time_of_a_target_is_the_time_at_which_it_is_asked_for():
    train = dataclasses.replace(
        histories([4, 7, 9], [1, 2]), timestamps=np.array([10, 20, 30, 5, 6]), order="timestamp"
    )
    samples = sampler(train, batch_size=4)
    batch = packed_windows(samples.step(0, *samples.steps(0)[0]), 0, 1)
    when = {4: 10, 7: 20, 9: 30, 1: 5, 2: 6}
    assert batch.timestamps.tolist() == [when[item] for item in batch.item_idx.tolist()]
    assert batch.query_times.tolist() == [when[item] for item in batch.target_idx.tolist()]


def test_only_items_of_the_training_part_are_drawn_as_negatives():
    samples = sampler(TRAIN, num_negatives=1000)
    index, windows = samples.steps(0)[0]
    assert set(samples.step(0, index, windows).candidate_idx) == set(TRAIN.item_idx)


def test_histories_that_are_sets_have_no_fixed_order():
    samples = sampler(histories(list(range(12)), order="none"), max_length=20)
    orders = {tuple(samples.step(epoch, *samples.steps(epoch)[0]).events[0]) for epoch in range(4)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(12)) for order in orders)
