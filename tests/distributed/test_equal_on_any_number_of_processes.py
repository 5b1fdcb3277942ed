"""The mathematics is the same on 1 process and on N: the first step, dropout and all, and the run of twenty steps.

Each number of processes is started once for all variants; ``equal_runs.py`` says what they are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("equal_runs.py")

# The others, and three processes, are for `make test-all`.
QUICK = ["towers", "chunks", "fsdp", "sharded_ids"]


def all_variants() -> list[str]:
    spec = importlib.util.spec_from_file_location("equal_runs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.VARIANTS)


SLOW = [name for name in all_variants() if name not in QUICK]


def launch(processes: int, dataset: Path, folder: Path, variants: list[str]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(dataset), str(folder), *variants],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def quick(tiny_dataset_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    for processes in (1, 2):
        launch(processes, tiny_dataset_path, folder, QUICK)
    return folder


@pytest.fixture(scope="module")
def thorough(tiny_dataset_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("thorough")
    for processes in (1, 2, 3):
        launch(processes, tiny_dataset_path, folder, [*SLOW, *QUICK])
    return folder


def assert_equal_runs(folder: Path, variant: str, processes: int, like: str | None = None) -> None:
    """Losses and gradients to 1e-5 (of a tensor's largest entry where that is above 1); weights after twenty steps to
    1e-4, a tenth of one step of Adam, which makes a step of every gradient however small, rounding noise included."""
    one = torch.load(folder / f"{like or variant}-1.pt", weights_only=True)
    many = torch.load(folder / f"{variant}-{processes}.pt", weights_only=True)
    torch.testing.assert_close(many["loss"], one["loss"], atol=1e-5, rtol=1e-5)
    if like is None:
        assert many["gradients"].keys() == one["gradients"].keys()
    for name, expected in one["gradients"].items():
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(many["gradients"][name], expected, atol=1e-5 * scale, rtol=0, msg=name)
    assert len(one["losses"]) == 20
    torch.testing.assert_close(many["losses"], one["losses"], atol=5e-5, rtol=1e-5)
    # Two items whose scores differ by less than the weights do may change places: 1/5 - 1/6 of one query of 30 is 1e-3.
    torch.testing.assert_close(many["validation"], one["validation"], atol=5e-3, rtol=0)
    torch.testing.assert_close(many["effective_ranks"], one["effective_ranks"], atol=1e-2, rtol=1e-3)
    assert many["weights"].keys() == one["weights"].keys()
    for name, expected in one["weights"].items():
        torch.testing.assert_close(many["weights"][name], expected, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("variant", QUICK)
def test_two_processes_take_the_steps_of_one(quick, variant):
    assert_equal_runs(quick, variant, 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", [*SLOW, *QUICK])
def test_two_and_three_processes_take_the_steps_of_one(thorough, variant):
    assert_equal_runs(thorough, variant, 2)
    assert_equal_runs(thorough, variant, 3)


def test_chunks_take_the_steps_of_the_whole(quick):
    """Items and histories in chunks, computed again in the backward pass: what accumulation would be for."""
    assert_equal_runs(quick, "chunks", 1, like="towers")
    assert_equal_runs(quick, "chunks", 2, like="towers")


def test_shards_of_all_weights_take_the_steps_of_whole_weights(quick, tmp_path):
    """FSDP2 on two processes against one process with everything; the first step starts from other weights."""
    one, many = (torch.load(quick / name, weights_only=True) for name in ("towers-1.pt", "fsdp-2.pt"))
    torch.testing.assert_close(many["losses"], one["losses"], atol=5e-5, rtol=1e-5)
    for name, expected in one["weights"].items():
        torch.testing.assert_close(many["weights"][name], expected, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_what_two_processes_held_in_shards_goes_on_on_another_number(quick, tiny_dataset_path, tmp_path, processes):
    variants = ["fsdp", "sharded_ids"]
    for variant in variants:
        run = shutil.copytree(quick / f"{variant}-2", tmp_path / f"{variant}-{processes}", symlinks=True)
        before, newest = sorted(run.glob("step-*"))[-2:]
        assert 0 < int(before.name.removeprefix("step-")) < 20
        shutil.rmtree(newest)
        for name in ("finished.json", "latest", "best"):
            (run / name).unlink()
    launch(processes, tiny_dataset_path, tmp_path, variants)
    for variant in variants:
        whole = torch.load(quick / f"{variant}-2.pt", weights_only=True)
        resumed = torch.load(tmp_path / f"{variant}-{processes}.pt", weights_only=True)
        torch.testing.assert_close(resumed["losses"], whole["losses"], atol=5e-5, rtol=1e-5)
        for name, expected in whole["weights"].items():
            torch.testing.assert_close(resumed["weights"][name], expected, atol=1e-4, rtol=1e-4, msg=name)


def test_the_towers_of_these_runs_learn(quick):
    gradients = torch.load(quick / "towers-2.pt", weights_only=True)["gradients"]
    assert sum(bool(value.any()) for name, value in gradients.items() if ".tower." in name) > 10
    assert gradients["log_scale"].abs() > 1e-3, "the temperature learns"
