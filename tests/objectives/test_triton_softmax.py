"""The Triton kernels against the dense form in float64, run by Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds")

SCRIPT = """
import os
os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are defined
import torch
from mmrec.objectives import Excluded
from mmrec.objectives.blocked_softmax import blocked_logsumexp

N, C, D = {sizes}
generator = torch.Generator().manual_seed(0)
users, candidates = (torch.randn(n, D, generator=generator) / D**0.5 for n in (N, C))
log_inclusion = -torch.rand(C, generator=generator)
own = torch.randint(-1, C, (N,), generator=generator)
starts = torch.randint(N, (40,), generator=generator).sort().values
stops = (starts + 23).clamp(max=N)
columns = torch.randint(C, (40,), generator=generator)
starts = torch.cat([starts, torch.full((C,), 7)])  # row 7 excludes all candidates
stops, columns = torch.cat([stops, torch.full((C,), 8)]), torch.cat([columns, torch.arange(C)])
order = torch.argsort(starts, stable=True)
starts, stops, columns = starts[order], stops[order], columns[order]
excluded = Excluded(own=own, columns=columns, starts=starts, stops=stops)

scale = torch.tensor(8.0)
leaves = [value.clone().requires_grad_(True) for value in (users, candidates, scale)]
found = blocked_logsumexp(*leaves, log_inclusion, excluded, kernels=True)

doubles = [value.double().requires_grad_(True) for value in (users, candidates, scale)]
left_out = torch.zeros(N, C, dtype=torch.bool)
left_out[own >= 0, own[own >= 0]] = True
for column, start, stop in zip(columns.tolist(), starts.tolist(), stops.tolist()):
    left_out[start:stop, column] = True
dense = (doubles[2] * doubles[0] @ doubles[1].T - log_inclusion.double()).masked_fill(left_out, -torch.inf)
expected = torch.logsumexp(dense, 1)
assert found[7] == expected[7] == -torch.inf
finite = torch.arange(N) != 7
torch.testing.assert_close(found[finite].double(), expected[finite], atol=1e-5, rtol=1e-5)

weights = torch.randn(N, generator=generator)
weights[7] = 0.0
loss = torch.where(finite, found, 0.0) @ weights
reference = torch.where(finite, expected, 0.0) @ weights.double()
for gradient, other in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(reference, doubles)):
    other = other.nan_to_num()
    torch.testing.assert_close(gradient.double(), other, atol=2e-5 * max(1.0, float(other.abs().max())), rtol=1e-4)
print("equal")
"""


@pytest.mark.parametrize("sizes", [(70, 150, 20), (130, 700, 64), (65, 64, 130)], ids=str)
def test_value_and_gradients_equal_the_dense_form(sizes):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(sizes=sizes)], capture_output=True, text=True, timeout=300,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr[-3000:]
