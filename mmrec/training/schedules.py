"""The learning rate over the steps of a run, as a share of its peak."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Schedule", "rate_share"]

Schedule = Literal["constant", "cosine", "wsd"]

# Of the steps of a warm-up-stable-decay schedule, the last share in which the rate falls.
DECAY_SHARE = 0.2


def rate_share(schedule: Schedule, step: int, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak rate at a step, 0 to 1; warm-up is linear and reaches 1 in its last step.

    Args:
        schedule: constant: 1 after the warm-up. cosine: half a cosine from 1 to 0 (Loshchilov and Hutter 2017). wsd: 1,
            then linearly to 0 over the last fifth (warm-up, stable, decay: Hu et al. 2024, "MiniCPM").
        step: 0 is the first.
        warmup_steps: steps until the peak.
        total_steps: steps of the run; at it and after it the falling schedules are at 0. Constant does not ask.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return min((1.0 - done) / DECAY_SHARE, 1.0)
