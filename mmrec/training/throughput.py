"""How much arithmetic a step is, and how far from the machine's limit it runs."""

from __future__ import annotations

import functools
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops", "distance_to_limit", "matmul_rate", "stated_peak"]

# Dense peak of matrix products in FLOP/s as their makers state it: (bfloat16, float32 without TF32).
STATED_PEAKS = {
    "B200": (2250e12, 75e12),
    "H200": (989e12, 67e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "A10G": (70e12, 35e12),
    "RTX 4090": (165e12, 82.6e12),
}


def count_flops() -> FlopCounterMode:
    """A context in which floating-point operations of matrix products, convolutions and attention are counted, forward
    and backward: ``.get_total_flops()``. Steps within it are slower."""
    return FlopCounterMode(display=False)


@functools.cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices on this device, measured once: a limit that one can reach."""
    size = 4096 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    del product
    return 2 * size**3 / best


def distance_to_limit(flops_per_s: float, device: torch.device, mixed_precision: str) -> dict[str, float]:
    """Arithmetic of one device a second, as a share of its limits: of what its own matrix product reaches
    ("matmul_share"), and, where that is known, of what its maker states ("mfu")."""
    dtype = torch.bfloat16 if mixed_precision == "bf16" else torch.float32
    found = {"flops_per_s": flops_per_s, "matmul_share": flops_per_s / matmul_rate(device, dtype)}
    peak = stated_peak(device, dtype)
    return found if peak is None else found | {"mfu": flops_per_s / peak}


def stated_peak(device: torch.device, dtype: torch.dtype) -> float | None:
    """The peak that the maker states for this device, in FLOP/s; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = next((peaks for key, peaks in STATED_PEAKS.items() if key in name), None)
    return None if found is None else found[0 if dtype == torch.bfloat16 else 1]
