"""What evaluation is given and cannot use: one line that says what to do, or a stated result."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from mmrec.cli import main
from mmrec.data.splits import make_split
from mmrec.evaluator import make_record, score_vectors
from mmrec.report import render_report, summary_table
from mmrec.training.checkpoint import file_hash
from mmrec.training.evaluation import vectors_of_checkpoint
from tests.evaluation.conftest import SPLIT, record_of, refused


@pytest.fixture(scope="module")
def other_data(tiny_source, tmp_path_factory):
    """The same items with fewer events."""
    from mmrec.data.ingest import IngestConfig, ingest

    tables = {"items": tiny_source / "items.csv", "interactions": tiny_source / "interactions.csv"}
    out = tmp_path_factory.mktemp("other") / "dataset"
    return ingest(IngestConfig(**tables, until="2020-12-01", text_columns=("title",), out=out, num_workers=1))


@pytest.mark.parametrize("export", [False, True])
def test_a_checkpoint_or_export_of_another_dataset_is_refused(job, other_data, export, tmp_path, capsys) -> None:
    given = ["--embeddings", job.export] if export else [job.run]
    line = refused(capsys, "evaluate", *given, "--data", other_data, "--out", tmp_path / "out")
    assert "was trained on" in line
    assert "give the dataset that it was trained on" in line
    assert not (tmp_path / "out").exists()


def test_nothing_to_evaluate_is_refused(job, tmp_path, capsys) -> None:
    line = refused(capsys, "evaluate", "--data", job.data, "--out", tmp_path / "out")
    assert "give a CHECKPOINT, or --embeddings EXPORT" in line


def test_weights_that_are_no_numbers_are_refused_and_leave_nothing(job, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run, symlinks=True)
    folder = (run / "best").resolve()
    weights = load_file(folder / "model.safetensors")
    diverged = {name: torch.full_like(values, float("nan")) for name, values in weights.items()}
    save_file(diverged, folder / "model.safetensors", metadata={"format": "pt"})
    listed = json.loads((folder / "files.json").read_text())
    path = folder / "model.safetensors"
    listed["model.safetensors"] = {"bytes": path.stat().st_size, "xxh3": file_hash(path)}
    (folder / "files.json").write_text(json.dumps(listed))
    line = refused(capsys, "evaluate", run, "--data", job.data, "--out", tmp_path / "out")
    assert "not all finite" in line
    assert "a diverged training run?" in line
    assert not (tmp_path / "out").exists()


def test_users_without_history_get_the_rank_of_chance_and_a_slice_of_their_own(job, tiny_dataset) -> None:
    given = vectors_of_checkpoint(job.run, job.data, "test")
    queries = given.split.test
    nothing = queries.history.lengths == 0
    assert nothing.any()
    assert (given.users[torch.from_numpy(nothing)] == 0).all()
    ranks = score_vectors(given.split, "test", given.users, given.items).ranks
    assert len(ranks) == len(queries), "one target a query here"
    assert (ranks[nothing] == (tiny_dataset.num_items - 1) / 2).all()
    assert record_of(job.results)["slices"]["history_length"]["0"]["num_targets"] == nothing.sum()


def test_all_scores_equal_is_a_stated_result(tiny_dataset) -> None:
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items, SPLIT)
    users = np.zeros((len(split.test), 3), dtype=np.float32)
    record = make_record(tiny_dataset, split, "test", score_vectors(split, "test", users, np.ones((24, 3), np.float32)))
    assert record["metrics"]["hr@5"] == 0, "every target is in the middle of 15 candidates or more"
    assert record["confidence_interval"]["hr@5"] == [0, 0]
    assert record["metrics"]["hr@50"] == 1, "there are 24 items"
    assert f"{record['metrics']['ndcg@10']:.4f}" in render_report(record)


def test_a_slice_without_targets_is_left_out_and_the_tables_say_so(tiny_dataset) -> None:
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items, "leave_one_out")
    assert split.train_items[split.test.targets].all(), "no new item is asked for"
    users = np.ones((len(split.test), 3), dtype=np.float32)
    record = make_record(tiny_dataset, split, "test", score_vectors(split, "test", users, np.ones((24, 3), np.float32)))
    assert "cold_items" not in record["slices"]
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(summary_table(record))
    assert "no targets" in captured.get()
    assert "no targets" in render_report(record)


def test_an_empty_slice_cannot_be_compared(job, tmp_path, capsys) -> None:
    line = refused(capsys, "compare", job.results, job.export_results, "--slice", "missing_text2")
    assert "unknown slice 'missing_text2'; perhaps you meant 'missing_text'" in line


def test_a_cutoff_beyond_the_catalogue_finds_every_target(job, capsys) -> None:
    assert main(["compare", str(job.results), str(job.export_results), "--metric", "recall@100000", "hr@24"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1.0000") >= 4
    assert "recall@100000" in printed.replace("\n", "")


def test_an_unknown_metric_names_the_nearest(job, capsys) -> None:
    line = refused(capsys, "compare", job.results, job.export_results, "--metric", "ndgc@10")
    assert "perhaps you meant 'ndcg@10'" in line


def test_results_of_two_protocols_are_refused_with_what_differs(job, tmp_path, capsys) -> None:
    valid = tmp_path / "valid"
    data = ["--data", str(job.data), "--out", str(valid), "--no-baselines", "--part", "valid"]
    assert main(["evaluate", str(job.run), *data]) == 0
    assert record_of(valid)["protocol"]["hash"] != record_of(job.results)["protocol"]["hash"]
    line = refused(capsys, "compare", job.results, valid)
    assert "different protocols (part: test against valid" in line


def test_a_category_that_does_not_exist_is_refused_before_anything_is_ranked(job, tmp_path, capsys) -> None:
    line = refused(
        capsys, "evaluate", job.run, "--data", job.data, "--out", tmp_path / "out", "--category", "categories"
    )
    assert "perhaps you meant 'category'" in line
    assert not (tmp_path / "out").exists()
