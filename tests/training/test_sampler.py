"""The order of samples is a function of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

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


def sampler(train: Sequences, num_items: int = 40, **changes) -> StepSampler:
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
        assert sorted(np.concatenate([part[1] for part in parts])) == sorted(whole[1])


def test_only_items_of_the_training_part_are_drawn_as_negatives():
    samples = sampler(TRAIN, num_negatives=1000)
    index, windows = samples.steps(0)[0]
    assert set(samples.step(0, index, windows).candidate_idx) == set(TRAIN.item_idx)


def test_histories_that_are_sets_have_no_fixed_order():
    samples = sampler(histories(list(range(12)), order="none"), max_length=20)
    orders = {tuple(samples.step(epoch, *samples.steps(epoch)[0]).events[0]) for epoch in range(4)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(12)) for order in orders)
