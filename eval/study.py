"""What the studies of this folder share: a command line from a configuration, an output folder, errors in one
line; rows of metrics, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import polars as pl
import tyro
from rich.console import Console
from rich.table import Table

from mmrec.errors import DataError, MMRecError
from mmrec.metrics.bootstrap import bootstrap_intervals

__all__ = ["METRIC", "measured_row", "run_study", "show"]

METRIC = "ndcg@10"

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


def measured_row(values: Mapping[str, np.ndarray], users: np.ndarray) -> dict[str, Any]:
    """Queries, HR@10, NDCG@10 and its 95 % interval over users."""
    low, high = bootstrap_intervals({METRIC: values[METRIC]}, users)[METRIC]
    means = {name: float(values[name].mean()) for name in ("hr@10", METRIC)}
    return {"queries": len(users), **means, "low": low, "high": high}


def show(console: Console, title: str, rows: pl.DataFrame, digits: int) -> None:
    """Print a table: texts to the left, numbers to the right, so many digits; an interval in one cell."""
    table = Table(title=title, title_justify="left")
    for name in rows.columns:
        if not name.endswith("high"):
            heading = "95 % interval" if name.endswith("low") else name.replace("_", " ")
            table.add_column(heading, justify="left" if rows[name].dtype == pl.String else "right")

    def cell(value: Any) -> str:
        return f"{value:.{digits}f}" if isinstance(value, float) else "" if value is None else str(value)

    for row in rows.iter_rows(named=True):
        cells = []
        for name, value in row.items():
            if name.endswith("low") and value is not None:
                cells.append(f"{cell(value)} to {cell(row[name.removesuffix('low') + 'high'])}")
            elif not name.endswith("high"):
                cells.append(cell(value))
        table.add_row(*cells)
    console.print(table)
