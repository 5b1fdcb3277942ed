"""Every protocol can be chosen by one option of `mmrec train`, and is stated and hashed in the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrec.cli import main
from mmrec.data.splits import make_split
from tests.evaluation.conftest import SPLIT, record_of

SPLITS = [
    "leave_one_out",
    "leave_one_out:seen=kept",
    "leave_one_out:candidates=as_of_query",
    "global_time:quantile=0.7,targets=next",
    "global_time:date=2020-12-01,targets=last",
    "user_folds:folds=3,fold=1",
    "sessions:gap_min=30",
]


@pytest.fixture(scope="module")
def records(job, tmp_path_factory) -> dict[str, dict]:
    """By split, what `mmrec evaluate` says of a run that `mmrec train --split` made."""
    root: Path = tmp_path_factory.mktemp("protocols")
    found = {SPLIT: record_of(job.results)}
    data = ["--data", str(job.data)]
    for number, split in enumerate(SPLITS):
        run, results = root / f"run-{number}", root / f"results-{number}"
        options = ["--split", split, "--max-epochs", "1", "--out", str(run), "--trackers"]
        assert main(["train", "id", *data, *options]) == 0
        assert main(["evaluate", str(run), *data, "--out", str(results), "--no-baselines"]) == 0
        found[split] = record_of(results)
    return found


def test_each_states_its_options_and_asks_the_queries_of_its_split(records, tiny_dataset) -> None:
    for name, record in records.items():
        split = make_split(tiny_dataset.sequences, tiny_dataset.num_items, name)
        assert record["protocol"]["split"] == split.protocol
        assert record["num_queries"] == len(split.test)
        assert record["num_targets"] == len(split.test.targets)
        kind, _, options = name.partition(":")
        assert split.protocol["split"] == kind
        for key, value in (option.split("=") for option in options.split(",") if options):
            stated = "date" if key == "date" else value
            assert str(split.protocol["cut" if key == "date" else key]).removesuffix(".0") == stated


def test_no_two_protocols_have_one_hash(records) -> None:
    assert len({record["protocol"]["hash"] for record in records.values()}) == len(SPLITS) + 1


def test_what_was_seen_and_what_was_not_there_yet_change_the_ranks_alone(records) -> None:
    """The same model, the same queries, other candidates: fewer of them never rank a target lower."""
    plain, kept, early = (records[name] for name in SPLITS[:3])
    assert plain["num_queries"] == kept["num_queries"] == early["num_queries"]
    assert plain["baselines"]["random"]["metrics"]["mrr"] > kept["baselines"]["random"]["metrics"]["mrr"]
    assert early["baselines"]["random"]["metrics"]["mrr"] > plain["baselines"]["random"]["metrics"]["mrr"]
    assert early["metrics"]["mrr"] >= plain["metrics"]["mrr"] >= kept["metrics"]["mrr"]
