"""What the studies of this folder share: a command line from a configuration, an output folder, errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

from mmrec.errors import DataError, MMRecError

__all__ = ["run_study"]

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
