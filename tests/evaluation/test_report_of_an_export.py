"""The evaluation of an export says what that of its checkpoint says, but for what an export cannot know."""

from __future__ import annotations

import json

import pytest

from mmrec.cli import main
from tests.evaluation.conftest import record_of


def test_every_number_is_that_of_the_checkpoint(job) -> None:
    ours, theirs = record_of(job.results), record_of(job.export_results)
    for name in ("protocol", "data", "metrics", "confidence_interval", "slices", "baselines", "beyond_accuracy"):
        assert theirs[name] == ours[name], name
    assert theirs["exposure"] == ours["exposure"]
    assert theirs["model"] | {"folder": ""} == ours["model"] | {"folder": ""}


def test_users_failures_new_items_and_map_are_the_same_and_only_shares_and_curves_are_missing(job) -> None:
    ours, theirs = (json.loads((folder / "examples.json").read_text()) for folder in (job.results, job.export_results))
    assert ours["modalities"] == ["vec", "item_id"]
    assert theirs["modalities"] == []
    assert ours["curves"]
    assert not theirs["curves"]
    for examples in (ours, theirs):
        for row in (row for one in [*examples["users"], *examples["failures"]] for row in one["recommended"]):
            assert ("shares" in row) == (examples is ours)
            row.pop("shares", None)
            row["cosine"] = pytest.approx(row["cosine"], abs=1e-5)
    for name in ("users", "failures", "cards"):
        assert theirs[name] == ours[name], name
    assert [one["item"] for one in theirs["new"]] == [one["item"] for one in ours["new"]]
    assert len(theirs["map"]["points"]) == len(ours["map"]["points"])


def test_shares_are_those_of_explain(job, capsys) -> None:
    examples = json.loads((job.results / "examples.json").read_text())
    row = next(row for one in examples["users"] for row in one["recommended"] if 0 < row["shares"][0] < 1)
    assert sum(row["shares"]) == pytest.approx(1, abs=2e-3)
    from mmrec.data.dataset import Dataset

    item = str(Dataset.open(job.data).item_ids[int(row["item"])])
    capsys.readouterr()
    assert main(["explain", str(job.run), "--data", str(job.data), "--items", item]) == 0
    assert f"{row['shares'][0]:.2f}" in capsys.readouterr().out


def test_the_ledger_of_the_run_is_known_of_a_checkpoint_alone(job) -> None:
    ours, theirs = record_of(job.results)["cost"], record_of(job.export_results)["cost"]
    spent = json.loads((job.run / "cost.json").read_text())
    assert ours["training"] == spent
    assert ours["training_s"] == spent["seconds"]
    assert {"training", "training_s", "encode_items_s"} == ours.keys() - theirs.keys()
    assert theirs["rank_s"] > 0
    assert theirs["peak_memory_mb"] > 10


def test_the_command_that_was_given_stands_in_the_report(job) -> None:
    for results, given in ((job.results, job.run), (job.export_results, f"--embeddings {job.export}")):
        command = record_of(results)["reproduce"]
        assert command.startswith("mmrec evaluate ")
        assert str(given) in command
        assert "--no-baselines" in command
        assert command in (results / "report.html").read_text().replace("&#39;", "'")
