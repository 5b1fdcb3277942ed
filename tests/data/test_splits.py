"""The ways to split, on histories that can be read at a glance."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mmrec.data.sequences import Sequences, pack
from mmrec.data.splits import Queries, make_split
from mmrec.errors import ConfigError, DataError


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


HISTORIES, TIMES = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]], [[0, 1, 2, 9], [3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(("targets", "test"), [
    ("next", [(0, [0, 1, 2], [3]), (2, [6], [7])]), ("last", [(0, [0, 1, 2], [3]), (2, [6, 7, 8], [9])]),
])  # fmt: skip
def test_global_time_may_ask_for_the_next_or_the_last_event_alone(targets, test) -> None:
    split = make_split(make_sequences(HISTORIES, TIMES), 10, f"global_time:quantile=0.7,targets={targets}")
    assert as_lists(split.test) == test
    assert split.protocol["targets"] == targets
    whole = make_split(make_sequences(HISTORIES, TIMES), 10, "global_time:quantile=0.7")
    assert rows(split.train) == rows(whole.train)


def test_global_time_may_be_cut_at_a_day() -> None:
    day = 86_400
    times = [[moment * day for moment in row] for row in TIMES]
    split = make_split(make_sequences(HISTORIES, times), 10, "global_time:date=1970-01-07")
    assert split.protocol["test_from"] == 6 * day
    assert as_lists(split.test) == [(0, [0, 1, 2], [3]), (2, [6], [7]), (2, [6, 7], [8]), (2, [6, 7, 8], [9])]
    with pytest.raises(DataError, match="events lie from 1970-01-01 to 1970-01-10"):
        make_split(make_sequences(HISTORIES, times), 10, "global_time:date=2001-01-01")


def test_folds_of_users_learn_nothing_of_those_who_are_asked() -> None:
    sequences = make_sequences([[n % 7, (n + 1) % 7, (n + 2) % 7] for n in range(60)])
    tested = []
    for fold in range(4):
        split = make_split(sequences, 7, f"user_folds:folds=4,fold={fold}")
        trained = np.flatnonzero(split.train.lengths)
        parts = [set(trained), set(split.valid.user), set(split.test.user)]
        assert set.union(*parts) == set(range(60))
        assert sum(map(len, parts)) == 60, "nobody is in two parts"
        for user, history, targets in as_lists(split.test):
            assert [*history, *targets] == sequences.items_of(user).tolist()
            assert len(targets) == 1
        refit = make_split(sequences, 7, f"user_folds:folds=4,fold={fold}", refit=True)
        assert set(np.flatnonzero(refit.train.lengths)) == parts[0] | parts[1]
        assert (refit.train.lengths[split.valid.user] == 3).all()
        assert len(refit.valid) == 0
        assert as_lists(refit.test) == as_lists(split.test)
        tested += split.test.user.tolist()
    assert sorted(tested) == list(range(60)), "each user is asked in one fold"


def test_sessions_are_asked_event_by_event_and_never_cut() -> None:
    minute = 60
    times = [[0, 10, 100, 110, 200, 205], [0, 1, 100], [0, 100, 200]]
    histories = [[0, 1, 2, 3, 4, 5], [6, 7, 8], [1, 2, 3]]
    split = make_split(
        make_sequences(histories, [[t * minute for t in row] for row in times]), 9, "sessions:gap_min=30"
    )
    assert rows(split.train) == [[0, 1], [6, 7, 8], [1]]
    assert as_lists(split.valid) == [(0, [0, 1], [2]), (0, [0, 1, 2], [3]), (2, [1], [2])]
    assert as_lists(split.test) == [(0, [0, 1, 2, 3], [4]), (0, [0, 1, 2, 3, 4], [5]), (2, [1, 2], [3])]


def test_no_query_of_any_split_knows_what_came_after_it() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 15, 40)
    histories = [generator.integers(0, 50, n).tolist() for n in lengths]
    times = [np.sort(generator.choice(10**6, n, replace=False)).tolist() for n in lengths]
    sequences = make_sequences(histories, times)
    for name in ("leave_one_out", "global_time", "global_time:targets=last", "user_folds", "sessions:gap_min=300"):
        split = make_split(sequences, 50, name)
        for queries in (split.valid, split.test):
            assert queries.times is not None
            for query in range(len(queries)):
                known = queries.history.take(np.array([query])).timestamps
                assert known is not None
                assert (known < queries.times[query]).all(), name
        if name.startswith("global_time"):
            assert split.train.timestamps.max() < split.valid.times.min() <= split.test.times.min()


def test_candidates_and_seen_items_are_rules_of_the_queries_and_of_the_hash() -> None:
    sequences = make_sequences(HISTORIES, TIMES)
    plain = make_split(sequences, 11, "global_time:quantile=0.7")
    live = make_split(sequences, 11, "global_time:quantile=0.7,seen=kept,candidates=as_of_query")
    assert plain.test.filter_seen
    assert plain.test.available_from is None
    assert not live.test.filter_seen
    assert live.test.available_from[:10].tolist() == [0, 1, 2, 9, 3, 4, 5, 6, 7, 8]
    assert live.test.available_from[10] > 10**15, "nobody has taken it"
    assert live.test.take(np.array([1])).available_from is live.test.available_from
    assert live.protocol["hash"] != plain.protocol["hash"]
    with pytest.raises(DataError, match="as_of_query needs a column `timestamp`"):
        make_split(make_sequences(HISTORIES, order="position"), 11, "leave_one_out:candidates=as_of_query")


@pytest.mark.parametrize(("name", "message"), [
    ("leave_one", "perhaps you meant 'leave_one_out'"), ("global_time:target=last", "perhaps you meant 'targets'"),
    ("global_time:targets=all", "known: last, next, successive"), ("global_time:date=1.5.2018", "a day such as"),
    ("global_time:date=2018-05-01,quantile=.9", "give one of them"), ("user_folds:fold=5", "the first is fold 0"),
    ("sessions:gap_min=long", "not a number"), ("leave_one_out:fold=1", "option of split leave_one_out"),
    ("sessions:gap_min=1,gap_min=2", "gap_min twice"),
])  # fmt: skip
def test_a_split_that_is_not_known_says_what_is(name, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_split(make_sequences(HISTORIES, TIMES), 10, name)


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
