"""A run that is killed twenty times at random moments, and goes on with one, two or three processes in turn."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmrec.model import weights_of

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
STEPS, KILLS = 400, 20


def start(dataset: Path, run: Path, processes: int) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    settings = ["--batch-size", "4", "--max-epochs", "999", "--max-steps", str(STEPS), "--patience", "999"]
    settings += ["--checkpoint-steps", "2", "--rest-epochs", "999", "--trackers"]
    command = [*launcher, "-m", "mmrec", "train", "hybrid", "--data", str(dataset), "--out", str(run), *settings]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def kill_everything_of(run: Path) -> None:
    """The launcher and all its processes at once, as when the power fails."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and str(run).encode() in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


def step_of(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return int(os.readlink(run / "latest").removeprefix("step-"))
    return 0


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_after_twenty_kills_the_weights_are_those_of_an_undisturbed_run(tiny_dataset_path, tmp_path):
    whole = start(tiny_dataset_path, tmp_path / "whole", 1)
    assert whole.wait(600) == 0, whole.stderr.read()[-3000:]

    moments, run, killed_at = random.Random(7), tmp_path / "killed", []
    for number in range(KILLS):
        before, process = step_of(run), start(tiny_dataset_path, run, 1 + number % 3)
        deadline = time.monotonic() + 120
        while process.poll() is None and step_of(run) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 1.0))
        assert process.poll() is None, "the run ended before it could be killed as often as it should"
        kill_everything_of(run)
        process.wait()
        killed_at.append(step_of(run))
    assert killed_at == sorted(killed_at)
    assert killed_at[-1] < STEPS
    last = start(tiny_dataset_path, run, 2)
    assert last.wait(600) == 0, last.stderr.read()[-3000:]

    expected, found = losses(tmp_path / "whole"), losses(run)
    assert list(found) == list(expected) == list(range(STEPS))
    apart = {step: abs(found[step] - expected[step]) for step in expected}
    weights, reference = (weights_of((folder / "latest").resolve()) for folder in (run, tmp_path / "whole"))
    assert weights.keys() == reference.keys()
    differences = {name: largest_difference(name, weights[name], value) for name, value in reference.items()}
    worst = max(differences, key=lambda name: differences[name])
    print(f"killed at steps {killed_at}; largest difference of losses {max(apart.values()):.1e}, of weights ", end="")
    print(f"{differences[worst]:.1e} ({worst})")
    assert max(apart.values()) < 5e-5
    assert differences[worst] < 1e-4, worst


def largest_difference(name: str, found: torch.Tensor, expected: torch.Tensor) -> float:
    """Without biases of attention's keys: a softmax does not see them, so that their gradient is nothing but rounding,
    which Adam takes steps of its full rate by."""
    difference = (found - expected).abs()
    for bias, keys in (("query_key_value.bias", slice(1, 2)), ("key_value.bias", slice(0, 1))):
        if name.endswith("." + bias):
            parts = difference.unflatten(0, (len(bias.split("_")), -1))
            parts[keys] = 0.0
            break
    return float(difference.max())
