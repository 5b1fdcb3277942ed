"""The drawings of a report, as inline SVG on a transparent ground."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bars", "learning_curves", "slice_chart"]

# Blues and greys that are readable on white and on black alike.
_OURS, _THEIRS, _TEXT, _INTERVAL = "#2f81f7", "#a9b4bf", "#7d8590", "#c2571a"
# Inches; a telephone shows it at four fifths, so that letters of 9 points can be read there too.
_WIDTH, _POINTS = 4.8, 9


def bars(rows: Sequence[dict[str, Any]], part: str) -> str:
    """NDCG@10 with intervals, a bar for each row of :func:`mmrec.report.summary_rows`."""
    from matplotlib.figure import Figure

    shown = [row for row in reversed(rows) if row["ndcg@10"][part] is not None]
    values = [row["ndcg@10"][part] for row in shown]
    figure = Figure(figsize=(_WIDTH, 0.6 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = [_OURS if row["kind"] == "mmrec" else _THEIRS for row in shown]
    names = [row["name"].replace("_", " ") for row in shown]
    axes.barh(names, [value["value"] for value in values], color=colours, height=0.62)
    for place, value in enumerate(values):
        if value["low"] is not None:
            axes.plot([value["low"], value["high"]], [place, place], color=_INTERVAL, linewidth=1.8)
    axes.set_xlabel("NDCG@10", color=_TEXT)
    axes.set_xlim(left=0)
    _plain(axes)
    return _svg(figure)


def slice_chart(slices: dict[str, Any], label: str) -> str:
    """NDCG@10 with intervals of the slices of a group; below each its number of targets."""
    from matplotlib.figure import Figure

    names = list(slices)
    wide = max(len(name) for name in names) > 8 or len(names) > 8
    values = np.array([slices[name]["metrics"]["ndcg@10"] for name in names])
    bounds = np.array([slices[name]["confidence_interval"]["ndcg@10"] for name in names])
    counts = [f"{slices[name]['num_targets']:,}" for name in names]
    if wide:
        figure = Figure(figsize=(_WIDTH, 0.7 + 0.24 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))[::-1]
        axes.hlines(places, bounds[:, 0], bounds[:, 1], color=_INTERVAL, linewidth=1.8)
        axes.plot(values, places, "o", color=_OURS, markersize=5)
        axes.set_yticks(places, [f"{name} ({count})" for name, count in zip(names, counts, strict=True)])
        axes.set_xlabel("NDCG@10 (behind each name: targets)", color=_TEXT)
        axes.set_xlim(left=0)
    else:
        figure = Figure(figsize=(_WIDTH, 2.4), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        axes.vlines(places, bounds[:, 0], bounds[:, 1], color=_INTERVAL, linewidth=1.8)
        axes.plot(places, values, "o", color=_OURS, markersize=5)
        axes.set_xticks(places, [f"{name}\n{count}" for name, count in zip(names, counts, strict=True)])
        axes.set_xlabel(f"{label}; below: targets", color=_TEXT)
        axes.set_ylabel("NDCG@10", color=_TEXT)
        axes.set_ylim(bottom=0)
    _plain(axes)
    return _svg(figure)


def learning_curves(lines: Sequence[dict[str, Any]]) -> str:
    """Training loss and validation NDCG@10 over the steps; empty where a run has told of neither.

    Args:
        lines: of a run's metrics.jsonl.
    """
    from matplotlib.figure import Figure

    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    found = [(line["step"], line["validation"]["ndcg@10"]) for line in lines if "validation" in line]
    named = (("training loss, nats", losses), ("validation NDCG@10", found))
    curves = [(name, curve) for name, curve in named if curve]
    if not curves:
        return ""
    figure = Figure(figsize=(_WIDTH, 1.7 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, curve) in zip(panels, curves, strict=True):
        steps, values = np.array(curve).T
        axes.plot(steps, values, color=_OURS, linewidth=1.5, marker="o" if len(steps) < 40 else None, markersize=3)
        axes.set_ylabel(name, color=_TEXT)
        _plain(axes)
    panels[-1].set_xlabel("step", color=_TEXT)
    if found:
        best = max(found, key=lambda point: point[1])
        panels[-1].plot(*best, "o", color=_INTERVAL, markersize=6)
        panels[-1].annotate(f"best: {best[1]:.4f} at step {best[0]:,}", best, (0, -26), color=_TEXT,
                            textcoords="offset points", ha="right", fontsize=_POINTS)  # fmt: skip
    return _svg(figure)


def _plain(axes: Axes) -> None:
    axes.tick_params(colors=_TEXT, length=0, labelsize=_POINTS)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(_POINTS)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_TEXT)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
