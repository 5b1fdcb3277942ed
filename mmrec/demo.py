"""``mmrec demo``: a world of media, and the whole job on it by the commands that a user would type."""

from __future__ import annotations

import csv
import itertools
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmrec.data.synthetic import make_world
from mmrec.errors import DataError

__all__ = ["run_demo"]

QUERY_ITEMS = 3
# By preset, beside its defaults: what fits into five minutes on two cores.
SETTINGS = {"hybrid": ["--tower-epochs", "0"], "content": ["--tower-epochs", "5"], "id": []}
LABELS = {"hybrid": "mmrec hybrid", "content": "mmrec content", "id": "mmrec id only"}


def run_demo(
    out: Path | None, run: Callable[[list[str]], int], *, seed: int = 0, num_items: int = 400, num_users: int = 1500
) -> int:
    """Make a world under ``out``, then ingest, train, evaluate, export, search and recommend on it.

    Args:
        out: folder for everything; must not exist. None: demo, or demo-2 if that exists, and so on.
        run: runs one command of the command line, given as its arguments, and returns its exit code.
        seed: decides the world and the training.
        num_items, num_users: size of the world.

    Returns: 0, or the exit code of the first step that fails.
    Raises: DataError if ``out`` exists.
    """
    if out is None:
        names = itertools.chain(["demo"], (f"demo-{number}" for number in itertools.count(2)))
        out = next(path for path in map(Path, names) if not path.exists())
    if out.exists():
        raise DataError(f"{out} exists; remove it or give another --out")
    start = time.monotonic()
    console = Console()
    _make_world(out / "world", seed, num_items, num_users, console)
    for arguments in _steps(out, seed):
        console.rule(style="dim")
        console.print(f"$ mmrec {shlex.join(arguments)}", style="bold", markup=False, highlight=False, soft_wrap=True)
        code = run(arguments)
        if code:
            return code
    records = {name: json.loads((out / f"results-{name}" / "metrics.json").read_text()) for name in SETTINGS}
    console.rule(style="dim")
    console.print(results_table(records))
    console.print(_verdict(records), highlight=False)
    console.print(f"Report: {out / 'results-hybrid' / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"Done in {time.monotonic() - start:.0f} s.", highlight=False)
    return 0


def _make_world(path: Path, seed: int, num_items: int, num_users: int, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("making pictures, texts, sounds and clips", total=num_items)
        make_world(
            path,
            seed=seed,
            num_items=num_items,
            num_users=num_users,
            progress=lambda number: bar.advance(task, number),
        )


def _steps(out: Path, seed: int) -> list[list[str]]:
    """The commands, as a user would type them."""
    world, dataset, export = out / "world", out / "dataset", out / "export"
    data = ["--data", str(dataset)]
    ids = _first_history(world / "interactions.csv")
    ingest = ["ingest", "--items", str(world / "items.csv"), "--interactions", str(world / "interactions.csv")]
    steps = [[*ingest, "--text-columns", "title", "description", "--out", str(dataset)]]
    for preset, settings in SETTINGS.items():
        run = str(out / f"run-{preset}")
        steps.append(["train", preset, *data, "--out", run, "--seed", str(seed), *settings])
    for preset in SETTINGS:
        run, results = str(out / f"run-{preset}"), str(out / f"results-{preset}")
        more = [] if preset == "hybrid" else ["--no-baselines"]
        steps.append(["evaluate", run, *data, "--out", results, *more])
    steps.append(["export", str(out / "run-hybrid"), *data, "--out", str(export), "--index"])
    steps.append(["search", str(export), "--items", ids[-1], "--k", "5"])
    steps.append(["recommend", str(export), "--items", *ids, "--k", "5"])
    return steps


def _first_history(interactions: Path) -> list[str]:
    """First events of the first user in the log."""
    with interactions.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        first = next(rows)
        ids = [first["item_id"]]
        for row in rows:
            if row["user_id"] == first["user_id"]:
                ids.append(row["item_id"])
            if len(ids) == QUERY_ITEMS:
                break
    return ids


def results_table(records: dict[str, dict[str, Any]]) -> Table:
    """mmrec beside every baseline: all test events, and those whose item is new.

    Args:
        records: evaluation record of each preset's run, on the same split; that of hybrid has the baselines.
    """
    table = Table(title="Next item among all items, test events", title_justify="left")
    table.add_column("method")
    for name in ("HR@10", "NDCG@10", "HR@10 on new items"):
        table.add_column(name, justify="right")
    for preset, record in records.items():
        table.add_row(LABELS[preset], *_cells(record), style="bold", end_section=preset == list(records)[-1])
    others = records["hybrid"]["baselines"]
    for name in sorted(others, key=lambda name: -others[name]["metrics"]["hr@10"]):
        table.add_row(name.replace("_", " "), *_cells(others[name]))
    return table


def _cells(measured: dict[str, Any]) -> list[str]:
    overall = measured["metrics"]
    return [f"{value:.3f}" for value in (overall["hr@10"], overall["ndcg@10"], _cold(measured))]


def _cold(measured: dict[str, Any]) -> float:
    return measured["slices"]["cold_items"]["metrics"]["hr@10"]


def _verdict(records: dict[str, dict[str, Any]]) -> str:
    others = records["hybrid"]["baselines"]
    best = max(others, key=lambda name: others[name]["metrics"]["hr@10"])
    times_chance = {name: _cold(record) / _cold(others["random"]) for name, record in records.items()}
    ratio = {name: _overall(record) / _overall(others[best]) for name, record in records.items()}
    return (
        f"New items: content finds them {times_chance['content']:.1f} times as often as chance, hybrid "
        f"{times_chance['hybrid']:.1f} times; ids alone never trained on them ({times_chance['id']:.1f}). "
        f"All items: hybrid reaches {ratio['hybrid']:.2f} times the HR@10 of the best baseline "
        f"({best.replace('_', ' ')}), content {ratio['content']:.2f} times."
    )


def _overall(measured: dict[str, Any]) -> float:
    return measured["metrics"]["hr@10"]
