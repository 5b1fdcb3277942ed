"""What must be the same on CUDA as on a CPU: losses, dropout, training, attention. Run by eval/benchmarks/gpu.sh."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mmrec.dropout import Dropout
from mmrec.objectives import Excluded
from mmrec.objectives.blocked_softmax import blocked_logsumexp, blocked_softplus_sum
from mmrec.training import preset
from mmrec.training.trainer import Trainer
from mmrec.user_encoders import SASRecConfig
from mmrec.user_encoders.sasrec import flex_is_right

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_dropout_drops_the_same_entries():
    values, keys = torch.ones(300, 77), torch.arange(300) * 7919
    here, there = Dropout(0.4)(values, keys), Dropout(0.4)(values.cuda(), keys.cuda())
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("size", [(5000, 20_000, 64), (4097, 16_385, 32)], ids=str)
def test_blocked_sums_have_the_values_and_gradients_of_the_cpu(size):
    num_rows, num_candidates, dim = size
    generator = torch.Generator().manual_seed(0)
    users, candidates = (torch.randn(n, dim, generator=generator) / dim**0.5 for n in (num_rows, num_candidates))
    log_q = -torch.rand(num_candidates, generator=generator)
    starts = torch.randint(num_rows - 50, (400,), generator=generator).sort().values
    runs = torch.randint(num_candidates, (400,), generator=generator), starts, starts + 50
    found = []
    for device in ("cpu", "cuda"):
        columns, first, last = (part.to(device) for part in runs)
        own = torch.arange(num_rows, device=device) % num_candidates
        excluded = Excluded(own=own, columns=columns, starts=first, stops=last)
        leaves = [value.to(device).requires_grad_(True) for value in (users, candidates, torch.tensor(9.0))]
        sums = blocked_logsumexp(*leaves, log_q.to(device), excluded)
        plus, count = blocked_softplus_sum(*leaves, torch.tensor(-3.0, device=device), excluded)
        gradients = torch.autograd.grad(sums.sum() + plus.sum() / 1000, leaves)
        found.append([value.detach().cpu() for value in (sums, plus, count, *gradients)])
    for there, here in zip(*reversed(found), strict=True):
        torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)


def test_flex_attention_is_right_here():
    assert flex_is_right(torch.device("cuda"), 64, 2, True)
    assert SASRecConfig().build(64) is not None


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_has_the_losses_of_the_cpu(tiny_dataset_path, tmp_path, precision, monkeypatch):
    """In float32 to what other kernels round; in bfloat16 to its three digits."""
    losses = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda device=device: device == "cuda")
        run = tmp_path / device
        config = preset("hybrid", tiny_dataset_path)
        settings = {"max_steps": 10, "batch_size": 8, "rest_epochs": 99, "trackers": ()}
        Trainer(dataclasses.replace(config, out=run, mixed_precision=precision, **settings)).fit()
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if precision == "no" else 3e-2)
