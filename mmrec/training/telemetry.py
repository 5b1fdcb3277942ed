"""What a person sees of a run: a progress bar with loss, rates and data-wait, metrics.jsonl, trackers."""

from __future__ import annotations

import json
import logging
import math
import resource
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers, get_available_trackers
from accelerate.utils import LoggerType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmrec.batch import StepBatch
from mmrec.errors import ConfigError, unknown_name

__all__ = [
    "MetricsLog",
    "ProgressBar",
    "StepClock",
    "finish_trackers",
    "peak_memory",
    "progress_bar",
    "start_trackers",
    "timed",
]

logger = logging.getLogger(__name__)

# A loss so many standard deviations above the mean of the last steps is a spike.
SPIKE, SPIKE_WINDOW = 6.0, 200


class MetricsLog:
    """One line a step and one an epoch: to ``metrics.jsonl``, and to the trackers. On the first rank; no-op elsewhere.

    Lines are kept until :meth:`flush`, so that a GPU need not wait for each step's loss to be read. On resume, lines
    that the run will write again are cut off.

    Args:
        path: of metrics.jsonl; None on other ranks.
        from_step: steps from this one on will be written again.
        accelerator: has the trackers, initialised.
    """

    def __init__(self, path: Path | None, from_step: int, accelerator: Accelerator) -> None:
        self._lines: list[dict[str, Any]] = []
        self._accelerator = accelerator
        self._recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._file = None
        if path is not None:
            kept = []
            if path.exists():
                lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
                kept = [line for line in lines if json.loads(line)["step"] < from_step]
            path.write_text("".join(line + "\n" for line in kept))
            self._file = path.open("a")

    def add(self, **values: Any) -> None:
        """Values of a step: numbers, tensors of one number, and dictionaries of numbers."""
        self._lines.append(values)

    def mean_loss(self) -> float:
        """Of the steps that are kept."""
        losses = [float(line["loss"]) for line in self._lines if "loss" in line]
        return sum(losses) / len(losses) if losses else math.nan

    def flush(self) -> None:
        """Write what is kept."""
        for line in self._lines:
            values = {key: float(value) if isinstance(value, Tensor) else value for key, value in line.items()}
            if "loss" in values:
                self._note_spike(values)
            if self._file is not None:
                self._file.write(json.dumps(values) + "\n")
            numbers = {key: value for key, value in _flat(values).items() if key not in ("step", "epoch")}
            self._accelerator.log(numbers, step=int(values["step"]))
        self._lines.clear()
        if self._file is not None:
            self._file.flush()

    def _note_spike(self, values: dict[str, Any]) -> None:
        """Mark a loss far above those of the last steps: in the line, and for the reader."""
        loss, recent = values["loss"], self._recent
        if len(recent) >= SPIKE_WINDOW // 4:
            mean = sum(recent) / len(recent)
            spread = math.sqrt(sum((value - mean) ** 2 for value in recent) / len(recent))
            if loss > mean + SPIKE * max(spread, 1e-3 * abs(mean)):
                values["spike"] = True
                if self._file is not None:
                    logger.warning(
                        "step %d  loss %.3f is a spike (the last %d steps: %.3f +- %.3f)",
                        values["step"], loss, len(recent), mean, spread,
                    )  # fmt: skip
        recent.append(loss)


def start_trackers(accelerator: Accelerator, names: Sequence[str], folder: Path, config: dict[str, Any]) -> None:
    """Let ``accelerator.log`` write to the trackers of these names; files, where one keeps any, below ``folder``.

    Raises: ConfigError if a tracker is unknown or its package is not installed.
    """
    available = {LoggerType(tracker).value for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(unknown_name("tracker", name, LOGGER_TYPE_TO_CLASS))
        if name not in available:
            raise ConfigError(f"tracker {name!r} needs its package; pip install {name}, or leave it out of --trackers")
    accelerator.log_with = list(filter_trackers([*names], folder))
    accelerator.project_configuration.logging_dir = str(folder / "trackers")
    accelerator.trackers = []
    accelerator.init_trackers("mmrec", config={key: str(value) for key, value in _flat(config).items()})


def finish_trackers(accelerator: Accelerator) -> None:
    """Close what :func:`start_trackers` opened."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []


class StepClock:
    """Where the time of an epoch's steps goes: waiting for data, or computing."""

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self.waited = self._waited_before = 0.0
        self.steps = self.events = self.items = 0
        self._shown = 0.0

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self.start

    def count(self, batch: StepBatch) -> dict[str, float]:
        """Add a finished step; what the step's line says of it: seconds, share of them spent waiting, sizes."""
        now = time.perf_counter()
        seconds, waited = now - self._last, self.waited - self._waited_before
        self._last, self._waited_before = now, self.waited
        self.steps += 1
        self.events += batch.num_targets
        self.items += len(batch.step_items)
        return {
            "seconds": seconds,
            "data_wait": waited / max(seconds, 1e-9),
            "events": batch.num_targets,
            "items": len(batch.step_items),
            "padding": batch.padding,
            "collisions": batch.collisions,
        }

    def status(self, loss: Tensor) -> str | None:
        """What the bar shows, twice a second at most: reading the loss makes a GPU wait for the step to end."""
        now = time.perf_counter()
        if now - self._shown < 0.5:
            return None
        self._shown, rates = now, self.rates()
        return f"loss {float(loss):.3f}  {rates['events_per_s']:,.0f} events/s  data-wait {rates['data_wait']:.0%}"

    def rates(self) -> dict[str, float]:
        """Steps, events and items a second since the clock was made, and the share of time spent waiting for data."""
        seconds = max(self.seconds, 1e-9)
        return {
            "steps_per_s": self.steps / seconds,
            "events_per_s": self.events / seconds,
            "items_per_s": self.items / seconds,
            "data_wait": self.waited / seconds,
        }


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak MiB of this process so far, and of its GPU."""
    found = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        found["peak_device_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


class ProgressBar:
    """One line for the epoch in work; silent on ranks other than the first."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._title = ""

    def start(self, title: str, total: int, done: int = 0) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(title, total=total, completed=done, status="")
        self._title = title

    def advance(self, status: str | None = None, steps: int = 1) -> None:
        assert self._task is not None, "start comes before advance"
        self._progress.advance(self._task, steps)
        if status is not None:
            self._progress.update(self._task, status=status)

    def advance_in(self, title: str, steps: int, total: int) -> None:
        """Advance the work of this title; another title is another work."""
        if title != self._title:
            self.start(title, total)
        self.advance(steps=steps)


def progress_bar(enabled: bool) -> tuple[Progress, ProgressBar]:
    """A rich progress display (a context manager) and the bar in it."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        disable=not enabled,
        transient=True,
    )
    return progress, ProgressBar(progress)


def timed(batches: Iterator[StepBatch], clock: StepClock) -> Iterator[StepBatch]:
    """The same batches, with the time spent waiting for them added to the clock."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        clock.waited += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, names joined by slashes."""
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
