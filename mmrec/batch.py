"""THE contract: what data hands to models. Everything else speaks in these batches.

Legend: B users, N tokens (events of all users, packed), I items of the batch, P items that have a modality,
R items read again, M modalities, T tokens per modality, D model width, V items of the catalogue.
Masks are True = real everywhere. An item is named by its index in the catalogue (``item_idx``, 0 to V - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ItemBatch", "SequenceBatch", "StepBatch"]


@dataclass(frozen=True, kw_only=True)
class ItemBatch:
    """Items with whatever media they have, ready for the item encoder.

    Attributes:
        item_idx: catalogue indices, distinct and ascending in training. ("I",)
        modalities: names of the columns of ``present``; the item encoder's modalities in its order.
        present: True where the item really has the modality (and modality dropout kept it). ("I", "M")
        inputs: per modality, the collated tensors of the *present* items only, in the order of the rows:
            the first dimension of each tensor is ``present[:, m].sum()``. A modality that no item of the batch has
            is absent from the dictionary.
        reread: for modalities of which ``inputs`` has kept outputs of a network, the items that the network reads all
            the same: which of the P they are, ascending, and their media. ("R",)
        keys: 64 random bits of each item in this step, from which its dropout follows; None in inference. ("I",)
    """

    item_idx: Int[Tensor, " I"]
    modalities: tuple[str, ...]
    present: Bool[Tensor, "I M"]
    inputs: dict[str, dict[str, Tensor]]
    reread: dict[str, tuple[Int[Tensor, " R"], dict[str, Tensor]]] = field(default_factory=dict)
    keys: Int[Tensor, " I"] | None = None

    def __len__(self) -> int:
        return self.item_idx.shape[0]

    def to(self, device: torch.device | str) -> ItemBatch:
        def move(group: dict[str, Tensor]) -> dict[str, Tensor]:
            return {key: value.to(device) for key, value in group.items()}

        return replace(
            self,
            item_idx=self.item_idx.to(device),
            present=self.present.to(device),
            inputs={name: move(group) for name, group in self.inputs.items()},
            reread={name: (rows.to(device), move(group)) for name, (rows, group) in self.reread.items()},
            keys=None if self.keys is None else self.keys.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class SequenceBatch:
    """Histories of B users as one flat run of N events, oldest first; no padding.

    Attributes:
        item_idx: catalogue index of each event. ("N",)
        offsets: user b owns events ``offsets[b]:offsets[b + 1]``; an empty history is allowed. ("B + 1",)
        timestamps: seconds since 1970 of each event, or None where the data has no time. ("N",)
        target_idx: catalogue index of the item taken next after each event, or of the masked item itself; -1 where
            there is none to learn from; None in inference. ("N",)
        query_times: when the next item is asked for, seconds since 1970; None where it is not known. ("N",)
        masked: True for events whose item the user encoder may not see, because it is asked for; None: no event. ("N",)
        keys: 64 random bits of each event in this step, from which its dropout follows; None in inference. ("N",)
        weights: how much each target counts in the losses, above 0; None: all alike. ("N",)
    """

    item_idx: Int[Tensor, " N"]
    offsets: Int[Tensor, " B+1"]
    timestamps: Int[Tensor, " N"] | None = None
    target_idx: Int[Tensor, " N"] | None = None
    query_times: Int[Tensor, " N"] | None = None
    masked: Bool[Tensor, " N"] | None = None
    keys: Int[Tensor, " N"] | None = None
    weights: Float[Tensor, " N"] | None = None

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        return self.offsets[1:] - self.offsets[:-1]

    def part(self, start: int, stop: int) -> SequenceBatch:
        """The histories ``start:stop``."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])

        def cut(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[first:last]

        return SequenceBatch(
            item_idx=self.item_idx[first:last],
            offsets=self.offsets[start : stop + 1] - first,
            timestamps=cut(self.timestamps),
            target_idx=cut(self.target_idx),
            query_times=cut(self.query_times),
            masked=cut(self.masked),
            keys=cut(self.keys),
            weights=cut(self.weights),
        )

    def to(self, device: torch.device | str) -> SequenceBatch:
        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return SequenceBatch(
            item_idx=self.item_idx.to(device),
            offsets=self.offsets.to(device),
            timestamps=move(self.timestamps),
            target_idx=move(self.target_idx),
            query_times=move(self.query_times),
            masked=move(self.masked),
            keys=move(self.keys),
            weights=move(self.weights),
        )


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """One rank's part of a training step, and what it must know of the whole step.

    The distinct items of the global batch (histories, targets, candidates) are dealt out to the ranks, each encoded
    once, and every rank receives all the vectors.

    Attributes:
        items: this rank's share of the step's items.
        sequences: this rank's share of the step's histories, with targets.
        step_items: catalogue indices of all distinct items of the step, ascending. ("S",)
        owner: the rank that encodes each of them; stays on the CPU. ("S",)
        candidate_idx: catalogue indices of the step's distinct softmax candidates, ascending. ("C",)
        log_inclusion: log probability that each candidate is among the candidates. ("C",)
        num_items: items that could be candidates: all training items.
        num_targets: events with a target, in the global batch.
        total_weight: sum of their weights; ``num_targets`` where all count alike.
        last_weight: the same of each history's last target.
        rank_users: histories of each rank.
        padding: share of what attention computes for this rank's histories that is padding.
        collisions: share of this rank's pairs of event and candidate in which the candidate is no negative, because it
            is the event's target or was seen.
    """

    items: ItemBatch
    sequences: SequenceBatch
    step_items: Int[Tensor, " S"]
    owner: Int[Tensor, " S"]
    candidate_idx: Int[Tensor, " C"]
    log_inclusion: Float[Tensor, " C"]
    num_items: int
    num_targets: int
    total_weight: float
    last_weight: float
    rank_users: tuple[int, ...]
    padding: float = 0.0
    collisions: float = 0.0

    def to(self, device: torch.device | str) -> StepBatch:
        return replace(
            self,
            items=self.items.to(device),
            sequences=self.sequences.to(device),
            step_items=self.step_items.to(device),
            candidate_idx=self.candidate_idx.to(device),
            log_inclusion=self.log_inclusion.to(device),
        )
