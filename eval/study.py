"""What the studies of this folder share: a command line from a configuration, an output folder, errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import polars as pl
import tyro
from rich.console import Console
from rich.table import Table

from mmrec.errors import DataError, MMRecError

__all__ = ["run_study", "show"]

C = TypeVar("C")


def run_study(config: type[C], study: Callable[[C], Any], write: Callable[[Any, Any, Console], None]) -> None:
    """Parse the command line, run the study, write results into the new folder ``config.out``; exit with 0 or 2."""
    description = sys.modules[config.__module__].__doc__ or ""
    spec = sys.modules["__main__"].__spec__
    prog = f"python -m {spec.name}" if spec else None
    given: Any = tyro.cli(config, description=description.strip(), prog=prog)
    console = Console()
    try:
        if given.out.exists():
            raise DataError(f"{given.out} exists already; give another --out")
        found = study(given)
        given.out.mkdir(parents=True)
        write(found, given.out, console)
    except MMRecError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    console.print(f"written: {given.out}")


def show(console: Console, title: str, rows: pl.DataFrame, digits: int) -> None:
    """Print a table: texts to the left, numbers to the right, fractions with so many digits."""
    table = Table(title=title, title_justify="left")
    for name in rows.columns:
        table.add_column(name.replace("_", " "), justify="left" if rows[name].dtype == pl.String else "right")
    for row in rows.iter_rows():
        table.add_row(*(f"{value:.{digits}f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
