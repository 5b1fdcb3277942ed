"""Drawings of a dataset as inline SVG: dark on a transparent ground, text as text, nothing to load."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrec.data.dataset import Dataset

__all__ = ["Chart", "charts"]

_INK, _SOFT, _FILL = "#1f2328", "#59636e", "#2f6fb3"
_DAY_S = 86_400
_STEPS_DAYS = (1, 7, 30, 91, 365)


@dataclass(frozen=True)
class Chart:
    """``svg`` and what it shows."""

    title: str
    svg: str


def charts(dataset: Dataset) -> list[Chart]:
    """Lengths of histories, popularity, events over time, and durations, as far as the dataset has them."""
    sequences = dataset.sequences
    drawn = [
        _histogram("Events a user", sequences.lengths, "events a user", "users"),
        _popularity(np.bincount(sequences.item_idx, minlength=dataset.num_items)),
    ]
    if sequences.timestamps is not None and len(sequences.timestamps):
        drawn.append(_over_time(sequences.timestamps))
    for modality, what in (("audio", "sounds"), ("video", "clips")):
        if modality in dataset.modalities:
            durations = dataset.media_facts(modality, "duration_s")[dataset.present(modality)]
            title = f"Duration of {what}"
            durations = durations[np.isfinite(durations)]
            if len(durations) and durations.min() < durations.max():
                drawn.append(_histogram(title, durations, "duration (s)", what))
    return drawn


def _histogram(title: str, values: np.ndarray, x_label: str, y_label: str) -> Chart:
    """Equal steps, or equal ratios where the largest is far from the median."""
    low, middle, high = (float(value) for value in np.quantile(values, [0.0, 0.5, 1.0])) if len(values) else (0, 0, 0)
    whole = bool(np.equal(np.mod(values, 1), 0).all())
    spread = low > 0 and high > 12 * middle
    if spread:
        edges = np.geomspace(low, high + 1 if whole else high, 28)
        edges = np.unique(np.round(edges)) if whole else edges
    elif whole and high - low <= 40:
        edges = np.arange(low, high + 2) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, 31)

    def draw(axes: Any) -> None:
        counts, _ = np.histogram(values, edges)
        if spread:
            axes.set_xscale("log")
        axes.stairs(counts, edges, fill=True, color=_FILL)

    return Chart(title, _svg(draw, title, x_label + (", log scale" if spread else ""), y_label))


def _popularity(popularity: np.ndarray) -> Chart:
    counts = np.sort(popularity[popularity > 0])[::-1]
    ranks = np.arange(1, len(counts) + 1)
    # A line through a thousand ranks, evenly spaced on the axis, looks as one through a million.
    shown = np.unique(np.geomspace(1, max(len(counts), 1), 400).astype(np.int64)) - 1

    def draw(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot(ranks[shown], counts[shown], color=_FILL, linewidth=2)

    title = "Popularity"
    return Chart(title, _svg(draw, title, "rank of the item, log scale", "events, log scale"))


def _over_time(times: np.ndarray) -> Chart:
    first, last = int(times.min()), int(times.max())
    days = next((step for step in _STEPS_DAYS if (last - first) / (step * _DAY_S) <= 60), _STEPS_DAYS[-1])
    edges = np.arange(first, last + days * _DAY_S + 1, days * _DAY_S)

    def draw(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        counts, _ = np.histogram(times, edges)
        axes.stairs(counts, edges / _DAY_S, fill=True, color=_FILL)
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))

    title = "Events over time"
    return Chart(title, _svg(draw, title, "time (UTC)", "events a day" if days == 1 else f"events in {days} days"))


def _svg(draw: Callable[[Any], None], title: str, x_label: str, y_label: str) -> str:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "text.color": _INK}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(numticks=6))
                axis.set_minor_formatter(NullFormatter())
            if axis.get_scale() == "log" or axis is axes.yaxis:
                axis.set_major_formatter(FuncFormatter(_tick))
        if axes.get_yscale() == "linear":
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label, color=_SOFT)
        axes.set_ylabel(y_label, color=_SOFT)
        axes.tick_params(colors=_SOFT, length=3)
        axes.tick_params(which="minor", length=0)
        axes.grid(axis="y", color=_SOFT, alpha=0.2, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_SOFT)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    # Ids of groups would be there once in each drawing of the page.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _tick(value: float, _: int) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"
