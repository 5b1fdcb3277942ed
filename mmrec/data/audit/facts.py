"""What a person should know of a dataset before training on it: its counts, its media, what could not be used.

Legend: U users, N events, V items.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.sequences import Sequences

__all__ = [
    "Coverage",
    "Fault",
    "Repetitions",
    "count_repetitions",
    "coverage",
    "facts",
    "faults",
    "patterns",
    "top_share",
]


@dataclass(frozen=True)
class Repetitions:
    """Events that are there twice, and events of an item that the user had at another time before."""

    doubled: int
    again: int


@dataclass(frozen=True)
class Coverage:
    """How many items have a modality; ``sizes``: what is measured of them -> 5 %, 50 % and 95 % quantile, and unit."""

    modality: str
    num_items: int
    share: float
    sizes: dict[str, tuple[float, float, float, str]]


@dataclass(frozen=True)
class Fault:
    """Rows of errors.parquet that have one cause: how many, and the first of them."""

    modality: str
    error: str
    cause: str
    count: int
    item_id: str
    message: str


def facts(dataset: Dataset) -> dict[str, str]:
    """Counts, sparsity, lengths of histories, events an item, repetitions, span of time."""
    sequences = dataset.sequences
    events = len(sequences.item_idx)
    popularity = np.bincount(sequences.item_idx, minlength=dataset.num_items)
    repeated = count_repetitions(sequences)
    share = events / max(dataset.num_users * dataset.num_items, 1)
    found = {
        "items": f"{dataset.num_items:,} ({int((popularity == 0).sum()):,} without an event)",
        "users": f"{dataset.num_users:,}",
        f"interactions (order: {sequences.order})": f"{events:,}",
        "share of all pairs": f"{100 * share:.3g}% (sparsity {100 * (1 - share):.4g}%)",
        "events a user": _spread(sequences.lengths),
        "events an item": _spread(popularity),
        "events of the top 1% of items": f"{top_share(popularity):.1%}",
        "the same item again, later": f"{repeated.again:,} events ({repeated.again / max(events, 1):.1%})",
    }
    if sequences.timestamps is not None and events:
        first, last = np.array([sequences.timestamps.min(), sequences.timestamps.max()]).astype("datetime64[s]")
        found["time"] = f"{np.datetime_as_string(first, 'D')} to {np.datetime_as_string(last, 'D')}"
    if sequences.weights is not None and events:
        low, middle, high = np.quantile(sequences.weights, [0.0, 0.5, 1.0])
        found["weight of an event"] = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
    left_out = dataset.manifest["interactions"]["left_out"]
    if left_out:
        found["events left out"] = ", ".join(f"{reason} {number:,}" for reason, number in sorted(left_out.items()))
    found["rows in errors.parquet"] = f"{dataset.manifest['counts']['errors']:,}"
    return found


def count_repetitions(sequences: Sequences) -> Repetitions:
    """Repetitions of user and item, those at one time apart from those at another; without time all are the former."""
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    table = pl.DataFrame({"user": users, "item": sequences.item_idx})
    known = table.n_unique() if table.height else 0
    if sequences.timestamps is None:
        repeated = table.height - known
        return Repetitions(0, repeated) if sequences.order == "position" else Repetitions(repeated, 0)
    different = table.with_columns(pl.Series("time", sequences.timestamps)).n_unique() if table.height else 0
    return Repetitions(table.height - different, different - known)


def top_share(popularity: np.ndarray) -> float:
    """Share of all events that go to the hundredth of the items (at least one) that have most. ``popularity``: (V,)"""
    top = np.sort(popularity)[-max(len(popularity) // 100, 1) :]
    return float(top.sum() / max(popularity.sum(), 1))


def coverage(dataset: Dataset) -> list[Coverage]:
    """Each modality of the dataset, with the sizes of what there is."""
    found = []
    for modality in dataset.modalities:
        present = dataset.present(modality)
        sizes = {}
        for name, unit, values in _measured(dataset, modality):
            values = values[present & np.isfinite(values)]
            if len(values):
                low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
                sizes[name] = (float(low), float(middle), float(high), unit)
        found.append(Coverage(modality, int(present.sum()), float(present.mean()), sizes))
    return found


def _measured(dataset: Dataset, modality: str) -> list[tuple[str, str, np.ndarray]]:
    if modality not in MEDIA_MODALITIES:
        return []
    size = dataset.media_facts(modality, "size")
    return {
        "image": lambda: [
            ("width", "px", dataset.media_facts("image", "width")),
            ("height", "px", dataset.media_facts("image", "height")),
            ("file", "kB", size / 1000),
        ],
        "text": lambda: [("length", "bytes", size)],
        "audio": lambda: [
            ("duration", "s", dataset.media_facts("audio", "duration_s")),
            ("rate", "kHz", dataset.media_facts("audio", "sample_rate") / 1000),
            ("file", "kB", size / 1000),
        ],
        "video": lambda: [
            ("duration", "s", dataset.media_facts("video", "duration_s")),
            ("height", "px", dataset.media_facts("video", "height")),
            ("file", "kB", size / 1000),
        ],
    }[modality]()


def patterns(dataset: Dataset) -> list[tuple[tuple[str, ...], int]]:
    """Which modalities items have together, the commonest combination first, and how many items have just these."""
    names = dataset.modalities
    present = np.stack([dataset.present(name) for name in names], axis=1) if names else np.zeros((dataset.num_items, 0))
    rows, counts = np.unique(present, axis=0, return_counts=True)
    found = [
        (tuple(name for name, here in zip(names, row, strict=True) if here), int(count))
        for row, count in zip(rows, counts, strict=True)
    ]
    return sorted(found, key=lambda pattern: (-pattern[1], pattern[0]))


def faults(dataset: Dataset) -> list[Fault]:
    """errors.parquet by cause: messages that differ only in names and numbers are one."""
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for row in pl.read_parquet(dataset.path / "errors.parquet").iter_rows(named=True):
        cause = _cause(row["message"], row["stage"] == "probe")
        key = (row["modality"], row["error"], re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'...'", cause)))
        groups.setdefault(key, []).append((cause, row["item_id"], row["message"]))
    found = []
    for (modality, error, alike), rows in groups.items():
        cause = rows[0][0] if len({row[0] for row in rows}) == 1 else alike
        found.append(Fault(modality, error, cause, len(rows), *rows[0][1:]))
    return sorted(found, key=lambda fault: (-fault.count, fault.modality, fault.cause))


def _cause(message: str, names_a_file: bool) -> str:
    """The message without what it is about."""
    cause = message.partition(": ")[2] or message if names_a_file else message
    return re.sub(r" \(user .*\)$", "", cause)


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{low:,.0f} to {high:,.0f}, median {middle:,.0f}, mean {values.mean():,.1f}"
