"""A trace of a few steps by PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

__all__ = ["profiled"]

# Steps before the traced ones: kernels are chosen, caches filled.
FIRST_STEP = 10


@contextmanager
def profiled(folder: Path, num_steps: int) -> Iterator[profile | None]:
    """Trace ``num_steps`` steps after the first ten; call ``.step()`` after each. None where no step is traced.

    Writes ``trace.json`` (for chrome://tracing or Perfetto) and ``operations.txt``, the operations by their time.
    """
    if not num_steps:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def write(found: profile) -> None:
        found.export_chrome_trace(str(folder / "trace.json"))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        (folder / "operations.txt").write_text(found.key_averages().table(sort_by=order, row_limit=40))

    steps = schedule(wait=FIRST_STEP - 1, warmup=1, active=num_steps, repeat=1)
    with profile(activities=activities, schedule=steps, on_trace_ready=write) as tracing:
        yield tracing
