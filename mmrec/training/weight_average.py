"""An exponential moving average of the weights, which is validated and exported in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """``average = decay * average + (1 - decay) * weight`` after each step, over the weights that learn.

    In the first steps the decay is smaller, ``(1 + step) / (10 + step)``, so that the average does not remember the
    initial weights for ever. On sharded weights each rank averages its shard.

    Args:
        model: whose weights; not wrapped.
        decay: at least 0, less than 1.

    Source: Polyak and Juditsky 1992; the warm-up as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in self._learning()}

    def _learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Args: step: of the run, 0 is the first."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._learning():
            if name not in self.average:  # has begun to learn
                self.average[name] = value.detach().clone()
            self.average[name].lerp_(value.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the average as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = dict(self.model.named_parameters())
        for name, average in self.average.items():
            weight = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(weight)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on with a stored average. Args: weights: by the names of parameters."""
        for name, average in self.average.items():
            average.copy_(weights[name])
