"""What a person sees of a run: a progress bar with loss, rates and data-wait, and ``metrics.jsonl``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmrec.batch import StepBatch

__all__ = ["MetricsFile", "StepClock", "progress_bar", "timed"]

logger = logging.getLogger(__name__)


class MetricsFile:
    """Append-only JSON lines of a run. On resume, lines that the run will write again are cut off.

    Args:
        path: the file.
        from_step: steps from this one on will be written again.
    """

    def __init__(self, path: Path, from_step: int) -> None:
        kept = []
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] < from_step]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")

    def flush(self) -> None:
        self._file.flush()


class StepClock:
    """Where the time of the steps goes: waiting for data, or computing."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.waited = 0.0
        self.steps = self.events = self.items = 0
        self._shown = 0.0

    def count(self, events: int, items: int) -> None:
        """Add a finished step of so many learned events and encoded items, over all ranks."""
        self.steps, self.events, self.items = self.steps + 1, self.events + events, self.items + items

    def status(self, loss: Tensor) -> str | None:
        """What the bar shows, twice a second at most: reading the loss makes a GPU wait for the step to end."""
        now = time.perf_counter()
        if now - self._shown < 0.5:
            return None
        self._shown, rates = now, self.rates()
        return f"loss {float(loss):.3f}  {rates['events_per_s']:,.0f} events/s  data-wait {rates['data_wait']:.0%}"

    def rates(self) -> dict[str, float]:
        """Steps, events and items a second since the clock was made, and the share of time spent waiting for data."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        return {
            "steps_per_s": self.steps / seconds,
            "events_per_s": self.events / seconds,
            "items_per_s": self.items / seconds,
            "data_wait": self.waited / seconds,
        }


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
