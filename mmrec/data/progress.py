"""A bar with rate and time left on standard error, for the long parts of work on data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["progress"]


@contextlib.contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show work of ``total`` units while the context lasts, and nothing where standard error is no terminal.

    Args:
        unit: what is counted, such as "items"; "bytes" are shown in their multiples.

    Returns: a function that is told how many more units are done.
    """
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    def amount(number: float) -> str:
        return decimal(int(number)) if unit == "bytes" else f"{number:,.0f}"

    class Amounts(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = amount(task.speed or 0.0) + ("/s" if unit == "bytes" else f" {unit}/s")
            return Text(f"{amount(task.completed)}/{amount(task.total or 0)}  {rate}")

    layout = (TextColumn(title), BarColumn(bar_width=24), Amounts(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*layout, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda number: bar.advance(task, number)
