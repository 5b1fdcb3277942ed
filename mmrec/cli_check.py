"""The command `mmrec check`, and what is printed of a dataset: tables of 80 columns, one line for each finding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mmrec.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from mmrec.data.dataset import Dataset

__all__ = ["check", "print_dataset"]

_PATTERNS, _FAULTS = 8, 12


def check(dataset: tyro.conf.Positional[Path], html: Path | None = None) -> int:
    """Verify a dataset folder in full, print what is in it, and what would make its numbers lie.

    Every hash, place, id, order, flag and count is compared; then the future is searched for in what training reads,
    and media that are nearly the same. Exit code 2 if something is wrong, 0 if things are only suspicious.

    Args:
        dataset: folder made by `mmrec ingest`, or a URL.
        html: page to write: drawings, thumbnails, near-duplicates side by side. It needs no network.
    """
    from mmrec.data.audit import near_duplicate_lines, near_duplicates, problems, render_page, suspicions
    from mmrec.data.dataset import Dataset
    from mmrec.data.store import url_of

    if html is not None and (html.is_dir() or not html.resolve().parent.is_dir()):
        raise ConfigError(f"--html {html} is a folder or lies in none; give the path of a page to write")
    wrong = problems(dataset)
    if wrong:
        for line in wrong:
            print(line)
        if html is not None:
            html.write_text(render_page(dataset, None, wrong, [], []), encoding="utf-8")
            print(f"page: {html}")
        number = "1 problem" if len(wrong) == 1 else f"{len(wrong):,} problems"
        print(f"{number} in {url_of(dataset) or dataset}", file=sys.stderr)
        return 2
    data = Dataset.open(dataset)
    near = list(near_duplicates(data))
    lines = [*suspicions(data), *(line for found in near for line in near_duplicate_lines(data, found))]
    print_dataset(dataset)
    _print(_patterns_table(data), _faults_table(data))
    for line in lines:
        print(f"suspicious: {line}")
    if html is not None:
        html.write_text(render_page(dataset, data, [], lines, near), encoding="utf-8")
        print(f"page: {html}")
    return 0


def print_dataset(path: Path) -> None:
    """Counts of the dataset ``path``, a folder or a URL, and the media in it."""
    from mmrec.data.audit import facts
    from mmrec.data.dataset import Dataset

    data = Dataset.open(path)
    table = _table(f"{data.name}: {data.place}", "what", "value")
    for name, value in facts(data).items():
        table.add_row(name, value)
    _print(table, _coverage_table(data))


def _coverage_table(data: Dataset) -> Table:
    from mmrec.data.audit import coverage
    from mmrec.data.audit.wording import quantity

    table = _table("modalities", "modality", "items", "share", "median (5% to 95%)")
    for row in coverage(data):
        sizes = [
            f"{what} {quantity(middle)} {unit} ({quantity(low)} to {quantity(high)})"
            for what, (low, middle, high, unit) in row.sizes.items()
        ]
        table.add_row(row.modality, f"{row.num_items:,}", f"{row.share:.1%}", "\n".join(sizes))
    return table


def _patterns_table(data: Dataset) -> Table:
    from mmrec.data.audit import patterns

    found = patterns(data)
    table = _table("what items have together", "modalities", "items", "share")
    for names, count in found[:_PATTERNS]:
        table.add_row(" + ".join(names) or "nothing but the id", f"{count:,}", f"{count / data.num_items:.1%}")
    rest = sum(count for _, count in found[_PATTERNS:])
    if rest:
        table.add_row(f"{len(found) - _PATTERNS} rarer combinations", f"{rest:,}", f"{rest / data.num_items:.1%}")
    return table


def _faults_table(data: Dataset) -> Table:
    from rich.text import Text

    from mmrec.data.audit import faults
    from mmrec.data.audit.wording import shortened

    found = faults(data)
    table = _table("what could not be used (errors.parquet)", "modality", "count", "cause", "item")
    table.columns[2].justify = table.columns[3].justify = "left"
    for fault in found[:_FAULTS]:
        table.add_row(
            fault.modality, f"{fault.count:,}", Text(shortened(fault.cause, 300)), Text(shortened(fault.item_id, 30))
        )
    if len(found) > _FAULTS:
        table.add_row("others", f"{sum(fault.count for fault in found[_FAULTS:]):,}", "rarer causes", "")
    return table


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def _print(*tables: Table) -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        if table.row_count:
            console.print(table)
