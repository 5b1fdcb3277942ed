"""The order of samples is a function of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mmrec.data.sequences import Sequences, pack
from mmrec.training.sampler import StepSampler, packed_windows


def histories(*rows: list[int], order: str = "timestamp", weights: list[float] | None = None) -> Sequences:
    return Sequences(
        user_ids=np.array([f"u{n}" for n in range(len(rows))]),
        offsets=pack(np.array([len(row) for row in rows])),
        item_idx=np.concatenate(rows).astype(np.int32),
        timestamps=None,
        split=None,
        order=order,
        weights=None if weights is None else np.array(weights, dtype=np.float32),
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
    whole = packed_windows(step, range(len(step.events)))
    for world_size in (2, 3, 9):
        parts = [packed_windows(step, mine) for mine in step.shares(world_size)]
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
    batch = packed_windows(step, range(len(step.events)))
    assert batch.masked[batch.offsets[1:] - 1].all()
    others = torch.ones_like(batch.masked)
    others[batch.offsets[1:] - 1] = False
    assert batch.masked[others].double().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(batch.target_idx, torch.where(batch.masked, batch.item_idx, -1))
    assert step.num_targets == int(batch.masked.sum())
    again = samples.step(0, *samples.steps(0)[0])
    assert all(np.array_equal(*pair) for pair in zip(step.masked, again.masked, strict=True))
    other_epoch = samples.step(1, *samples.steps(1)[0])
    assert not torch.equal(batch.masked, packed_windows(other_epoch, range(len(other_epoch.events))).masked)


def test_the_time_of_a_target_is_the_time_at_which_it_is_asked_for():
    train = dataclasses.replace(
        histories([4, 7, 9], [1, 2]), timestamps=np.array([10, 20, 30, 5, 6]), order="timestamp"
    )
    samples = sampler(train, batch_size=4)
    step = samples.step(0, *samples.steps(0)[0])
    batch = packed_windows(step, range(len(step.events)))
    when = {4: 10, 7: 20, 9: 30, 1: 5, 2: 6}
    assert batch.timestamps.tolist() == [when[item] for item in batch.item_idx.tolist()]
    assert batch.query_times.tolist() == [when[item] for item in batch.target_idx.tolist()]


@pytest.mark.parametrize(
    "given",
    [{}, {"mask_share": 0.3}, {"order": "none"}],
    ids=["next item", "masked", "sets"],
)
def test_frequencies_are_the_shares_of_items_among_the_targets_of_many_epochs(given):
    order = given.pop("order", "timestamp")
    generator = np.random.default_rng(0)
    rows = [generator.integers(9, size=length).tolist() for length in (11, 7, 1, 2, 2, 3, 5, 1)]
    samples = sampler(histories(*rows, order=order), num_items=10, **given)
    counts = np.zeros(10)
    for epoch in range(600):
        for index, windows in samples.steps(epoch):
            step = samples.step(epoch, index, windows)
            counts += np.bincount(
                packed_windows(step, range(len(step.events))).target_idx.clamp(min=-1) + 1, minlength=11
            )[1:]
    np.testing.assert_allclose(samples.frequency, counts / counts.sum(), atol=0.006)
    assert samples.frequency.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("negatives", ["mixed", "uniform", "in_batch"])
def test_candidates_are_drawn_items_targets_or_both(negatives):
    samples = sampler(TRAIN, negatives=negatives, num_negatives=2)
    step = samples.step(0, *samples.steps(0)[0])
    targets = {int(item) for events in step.events for item in events[1:]}
    drawn = set(step.candidate_idx.tolist()) - targets
    if negatives == "uniform":
        assert len(step.candidate_idx) == 2, "targets are no candidates unless they are drawn"
    else:
        assert targets <= set(step.candidate_idx.tolist())
        assert len(drawn) <= (2 if negatives == "mixed" else 0)


@pytest.mark.parametrize("mask_share", [None, 0.3])
def test_keys_of_events_are_distinct_and_belong_to_step_history_and_place(mask_share):
    samples = sampler(TRAIN, batch_size=8, mask_share=mask_share)
    step = samples.step(0, *samples.steps(0)[0])
    whole = packed_windows(step, range(len(step.events)))
    assert len(whole.keys.unique()) == len(whole.item_idx)
    found = {}
    for mine in step.shares(3):
        part = packed_windows(step, mine)
        for n, keys in zip(mine, part.keys.split(part.lengths.tolist()), strict=True):
            found[n] = keys
    assert torch.equal(torch.cat([found[n] for n in range(len(step.events))]), whole.keys)
    later = samples.step(1, *samples.steps(1)[0])
    assert not set(packed_windows(later, range(len(later.events))).keys.tolist()) & set(whole.keys.tolist())


@pytest.mark.parametrize("order", ["timestamp", "none"])
@pytest.mark.parametrize("mask_share", [None, 0.5])
def test_the_weight_of_a_target_is_that_of_its_event(order, mask_share):
    train = histories([4, 7, 9, 1], [1, 2], order=order, weights=[40.0, 70.0, 90.0, 11.0, 12.0, 20.0])
    of_first, of_second = {4: 40.0, 7: 70.0, 9: 90.0, 1: 11.0}, {1: 12.0, 2: 20.0}
    samples = sampler(train, batch_size=4, max_length=9, mask_share=mask_share)
    for epoch in range(3):
        step = samples.step(epoch, *samples.steps(epoch)[0])
        batch = packed_windows(step, range(2))
        for n, user in enumerate(step.users):
            part = batch.part(n, n + 1)
            weight_of = of_second if user else of_first
            known = part.target_idx >= 0
            assert part.weights[known].tolist() == [weight_of[item] for item in part.target_idx[known].tolist()]
        known = batch.target_idx >= 0
        assert step.total_weight == pytest.approx(float(batch.weights[known].sum()))
        assert step.last_weight == pytest.approx(float(batch.weights[batch.offsets[1:] - 1].sum()))


def test_only_items_of_the_training_part_are_drawn_as_negatives():
    samples = sampler(TRAIN, num_negatives=1000)
    index, windows = samples.steps(0)[0]
    assert set(samples.step(0, index, windows).candidate_idx) == set(TRAIN.item_idx)


def test_histories_that_are_sets_have_no_fixed_order():
    samples = sampler(histories(list(range(12)), order="none"), max_length=20)
    orders = {tuple(samples.step(epoch, *samples.steps(epoch)[0]).events[0]) for epoch in range(4)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(12)) for order in orders)
