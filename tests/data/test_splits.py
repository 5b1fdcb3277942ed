"""The three ways to split, on histories that can be read at a glance."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mmrec.data.sequences import Sequences, pack
from mmrec.data.splits import Queries, make_split
from mmrec.errors import DataError


def make_sequences(
    histories: list[list[int]],
    times: list[list[int]] | None = None,
    parts: list[list[int]] | None = None,
    order: str = "timestamp",
) -> Sequences:
    def flat(rows: list[list[int]], dtype: type) -> np.ndarray:
        return np.array([value for row in rows for value in row], dtype=dtype)

    return Sequences(
        user_ids=np.array([f"u{n}" for n in range(len(histories))]),
        offsets=pack(np.array([len(row) for row in histories])),
        item_idx=flat(histories, np.int32),
        timestamps=None if times is None else flat(times, np.int64),
        split=None if parts is None else flat(parts, np.int8),
        order=order,
    )


def as_lists(queries: Queries) -> list[tuple[int, list[int], list[int]]]:
    return [
        (
            int(queries.user[q]),
            queries.history.items_of(q).tolist(),
            queries.targets[queries.target_offsets[q] : queries.target_offsets[q + 1]].tolist(),
        )
        for q in range(len(queries))
    ]


def rows(sequences: Sequences) -> list[list[int]]:
    return [sequences.items_of(user).tolist() for user in range(len(sequences))]


def test_leave_one_out_asks_for_the_last_event_and_validates_on_the_one_before() -> None:
    split = make_split(make_sequences([[0, 1, 2, 3], [4, 5, 0]]), 6)
    assert rows(split.train) == [[0, 1], [4]]
    assert as_lists(split.valid) == [(0, [0, 1], [2]), (1, [4], [5])]
    assert as_lists(split.test) == [(0, [0, 1, 2], [3]), (1, [4, 5], [0])]


def test_users_with_one_or_two_events_only_train() -> None:
    split = make_split(make_sequences([[1], [2, 3], [], [0, 1, 2]]), 4)
    assert rows(split.train) == [[1], [2, 3], [], [0]]
    assert split.test.user.tolist() == split.valid.user.tolist() == [3]


def test_items_without_a_training_event_are_cold_and_stay_targets() -> None:
    split = make_split(make_sequences([[0, 1, 2]]), 5)
    assert split.train_items.tolist() == [True, False, False, False, False]
    assert split.test.targets.tolist() == [2]


def test_a_set_has_no_last_event_so_two_are_drawn_by_the_seed() -> None:
    sets = make_sequences([list(range(n, n + 6)) for n in range(40)], order="none")
    first, again, other = (make_split(sets, 50, seed=seed) for seed in (0, 0, 1))
    assert as_lists(first.test) == as_lists(again.test) != as_lists(other.test)
    assert first.protocol["held_out"] == "random"
    assert first.protocol["hash"] == again.protocol["hash"] != other.protocol["hash"]
    assert len(np.unique(first.test.targets - first.test.user)) > 1, "not always the same place"
    for user in range(40):
        whole = [*first.train.items_of(user), first.valid.targets[user], first.test.targets[user]]
        assert sorted(whole) == sets.items_of(user).tolist()


def test_a_provided_split_may_have_several_targets_and_users_with_none() -> None:
    given = make_sequences([[0, 1, 2, 3, 4], [5, 6], [7, 8]], parts=[[0, 2, 1, 2, 1], [0, 0], [0, 2]])
    split = make_split(given, 9)
    assert split.protocol["split"] == "provided"
    assert rows(split.train) == [[0], [5, 6], [7]]
    assert as_lists(split.valid) == [(0, [0], [2, 4])]
    assert as_lists(split.test) == [(0, [0, 2, 4], [1, 3]), (2, [7], [8])]


def test_global_time_cuts_everybody_at_one_moment_and_asks_for_one_event_after_the_other() -> None:
    histories, times = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]], [[0, 1, 2, 9], [3, 4], [5, 6, 7, 8]]
    split = make_split(make_sequences(histories, times), 10, "global_time", quantile=0.7)
    valid_from, test_from = split.protocol["valid_from"], split.protocol["test_from"]
    assert (valid_from, test_from) == (3, 6)
    assert rows(split.train) == [[0, 1, 2], [], []]
    assert as_lists(split.valid) == [(1, [], [4]), (1, [4], [5]), (2, [], [6])]
    assert as_lists(split.test) == [(0, [0, 1, 2], [3]), (2, [6], [7]), (2, [6, 7], [8]), (2, [6, 7, 8], [9])]
    for queries in (split.valid, split.test):
        assert queries.history.timestamps is not None
        assert len(queries.history.timestamps) == len(queries.history.item_idx)


def test_equal_protocols_have_equal_hashes_and_different_ones_do_not() -> None:
    sequences = make_sequences([[0, 1, 2, 3]] * 3, [[0, 1, 2, 3]] * 3)
    hashes = {make_split(sequences, 4, "global_time", quantile=q).protocol["hash"] for q in (0.6, 0.6, 0.9)}
    assert len(hashes | {make_split(sequences, 4).protocol["hash"]}) == 3


@pytest.mark.parametrize(("name", "message"), [
    ("provided", "needs a column `split`"), ("global_time", "needs a column `timestamp`"),
])  # fmt: skip
def test_a_split_that_the_data_cannot_have_says_what_is_missing(name, message) -> None:
    with pytest.raises(DataError, match=message):
        make_split(make_sequences([[0, 1, 2]], order="position"), 3, name)


def test_nothing_to_ask_for_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves no test events"):
        make_split(make_sequences([[0, 1]]), 2)


def test_quantiles_outside_0_and_1_are_an_error() -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        make_split(make_sequences([[0]], [[0]]), 1, "global_time", quantile=1.0)


def test_taking_and_selecting_keep_events_with_their_users() -> None:
    sequences = make_sequences([[0, 1], [], [2, 3, 4]], [[5, 6], [], [7, 8, 9]], [[0, 1], [], [0, 1, 2]])
    taken = sequences.take(np.array([2, 1, 0, 2]))
    assert rows(taken) == [[2, 3, 4], [], [0, 1], [2, 3, 4]]
    assert taken.user_ids.tolist() == ["u2", "u1", "u0", "u2"]
    assert taken.timestamps is not None
    assert taken.timestamps.tolist() == [7, 8, 9, 5, 6, 7, 8, 9]
    kept = sequences.select(sequences.item_idx % 2 == 0)
    assert rows(kept) == [[0], [], [2, 4]]
    assert kept.split is not None
    assert kept.split.tolist() == [0, 0, 2]


def test_a_hundred_thousand_users_are_split_in_seconds() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 20, 100_000)
    sequences = Sequences(
        user_ids=np.arange(100_000).astype(str),
        offsets=pack(lengths),
        item_idx=generator.integers(0, 5000, lengths.sum(), dtype=np.int32),
        timestamps=np.sort(generator.integers(0, 10**9, lengths.sum())),
        split=None,
        order="timestamp",
    )
    start = time.perf_counter()
    make_split(sequences, 5000, "leave_one_out")
    make_split(sequences, 5000, "global_time")
    assert time.perf_counter() - start < 5
