"""Leaks that were planted on purpose: future events in training, an order of indices that tells the target.

Columns that count the future, and indices in the order of time, are planted in tests/data/audit/test_suspicions.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.splits import make_split
from mmrec.evaluator import make_record, run_baselines, score_vectors
from mmrec.report import protocol_words
from mmrec.training.checkpoint import find_checkpoint
from tests.evaluation.conftest import refused


def ingested(source: Path, out: Path, interactions: pl.DataFrame) -> Dataset:
    out.mkdir()
    interactions.write_csv(out / "interactions.csv")
    config = IngestConfig(
        items=source / "items.csv", interactions=out / "interactions.csv", features=(f"vec={source / 'vec.npy'}",),
        text_columns=("title", "description"), media_root=source, out=out / "dataset", num_workers=1,
    )  # fmt: skip
    return Dataset.open(ingest(config))


def with_parts(source: Path) -> pl.DataFrame:
    """The log with each user's last event for the test and the one before it for validation."""
    log = pl.read_csv(source / "interactions.csv").sort("user_id", "timestamp")
    left = pl.int_range(pl.len(), dtype=pl.Int64).reverse().over("user_id")
    many = pl.len().over("user_id") >= 3
    part = pl.when(many & (left == 0)).then(pl.lit("test")).when(many & (left == 1)).then(pl.lit("valid"))
    return log.with_columns(split=part.otherwise(pl.lit("train")))


# Future events in training


def test_nothing_that_is_learned_or_chosen_depends_on_the_test_part(tiny_source, tmp_path) -> None:
    """Two datasets that differ in their test events alone train to the same bits, and choose the same baselines."""
    log = with_parts(tiny_source)
    test = pl.col("split") == "test"
    items = pl.read_csv(tiny_source / "items.csv")["item_id"].to_list()
    after = dict(zip(items, [*items[1:], items[0]], strict=True))
    other = log.with_columns(
        item_id=pl.when(test).then(pl.col("item_id").replace_strict(after)).otherwise(pl.col("item_id"))
    )
    weights, chosen, validation = [], [], []
    for name, interactions in (("one", log), ("other", other)):
        dataset = ingested(tiny_source, tmp_path / name, interactions)
        run = tmp_path / name / "run"
        train = ["train", "features", "--data", str(dataset.path), "--out", str(run), "--max-epochs", "3"]
        assert main([*train, "--trackers"]) == 0
        weights.append(load_file(find_checkpoint(run) / "model.safetensors"))
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        validation.append([line["validation"] for line in lines if "validation" in line])
        split = make_split(dataset.sequences, dataset.num_items)
        results = run_baselines(dataset, split, "valid", progress=False)
        chosen.append({key: (one.get("settings"), one["metrics"]) for key, one in results.items()})
    assert make_split(dataset.sequences, dataset.num_items).protocol["split"] == "provided"
    assert validation[0] == validation[1]
    assert chosen[0] == chosen[1]
    assert weights[0].keys() == weights[1].keys()
    for key, values in weights[0].items():
        assert torch.equal(values, weights[1][key]), key


def test_a_split_that_trains_on_a_users_future_is_found_by_check(tiny_source, tmp_path, capsys) -> None:
    log = with_parts(tiny_source)
    swapped = {"test": "train", "train": "test", "valid": "valid"}
    first = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id") == 0
    last = pl.col("split") == "test"
    planted = log.with_columns(
        split=pl.when((first | last) & (pl.len().over("user_id") >= 3))
        .then(pl.col("split").replace_strict(swapped))
        .otherwise(pl.col("split"))
    )
    dataset = ingested(tiny_source, tmp_path / "planted", planted)
    capsys.readouterr()
    assert main(["check", str(dataset.path)]) == 2
    assert "so that the future is learned from" in capsys.readouterr().out


