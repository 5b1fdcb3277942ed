"""The commands on what is written already: a report anew, runs beside each other, the drift between two folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

__all__ = ["compare", "drift", "report"]

Positional = tyro.conf.Positional

LEVEL = 0.05


def compare(
    results: Positional[tuple[Path, ...]],
    metric: tuple[str, ...] = ("ndcg@10", "hr@10"),
    slice: str = "all",  # noqa: A002 - the name of the option
    csv: Path | None = None,
) -> None:
    """Runs on the same queries: means with intervals, differences with paired tests, corrected for their number.

    Folders whose protocols differ are refused: their numbers have nothing to do with each other. p is of a permutation
    test over users and of Wilcoxon's signed-rank test; holm is the first after Holm's correction for all comparisons.

    Args:
        results: two or more folders made by `mmrec evaluate`, or of a baseline (OUT/item_knn of `mmrec baselines`).
        metric: such as ndcg@10, hr@10, recall@50, precision@5, map@20, mrr; any cutoff.
        slice: all, cold_items, warm_items, has_<modality> or missing_<modality>.
        csv: file to write the differences to.
    """
    from rich.console import Console

    from mmrec.comparison import compare_results

    found = compare_results(results, metric, slice)
    protocol = found.protocol
    print(
        f"{protocol['dataset_name']}, {protocol['part']} part, {protocol['split']['split']}, "
        f"protocol {protocol['hash']}: {found.num_queries:,} queries of {found.num_users:,} users, slice {slice}"
    )
    console = Console()
    console.print(_table("Runs (95 % intervals)", found.runs))
    console.print(_table(f"Differences (* holds at {LEVEL:g} after Holm's correction)", found.pairs))
    if csv is not None:
        found.pairs.write_csv(csv, float_precision=6)
        print(f"written: {csv}")


def report(results: Positional[Path]) -> None:
    """Write report.html anew from the metrics.json, and the examples.json, of a results folder.

    Args:
        results: folder made by `mmrec evaluate`.
    """
    import json

    from mmrec.comparison import read_record
    from mmrec.report import render_report

    record, examples = read_record(results), results / "examples.json"
    shown = json.loads(examples.read_text()) if examples.is_file() else None
    (results / "report.html").write_text(render_report(record, shown), encoding="utf-8")
    print(f"report: {results / 'report.html'}")


def drift(old: Positional[Path], new: Positional[Path], cut: str | None = None) -> None:
    """What changed between two exports, two versions of a dataset, two periods of one, or two evaluations.

    Exports: how far vectors moved, which neighbours stayed, coverage of modalities. Datasets: items, popularity,
    coverage of modalities. Results: metrics.

    Args:
        old: folder of the older one.
        new: folder of the newer one, of the same kind.
        cut: datasets alone: a day such as 2018-05-01; of OLD events before it count, of NEW those from it on.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from mmrec.drift import drift as changes

    found = changes(old, new, cut=cut)
    table = Table(title=f"{old} -> {new}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "old", "new", "change", "meaning"):
        table.add_column(name, justify="left" if name in ("", "meaning") else "right")
    for one in found:
        if one.old is None or one.new is None:
            table.add_row(one.what, "", "", _number(one.both), one.meaning)
        else:
            relative = f"{one.new / one.old - 1:+.1%}" if one.old else ""
            table.add_row(one.what, _number(one.old), _number(one.new), relative, one.meaning)
    Console().print(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"


def _table(title: str, rows: pl.DataFrame) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = [name for name in rows.columns if name not in ("low", "high")]
    for name in names:
        text = name in ("run", "pair", "metric")
        heading = {"p_permutation": "p perm.", "p_wilcoxon": "p signed", "p_holm": "p Holm"}.get(name, name)
        wraps = name in ("run", "pair")
        table.add_column(heading, justify="left" if text else "right", no_wrap=not wraps, overflow="fold")
    for row in rows.iter_rows(named=True):
        cells = []
        for name in names:
            value = row[name]
            if name in ("mean", "difference"):
                sign = "+" if name == "difference" else ""
                cells.append(f"{value:{sign}.4f}\n{row['low']:{sign}.4f} to {row['high']:{sign}.4f}")
            elif name.startswith("p_"):
                cells.append(f"{value:.4f}" + (" *" if name == "p_holm" and value <= LEVEL else ""))
            else:
                cells.append(str(value))
        table.add_row(*cells)
    return table
