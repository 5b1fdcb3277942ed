"""A killed run goes on exactly where it was: the losses of the uninterrupted run, step for step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(dataset: Path, run: Path) -> list[str]:
    settings = ["--batch-size", "4", "--max-epochs", "4", "--patience", "99", "--checkpoint-steps", "3"]
    return [sys.executable, "-m", "mmrec", "train", "id", "--data", str(dataset), "--out", str(run), *settings]


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset_path, tmp_path_factory) -> dict[int, float]:
    run = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(command(tiny_dataset_path, run), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return losses(run)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_in_the_middle_of_an_epoch_has_the_losses_of_a_whole_one(
    tiny_dataset_path, uninterrupted, tmp_path, how
):
    run = tmp_path / "run"
    process = subprocess.Popen(command(tiny_dataset_path, run), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (run / "latest").exists():
        time.sleep(0.002)
    process.send_signal(how)
    process.communicate(timeout=120)
    before = json.loads(((run / "latest").resolve() / "training_state" / "state.json").read_text())
    assert before["step"] < max(uninterrupted), "the run ended before it could be stopped"

    done = subprocess.run(command(tiny_dataset_path, run), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == uninterrupted
