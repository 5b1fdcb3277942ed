"""From the sampler's steps to this rank's batches, one step ahead of the model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmrec.batch import SequenceBatch, StepBatch
from mmrec.distributed import rank, world_size
from mmrec.item_encoder import modality_dropout
from mmrec.item_inputs import CatalogInputs
from mmrec.keyed_random import Purpose, draw_keys, random_generator
from mmrec.objectives import log_inclusion_probability
from mmrec.training.sampler import Step, StepSampler, packed_windows
from mmrec.user_encoders.packing import padding_share

__all__ = ["Reread", "StepLoader"]


@dataclass(frozen=True)
class Reread:
    """Of the modalities whose outputs are kept, a sample of each step's items is read from the media as well.

    Attributes:
        num_items: size of the sample, of the global step.
        modalities: names.
    """

    num_items: int
    modalities: frozenset[str]


class StepLoader:
    """Yields this rank's :class:`StepBatch` of each step of an epoch.

    accelerate never sees this loader: prepared by it, a loader that already splits by rank would lose data.

    Args:
        sampler: the order of samples.
        catalog: media of the dataset, preprocessed.
        dropout: probability that a modality is hidden, one number for each modality of the model. (M,)
        seed: of the run.
        reread: of which items media are given beside kept outputs.
        items_have_homes: items are encoded by the rank of their index instead of in turn.
    """

    def __init__(
        self,
        sampler: StepSampler,
        catalog: CatalogInputs,
        dropout: np.ndarray,
        seed: int,
        reread: Reread | None = None,
        items_have_homes: bool = False,
    ) -> None:
        self.sampler = sampler
        self.catalog = catalog
        self.dropout = dropout
        self.seed = seed
        self.reread = reread
        self.items_have_homes = items_have_homes

    def epoch(self, epoch: int, first: int = 0) -> Iterator[StepBatch]:
        """Batches of the epoch from step ``first`` on; the next one is made while the caller works on this one."""
        with ThreadPoolExecutor(1) as pool:
            pending = None
            for index, windows in self.sampler.steps(epoch, first):
                ahead = pool.submit(self._batch, epoch, index, windows)
                if pending is not None:
                    yield pending.result()
                pending = ahead
            if pending is not None:
                yield pending.result()

    def _batch(self, epoch: int, index: int, windows: np.ndarray) -> StepBatch:
        step = self.sampler.step(epoch, index, windows)
        owner = step.item_idx % world_size() if self.items_have_homes else np.arange(len(step.item_idx)) % world_size()
        here = owner == rank()
        mine = step.item_idx[here]
        keys = draw_keys((self.seed, Purpose.ITEM_DROPOUT, epoch, index), mine)
        keep = modality_dropout(self.catalog.present[mine], self.dropout, keys)
        items = self.catalog.batch(mine, keep, self._reread(step, here))
        shares = step.shares(world_size())
        sequences = packed_windows(step, shares[rank()])
        return StepBatch(
            items=replace(items, keys=torch.from_numpy(keys.view(np.int64))),
            sequences=sequences,
            step_items=torch.from_numpy(step.item_idx.astype(np.int64)),
            owner=torch.from_numpy(owner.astype(np.int64)),
            candidate_idx=torch.from_numpy(step.candidate_idx.astype(np.int64)),
            log_inclusion=log_inclusion_probability(
                torch.from_numpy(self.sampler.frequency[step.candidate_idx]),
                step.num_targets if self.sampler.in_batch else 0,
                self.sampler.num_drawn,
                len(self.sampler.train_items),
            ),
            num_items=len(self.sampler.train_items),
            num_targets=step.num_targets,
            total_weight=step.total_weight,
            last_weight=step.last_weight,
            rank_users=tuple(map(len, shares)),
            padding=padding_share(sequences.lengths),
            collisions=_collisions(sequences, step.candidate_idx),
        )

    def _reread(self, step: Step, here: np.ndarray) -> dict[str, np.ndarray]:
        """By modality, True for this rank's items of the sample, which (seed, epoch, step) and its items decide."""
        if self.reread is None:
            return {}
        drawn = random_generator(self.seed, Purpose.TOWER_ITEMS, step.epoch, step.index).permutation(len(step.item_idx))
        chosen = (drawn < self.reread.num_items)[here]
        return dict.fromkeys(self.reread.modalities, chosen)


def _collisions(sequences: SequenceBatch, candidate_idx: np.ndarray) -> float:
    """Share of the pairs of event and candidate in which the candidate is the event's target, or was seen by then."""
    num_pairs = len(sequences.item_idx) * len(candidate_idx)
    if not num_pairs or sequences.target_idx is None:
        return 0.0
    stops = torch.repeat_interleave(sequences.offsets[1:], sequences.lengths).numpy()
    later = stops - np.arange(len(stops))  # events that have seen each event, itself included
    seen = later[np.isin(sequences.item_idx.numpy(), candidate_idx)].sum()
    return float(seen + np.isin(sequences.target_idx.numpy(), candidate_idx).sum()) / num_pairs
