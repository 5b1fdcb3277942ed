"""Dropout by keys beside that of PyTorch, forward and backward, in one process.

    python -m eval.benchmarks.dropout

Measured 2026-11-26, one thread of a 2-core CPU shared with other work, 2,885 x 128 entries: by keys 1.07 ms, PyTorch
4.60; beyond what a multiplication by a constant costs, .61 and 4.15.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from mmrec.dropout import Dropout


def milliseconds(function: Callable[[], torch.Tensor], repeats: int) -> float:
    """Of the fastest of ``repeats`` runs, forward and backward."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function().sum().backward()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2885)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    values = torch.randn(given.rows, given.width, requires_grad=True)
    keys, module = torch.randint(2**62, (given.rows,)), Dropout(0.5)
    floor = milliseconds(lambda: values * 2.0, given.repeats)
    by_keys = milliseconds(lambda: module(values, keys), given.repeats)
    by_pytorch = milliseconds(lambda: F.dropout(values, 0.5), given.repeats)
    table = Table("what", "ms", "ms beyond a multiplication")
    for name, found in (("a multiplication", floor), ("by keys", by_keys), ("torch.nn.functional.dropout", by_pytorch)):
        table.add_row(name, f"{found:.2f}", f"{found - floor:.2f}")
    table.add_row("PyTorch / by keys", f"{by_pytorch / by_keys:.1f}", f"{(by_pytorch - floor) / (by_keys - floor):.1f}")
    Console().print(f"{given.rows:,} x {given.width} entries, {torch.get_num_threads()} threads", table)


if __name__ == "__main__":
    main()
