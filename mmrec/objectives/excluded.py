"""Which candidates an event does not compare with: its own target, and what its user has taken before.

Legend: N rows (events), C candidates, S runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from mmrec.batch import SequenceBatch

__all__ = ["Excluded", "Runs", "seen_candidates"]

Runs = tuple[Int[Tensor, " S"], Int[Tensor, " S"], Int[Tensor, " S"]]
"""Columns, starts and stops of an :class:`Excluded`."""


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Pairs of row and candidate that are left out, in memory that grows with the rows and not with the pairs.

    An item that was taken is excluded by all later events of its history, which are neighbours: a run of rows.

    Attributes:
        own: the candidate that each row leaves out, -1 for none. ("N",)
        columns, starts, stops: rows ``starts[s]:stops[s]`` leave out candidate ``columns[s]``. Starts and stops ascend;
            a pair may stand in several runs. ("S",)
    """

    own: Int[Tensor, " N"]
    columns: Int[Tensor, " S"]
    starts: Int[Tensor, " S"]
    stops: Int[Tensor, " S"]

    @classmethod
    def nothing(cls, num_rows: int, device: torch.device | str = "cpu") -> Excluded:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        own = torch.full((num_rows,), -1, dtype=torch.long, device=device)
        return cls(own=own, columns=empty, starts=empty, stops=empty)

    def blocks(self, height: int, width: int, num_columns: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Rows and columns of each block of the matrix of scores, and the pairs in it that are left out.

        The pairs, (rows, columns), count from the block's corner and may repeat.
        """
        num_rows = len(self.own)
        tops = torch.arange(0, num_rows, height, device=self.own.device)
        first = torch.searchsorted(self.stops.contiguous(), tops, right=True)
        last = torch.searchsorted(self.starts.contiguous(), tops + height)
        for top, low, high in torch.stack([tops, first, last], 1).tolist():
            bottom = min(top + height, num_rows)
            rows, columns = self._pairs(top, bottom, slice(low, high))
            block = columns // width
            order = torch.argsort(block)
            lefts = torch.arange(-(-num_columns // width) + 1, device=block.device)
            edges = torch.searchsorted(block[order], lefts).tolist()
            for number in range(len(edges) - 1):
                left = number * width
                here = order[edges[number] : edges[number + 1]]
                part, place = slice(top, bottom), slice(left, min(left + width, num_columns))
                yield part, place, rows[here], columns[here] - left

    def _pairs(self, top: int, bottom: int, runs: slice) -> tuple[Tensor, Tensor]:
        """(row, counted from ``top``, column) of each pair in the rows ``top:bottom``."""
        starts, stops = self.starts[runs].clamp(min=top), self.stops[runs].clamp(max=bottom)
        lengths = stops - starts
        before = torch.cumsum(lengths, 0) - lengths
        columns = torch.repeat_interleave(self.columns[runs], lengths)
        rows = torch.arange(len(columns), device=columns.device) + torch.repeat_interleave(starts - before, lengths)
        own = self.own[top:bottom]
        (hit,) = torch.nonzero(own >= 0, as_tuple=True)
        return torch.cat([hit, rows - top]), torch.cat([own[hit], columns])


def seen_candidates(sequences: SequenceBatch, candidate_idx: Int[Tensor, " C"], known: Bool[Tensor, " N"]) -> Runs:
    """Each event's item, where it is a candidate, is no negative from that event on to the end of its history.

    Rows are the events with a known target.
    """
    place = torch.searchsorted(candidate_idx, sequences.item_idx).clamp(max=len(candidate_idx) - 1)
    is_candidate = candidate_idx[place] == sequences.item_idx
    before = F.pad(torch.cumsum(known, 0), (1, 0))  # rows of the events before each one
    stops = before[torch.repeat_interleave(sequences.offsets[1:], sequences.lengths)]
    return place[is_candidate], before[:-1][is_candidate], stops[is_candidate]
