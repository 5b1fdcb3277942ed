"""A modality encoder as a graph of operations: it answers without the library that its network comes from.

To import transformers or timm takes longer than a query may; an export therefore carries the graphs of its encoders.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.errors import CheckpointError
from mmrec.modality_encoders.base import ModalityEncoder, Tokens

__all__ = ["GraphEncoder", "graph_writer"]


class GraphEncoder(ModalityEncoder):
    """What the function of :func:`graph_writer` wrote: for inference alone, with its weights.

    Raises: CheckpointError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                self.graph = torch.jit.load(path, map_location="cpu")
        except RuntimeError as error:
            raise CheckpointError(f"{path} is damaged: {str(error).strip().splitlines()[0]}") from error

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        # Optimising a graph takes longer than running it once.
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
            return self.graph(*(inputs[name] for name in sorted(inputs)))


@torch.inference_mode()
def graph_writer(
    encoder: ModalityEncoder, inputs: dict[str, Tensor], other: dict[str, Tensor]
) -> Callable[[Path], None] | None:
    """What writes an encoder, with its weights, as the graph of operations that it runs on some inputs.

    TorchScript, deprecated as it is, since torch alone loads it: 1.9 s after the start of the process, where
    transformers takes 5.9 s and torch.export, which loads torch's compiler, 3.6 s (2-core CPU, 2026-11-23).

    Args:
        inputs: collated inputs of some items.
        other: those of other items, for which the graph has to give what the encoder gives.

    Returns: None where it does not: the network looks at its inputs in Python, and has no graph.
    """
    # The tracer warns of every size that Python looks at; the comparison tells whether one mattered.
    with warnings.catch_warnings(action="ignore"):
        graph: Any = torch.jit.trace(
            _Positional(encoder, sorted(inputs)), tuple(inputs[name] for name in sorted(inputs))
        )
    for expected, found in zip(encoder(other), graph(*(other[name] for name in sorted(other))), strict=True):
        if expected.shape != found.shape or not torch.allclose(expected, found, atol=1e-5):
            return None

    def write(path: Path) -> None:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            torch.jit.save(graph, path)

    return write


class _Positional(nn.Module):
    """A graph takes its inputs by place, in the order of their names."""

    def __init__(self, encoder: ModalityEncoder, names: list[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = names

    def forward(self, *values: Tensor) -> Tokens:
        return self.encoder(dict(zip(self.names, values, strict=True)))
