"""The mathematics is the same on 1 process and on N: loss and gradient of the same global batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run_first_step(
    processes: int, dataset: Path, folder: Path, batch_size: int, towers: str = "learn", objective: str = "default"
) -> dict:
    result = folder / f"step-{processes}.pt"
    run = folder / f"run-{processes}"
    return launch(processes, "first_step.py", dataset, run, result, str(batch_size), towers, objective)


def launch(processes: int, script: str, dataset: Path, run: Path, result: Path, *more: str) -> dict:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).with_name(script)), str(dataset), str(run), str(result), *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result, weights_only=True)


def assert_equal_to_1e5(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """To 1e-5 of the tensor's largest entry, or absolutely where that is below 1: float32 sums in another order."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=0, msg=name)


def assert_equal_steps(found: dict, expected: dict) -> None:
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), abs=1e-5)
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        assert_equal_to_1e5(found["gradients"][name], gradient, name)


@pytest.mark.parametrize(
    ("batch_size", "towers"),
    [(8, "learn"), (1, "learn"), (8, "rest"), (8, "chunks"), (8, "sample"), (8, "foundation")],
    ids=["whole batch", "few histories", "towers at rest", "in chunks", "from a sample", "foundation encoders"],
)
def test_two_processes_have_the_loss_and_the_gradients_of_one(tiny_dataset_path, tmp_path, batch_size, towers):
    for processes in (1, 2):  # each fills a feature cache of its own
        shutil.copytree(tiny_dataset_path, tmp_path / f"dataset-{processes}")
    one = run_first_step(1, tmp_path / "dataset-1", tmp_path, batch_size, towers)
    two = run_first_step(2, tmp_path / "dataset-2", tmp_path, batch_size, towers)
    assert_equal_steps(two, one)
    assert any(".tower." in name for name in one["gradients"]) == (towers != "rest")


def test_encoding_in_chunks_gives_the_gradients_of_encoding_at_once(tiny_dataset_path, tmp_path):
    steps = []
    for towers in ("learn", "chunks"):
        (tmp_path / towers).mkdir()
        steps.append(run_first_step(1, tiny_dataset_path, tmp_path / towers, 8, towers))
    assert_equal_steps(steps[1], steps[0])


def test_when_towers_wake_all_ranks_go_on_with_the_same_weights(tiny_dataset_path, tmp_path):
    ended = launch(2, "both_phases.py", tiny_dataset_path, tmp_path / "run", tmp_path / "weights.pt")
    torch.testing.assert_close(ended["weights"][1], ended["weights"][0], atol=0, rtol=0)
    assert {name for name in ended["names"] if ".tower." in name} & set(ended["changed"]), "towers have learnt"


SLOW = ["bank", "info_nce", "gbce", "in_batch", "alignment", "bert4rec", "uniform", "ligr", "gru4rec", "mean_pool"]


@pytest.mark.parametrize("objective", ["sigmoid", "hstu", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_every_objective_has_the_loss_and_the_gradients_of_one_process_on_two_and_three(
    tiny_dataset_path, tmp_path, objective
):
    one, two, three = (
        run_first_step(processes, tiny_dataset_path, tmp_path, 8, "rest", objective) for processes in (1, 2, 3)
    )
    assert one["gradients"]["log_scale"], "the temperature learns"
    assert_equal_steps(two, one)
    assert_equal_steps(three, one)


@pytest.mark.slow
def test_three_processes_have_the_gradients_of_one(tiny_dataset_path, tmp_path):
    one = run_first_step(1, tiny_dataset_path, tmp_path, 8)
    assert_equal_steps(run_first_step(3, tiny_dataset_path, tmp_path, 8), one)
