"""The studies that ask one run with other histories, at other times, of other groups."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from eval import cold_start, fairness, history_shuffle, long_history, temporal_drift
from eval.histories import keep_last
from mmrec.errors import ConfigError, DataError
from mmrec.evaluator import score_vectors
from mmrec.metrics.ranking import ranking_metrics
from mmrec.training import preset
from mmrec.training.evaluation import vectors_of_checkpoint
from mmrec.training.trainer import train
from tests.data.test_splits import make_sequences, rows


@pytest.fixture(scope="module")
def runs(tiny_dataset_path, tmp_path_factory) -> dict[str, Path]:
    """By split, a run of ids alone."""
    root = tmp_path_factory.mktemp("runs")
    return {
        name: train(
            dataclasses.replace(
                preset("id", tiny_dataset_path, split=split), out=root / name, max_epochs=1, trackers=()
            )
        )
        for name, split in (("leave_one_out", "leave_one_out"), ("by_time", "global_time:quantile=0.7"))
    }


@pytest.fixture(scope="module")
def ndcg(runs, tiny_dataset_path) -> float:
    given = vectors_of_checkpoint(runs["leave_one_out"], tiny_dataset_path, "test")
    ranks = score_vectors(given.split, "test", given.users, given.items).ranks
    return float(ranking_metrics(ranks, given.split.test.target_offsets)["ndcg@10"].mean())


def written(module, found, out: Path) -> set[str]:
    out.mkdir()
    module.write(found, out, Console(quiet=True))
    return {path.name for path in out.iterdir()}


def test_histories_are_cut_to_their_last_events() -> None:
    history = make_sequences([[1, 2, 3], [], [4], [5, 6]], [[1, 2, 3], [], [4], [5, 6]])
    cut = keep_last(history, 2)
    assert rows(cut) == [[2, 3], [], [4], [5, 6]]
    assert cut.timestamps is not None
    assert cut.timestamps.tolist() == [2, 3, 4, 5, 6]
    assert rows(keep_last(history, 0)) == [[], [], [], []]


def test_the_ramp_ends_where_everything_is_known(runs, tiny_dataset_path, tmp_path) -> None:
    config = cold_start.ColdStart(checkpoint=runs["leave_one_out"], data=tiny_dataset_path, out=tmp_path, min_history=5)
    found = cold_start.study(config)
    users = found.filter((pl.col("of") == "users") & (pl.col("scores") != "popularity"))
    assert users["known"].to_list() == ["0", "1", "2", "5", "10", "all"]
    assert users["queries"].n_unique() == 1, "the same queries all along"
    assert users["ndcg@10"][-1] == pytest.approx(users["ndcg@10"][-2]), "no history is longer than 10"
    items = found.filter((pl.col("of") == "items") & (pl.col("scores") == "popularity"))
    given = vectors_of_checkpoint(runs["leave_one_out"], tiny_dataset_path, "test")
    assert items["queries"].sum() == len(given.split.test)
    assert written(cold_start, found, tmp_path / "out") == {"cold_start.csv", "users.svg", "items.svg"}
    with pytest.raises(DataError, match="history of 1000 events or more"):
        cold_start.study(dataclasses.replace(config, min_history=1000))


def test_shuffles_move_items_within_histories_and_keep_times() -> None:
    history = make_sequences([[1, 2, 3, 4, 5], [6], [], [7, 8, 9]], [[1, 2, 3, 4, 5], [6], [], [7, 8, 9]])
    assert rows(history_shuffle.reordered(history, "reversed", 0)) == [[5, 4, 3, 2, 1], [6], [], [9, 8, 7]]
    for how in ("shuffled", "last kept"):
        other = history_shuffle.reordered(history, how, 1)
        assert [sorted(row) for row in rows(other)] == rows(history)
        assert other.timestamps is history.timestamps
    assert [row[-1] for row in rows(other) if row] == [5, 6, 9]
    assert rows(history_shuffle.reordered(history, "shuffled", 1)) != rows(history)


def test_the_true_order_is_that_of_evaluate_and_differs_from_itself_by_nothing(
    runs, tiny_dataset_path, tmp_path
) -> None:
    config = history_shuffle.HistoryShuffle(checkpoint=runs["leave_one_out"], data=tiny_dataset_path, out=tmp_path)
    found = history_shuffle.study(config)
    assert found["order"].to_list() == ["in order", "shuffled", "last kept", "reversed"]
    assert found["difference"][0] == 0
    assert found["p"][0] == 1
    assert written(history_shuffle, found, tmp_path / "out") == {"history_shuffle.csv", "history_shuffle.svg"}


def test_all_events_known_is_what_evaluate_has(runs, ndcg, tiny_dataset_path, tmp_path) -> None:
    config = long_history.LongHistory(
        checkpoint=runs["leave_one_out"], data=tiny_dataset_path, out=tmp_path, min_queries=1
    )
    found = long_history.study(config)
    whole = found.filter(pl.col("known") == "all")
    assert np.average(whole["ndcg@10"], weights=whole["queries"]) == pytest.approx(ndcg)
    assert found["history"].unique(maintain_order=True).to_list() == ["1 to 4", "5 to 9"]
    assert written(long_history, found, tmp_path / "out") == {"long_history.csv", "long_history.svg"}
    with pytest.raises(DataError, match="no group has 1000 queries"):
        long_history.study(dataclasses.replace(config, min_queries=1000))


def test_weeks_after_the_cut_hold_each_query_once(runs, tiny_dataset_path, tmp_path) -> None:
    config = temporal_drift.TemporalDrift(
        checkpoint=runs["by_time"], data=tiny_dataset_path, out=tmp_path, min_queries=5
    )
    found = temporal_drift.study(config)
    given = vectors_of_checkpoint(runs["by_time"], tiny_dataset_path, "test")
    model = found.filter(pl.col("scores") != "popularity")
    assert model["queries"].sum() == len(given.split.test)
    assert written(temporal_drift, found, tmp_path / "out") == {"temporal_drift.csv", "temporal_drift.svg"}
    with pytest.raises(DataError, match="have no end"):
        temporal_drift.study(dataclasses.replace(config, checkpoint=runs["leave_one_out"]))


def test_weeks_of_few_queries_join_others() -> None:
    weeks = np.array([0] * 5 + [1] * 2 + [2] * 4 + [5])
    assert temporal_drift.spans(weeks, 5) == [(0, 0), (1, 5)]
    assert temporal_drift.spans(weeks, 3) == [(0, 0), (1, 5)]
    assert temporal_drift.spans(weeks, 100) == [(0, 5)]
    assert temporal_drift.spans(weeks, 1) == [(0, 0), (1, 1), (2, 2), (3, 5)]


def test_groups_of_users_and_items_are_told_with_their_gaps(runs, tiny_dataset, tiny_dataset_path, tmp_path) -> None:
    ids = tiny_dataset.sequences.user_ids.tolist()
    table = tmp_path / "users.csv"
    pl.DataFrame({"user_id": ids, "age": [("young", "old")[n % 2] for n in range(len(ids))]}).write_csv(table)
    config = fairness.Fairness(
        checkpoint=runs["leave_one_out"], data=tiny_dataset_path, out=tmp_path, users=table, user_column="age",
        provider="category",
    )  # fmt: skip
    users, items = found = fairness.study(config)
    assert set(users["by"]) == {"history length", "age"}
    by_age = users.filter(pl.col("by") == "age")
    assert by_age["gap"][0] == pytest.approx(by_age["mean"].max() - by_age["mean"].min())
    assert set(items["by"]) == {"popularity_decile", "modalities", "provider"}
    assert written(fairness, found, tmp_path / "out") == {"users.csv", "items.csv", "fairness.svg"}
    with pytest.raises(ConfigError, match="perhaps you meant 'age'"):
        fairness.study(dataclasses.replace(config, user_column="ages"))
    with pytest.raises(ConfigError, match="go together"):
        fairness.study(dataclasses.replace(config, users=None))
    pl.DataFrame({"user_id": ["nobody"], "age": ["old"]}).write_csv(table)
    with pytest.raises(DataError, match="none of the users"):
        fairness.study(config)