def test_a_record_says_how_much_of_the_training_lies_after_the_questions(tiny_dataset) -> None:
    """None of it where all users are cut at one moment; where each user has a cut of their own, a stated share."""
    for name in ("global_time:quantile=0.7", "leave_one_out"):
        split = make_split(tiny_dataset.sequences, tiny_dataset.num_items, name)
        users = np.ones((len(split.test), 2), dtype=np.float32)
        result = score_vectors(split, "test", users, np.ones((24, 2), np.float32), lists=False)
        record = make_record(tiny_dataset, split, "test", result)
        assert split.train.timestamps is not None
        assert split.test.times is not None
        later = [(split.train.timestamps > moment).mean() for moment in split.test.times]
        assert record["data"]["training_after_the_question"] == pytest.approx(np.mean(later))
        said = " ".join(protocol_words(record))
        if name == "leave_one_out":
            assert np.mean(later) > 0.1
            assert f"{100 * np.mean(later):.2g} % of the training events have yet to come" in said
        else:
            assert "No training event is later than any question." in said


# Order of indices


def test_scores_that_tell_nothing_earn_no_more_for_targets_with_the_first_indices(tiny_dataset) -> None:
    """Sorted by popularity or by time, targets come first; a ranking that broke ties by index would find them all."""
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items)
    asked = np.unique(split.test.targets)
    order = np.concatenate([asked, np.setdiff1d(np.arange(24), asked)])  # the leak: targets have the first indices
    place = np.argsort(order)
    for of in (place, place[::-1]):
        history = split.test.history
        moved = type(history)(**{**vars(history), "item_idx": of[history.item_idx].astype(np.int32)})
        queries = type(split.test)(**{**vars(split.test), "history": moved, "targets": of[split.test.targets]})
        leaky = type(split)(**{**vars(split), "test": queries})
        result = score_vectors(leaky, "test", np.ones((len(queries), 2), np.float32), np.ones((24, 2), np.float32))
        record = make_record(tiny_dataset, leaky, "test", result)
        assert record["metrics"]["hr@5"] == 0, "half of the candidates tie, so that the target is in the middle"
        assert record["metrics"]["mrr"] <= record["baselines"]["random"]["metrics"]["mrr"]


def test_ranks_do_not_depend_on_the_order_of_the_catalogue(tiny_dataset) -> None:
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items)
    generator = np.random.default_rng(0)
    users, items = (generator.integers(-1, 2, (number, 4)).astype(np.float32) for number in (len(split.test), 24))
    expected = score_vectors(split, "test", users, items, lists=False).ranks
    order = generator.permutation(24)
    place = np.argsort(order)
    history = split.test.history
    moved = type(history)(**{**vars(history), "item_idx": place[history.item_idx].astype(np.int32)})
    queries = type(split.test)(**{**vars(split.test), "history": moved, "targets": place[split.test.targets]})
    other = type(split)(**{**vars(split), "test": queries})
    np.testing.assert_array_equal(score_vectors(other, "test", users, items[order], lists=False).ranks, expected)


def test_a_run_of_another_dataset_is_no_way_around_the_protocol(job, tiny_source, tmp_path, capsys) -> None:
    """What was trained with the test events of this dataset is refused, for its data are others."""
    whole = pl.read_csv(tiny_source / "interactions.csv").with_columns(split=pl.lit("train"))
    later = [
        whole.head(3).with_columns(pl.col("timestamp") + age * 10**8, split=pl.lit(part))
        for age, part in ((1, "valid"), (2, "test"))
    ]
    planted = pl.concat([whole, *later])
    dataset = ingested(tiny_source, tmp_path / "planted", planted)
    run = tmp_path / "run"
    train = ["train", "id", "--data", str(dataset.path), "--out", str(run), "--max-epochs", "1", "--trackers"]
    assert main(train) == 0
    line = refused(capsys, "evaluate", run, "--data", job.data, "--out", tmp_path / "results")
    assert "was trained on" in line
