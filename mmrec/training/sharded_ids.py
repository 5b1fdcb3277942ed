"""Embeddings of item ids dealt over the ranks, with an optimiser that touches only the rows that a step reads.

A table of 10 million rows of 128 takes 5 GB, its gradient as much and the moments of Adam twice as much, on every rank,
to learn from a few thousand rows a step. Here each rank holds the rows of its own items, encodes these items and no
others, and keeps one moment and one number for each row.

Legend: P items of a batch, R rows read in a step, L rows of this rank, D model width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from mmrec.distributed import gather_on_first, rank, world_size
from mmrec.modality_encoders.base import ModalityEncoder, Tokens
from mmrec.modality_encoders.item_id import ItemIdEncoder

__all__ = ["ShardedItemIds"]

BETAS, EPS = (0.9, 0.98), 1e-8


class ShardedItemIds(ModalityEncoder):
    """Takes the place of an :class:`ItemIdEncoder` in training: the same tokens for the items of this rank.

    Weights and moments are plain tensors and no parameters: DistributedDataParallel would make all ranks' equal.

    Args:
        encoder: with the whole table, as it was made or loaded.
        rows: row of each item of the catalogue, -1 for items without one. (V,)

    Source of the optimiser: Adam (Kingma and Ba 2015) with one second moment a row, the mean square of its gradient, as
        in row-wise Adagrad (Mudigere et al. 2022), and a count of steps a row for the bias correction; a row that a
        step does not read stays as it is.
    """

    takes_keys = True

    def __init__(self, encoder: ItemIdEncoder, rows: np.ndarray) -> None:
        super().__init__()
        self.dropout = encoder.dropout
        table = encoder.embedding.weight.detach()
        items = np.flatnonzero(rows >= 0)
        owner = np.empty(len(items), dtype=np.int64)
        owner[rows[items]] = items % world_size()  # of each row
        self.sizes = np.bincount(owner, minlength=world_size()).tolist()
        self._mine = torch.from_numpy(np.flatnonzero(owner == rank()))
        self._order = torch.from_numpy(np.argsort(np.argsort(owner, kind="stable")))  # of rows among all ranks' shards
        self._local = torch.full((len(table),), -1, device=table.device)
        self._local[self._mine] = torch.arange(len(self._mine), device=table.device)
        self.weight = table[self._mine.to(table.device)].clone()  # (L, D)
        self.first_moment = torch.zeros_like(self.weight)
        self.second_moment = self.weight.new_zeros(len(self.weight))
        self.count = self.weight.new_zeros(len(self.weight))  # steps that read the row
        self._read: tuple[Int[Tensor, " R"], Float[Tensor, "R D"]] | None = None

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        local = self._local[inputs["rows"]]
        vectors = self.weight[local]
        if self.training and torch.is_grad_enabled():
            vectors.requires_grad_(True)
            self._read = local, vectors
        tokens = self.dropout(vectors, inputs.get("keys"))[:, None]
        return tokens, torch.ones(len(local), 1, dtype=torch.bool, device=local.device)

    def squared_norm(self) -> Float[Tensor, ""]:
        """Of the gradient of all ranks' rows, which is first divided by the number of ranks, as other gradients are."""
        total = self.weight.new_zeros(())
        if self._read is not None and self._read[1].grad is not None:
            gradient = self._read[1].grad.div_(world_size())
            total = gradient.square().sum()
        if world_size() > 1:
            dist.all_reduce(total)
        return total

    @torch.no_grad()
    def step(self, rate: float, gradient_scale: Float[Tensor, ""]) -> None:
        """Move the rows that were read; ``gradient_scale`` clips."""
        if self._read is None or self._read[1].grad is None:
            return
        (local, vectors), self._read = self._read, None
        assert vectors.grad is not None
        gradient = vectors.grad * gradient_scale
        beta, beta2 = BETAS
        count = self.count[local] + 1
        first = self.first_moment[local].lerp_(gradient, 1 - beta)
        second = self.second_moment[local].lerp_(gradient.square().mean(1), 1 - beta2)
        denominator = (second / (1 - beta2**count)).sqrt_().add_(EPS)
        self.weight[local] -= rate * (first / (1 - beta**count)[:, None]) / denominator[:, None]
        self.first_moment[local], self.second_moment[local], self.count[local] = first, second, count

    def gather(self) -> dict[str, Tensor] | None:
        """The whole table and its moments, on the CPU of the first rank; every rank must call it."""
        parts = {"weight": self.weight, "first_moment": self.first_moment}
        parts |= {"second_moment": self.second_moment, "count": self.count}
        whole = {name: gather_on_first(value.cpu().clone(), self.sizes) for name, value in parts.items()}
        if rank() != 0:
            return None
        return {name: value[self._order] for name, value in whole.items() if value is not None}

    def load(self, whole: dict[str, Tensor]) -> None:
        """Take this rank's rows of what :meth:`gather` gave."""
        for name, value in whole.items():
            getattr(self, name).copy_(value[self._mine])
