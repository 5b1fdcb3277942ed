"""How user encoders mix the events of a history: over packed batches, or event by event with a kept state.

An encoder says *what* is mixed (a decayed sum, attention, a recurrence); :class:`Packed` does it for whole histories of
different lengths without arithmetic on padding, :class:`Growing` for one history that gains an event at a time. The
encoder's code is the same for both.

Legend: B users, N events (packed), b users of a rectangle, L its longest history, C queries of a chunk, K keys,
H heads, D width.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrec.batch import SequenceBatch

__all__ = ["Attend", "Growing", "Mixing", "Packed", "View", "not_compiled", "padding_share", "positions"]

# Queries of a long history that attend at once; their scores are made again in the backward pass, so that memory grows
# with the length of histories and not with its square.
CHUNK = 256
# Events over which a decayed sum is one matrix product.
SCAN = 64
# Cells of padding that cost less than the operations of a rectangle of its own.
PADDING = 1024


Method = TypeVar("Method", bound=Callable)


def not_compiled(method: Method) -> Method:
    """What torch.compile leaves as it is: rectangles come in too many shapes."""
    return cast(Method, torch.compiler.disable(method))


@dataclass(frozen=True, kw_only=True)
class View:
    """What some queries see of their history.

    Attributes:
        age: events from each key to each query, negative for later ones. (C, K)
        visible: True where a query may look. (b or 1, C, K)
        seconds: from each key to each query, at least 0; None where events have no time. float64 (b, C, K)
    """

    age: Int[Tensor, "C K"]
    visible: Bool[Tensor, "b C K"]
    seconds: Float[Tensor, "b C K"] | None


Attend = Callable[[Tensor, Tensor, Tensor, View], Tensor]
"""query (b, H, C, D / H), keys and values (b, H, K, D / H), view -> (b, H, C, D / H)."""


class Mixing(ABC):
    """The three ways in which events of one history learn of each other.

    Attributes:
        keys: 64 random bits of each event, from which its dropout follows; None in inference. ("N",)
    """

    keys: Int[Tensor, " N"] | None = None

    @abstractmethod
    def decayed_sum(self, values: Float[Tensor, "N D"], keep: Float[Tensor, 1]) -> Float[Tensor, "N D"]:
        """``s_t = values_t + keep * s_(t-1)`` within each history; in float32 at least, whatever autocast says."""

    @abstractmethod
    def attend(
        self, query_key_value: Float[Tensor, "N 3D"], num_heads: int, attend: Attend,
        *, query_time: bool = False, causal: bool = True,
    ) -> Float[Tensor, "N D"]:  # fmt: skip
        """Attention within each history, to the event itself and those before it, or to all if not ``causal``.

        Args:
            query_time: measure seconds from the time at which the next item is asked for, instead of the last event's.
        """

    @abstractmethod
    def recur(self, network: nn.GRU, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """A recurrent network along each history."""


@dataclass(frozen=True)
class _Rectangle:
    """Histories of nearly equal length: ``events`` are their places in the packed run, N where a row has ended."""

    events: Int[Tensor, "b L"]
    real: Bool[Tensor, "b L"]


class Packed(Mixing):
    """A batch of whole histories.

    Histories go into rectangles of rows of similar length, so that little is computed on padding and rows never see
    each other.

    Attributes:
        longest: events of the longest history.
    """

    def __init__(self, sequences: SequenceBatch) -> None:
        self.sequences = sequences
        self.keys = sequences.keys
        lengths = sequences.lengths.cpu()
        self.longest = int(lengths.max()) if len(lengths) else 0
        self.rectangles = _rectangles(lengths, sequences.offsets.device, sequences.offsets)

    @functools.cached_property
    def place(self) -> Int[Tensor, " N"]:
        """Of each event in its history, 0 for the oldest."""
        return positions(self.sequences)

    @functools.cached_property
    def history(self) -> Int[Tensor, " N"]:
        """To which history each event belongs."""
        lengths = self.sequences.lengths
        return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)

    @functools.cached_property
    def _order(self) -> Int[Tensor, " N"]:
        """Where each packed event stands in the concatenation of all rectangles' real cells."""
        return torch.argsort(torch.cat([rectangle.events[rectangle.real] for rectangle in self.rectangles]))

    @not_compiled
    def map(
        self, packed: Float[Tensor, "N F"], function: Callable[[Tensor, _Rectangle], Tensor]
    ) -> Float[Tensor, "N G"]:
        """``function`` of each rectangle (b, L, F), zeros behind a row's end -> (b, L, G), packed again."""
        padded = F.pad(packed, (0, 0, 0, 1))
        done = [function(padded[rectangle.events], rectangle)[rectangle.real] for rectangle in self.rectangles]
        return torch.cat(done)[self._order] if done else packed

    def decayed_sum(self, values: Float[Tensor, "N D"], keep: Float[Tensor, 1]) -> Float[Tensor, "N D"]:
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        place = torch.arange(min(SCAN, self.longest), device=values.device)
        age = place[:, None] - place
        within = torch.where(age >= 0, keep ** age.clamp(min=0), 0.0).to(values.dtype)
        before = (keep ** (place + 1)).to(values.dtype)[:, None]

        def scan(rows: Tensor, rectangle: _Rectangle) -> Tensor:
            sums = []
            for part in rows.split(SCAN, dim=1):
                length = part.shape[1]
                total = within[:length, :length] @ part
                sums.append(total + before[:length] * sums[-1][:, -1:] if sums else total)
            return torch.cat(sums, 1)

        with torch.autocast(values.device.type, enabled=False):
            return self.map(values, scan)

    def attend(
        self, query_key_value: Float[Tensor, "N 3D"], num_heads: int, attend: Attend,
        *, query_time: bool = False, causal: bool = True,
    ) -> Float[Tensor, "N D"]:  # fmt: skip
        def rectangle_attention(rows: Tensor, rectangle: _Rectangle) -> Tensor:
            query, key, value = rows.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (b, H, L, D / H)
            length = rows.shape[1]

            def chunk(query: Tensor, key: Tensor, value: Tensor, start: int) -> Tensor:
                return attend(query, key, value, self._view(rectangle, start, query.shape[2], key.shape[2], query_time,
                                                            causal))  # fmt: skip

            if length <= CHUNK:
                found = chunk(query, key, value, 0)
            else:
                found = torch.cat([
                    checkpoint(chunk, query[:, :, start:stop], key[:, :, :seen], value[:, :, :seen], start,
                               use_reentrant=False)
                    for start in range(0, length, CHUNK)
                    for stop in [min(start + CHUNK, length)]
                    for seen in [stop if causal else length]
                ], 2)  # fmt: skip
            return found.transpose(1, 2).flatten(2)

        return self.map(query_key_value, rectangle_attention)

    def _view(
        self, rectangle: _Rectangle, start: int, num_queries: int, num_keys: int, query_time: bool, causal: bool
    ) -> View:
        device = rectangle.events.device
        age = torch.arange(start, start + num_queries, device=device)[:, None] - torch.arange(num_keys, device=device)
        # Padding stands behind a row's end, where causality alone hides it from real events.
        visible = (age >= 0)[None] if causal else rectangle.real[:, None, :num_keys].expand(-1, num_queries, -1)
        seconds = None
        sequences = self.sequences
        if sequences.timestamps is not None:
            times = F.pad(sequences.timestamps, (0, 1))[rectangle.events]
            asked = times
            if query_time:
                assert sequences.query_times is not None, "the encoder has checked it"
                asked = F.pad(sequences.query_times, (0, 1))[rectangle.events]
            queries = asked[:, start : start + num_queries, None]
            seconds = (queries - times[:, None, :num_keys]).clamp(min=0).double()
        return View(age=age, visible=visible, seconds=seconds)

    def recur(self, network: nn.GRU, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        # A recurrent network sees the padding behind a history too late.
        return self.map(hidden, lambda rows, _: network(rows)[0])


class Growing(Mixing):
    """One history that has gained an event: mixes it with what each layer has kept of those before.

    Args:
        num_events: events so far, the new one included.
        timestamps: their times, or empty.
        query_time: when the next item is asked for, or None.
        kept: by layer, in the order in which layers ask; brought up to date. Empty at a history's first event.
    """

    def __init__(self, num_events: int, timestamps: list[int], query_time: int | None, kept: list[Tensor]) -> None:
        self.num_events = num_events
        self.timestamps = timestamps
        self.query_time = query_time
        self._kept = kept
        self._layer = 0

    def _keep(self, update: Callable[[Tensor | None], Tensor]) -> Tensor:
        """What the layer whose turn it is keeps from now on, made from what it kept (None at the first event)."""
        if self._layer == len(self._kept):
            self._kept.append(update(None))
        else:
            self._kept[self._layer] = update(self._kept[self._layer])
        self._layer += 1
        return self._kept[self._layer - 1]

    def decayed_sum(self, values: Float[Tensor, "N D"], keep: Float[Tensor, 1]) -> Float[Tensor, "N D"]:
        return self._keep(lambda before: values if before is None else values + keep * before)

    def attend(
        self, query_key_value: Float[Tensor, "N 3D"], num_heads: int, attend: Attend,
        *, query_time: bool = False, causal: bool = True,
    ) -> Float[Tensor, "N D"]:  # fmt: skip
        assert causal, "attention to later events has nothing to keep"
        query, new_key, new_value = query_key_value.unflatten(1, (3, num_heads, -1)).permute(1, 2, 0, 3)[:, None]
        new = torch.stack([new_key, new_value])  # (2, 1, H, 1, D / H)
        keys, values = self._keep(lambda before: new if before is None else torch.cat([before, new], 3))
        device = query.device
        age = torch.arange(self.num_events - 1, -1, -1, device=device)[None]
        seconds = None
        if self.timestamps:
            now = self.timestamps[-1] if not query_time or self.query_time is None else self.query_time
            seconds = (now - torch.tensor(self.timestamps, device=device)).clamp(min=0).double()[None, None]
        view = View(age=age, visible=(age >= 0)[None], seconds=seconds)
        return attend(query, keys, values, view).transpose(1, 2).flatten(2)[0]

    def recur(self, network: nn.GRU, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return self._keep(lambda before: network(hidden[None], before)[1])[-1]


def positions(sequences: SequenceBatch) -> Int[Tensor, " N"]:
    """Place of each event in its history, 0 for the oldest."""
    starts = torch.repeat_interleave(sequences.offsets[:-1], sequences.lengths)
    return torch.arange(len(sequences.item_idx), device=starts.device) - starts


def padding_share(lengths: Int[Tensor, " B"]) -> float:
    """Share of the cells of all rectangles in which no event stands."""
    lengths = lengths.sort().values
    cells = sum((stop - first) * int(lengths[stop - 1]) for first, stop in _cuts(lengths))
    return 1.0 - int(lengths.sum()) / cells if cells else 0.0


def _cuts(lengths: Int[Tensor, " B"]) -> list[tuple[int, int]]:
    """First and last + 1 of the histories of each rectangle, in ascending order of length, empty ones left out: cut at
    1, 2, 3, 4, 6, 8, 12, 16, ... events where that saves enough padding."""
    first = int((lengths == 0).sum())
    limits = sorted({*(2**n for n in range(32)), *(3 * 2**n for n in range(30))})
    edges = torch.searchsorted(lengths, torch.tensor(limits), right=True).unique().tolist()
    cuts = []
    for edge, after in zip(edges, [*edges[1:], 0], strict=True):
        longer = after and int(lengths[after - 1] - lengths[edge - 1]) * (edge - first) < PADDING
        if edge > first and not longer:
            cuts.append((first, edge))
            first = edge
    return cuts


def _rectangles(lengths: Int[Tensor, " B"], device: torch.device, offsets: Int[Tensor, " B+1"]) -> list[_Rectangle]:
    """Histories of similar length together."""
    users = torch.argsort(lengths)
    lengths = lengths[users]
    num_events = int(offsets[-1])
    rectangles = []
    for first, stop in _cuts(lengths):
        place = torch.arange(int(lengths[stop - 1]))
        real = (place < lengths[first:stop, None]).to(device)
        events = offsets[users[first:stop].to(device)][:, None] + place.to(device)
        rectangles.append(_Rectangle(torch.where(real, events, num_events), real))
    return rectangles
