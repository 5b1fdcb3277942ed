"""What a run tells: lines of steps and epochs, spikes, traces, trackers, costs."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from mmrec.batch import SequenceBatch
from mmrec.cli import main
from mmrec.errors import ConfigError
from mmrec.training import preset
from mmrec.training.loader import _collisions
from mmrec.training.telemetry import MetricsLog, start_trackers
from mmrec.training.throughput import count_flops, matmul_rate
from mmrec.training.trainer import Trainer
from mmrec.user_encoders.packing import padding_share


@pytest.fixture(scope="module")
def run(tiny_dataset_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "run"
    settings = {"batch_size": 4, "max_epochs": 3, "patience": 99, "profile_steps": 2}
    return Trainer(dataclasses.replace(preset("id", tiny_dataset_path), out=folder, **settings)).fit()


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_step_tells_its_losses_sizes_and_times(run):
    steps = [line for line in lines_of(run) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(len(steps)))
    for line in steps:
        assert line["loss"] == pytest.approx(line["next_item"])
        assert line["gradient_norm"] > 0
        assert line["seconds"] > 0
        assert 0 <= line["data_wait"] <= 1
        assert line["items"] >= line["events"] / line["events"] > 0
        assert 0 <= line["padding"] < 1
        assert 0 < line["collisions"] < 1


def test_an_epoch_tells_validation_rates_memory_and_the_distance_to_the_limit(run):
    epochs = [line for line in lines_of(run) if "validation" in line]
    assert len(epochs) == 3
    for line in epochs:
        assert set(line["validation"]) == {"hr@10", "ndcg@10", "mrr"}
        assert line["events_per_s"] > 0
        assert line["effective_rank"]["fused"] > 1
        assert line["peak_memory_mb"] > 50
        assert 0 < line["matmul_share"] < 1, "less than the machine's own matrix product"


def test_the_cost_ledger_sums_what_the_run_took(run):
    cost, state = (
        json.loads(path.read_text())
        for path in (run / "cost.json", (run / "latest").resolve() / "training_state" / "state.json")
    )
    steps = [line for line in lines_of(run) if "loss" in line]
    assert cost["events"] == sum(line["events"] for line in steps)
    assert cost["flops"] > 0
    assert cost["steps_s"] + cost["validation_s"] <= cost["seconds"] * 1.05
    assert state["seconds"] == pytest.approx(cost["seconds"])
    assert cost["processes"] == 1


def test_a_trace_of_the_steps_asked_for_is_written(run):
    trace = json.loads((run / "profile" / "trace.json").read_text())
    assert any("mm" in event.get("name", "") for event in trace["traceEvents"])
    assert "Self CPU" in (run / "profile" / "operations.txt").read_text()


def test_tensorboard_has_the_losses_by_default(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "trackers" / "mmrec"))
    events.Reload()
    found = [event.value for event in events.Scalars("loss")]
    assert found == pytest.approx([line["loss"] for line in lines_of(run) if "loss" in line])


@pytest.mark.parametrize(
    ("name", "said"),
    [("tensorbord", "perhaps you meant 'tensorboard'"), ("comet_ml", "needs its package; pip install comet_ml")],
)
def test_a_tracker_that_is_unknown_or_not_installed_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        start_trackers(Accelerator(cpu=True), [name], tmp_path, {})


def test_a_loss_far_above_the_last_ones_is_noted(tmp_path, caplog):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, Accelerator(cpu=True))
    generator = torch.Generator().manual_seed(0)
    for step in range(120):
        noise = float(torch.randn((), generator=generator))
        log.add(step=step, epoch=0, loss=torch.tensor(9.0 if step == 100 else 2.0 + 0.1 * noise))
    with caplog.at_level(logging.WARNING):
        log.flush()
    marked = [line["step"] for line in lines_of(tmp_path) if "spike" in line]
    assert marked == [100]
    assert "step 100  loss 9.000 is a spike" in caplog.text


def test_counted_arithmetic_is_that_of_the_matrix_products():
    left, right = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with count_flops() as counter:
        (left @ right).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 3 * 5 * 7  # forward, and one product for each gradient
    assert matmul_rate(torch.device("cpu"), torch.float32) > 1e9


def test_collisions_are_the_pairs_that_are_no_negatives():
    sequences = SequenceBatch(
        item_idx=torch.tensor([3, 5, 3, 9]), offsets=torch.tensor([0, 3, 4]), target_idx=torch.tensor([5, 3, 8, 3])
    )
    # Candidates 3, 5, 9: event by event, what was seen or is the target, an item taken twice counted twice.
    pairs = [["3", "5"], ["3", "5", "3"], ["3", "5", "3"], ["9", "3"]]
    assert _collisions(sequences, [3, 5, 9]) == sum(map(len, pairs)) / (4 * 3)


def test_padding_is_what_the_rectangles_hold_beside_events():
    assert padding_share(torch.tensor([4, 4, 4])) == 0.0
    assert padding_share(torch.tensor([0, 0])) == 0.0
    assert padding_share(torch.tensor([3, 4])) == 1 - 7 / 8


@pytest.mark.parametrize("preset_name", ["id", "hybrid"])
def test_a_dry_run_tells_settings_parameters_steps_and_memory_and_begins_nothing(
    tiny_dataset_path, tmp_path, capsys, preset_name
):
    run = tmp_path / "run"
    arguments = ["train", preset_name, "--data", str(tiny_dataset_path), "--out", str(run), "--dry-run"]
    assert main([*arguments, "--batch-size", "7"]) == 0
    said = capsys.readouterr().out
    for word in ("model.user_encoder.num_blocks", "item_id encoder", "steps an epoch", "optimiser", "are free"):
        assert word in said
    assert not run.exists()
    assert [line.split()[3] for line in said.splitlines() if " batch_size " in line] == ["7"]


def counts_of_a_dry_run(dataset: Path, run: Path, capsys, *settings: str) -> dict[str, tuple[int, int]]:
    """By part, parameters and how many learn."""
    arguments = ["train", "hybrid", "--data", str(dataset), "--out", str(run), "--dry-run", *settings]
    assert main(arguments) == 0
    rows = (line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    cells = [[cell.strip().replace(",", "") for cell in row] for row in rows]
    return {row[0]: (int(row[1]), int(row[2])) for row in cells if len(row) >= 3 and row[2].isdecimal()}


def test_a_dry_run_counts_every_parameter_once_and_those_that_ever_learn(tiny_dataset_path, tmp_path, capsys):
    run = tmp_path / "run"
    names = ["image encoder", "text encoder", "fusion", "user encoder", "objectives"]
    counts = counts_of_a_dry_run(tiny_dataset_path, run, capsys)
    model = Trainer(dataclasses.replace(preset("hybrid", tiny_dataset_path), out=run)).recommender
    assert set(names) < set(counts)
    for place in (0, 1):
        assert sum(count[place] for name, count in counts.items() if name != "all") == counts["all"][place]
    assert counts["all"] == (sum(p.numel() for p in model.parameters()),) * 2
    few = counts_of_a_dry_run(tiny_dataset_path, tmp_path / "few", capsys, "--tower-items", "4")
    assert few == counts, "a sample of items is learnt from, by all parameters"
    rest = counts_of_a_dry_run(tiny_dataset_path, tmp_path / "rest", capsys, "--tower-epochs", "0")
    image = model.item_encoder.encoders["image"]
    assert rest["image encoder"] == (counts["image encoder"][0], sum(p.numel() for p in image.head.parameters()))
    one = "timm:test_vit@random"
    top = counts_of_a_dry_run(
        tiny_dataset_path, tmp_path / "top", capsys, "--image-encoder", one, "--image-tune", "top:1"
    )
    assert 0 < top["image encoder"][1] < top["image encoder"][0]


def test_a_run_that_cannot_fit_is_refused_before_its_first_step(tiny_dataset_path, tmp_path, monkeypatch):
    from mmrec.training import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000.0)
    with pytest.raises(ConfigError, match=r"needs about .* on each process, .*; give a lower --batch"):
        Trainer(dataclasses.replace(preset("id", tiny_dataset_path), out=tmp_path / "run"))
